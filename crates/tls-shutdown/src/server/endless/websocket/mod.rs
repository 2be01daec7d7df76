//! WebSockets: which requests open one, and a Close frame from the server when it drains.

mod frames;
mod socket;
mod upgrade;

use std::sync::{Arc, Mutex};

use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Version, ext::Protocol, header::UPGRADE, upgrade::OnUpgrade,
};
use tokio::task::AbortHandle;

use self::socket::Socket;
use crate::{runtime::lock::lock, server::lifetime::ConnectionLifetime};

const WEBSOCKET: &str = "websocket";

/// If `request` opens a WebSocket, puts another upgrade in the place of hyper's: the application receives a stream that follows the frames
/// it writes, and that the server can close.
pub(super) fn follow<B>(request: &mut Request<B>, lifetime: &Arc<ConnectionLifetime>) -> Option<Handshake> {
    let upgrade = request.extensions().get::<OnUpgrade>()?;
    if !opens_websocket(request) {
        return None;
    }
    let socket = Arc::<Mutex<Socket>>::default();
    let (replacement, task) = upgrade::replace(upgrade, &socket, lifetime.clone())?;
    request.extensions_mut().insert(replacement);
    Some(Handshake { socket, task, is_accepted: false, version: request.version() })
}

/// A WebSocket that the service has not accepted. If it is not, hyper gives the connection to the owner of the upgrade all the same, when
/// the connection ends. There would be no WebSocket to close.
#[derive(Debug)]
pub(crate) struct Handshake {
    socket: Arc<Mutex<Socket>>,
    task: AbortHandle,
    is_accepted: bool,
    version: Version,
}

impl Handshake {
    /// The service has answered.
    pub(super) fn answer<B>(mut self, response: &Response<B>) {
        let status = response.status();
        if self.version == Version::HTTP_2 {
            self.is_accepted = status.is_success();
        } else {
            self.is_accepted = status == StatusCode::SWITCHING_PROTOCOLS;
            // The client may have offered several protocols.
            if !names_websocket(response.headers()) {
                lock(&self.socket).leave_to_application();
            }
        }
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
pub(in crate::server) fn opens_websocket<B>(request: &Request<B>) -> bool {
    if request.version() != Version::HTTP_2 {
        return names_websocket(request.headers());
    }
    let protocol = request.extensions().get::<Protocol>().filter(|_| *request.method() == Method::CONNECT);
    protocol.is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case(WEBSOCKET))
}

/// Whether the protocols of a message have this one among them (RFC 9110 section 7.8).
fn names_websocket(headers: &HeaderMap) -> bool {
    let mut protocols = headers.get_all(UPGRADE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    protocols.any(|protocol| protocol.trim_ascii().eq_ignore_ascii_case(WEBSOCKET.as_bytes()))
}
