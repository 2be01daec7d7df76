//! WebSockets: which requests open one, and a Close frame from the server when it drains.

mod frames;
mod socket;
mod upgrade;

use std::sync::Arc;

use hyper::{Method, Request, Version, ext::Protocol, header::UPGRADE, upgrade::OnUpgrade};

use crate::server::lifetime::ConnectionLifetime;

/// If `request` opens a WebSocket, puts another upgrade in the place of hyper's: the application receives a stream that follows the frames
/// it writes, and that the server can close.
pub(super) fn follow<B>(request: &mut Request<B>, lifetime: &Arc<ConnectionLifetime>) {
    if request.extensions().get::<OnUpgrade>().is_none() || !opens_websocket(request) {
        return;
    }
    if let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() {
        request.extensions_mut().insert(upgrade::replace(upgrade, lifetime.clone()));
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
