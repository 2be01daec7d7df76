//! What a client may not have received yet when its HTTP connection closes.

use std::{sync::Arc, time::Duration};

use super::{HttpStream, ProtocolState, http1::Upgrade};
use crate::{
    runtime::lock::lock,
    server::{accepted_stream::AcceptedStream, lifetime::ClientWait, unacknowledged::is_acknowledged},
    tls::Undelivered,
};

/// How long a client has to be idle before its connection closes. It then has read its last response, or the last frame of its WebSocket, if
/// its system has acknowledged that.
const READ_TIME: Duration = Duration::from_secs(1);

impl HttpStream {
    /// What the client of `stream` may not have received yet.
    pub(super) fn undelivered(&self, stream: &AcceptedStream) -> Undelivered {
        let wait = match &self.protocol {
            ProtocolState::Http1(http1) => {
                let messages = lock(&http1.messages);
                // What follows the last byte of an unknown protocol is unknown, too.
                if messages.upgrade == Upgrade::Unknown { ClientWait::None } else { messages.wait() }
            }
            ProtocolState::Http2(http2) => {
                let frames = lock(&http2.frames);
                match frames.wait() {
                    ClientWait::Request { .. } => ClientWait::Request { since: frames.answered() },
                    wait => wait,
                }
            }
        };
        let ClientWait::Request { since } = wait else { return Undelivered::Answer };
        if since.elapsed() < READ_TIME || stream.has_unsent() {
            return Undelivered::Answer;
        }
        match stream.tcp().map(|socket| (socket.local_addr(), socket.peer_addr())) {
            Some((Ok(local), Ok(peer))) => Undelivered::CloseNotify(Arc::new(move || is_acknowledged(local, peer))),
            _ => Undelivered::Answer,
        }
    }
}
