//! What a drain adds to HTTP servers that are not ours: [`DrainLayer`] and [`Readiness`].

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};
use hyper::{
    Request, Response, StatusCode, Version,
    header::{CONNECTION, HeaderValue},
};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{DrainHandle, DrainPhase, InFlight};

/// Has the HTTP/1 responses of a draining server say `Connection: close`, and counts its requests and what is
/// [in flight](DrainHandle::in_flight). From [`DrainHandle::layer`].
///
/// HTTP/2 responses stay as they are: there, GOAWAY says it.
#[derive(Clone, Debug)]
pub struct DrainLayer {
    drain: DrainHandle,
}

impl DrainLayer {
    pub(super) fn new(drain: DrainHandle) -> Self {
        Self { drain }
    }
}

impl<S> Layer<S> for DrainLayer {
    type Service = DrainService<S>;

    fn layer(&self, inner: S) -> DrainService<S> {
        DrainService { inner, drain: self.drain.clone() }
    }
}

/// The service that [`DrainLayer`] makes.
#[derive(Clone, Debug)]
pub struct DrainService<S> {
    inner: S,
    drain: DrainHandle,
}

impl<S, B, R> Service<Request<B>> for DrainService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<DrainBody<R>>;
    type Error = S::Error;
    type Future = DrainResponse<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> DrainResponse<S::Future> {
        DrainResponse {
            version: request.version(),
            in_flight: Some(self.drain.begin_request()),
            drain: self.drain.clone(),
            response: self.inner.call(request),
        }
    }
}

pin_project! {
    /// The future of [`DrainService`].
    pub struct DrainResponse<F> {
        version: Version,
        in_flight: Option<InFlight>,
        drain: DrainHandle,
        #[pin]
        response: F,
    }
}

impl<F, R, E> Future for DrainResponse<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<DrainBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.response.poll(cx))?;
        if *this.version < Version::HTTP_2 && this.drain.phase() >= DrainPhase::LastRequest {
            announce_close(&mut response);
        }
        let in_flight = this.in_flight.take();
        Poll::Ready(Ok(response.map(|body| DrainBody { body, _in_flight: in_flight })))
    }
}

pin_project! {
    /// The body of a response of [`DrainService`], which is in flight until it is dropped.
    #[derive(Debug)]
    pub struct DrainBody<B> {
        #[pin]
        body: B,
        _in_flight: Option<InFlight>,
    }
}

impl<B: Body> Body for DrainBody<B> {
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
/// Has an HTTP/1 response say that no other follows on its connection. hyper closes it then. A response that changes the
/// protocol says something else there.
pub(crate) fn announce_close<R>(response: &mut Response<R>) {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Answers readiness probes: 200 while the server is ready, 503 from the signal on. From [`DrainHandle::readiness`].
///
/// ```
/// # use tls_shutdown::server::ServerDrain;
/// # fn example(drain: &ServerDrain) {
/// # #[cfg(feature = "axum")]
/// let app: axum::Router = axum::Router::new().route_service("/ready", drain.handle().readiness());
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Readiness {
    drain: DrainHandle,
}

impl Readiness {
    pub(super) fn new(drain: DrainHandle) -> Self {
        Self { drain }
    }
}

impl<B> Service<Request<B>> for Readiness {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        let (status, text) = match self.drain.is_ready() {
            true => (StatusCode::OK, "ready\n"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        };
        let mut response = Response::new(text.to_owned());
        *response.status_mut() = status;
        ready(Ok(response))
    }
}
