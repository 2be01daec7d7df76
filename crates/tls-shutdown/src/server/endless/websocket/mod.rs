//! WebSockets: which requests open one, and a Close frame from the server when it drains.

mod frames;
mod socket;
mod upgrade;

use std::sync::Arc;

use hyper::{Method, Request, StatusCode, Version, ext::Protocol, header::UPGRADE, upgrade::OnUpgrade};
use tokio::task::AbortHandle;

use crate::server::lifetime::ConnectionLifetime;

/// If `request` opens a WebSocket, puts another upgrade in the place of hyper's: the application receives a stream that follows the frames
/// it writes, and that the server can close.
pub(super) fn follow<B>(request: &mut Request<B>, lifetime: &Arc<ConnectionLifetime>) -> Option<Handshake> {
    let upgrade = request.extensions().get::<OnUpgrade>()?;
    if !opens_websocket(request) {
        return None;
    }
    let (replacement, task) = upgrade::replace(upgrade, lifetime.clone())?;
    request.extensions_mut().insert(replacement);
    Some(Handshake { task, is_accepted: false, version: request.version() })
}

/// A WebSocket that the service has not accepted. If it is not, hyper gives the connection to the owner of the upgrade all the same, when
/// the connection ends. There would be no WebSocket to close.
#[derive(Debug)]
pub(crate) struct Handshake {
    task: AbortHandle,
    is_accepted: bool,
    version: Version,
}

impl Handshake {
    /// The service has answered with this status.
    pub(super) fn answer(mut self, status: StatusCode) {
        self.is_accepted = match self.version {
            Version::HTTP_2 => status.is_success(),
            _ => status == StatusCode::SWITCHING_PROTOCOLS,
        };
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        if !self.is_accepted {
            self.task.abort();
        }
    }
}

//= https://www.rfc-editor.org/rfc/rfc6455#section-4.2.1
//# An |Upgrade| header field containing the value "websocket",
//# treated as an ASCII case-insensitive value.
fn opens_websocket<B>(request: &Request<B>) -> bool {
    let protocol = if request.version() == Version::HTTP_2 {
        let protocol = request.extensions().get::<Protocol>().filter(|_| *request.method() == Method::CONNECT);
        protocol.map(|protocol| protocol.as_str().as_bytes())
    } else {
        request.headers().get(UPGRADE).map(|protocol| protocol.as_bytes())
    };
    protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
}
