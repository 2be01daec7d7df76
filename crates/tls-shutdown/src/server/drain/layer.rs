//! [`DrainLayer`]: what a drain adds to the responses of other HTTP servers.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http_body::Body;
use hyper::{
    Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, HeaderValue},
};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{DrainHandle, DrainPhase, handle::InFlight};
use crate::server::{
    endless::{DrainBody, EndlessResponse, UnansweredRequest},
    lifetime::ConnectionLifetime,
    unread_body::{AnswerAfterRead, Read},
};

/// Adds `Connection: close` to the HTTP/1 responses of a draining server, ends its [endless responses](EndlessResponse), and counts its
/// requests, also those [in flight](DrainHandle::in_flight). [`DrainHandle::layer`] returns it.
///
/// The response also says so if the service drops a request that has not come whole, because hyper closes the connection then. Without this
/// layer, hyper closes it and does not say so.
///
/// The layer does not change HTTP/2 responses: HTTP/2 has GOAWAY instead.
///
/// ```
/// # use tls_shutdown::server::ServerDrain;
/// # fn example(drain: &ServerDrain) {
/// # #[cfg(feature = "axum")]
/// let app: axum::Router = axum::Router::new().layer(drain.handle().layer());
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DrainLayer {
    lifetime: Arc<ConnectionLifetime>,
}

impl DrainLayer {
    pub(super) fn new(drain: &DrainHandle) -> Self {
        Self { lifetime: Arc::new(ConnectionLifetime::of_drain(drain.clone())) }
    }

    /// Leaves a kind of endless response to the application, as [`Server::leave_to_application`](crate::server::Server::leave_to_application)
    /// does. Default: none.
    #[must_use]
    pub fn leave_to_application(mut self, kind: EndlessResponse) -> Self {
        let mut left = self.lifetime.left_to_application;
        left.leave(kind);
        self.lifetime = Arc::new(ConnectionLifetime::of_drain(self.lifetime.drain().clone()).leaving(left));
        self
    }
}

impl<S> Layer<S> for DrainLayer {
    type Service = DrainService<S>;

    fn layer(&self, inner: S) -> DrainService<S> {
        DrainService { inner, lifetime: self.lifetime.clone() }
    }
}

/// The service of a [`DrainLayer`], which has an example.
#[derive(Clone, Debug)]
pub struct DrainService<S> {
    inner: S,
    lifetime: Arc<ConnectionLifetime>,
}

impl<S, B, R> Service<Request<B>> for DrainService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body + 'static,
{
    type Response = Response<DrainBody<R>>;
    type Error = S::Error;
    type Future = DrainResponse<S::Future, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> DrainResponse<S::Future, R> {
        let (read, in_flight) = (Read::of(&request), self.lifetime.drain().begin_request());
        DrainResponse::begin(&self.lifetime, request, read, Some(in_flight), |request| self.inner.call(request))
    }
}

pin_project! {
    /// The future of a [`DrainService`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct DrainResponse<F, R> {
        method: Method,
        version: Version,
        in_flight: Option<InFlight>,
        lifetime: Arc<ConnectionLifetime>,
        unanswered: UnansweredRequest,
        #[pin]
        response: AnswerAfterRead<F, Response<R>>,
    }
}

impl<F, R> DrainResponse<F, R> {
    /// Passes a request on to the service, which `call` calls.
    pub(in crate::server) fn begin<B>(
        lifetime: &Arc<ConnectionLifetime>,
        mut request: Request<B>,
        read: Read,
        in_flight: Option<InFlight>,
        call: impl FnOnce(Request<B>) -> F,
    ) -> Self {
        Self {
            unanswered: lifetime.follow_request(&mut request),
            lifetime: lifetime.clone(),
            method: request.method().clone(),
            version: request.version(),
            in_flight,
            response: AnswerAfterRead::new(read, call(request)),
        }
    }
}

impl<F, R, E> DrainResponse<F, R>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body + 'static,
{
    /// Polls for the response of the service. `look` sees it first, with what it needs to know of the request and of the connection.
    pub(in crate::server) fn poll_response(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        look: impl FnOnce(&mut Response<R>, &Method, Version, &ConnectionLifetime),
    ) -> Poll<Result<Response<DrainBody<R>>, E>> {
        let this = self.project();
        let mut response = match this.response.poll(cx)? {
            Poll::Ready(mut response) => {
                look(&mut response, this.method, *this.version, this.lifetime);
                this.lifetime.follow_response(response, mem::take(this.unanswered))
            }
            Poll::Pending => DrainBody::of_status(ready!(this.unanswered.poll_deadline(cx))),
        };
        response.body_mut().in_flight = this.in_flight.take();
        Poll::Ready(Ok(response))
    }
}

impl<F, R, E> Future for DrainResponse<F, R>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body + 'static,
{
    type Output = Result<Response<DrainBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_response(cx, |response, method, version, lifetime| {
            if version < Version::HTTP_2 && lifetime.drain().phase() >= DrainPhase::LastRequest {
                announce_close(response, method);
            }
        })
    }
}

//= https://www.rfc-editor.org/rfc/rfc9112#section-9.6
//# A server that sends a "close" connection option MUST initiate closure
//# of the connection (see below) after it sends the response containing
//# the "close" connection option.
/// Adds `Connection: close` to an HTTP/1 response to a request with `method`. hyper then closes the connection. A response that changes the
/// protocol stays as it is, because its `Connection` names the upgrade. So does one that opens a tunnel (RFC 9110 section 9.3.6): the
/// connection goes on.
pub(crate) fn announce_close<R>(response: &mut Response<R>, method: &Method) {
    let status = response.status();
    let is_tunnel = *method == Method::CONNECT && status.is_success();
    if status != StatusCode::SWITCHING_PROTOCOLS && !is_tunnel {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}
