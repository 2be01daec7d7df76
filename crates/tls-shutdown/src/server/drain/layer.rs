//! [`DrainLayer`]: what a drain adds to the responses of other HTTP servers.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};
use hyper::{
    Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, HeaderValue},
};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{DrainHandle, DrainPhase, handle::InFlight};
use crate::server::{
    endless::{EndlessBody, EndlessResponse, EndlessResponses, UnansweredRequest},
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
    drain: DrainHandle,
    endless: Arc<EndlessResponses>,
}

impl DrainLayer {
    pub(super) fn new(drain: &DrainHandle) -> Self {
        Self { drain: drain.clone(), endless: Arc::new(EndlessResponses::of_drain(drain)) }
    }

    /// Leaves a kind of endless response to the application, as [`Server::leave_to_application`](crate::server::Server::leave_to_application)
    /// does. Default: none.
    #[must_use]
    pub fn leave_to_application(mut self, kind: EndlessResponse) -> Self {
        Arc::make_mut(&mut self.endless).leave_to_application(kind);
        self
    }
}

impl<S> Layer<S> for DrainLayer {
    type Service = DrainService<S>;

    fn layer(&self, inner: S) -> DrainService<S> {
        DrainService { inner, drain: self.drain.clone(), endless: self.endless.clone() }
    }
}

/// The service of a [`DrainLayer`], which has an example.
#[derive(Clone, Debug)]
pub struct DrainService<S> {
    inner: S,
    drain: DrainHandle,
    endless: Arc<EndlessResponses>,
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

    fn call(&mut self, mut request: Request<B>) -> DrainResponse<S::Future, R> {
        let (unanswered, read) = (self.endless.on_request(&mut request), Read::of(&request));
        DrainResponse {
            unanswered,
            endless: self.endless.clone(),
            method: request.method().clone(),
            version: request.version(),
            in_flight: Some(self.drain.begin_request()),
            drain: self.drain.clone(),
            response: AnswerAfterRead::new(read, self.inner.call(request)),
        }
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
        drain: DrainHandle,
        endless: Arc<EndlessResponses>,
        unanswered: UnansweredRequest,
        #[pin]
        response: AnswerAfterRead<F, Response<R>>,
    }
}

impl<F, R, E> Future for DrainResponse<F, R>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body + 'static,
{
    type Output = Result<Response<DrainBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = match this.response.poll(cx)? {
            Poll::Ready(mut response) => {
                if *this.version < Version::HTTP_2 && this.drain.phase() >= DrainPhase::LastRequest {
                    announce_close(&mut response, this.method);
                }
                this.endless.on_response(response, mem::take(this.unanswered))
            }
            Poll::Pending => EndlessBody::of_status(ready!(this.unanswered.poll_deadline(cx))),
        };
        let in_flight = this.in_flight.take();
        Poll::Ready(Ok(response.map(|body| DrainBody { body, _in_flight: in_flight })))
    }
}

pin_project! {
    /// The response body of a [`DrainService`]. The request is in flight until it is dropped.
    #[derive(Debug)]
    pub struct DrainBody<B> {
        #[pin]
        body: EndlessBody<B>,
        _in_flight: Option<InFlight>,
    }
}

impl<B: Body + 'static> Body for DrainBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
