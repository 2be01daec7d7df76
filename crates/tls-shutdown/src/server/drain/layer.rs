//! [`DrainLayer`]: what a drain adds to the responses of other HTTP servers. A `Server` uses its [`DrainResponse`], too.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, Mutex},
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
use crate::{
    runtime::lock::lock,
    server::{
        connection_info::ConnectionInfo,
        endless::{DrainBody, EndlessResponse, UnansweredRequest},
        http_stream::http1::{Http1Messages, ResponseInProgress, announces_close},
        lifetime::ConnectionLifetime,
        unread_body::{AnswerAfterRead, Read},
    },
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
        let (read, drain) = (Read::of(&request), self.lifetime.drain());
        let connection = request.extensions().get::<ConnectionInfo>();
        let in_flight = connection.is_none_or(|info| !info.is_counted_in(drain)).then(|| drain.begin_request());
        DrainResponse::begin(&self.lifetime, request, read, None, in_flight, |request| self.inner.call(request))
    }
}

pin_project! {
    /// The future of a [`DrainService`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct DrainResponse<F, R> {
        method: Method,
        version: Version,
        // Of an HTTP/1 connection of a `Server`. HTTP/2 has frames that show how far a response is.
        messages: Option<Arc<Mutex<Http1Messages>>>,
        in_flight: Option<InFlight>,
        lifetime: Arc<ConnectionLifetime>,
        unanswered: UnansweredRequest,
        #[pin]
        response: AnswerAfterRead<F, Response<R>>,
    }
}

impl<F, R> DrainResponse<F, R> {
    /// Passes a request on to the service, which `call` calls.
    #[inline]
    pub(in crate::server) fn begin<B>(
        lifetime: &Arc<ConnectionLifetime>,
        mut request: Request<B>,
        read: Read,
        messages: Option<Arc<Mutex<Http1Messages>>>,
        in_flight: Option<InFlight>,
        call: impl FnOnce(Request<B>) -> F,
    ) -> Self {
        Self {
            unanswered: lifetime.follow_request(&mut request),
            lifetime: lifetime.clone(),
            method: request.method().clone(),
            version: request.version(),
            messages,
            in_flight,
            response: AnswerAfterRead::Awaited { read, answer: call(request) },
        }
    }
}

impl<F, R, E> Future for DrainResponse<F, R>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body + 'static,
{
    type Output = Result<Response<DrainBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (this, mut progress) = (self.project(), None);
        let mut response = match this.response.poll(cx)? {
            Poll::Ready(mut response) => {
                let closes = match &this.messages {
                    Some(messages) => lock(messages).is_last_request || this.lifetime.is_closing(),
                    None => *this.version < Version::HTTP_2 && this.lifetime.drain().phase() >= DrainPhase::LastRequest,
                };
                if closes {
                    announce_close(&mut response, this.method);
                }
                if *this.version == Version::HTTP_10 && announces_close(response.headers()) {
                    // hyper sends it in this version in any case. If it had to lower the version, it would add `keep-alive` to `close`.
                    *response.version_mut() = Version::HTTP_10;
                }
                let messages = this.messages.take();
                progress =
                    messages.map(|messages| ResponseInProgress::begin(messages, this.method, *this.version, &response));
                this.lifetime.follow_response(response, mem::take(this.unanswered))
            }
            Poll::Pending => DrainBody::of_status(ready!(this.unanswered.poll_deadline(cx))),
        };
        let body = response.body_mut();
        (body.progress, body.in_flight) = (progress, this.in_flight.take());
        Poll::Ready(Ok(response))
    }
}

//= https://www.rfc-editor.org/rfc/rfc9112#section-9.6
//# A server that sends a "close" connection option MUST initiate closure
//# of the connection (see below) after it sends the response containing
//# the "close" connection option.
/// Adds `Connection: close` to an HTTP/1 response to a request with `method`. hyper then closes the connection. A response that changes the
/// protocol stays as it is, because its `Connection` names the upgrade. So does one that opens a tunnel (RFC 9110 section 9.3.6): the
/// connection goes on.
fn announce_close<R>(response: &mut Response<R>, method: &Method) {
    let status = response.status();
    let is_tunnel = *method == Method::CONNECT && status.is_success();
    if status != StatusCode::SWITCHING_PROTOCOLS && !is_tunnel {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}
