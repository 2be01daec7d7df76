//! [`Readiness`]: the answer to readiness probes.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    ptr,
    task::{Context, Poll},
};

use hyper::{Request, Response, StatusCode, http::Extensions};
use tower_service::Service;

use super::DrainHandle;

/// Answers readiness probes: 200 while the server is ready, 503 after the signal. [`DrainHandle::readiness`] returns it.
///
/// A server that is asked regularly gives a [notice](super::ServerDrain::notice) before it stops.
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

impl DrainHandle {
    /// Returns a service for readiness probes: 200 while the server is [ready](Self::is_ready), 503 after the signal.
    pub fn readiness(&self) -> Readiness {
        Readiness { drain: self.clone() }
    }

    /// Answers a probe of another protocol: returns whether the server is [ready](Self::is_ready), and counts the question, so that the
    /// [notice](super::ServerDrain::notice) waits for those who ask. `extensions` are those of the request.
    pub fn answer_probe(&self, extensions: &Extensions) -> bool {
        let is_ready = self.is_ready();
        self.probes().on_probe(is_ready);
        // A connection of another drain was not counted here.
        if let Some(FirstRequest(drain)) = extensions.get()
            && ptr::eq(drain.probes(), self.probes())
        {
            self.probes().on_connection_of_probe();
        }
        is_ready
    }
}

/// The drain of a connection. [`Server`](crate::server::Server) puts it into the extensions of the connection's first request.
#[derive(Clone)]
pub(crate) struct FirstRequest(pub(crate) DrainHandle);

impl<B> Service<Request<B>> for Readiness {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (status, text) = match self.drain.answer_probe(request.extensions()) {
            true => (StatusCode::OK, "ready\n"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        };
        let mut response = Response::new(text.to_owned());
        *response.status_mut() = status;
        ready(Ok(response))
    }
}
