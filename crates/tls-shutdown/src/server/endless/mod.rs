//! Endless responses: event streams, WebSockets and gRPC calls end with the server, and the application need not know of that.

mod body;
mod event_stream;
mod grpc;
mod wait;
mod websocket;

pub use body::DrainBody;
pub(super) use websocket::opens_websocket;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use http_body::Body;
use hyper::{HeaderMap, Request, Response};

use self::{
    grpc::{GrpcCall, is_grpc_call},
    wait::Wait,
    websocket::Handshake,
};
use super::{
    drain::DrainHandle,
    lifetime::{ConnectionLifetime, Limits},
};

/// A kind of response that may have no end of its own. A server that drains ends it in the way that its protocol has for that. A
/// connection that has reached its [maximum age](super::Server::max_connection_age) does the same.
///
/// [`Server::leave_to_application`](super::Server::leave_to_application) and
/// [`DrainLayer::leave_to_application`](super::DrainLayer::leave_to_application) switch a kind off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndlessResponse {
    /// Server-sent events: a response with the media type `text/event-stream`. It ends between two events at the
    /// [last request](super::DrainPhase::LastRequest), so that an `EventSource` connects again and continues with its `Last-Event-ID`. An
    /// event that is half-sent is completed first. What the application yields at that moment is still sent, if it is a whole event.
    ///
    /// Not followed, and so left to the application: a response with a Content-Length or a Content-Encoding, and a body whose data is not
    /// [`bytes::Bytes`].
    EventStream,
    /// A WebSocket (RFC 6455), over HTTP/1, or over HTTP/2 (RFC 8441) if hyper's `enable_connect_protocol` is set. At the
    /// [last request](super::DrainPhase::LastRequest) the client receives a Close frame with code 1001. If the application is writing a
    /// message, the Close frame follows the end of the message.
    ///
    /// After that, the application's writes of data fail with [`BrokenPipe`](std::io::ErrorKind::BrokenPipe), its Ping, Pong and Close
    /// frames are discarded, and it reads on until the client's Close frame. A client that has not ended the WebSocket 5 s after the
    /// server's Close frame ([`CLOSE_TIMEOUT`](crate::ShutdownPolicy::CLOSE_TIMEOUT)) is not waited for any longer: the application reads
    /// what has arrived, then its read fails with [`TimedOut`](std::io::ErrorKind::TimedOut), and the connection ends in order. A drain then
    /// waits half a second for its close_notify, or longer until its system has acknowledged everything.
    ///
    /// If the application has sent a Close frame before, nothing is added. An application that neither reads nor writes then keeps the
    /// connection until the deadline.
    ///
    /// The application receives an [`Upgraded`](hyper::upgrade::Upgraded) that cannot be downcast.
    WebSocket,
    /// A gRPC call over HTTP/2. If it is still open at the [deadline](super::DrainPhase::Deadline), it ends with the status `UNAVAILABLE`
    /// and not with RST_STREAM, also if the service has not answered yet. `UNAVAILABLE` allows clients to try again.
    ///
    /// A message that the client's flow control holds back at the deadline is cut: such a call ends with RST_STREAM. gRPC-Web is left to the
    /// application. The age of a connection ends no call.
    Grpc,
}

/// The kinds of endless responses that the application ends by itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LeftToApplication {
    event_streams: bool,
    websockets: bool,
    grpc: bool,
}

impl LeftToApplication {
    pub(super) fn leave(&mut self, kind: EndlessResponse) {
        *match kind {
            EndlessResponse::EventStream => &mut self.event_streams,
            EndlessResponse::WebSocket => &mut self.websockets,
            EndlessResponse::Grpc => &mut self.grpc,
        } = true;
    }
}

/// Ends the endless responses of one connection of a `Server`, or of all connections behind a `DrainLayer`.
#[derive(Debug)]
pub(super) struct EndlessResponses {
    left: LeftToApplication,
    lifetime: Arc<ConnectionLifetime>,
    had_grpc_call: AtomicBool,
}

impl EndlessResponses {
    pub(super) fn new(left: LeftToApplication, lifetime: Arc<ConnectionLifetime>) -> Self {
        Self { left, lifetime, had_grpc_call: AtomicBool::new(false) }
    }

    /// Those behind a `DrainLayer`, which does not know the connections.
    pub(super) fn of_drain(drain: &DrainHandle) -> Self {
        Self::new(
            LeftToApplication::default(),
            Arc::new(ConnectionLifetime::new(Limits::default(), drain.clone(), None)),
        )
    }

    /// The same, but for a kind that is left to the application.
    pub(super) fn without(&self, kind: EndlessResponse) -> Self {
        let mut left = self.left;
        left.leave(kind);
        Self::new(left, self.lifetime.clone())
    }

    pub(super) fn lifetime(&self) -> &ConnectionLifetime {
        &self.lifetime
    }

    /// Whether a gRPC call has begun.
    pub(super) fn had_grpc_call(&self) -> bool {
        self.had_grpc_call.load(Ordering::Relaxed)
    }

    /// Looks at a request before the service does. If it opens a WebSocket, the service receives one that ends with the server.
    pub(super) fn on_request<B>(&self, request: &mut Request<B>) -> UnansweredRequest {
        if !self.left.websockets
            && let Some(handshake) = websocket::follow(request, &self.lifetime)
        {
            return UnansweredRequest::WebSocket(handshake);
        }
        if !self.left.grpc && is_grpc_call(request) {
            self.had_grpc_call.store(true, Ordering::Relaxed);
            return UnansweredRequest::Grpc(GrpcCall::begin(self.lifetime.drain()));
        }
        UnansweredRequest::Other
    }

    /// Follows the response to a request.
    pub(super) fn on_response<B: Body + 'static>(
        &self,
        response: Response<B>,
        request: UnansweredRequest,
    ) -> Response<DrainBody<B>> {
        match request {
            UnansweredRequest::Grpc(call) => return DrainBody::of_call(response, call),
            UnansweredRequest::WebSocket(handshake) => handshake.answer(&response),
            UnansweredRequest::Other => {}
        }
        if !self.left.event_streams && event_stream::is_event_stream(&response) {
            let last_request = Wait::until_last_request(&self.lifetime);
            return response.map(|body| DrainBody::of_events(body, last_request));
        }
        response.map(DrainBody::of_service)
    }
}

/// A request that the service has.
#[derive(Debug, Default)]
pub(crate) enum UnansweredRequest {
    #[default]
    Other,
    WebSocket(Handshake),
    Grpc(GrpcCall),
}

impl UnansweredRequest {
    /// Waits until the service has no more time to answer. Returns the status with which the server answers in its place.
    pub(super) fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<HeaderMap> {
        match self {
            Self::Grpc(call) => call.poll_deadline(cx).map(|()| call.end()),
            Self::WebSocket(_) | Self::Other => Poll::Pending,
        }
    }
}
