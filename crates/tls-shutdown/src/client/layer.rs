//! [`ShutdownLayer`]: every connection that a tower service makes ends as one policy says, and can be drained.

use std::{
    error, fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::tls::{Reaper, ShutdownPolicy, ShutdownReport, ShutdownStream, TlsSession};

use super::{
    drain::{Attempt, ClientDrain},
    into_tls::{IntoTls, MaybeTls},
    stream::ClientStream,
};

type BoxError = Box<dyn error::Error + Send + Sync>;
pub(super) type OnEnd = Arc<dyn Fn(&ShutdownReport) + Send + Sync>;

/// A [`tower_layer::Layer`] for connectors and acceptors: every TLS stream that the service under it gives ends as this layer's
/// policy says.
///
/// The service is one whose response is [a TLS stream](IntoTls): hyper-rustls's `HttpsConnector` (feature `hyper-rustls`), a
/// connector or an acceptor made by hand over tokio-rustls. The response becomes a [`ClientStream`], which is a stream of tokio
/// and of `hyper::rt`, and tells what hyper-util's client wants to know, HTTP/2 by ALPN included. So the client of hyper-util,
/// tonic's channels and `tower::ServiceBuilder` take it where they took the service.
///
/// A client is drained by the layer's [`ClientDrain`]. Clones of the layer share it. What an acceptor gives is in use until its owner
/// ends it: that is no way to drain a server.
///
/// Its limit is reqwest: the streams under its `connector_layer` are of sealed types, which no layer can wrap.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tls_shutdown::client::ShutdownLayer;
/// use tower_layer::Layer;
///
/// # async fn run<C>(https: C) {
/// let layer = ShutdownLayer::new().on_end(|report| println!("{report}"));
/// let connector = layer.layer(https);
/// // .. give it to a client, make requests; then, before the process exits ..
/// println!("{}", layer.drain().run(Duration::from_secs(10)).await);
/// # let _: tls_shutdown::client::ShutdownService<C> = connector;
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct ShutdownLayer {
    policy: Option<ShutdownPolicy>,
    reaper: Reaper,
    on_end: Option<OnEnd>,
    drain: ClientDrain,
}

impl ShutdownLayer {
    /// A layer with the default policies of [`ShutdownStream`], bidirectional for a client, and with a [`Reaper`] of its own, which
    /// works in the current Tokio runtime within the default [limits](crate::ReaperLimits).
    pub fn new() -> Self {
        Self { policy: None, reaper: Reaper::new(), on_end: None, drain: ClientDrain::new() }
    }

    /// Sets the policy of every connection.
    pub fn with_policy(mut self, policy: ShutdownPolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Replaces the reaper. One with fewer [closings](crate::ReaperLimits::closings) than a drain has connections sheds some of them.
    pub fn with_reaper(mut self, reaper: &Reaper) -> Self {
        self.reaper = reaper.clone();
        self
    }

    /// Has `on_end` called once for every TLS connection, when it is over; see [`ShutdownStream::on_end`].
    pub fn on_end(mut self, on_end: impl Fn(&ShutdownReport) + Send + Sync + 'static) -> Self {
        self.on_end = Some(Arc::new(on_end));
        self
    }

    /// What ends the connections that are made through this layer.
    pub fn drain(&self) -> ClientDrain {
        self.drain.clone()
    }

    /// The reaper, to wait for what it still lingers over.
    pub fn reaper(&self) -> &Reaper {
        &self.reaper
    }

    fn wrap<S>(&self, session: S) -> Result<ClientStream<S>, Draining>
    where
        S: TlsSession<Transport: Send> + Send + 'static,
    {
        let mut stream = ShutdownStream::new(session).with_reaper(&self.reaper);
        if let Some(policy) = self.policy {
            stream = stream.with_policy(policy);
        }
        self.drain.admit(stream, self.on_end.clone())
    }
}

impl Default for ShutdownLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ShutdownLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShutdownLayer")
            .field("policy", &self.policy)
            .field("reaper", &self.reaper)
            .field("drain", &self.drain)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for ShutdownLayer {
    type Service = ShutdownService<S>;

    fn layer(&self, inner: S) -> ShutdownService<S> {
        ShutdownService { inner, layer: self.clone() }
    }
}

/// A connector or an acceptor under a [`ShutdownLayer`].
///
/// # Errors
///
/// Those of the service under it; and [`Draining`], once the [`ClientDrain`] has begun.
#[derive(Clone, Debug)]
pub struct ShutdownService<S> {
    inner: S,
    layer: ShutdownLayer,
}

impl<S, Request> Service<Request> for ShutdownService<S>
where
    S: Service<Request, Response: IntoTls, Error: Into<BoxError>>,
{
    type Response = ClientStream<<S::Response as IntoTls>::Session>;
    type Error = BoxError;
    type Future = Connecting<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> Connecting<S::Future> {
        let attempt = self.layer.drain.attempt();
        let connecting = attempt.is_some().then(|| self.inner.call(request));
        Connecting { connecting, attempt, layer: self.layer.clone() }
    }
}

pin_project! {
    /// The future of a [`ShutdownService`]: `Unpin` where that of the service under it is, as hyper-util's client wants it.
    #[must_use = "futures do nothing unless polled"]
    pub struct Connecting<F> {
        // `None` where the drain had begun.
        #[pin]
        connecting: Option<F>,
        attempt: Option<Attempt>,
        layer: ShutdownLayer,
    }
}

impl<F, R, E> Future for Connecting<F>
where
    F: Future<Output = Result<R, E>>,
    R: IntoTls,
    E: Into<BoxError>,
{
    type Output = Result<ClientStream<R::Session>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(connecting) = this.connecting.as_pin_mut() else {
            return Poll::Ready(Err(Draining.into()));
        };
        let connected = ready!(connecting.poll(cx));
        // Until the connection is registered itself.
        let _attempt = this.attempt.take();
        Poll::Ready(match connected.map_err(Into::into)?.into_tls() {
            MaybeTls::Tls(session) => Ok(this.layer.wrap(session)?),
            MaybeTls::Plain(transport) => Ok(ClientStream::plain(transport)),
        })
    }
}

impl<F: fmt::Debug> fmt::Debug for Connecting<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connecting").field("connecting", &self.connecting).finish_non_exhaustive()
    }
}

/// The [`ClientDrain`] has begun: there is no new connection, and no new request on one that was idle.
///
/// It is the error of a [`ShutdownService`], and is inside the [`io::Error`](std::io::Error) of a [`ClientStream`]; a client tells
/// it as a source of its own error. Of what fails on its HTTP/2 connections, h2 keeps the text alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draining;

impl Draining {
    /// What [`Display`](fmt::Display) gives.
    pub(super) const TEXT: &str = "the client is being drained, its connections are closed";
}

impl fmt::Display for Draining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::TEXT)
    }
}

impl error::Error for Draining {}
