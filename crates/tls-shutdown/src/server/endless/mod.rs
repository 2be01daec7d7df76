//! Endless responses: event streams, WebSockets and gRPC calls end with the server, and the application need not know of that.

mod body;
mod event_stream;
mod grpc;
pub(super) mod kind;
mod wait;
mod websocket;

pub use body::DrainBody;
pub use kind::EndlessResponse;
pub(super) use websocket::opens_websocket;

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http_body::Body;
use hyper::{HeaderMap, Request, Response};

use self::{
    grpc::{GrpcCall, is_grpc_call},
    wait::Wait,
    websocket::Handshake,
};
use super::lifetime::ConnectionLifetime;

/// Ends the endless responses of one connection of a `Server`, or of all connections behind a `DrainLayer`.
impl ConnectionLifetime {
    /// Looks at a request before the service does. If it opens a WebSocket, the service receives one that ends with the server.
    pub(super) fn follow_request<B>(self: &Arc<Self>, request: &mut Request<B>) -> UnansweredRequest {
        if !self.left_to_application.websockets
            && let Some(handshake) = websocket::follow(request, self)
        {
            return UnansweredRequest::WebSocket(handshake);
        }
        if !self.left_to_application.grpc && is_grpc_call(request) {
            self.note_grpc_call();
            return UnansweredRequest::Grpc(GrpcCall::begin(self.drain()));
        }
        UnansweredRequest::Other
    }

    /// Follows the response to a request.
    pub(super) fn follow_response<B: Body + 'static>(
        self: &Arc<Self>,
        response: Response<B>,
        request: UnansweredRequest,
    ) -> Response<DrainBody<B>> {
        match request {
            UnansweredRequest::Grpc(call) => return DrainBody::of_call(response, call),
            UnansweredRequest::WebSocket(handshake) => handshake.answer(&response),
            UnansweredRequest::Other => {}
        }
        if !self.left_to_application.event_streams && event_stream::is_event_stream(&response) {
            let last_request = Wait::until_last_request(self);
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
