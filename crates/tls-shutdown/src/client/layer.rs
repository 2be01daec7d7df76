//! [`ShutdownLayer`]: every connection that a tower service makes ends as one policy says, and can be drained.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    http::BoxError,
    runtime::{debug::debug_struct, timer::not_zero},
    tls::{Reaper, ShutdownPolicy, ShutdownReport, ShutdownStream, TlsSession},
};

use super::{
    drain::{Attempt, ClientDrain},
    draining::Draining,
    into_tls::{IntoTls, MaybeTls},
    retirement::PoolLimits,
    stream::ClientStream,
};

type OnEachEnd = Arc<dyn Fn(&ShutdownReport) + Send + Sync>;

/// A [`tower_layer::Layer`] for connectors: every TLS stream that the service under it returns ends by this layer's policy.
///
/// The response of that service must be [a TLS stream](IntoTls): hyper-rustls's `HttpsConnector` (feature `hyper-rustls`), or your own
/// connector over tokio-rustls. The response becomes a [`ClientStream`], a stream of tokio and of `hyper::rt`. It passes on what
/// hyper-util's client needs to know, HTTP/2 by ALPN included. So hyper-util's client, tonic's channels and `tower::ServiceBuilder` accept
/// the layered service in the place of the connector.
///
/// The layer's [`ClientDrain`] drains the client. Clones of the layer share it. Acceptors can be layered too, but their connections stay
/// in use until their owner ends them. Use a [`ServerDrain`](https://docs.rs/tls-shutdown/latest/tls_shutdown/server/struct.ServerDrain.html)
/// to drain a server.
///
/// Its limit is reqwest: the streams under its `connector_layer` have sealed types, which no layer can wrap.
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
    on_end: Vec<OnEachEnd>,
    drain: ClientDrain,
    limits: PoolLimits,
}

impl ShutdownLayer {
    /// Creates a layer with the default policies of [`ShutdownStream`], bidirectional for a client, and with its own [`Reaper`], which
    /// works in the current Tokio runtime within the default [limits](crate::ReaperLimits).
    pub fn new() -> Self {
        Self {
            policy: None,
            reaper: Reaper::new(),
            on_end: Vec::new(),
            drain: ClientDrain::new(),
            limits: PoolLimits::default(),
        }
    }

    /// Sets the policy of every connection.
    pub fn with_policy(mut self, policy: ShutdownPolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Sets the reaper. If it has fewer [closings](crate::ReaperLimits::with_max_closings) than a drain has connections, it sheds some.
    pub fn with_reaper(mut self, reaper: &Reaper) -> Self {
        self.reaper = reaper.clone();
        self
    }

    /// Closes connections at this age, when nothing is in flight on them. HTTP/2 clients read GOAWAY, as if from their server: they finish
    /// what is in flight, and connect anew for the next request. New connections see new addresses of the server, and new certificates.
    /// Default: no maximum.
    ///
    /// Its limit: the connection's owner must read while it is idle, as hyper does. Connections without TLS, and those that speak another
    /// protocol, are not closed.
    pub fn max_connection_age(mut self, age: Duration) -> Self {
        self.limits.max_age = Some(age);
        self
    }

    /// Closes connections on which nothing was in flight for this long. HTTP/2 connections end by GOAWAY after the same time without a byte
    /// in either direction, so that a silent stream is not cut. Choose a time below the server's: a server that closes first can lose the
    /// request that is on its way. Default: none. The pool of hyper-util has its own, 90 s, for HTTP/1.
    ///
    /// Its limits are those of [`max_connection_age`](Self::max_connection_age).
    ///
    /// # Panics
    ///
    /// If `timeout` is 0. For no limit, use [`Duration::MAX`].
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.limits.idle_timeout = Some(not_zero(timeout));
        self
    }

    /// Calls `on_end` once for every TLS connection, when it has ended; see [`ShutdownStream::on_end`]. Each call adds one.
    pub fn on_end(mut self, on_end: impl Fn(&ShutdownReport) + Send + Sync + 'static) -> Self {
        self.on_end.push(Arc::new(on_end));
        self
    }

    /// The drain of the connections that are made through this layer.
    pub fn drain(&self) -> ClientDrain {
        self.drain.clone()
    }

    /// The policy of every connection, or `None` for the defaults of [`ShutdownStream`].
    pub fn policy(&self) -> Option<&ShutdownPolicy> {
        self.policy.as_ref()
    }

    /// The reaper. [Wait for it](Reaper::wait_idle) to let it finish its lingers.
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
        for on_end in &self.on_end {
            let on_end = on_end.clone();
            stream = stream.on_end(move |report| on_end(report));
        }
        self.drain.admit(stream, self.limits)
    }
}

impl Default for ShutdownLayer {
    fn default() -> Self {
        Self::new()
    }
}

debug_struct!({} ShutdownLayer, |layer| {
    policy: layer.policy,
    reaper: layer.reaper,
    drain: layer.drain,
    limits: layer.limits,
});

impl<S> Layer<S> for ShutdownLayer {
    type Service = ShutdownService<S>;

    fn layer(&self, inner: S) -> ShutdownService<S> {
        ShutdownService { inner, layer: self.clone(), drain_begun: DrainBegun::default() }
    }
}

/// A connector under a [`ShutdownLayer`].
///
/// # Errors
///
/// Those of the service under it, and [`Draining`] once the [`ClientDrain`] has begun.
#[derive(Clone, Debug)]
pub struct ShutdownService<S> {
    inner: S,
    layer: ShutdownLayer,
    drain_begun: DrainBegun,
}

/// Wakes the task for which the service under the layer is not ready, when the drain begins. Each clone waits for itself.
#[derive(Default)]
struct DrainBegun(Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>);

impl Clone for DrainBegun {
    fn clone(&self) -> Self {
        Self::default()
    }
}

debug_struct!({} DrainBegun, |_| {});

impl<S, Request> Service<Request> for ShutdownService<S>
where
    S: Service<Request, Response: IntoTls, Error: Into<BoxError>>,
{
    type Response = ClientStream<<S::Response as IntoTls>::Session>;
    type Error = BoxError;
    type Future = Connecting<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let drain = &self.layer.drain;
        if !drain.has_begun() {
            if let Poll::Ready(ready) = self.inner.poll_ready(cx) {
                self.drain_begun.0 = None;
                return Poll::Ready(ready.map_err(Into::into));
            }
            let drain_begun = self.drain_begun.0.get_or_insert_with(|| {
                let drain = drain.clone();
                Box::pin(async move { drain.begun().await })
            });
            ready!(drain_begun.as_mut().poll(cx));
        }
        // `call` refuses the request, and does not call the service.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Connecting<S::Future> {
        let attempt = self.layer.drain.attempt();
        let connecting = attempt.is_some().then(|| self.inner.call(request));
        Connecting { connecting, attempt, layer: self.layer.clone() }
    }
}

pin_project! {
    /// The future of a [`ShutdownService`]. It is `Unpin` if that of the service under it is, as hyper-util's client demands.
    #[must_use = "futures do nothing unless polled"]
    pub struct Connecting<F> {
        // `None` if the drain had begun.
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
        // The attempt counts until the connection itself is registered.
        let _attempt = this.attempt.take();
        Poll::Ready(match connected.map_err(Into::into)?.into_tls() {
            MaybeTls::Tls(session) => Ok(this.layer.wrap(session)?),
            MaybeTls::Plain(transport) => Ok(ClientStream::plain(transport)),
        })
    }
}

debug_struct!({F: fmt::Debug} Connecting<F>, |connecting| { connecting: connecting.connecting });
