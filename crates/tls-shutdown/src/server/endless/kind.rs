//! [`EndlessResponse`]: the kinds of endless responses.

/// A kind of response that may have no end of its own. A server that drains ends it in the way that its protocol has for that. A
/// connection that has reached its [maximum age](crate::server::Server::max_connection_age) does the same.
///
/// [`Server::leave_to_application`](crate::server::Server::leave_to_application) and
/// [`DrainLayer::leave_to_application`](crate::server::DrainLayer::leave_to_application) switch a kind off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndlessResponse {
    /// Server-sent events: a response with the media type `text/event-stream`. It ends between two events at the
    /// [last request](crate::server::DrainPhase::LastRequest), so that an `EventSource` connects again and continues with its
    /// `Last-Event-ID`. An event that is half-sent is completed first. What the application yields at that moment is still sent, if it is a
    /// whole event.
    ///
    /// Not followed, and so left to the application: a response with a Content-Length or a Content-Encoding, and a body whose data is not
    /// [`bytes::Bytes`].
    EventStream,
    /// A WebSocket (RFC 6455), over HTTP/1, or over HTTP/2 (RFC 8441) if hyper's `enable_connect_protocol` is set. At the
    /// [last request](crate::server::DrainPhase::LastRequest) the client receives a Close frame with code 1001. If the application is writing
    /// a message, the Close frame follows the end of the message.
    ///
    /// After that, the application's writes of data fail with [`BrokenPipe`](std::io::ErrorKind::BrokenPipe), its Ping, Pong and Close
    /// frames are discarded, and it reads on until the client's Close frame. A client that has not ended the WebSocket 5 s after the
    /// server's Close frame ([`CLOSE_TIMEOUT`](crate::ShutdownPolicy::CLOSE_TIMEOUT)) is not waited for any longer: the application reads
    /// what has arrived, then its read fails with [`TimedOut`](std::io::ErrorKind::TimedOut), and the connection ends in order. A drain then
    /// waits half a second for its close_notify, or longer until its system has acknowledged everything. Its limit: a client that sends faster
    /// than the application reads is read until the drain's deadline.
    ///
    /// A client that reads nothing, so that the Close frame cannot be sent, is given up after 60 s
    /// ([`STALL_TIMEOUT`](crate::ShutdownPolicy::STALL_TIMEOUT)).
    ///
    /// If the application has sent a Close frame before, nothing is added. An application that neither reads nor writes then keeps the
    /// connection until the deadline.
    ///
    /// The application receives an [`Upgraded`](hyper::upgrade::Upgraded) that cannot be downcast.
    WebSocket,
    /// A gRPC call over HTTP/2. If it is still open at the [deadline](crate::server::DrainPhase::Deadline), it ends with the status
    /// `UNAVAILABLE` and not with RST_STREAM, also if the service has not answered yet. `UNAVAILABLE` allows clients to try again.
    ///
    /// A message that the client's flow control holds back at the deadline is cut: such a call ends with RST_STREAM. gRPC-Web is left to
    /// the application. The age of a connection ends no call.
    Grpc,
}

/// The kinds of endless responses that the application ends by itself.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::server) struct LeftToApplication {
    pub(super) event_streams: bool,
    pub(super) websockets: bool,
    pub(super) grpc: bool,
}

impl LeftToApplication {
    pub(in crate::server) fn leave(&mut self, kind: EndlessResponse) {
        *match kind {
            EndlessResponse::EventStream => &mut self.event_streams,
            EndlessResponse::WebSocket => &mut self.websockets,
            EndlessResponse::Grpc => &mut self.grpc,
        } = true;
    }
}
