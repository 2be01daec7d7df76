//! [`Server`]: HTTP/1 and HTTP/2 over TLS by hyper, where every connection ends truthfully.

mod connection;
mod drain;
mod http_stream;
mod listener;
mod report;
mod stream;
mod tickets;
mod unacknowledged;

pub use drain::{
    Acknowledgement, DrainBody, DrainHandle, DrainLayer, DrainPhase, DrainReport, DrainResponse, DrainService,
    Readiness, ServerDrain,
};
pub use listener::{ConfigHandle, TlsListener};
pub use report::ConnectionReport;
pub use stream::ServerStream;
pub use tickets::{InvalidTicketKey, TicketKey, TicketKeys, UnsupportedProvider};

use std::{
    error::Error,
    fmt,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body::Body;
use hyper::{
    Method, Request, Response, Version,
    body::Incoming,
    server::conn::{http1 as hyper_http1, http2 as hyper_http2},
    service::Service as HyperService,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use pin_project_lite::pin_project;
use rustls::pki_types::CertificateDer;
use tokio::{
    task::{JoinSet, yield_now},
    time::sleep,
};
use tower_service::Service;
use tracing::{Instrument, Span};

use connection::Connection;
use drain::{InFlight, announce_close};
use http_stream::{
    HttpStream,
    http1::{Exchange, Http1, ServedBody},
    http2::Control,
};

type BoxError = Box<dyn Error + Send + Sync>;

/// Serves HTTP/1 and HTTP/2 over TLS with hyper, chosen by ALPN, and ends well.
///
/// - **Every path ends truthfully.** close_notify where no message was cut: an idle connection, a header timeout, a parse error, an
///   error or panic of the service before the head, a server drain, a task that is aborted. RST and no close_notify where a
///   response was cut whose end is the connection's end (RFC 9112 section 9.8), also where the process is killed. HTTP/2 clients
///   get RST_STREAM for what was cut, GOAWAY and close_notify.
/// - An answer that is given before the request was read arrives: the listener's [reaper](crate::Reaper) reads the rest.
/// - [`drain`](Self::drain) ends it without losing a request.
/// - A client that is gone is not served on: a truncation or a reset ends its connection at once, and with it the service's future.
/// - What it and the service log of a connection is in a span `connection` with its `peer` and `protocol`, at level DEBUG.
/// - Each request carries [`ConnectionInfo`] in its extensions; with feature `axum` also `axum::extract::ConnectInfo<SocketAddr>`.
///
/// Offer HTTP/2 in the listener's configuration: `config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()]`. Without, and
/// with a client that offers neither, it is HTTP/1.
///
/// The service is a `tower::Service`, cloned for each request: an `axum::Router`, tonic's `Routes`, `tower::service_fn`.
///
/// ```no_run
/// # use std::time::Duration;
/// # use tls_shutdown::server::{Server, ServerDrain, TlsListener};
/// # async fn example<S>(config: rustls::ServerConfig, app: S) -> std::io::Result<()>
/// # where
/// #     S: tower_service::Service<
/// #             hyper::Request<hyper::body::Incoming>,
/// #             Response = hyper::Response<String>,
/// #             Error = std::convert::Infallible,
/// #         > + Clone + Send + 'static,
/// #     S::Future: Send,
/// # {
/// let listener = TlsListener::bind("0.0.0.0:8443", config).await?;
/// let report = Server::new(listener)
///     .http1(|http1| http1.header_read_timeout(Duration::from_secs(10)))
///     .http2(|http2| http2.max_concurrent_streams(100))
///     .on_end(|report| println!("{report}"))
///     .drain(ServerDrain::on_terminate_signal()?.grace(Duration::from_secs(60)))
///     .serve(app)
///     .await;
/// println!("{report}");
/// # Ok(())
/// # }
/// ```
///
/// Its limits:
///
/// - A response to HTTP/1 that is framed by Content-Length or chunks and cut at the deadline ends with close_notify: the framing
///   tells that it is cut, and a client that ignores its framing cannot be helped.
/// - That a client is gone shows only behind what it has sent: not where it has begun a body that the service does not read. And one
///   that has said close_notify may wait for its answer, or be gone: it is answered.
/// - A service that has answered an HTTP/2 request and still reads it hears that it has ended with fewer bytes than its Content-Length
///   only when the answer has stood still for five seconds: an early answer is not lost by that. It is where the client ends such a
///   request by trailers.
#[must_use]
pub struct Server {
    listener: TlsListener,
    drain: Option<ServerDrain>,
    connections: Connections,
}

/// How connections are served.
#[derive(Clone)]
struct Connections {
    http1: hyper_http1::Builder,
    http2: hyper_http2::Builder<TokioExecutor>,
    max_age: Option<Duration>,
    stall_timeout: Duration,
}

impl Server {
    /// Default time for the head of a request, which bounds an idle connection, too. It also bounds the wait for an HTTP/2 client's
    /// preface.
    pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
    /// Default number of HTTP/2 streams that a client may have open.
    pub const MAX_CONCURRENT_STREAMS: u32 = 200;
    /// Default [stall limit](Self::stall_timeout), as nginx's `send_timeout` and `client_body_timeout`.
    pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);
    /// By how much at most, as a part of it, the [age limit](Self::max_connection_age) of a connection differs at random.
    pub const AGE_JITTER: f64 = 0.1;

    /// A server with defaults that suit the open Internet.
    ///
    /// Clients of HTTP/1 may close their half of the connection right after a request (`half_close`): a client that sends close_notify
    /// there waits for the answer. HTTP/2 has no such half: what is unanswered is reset.
    pub fn new(listener: TlsListener) -> Self {
        let mut http1 = hyper_http1::Builder::new();
        http1.timer(TokioTimer::new()).header_read_timeout(Self::HEADER_TIMEOUT).half_close(true);
        let mut http2 = hyper_http2::Builder::new(TokioExecutor::new());
        http2.timer(TokioTimer::new()).max_concurrent_streams(Self::MAX_CONCURRENT_STREAMS);
        let connections = Connections { http1, http2, max_age: None, stall_timeout: Self::STALL_TIMEOUT };
        Self { listener, drain: None, connections }
    }

    /// Configures HTTP/1, with hyper's own builder.
    pub fn http1(mut self, configure: impl FnOnce(&mut hyper_http1::Builder) -> &mut hyper_http1::Builder) -> Self {
        configure(&mut self.connections.http1);
        self
    }

    /// Configures HTTP/2, with hyper's own builder.
    pub fn http2(
        mut self,
        configure: impl FnOnce(&mut hyper_http2::Builder<TokioExecutor>) -> &mut hyper_http2::Builder<TokioExecutor>,
    ) -> Self {
        configure(&mut self.connections.http2);
        self
    }

    /// Has connections end after this time, by [`AGE_JITTER`](Self::AGE_JITTER) more or less, as in a server drain: with a last
    /// request, or GOAWAY. Clients then connect anew, to whatever a balancer has by then, and drains are short. Default: none.
    pub fn max_connection_age(mut self, limit: Duration) -> Self {
        self.connections.max_age = Some(limit);
        self
    }

    /// Ends connections whose client takes nothing of a response for so long, or, on HTTP/1, sends no TLS record of a request's body
    /// that the service waits for. On Linux a client has taken what its system has acknowledged; elsewhere, what there is room for again.
    /// It is looked at now and then: no response is cut earlier, and some stand still for up to twice as long. Upgraded connections are
    /// their owner's to bound. Default: [`STALL_TIMEOUT`](Self::STALL_TIMEOUT).
    ///
    /// On HTTP/2 a client may read everything, and open no window (RFC 9113 section 5.2). Where that holds up all of its streams, among
    /// which may be tunnels, for five times the limit, the connection is ended: many clients open a window only when they have used up
    /// half of it, and some have windows of megabytes.
    ///
    /// Its limit: an HTTP/2 client that does not go on with a body, or has no stream open at all, takes no time of this: such streams
    /// and connections may have a purpose. hyper's `keep_alive_interval` ends those that are gone; the others last until the
    /// [age limit](Self::max_connection_age) or a drain.
    pub fn stall_timeout(mut self, limit: Duration) -> Self {
        self.connections.stall_timeout = limit;
        self
    }

    /// Has `on_end` called once for each connection that was accepted: [`TlsListener::on_end`].
    pub fn on_end(mut self, on_end: impl Fn(&ConnectionReport) + Send + Sync + 'static) -> Self {
        self.listener = self.listener.on_end(on_end);
        self
    }

    /// Ends as `drain` says. Without, it never ends by itself.
    pub fn drain(mut self, drain: ServerDrain) -> Self {
        self.drain = Some(drain);
        self
    }

    /// Serves until the server is drained. Gives the report of that.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime with time enabled.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends all connections, truthfully, and without a drain.
    pub async fn serve<S, B>(self, service: S) -> DrainReport
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let mut server = self;
        let drain = server.drain.take().unwrap_or_else(|| ServerDrain::on(std::future::pending()));
        let handle = drain.handle();
        drain.run(server.serve_in(&handle, service)).await
    }

    /// Serves as a part of a drain that somebody else [runs](ServerDrain::run), together with other servers for example. A
    /// [`drain`](Self::drain) of its own is not looked at. Returns when the drain has stopped it, and its connections have ended.
    ///
    /// ```no_run
    /// # use tls_shutdown::server::{DrainReport, Server, ServerDrain};
    /// # async fn example<S>(public: Server, admin: Server, app: S) -> std::io::Result<DrainReport>
    /// # where
    /// #     S: tower_service::Service<
    /// #             hyper::Request<hyper::body::Incoming>,
    /// #             Response = hyper::Response<String>,
    /// #             Error = std::convert::Infallible,
    /// #         > + Clone + Send + 'static,
    /// #     S::Future: Send,
    /// # {
    /// let drain = ServerDrain::on_terminate_signal()?;
    /// let handle = drain.handle();
    /// let both = async {
    ///     tokio::join!(public.serve_in(&handle, app.clone()), admin.serve_in(&handle, app));
    /// };
    /// Ok(drain.run(both).await)
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime with time enabled.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends all connections, truthfully, and without a drain.
    pub async fn serve_in<S, B>(self, drain: &DrainHandle, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let Self { listener, connections, .. } = self;
        let mut listener = listener.with_drain(drain);
        // Dropped with this future, and with it all connections that are not upgraded.
        let mut tasks = JoinSet::new();
        loop {
            let accept = poll_fn(|cx| {
                while let Poll::Ready(Some(_)) = tasks.poll_join_next(cx) {}
                listener.poll_accept(cx)
            });
            let Some(accept) = accept.await else { break };
            let span = tracing::debug_span!("connection", peer = %accept.peer(), protocol = tracing::field::Empty);
            let served = serve_connection(accept, service.clone(), connections.clone(), drain.clone());
            // Boxed, since a task is copied as a whole when its end is heard of.
            tasks.spawn(Box::pin(served.instrument(span)));
        }
        while tasks.join_next().await.is_some() {}
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("listener", &self.listener)
            .field("drain", &self.drain)
            .field("max_age", &self.connections.max_age)
            .field("stall_timeout", &self.connections.stall_timeout)
            .finish_non_exhaustive()
    }
}

/// What a request's connection is, in the request's extensions. Clones are cheap.
#[derive(Clone)]
pub struct ConnectionInfo {
    facts: Arc<Facts>,
}

struct Facts {
    peer: SocketAddr,
    protocol: Option<Vec<u8>>,
    server_name: Option<String>,
    certificates: Vec<CertificateDer<'static>>,
    drain: DrainHandle,
}

impl ConnectionInfo {
    fn new(stream: &ServerStream, connection: &Connection, drain: &DrainHandle) -> Self {
        let tls = stream.get_ref().get_ref().get_ref().1;
        let certificates = tls.peer_certificates().unwrap_or_default();
        Self {
            facts: Arc::new(Facts {
                peer: connection.peer,
                protocol: tls.alpn_protocol().map(<[u8]>::to_vec),
                server_name: tls.server_name().map(str::to_owned),
                certificates: certificates.iter().cloned().map(CertificateDer::into_owned).collect(),
                drain: drain.clone(),
            }),
        }
    }

    /// The peer's address; what the [hook before TLS](TlsListener::before_tls) said, if there is one.
    pub fn peer(&self) -> SocketAddr {
        self.facts.peer
    }

    /// The protocol that ALPN has chosen (RFC 7301).
    pub fn protocol(&self) -> Option<&[u8]> {
        self.facts.protocol.as_deref()
    }

    /// The name of the server that the client has asked for (SNI).
    pub fn server_name(&self) -> Option<&str> {
        self.facts.server_name.as_deref()
    }

    /// The client's certificate chain, its own first; empty where none was asked for or sent.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.facts.certificates
    }

    /// The server drain, so that endless responses and upgraded connections can end with it.
    pub fn drain(&self) -> &DrainHandle {
        &self.facts.drain
    }
}

impl fmt::Debug for ConnectionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionInfo")
            .field("peer", &self.peer())
            .field("protocol", &self.protocol().map(String::from_utf8_lossy))
            .field("server_name", &self.server_name())
            .finish_non_exhaustive()
    }
}

/// The service of one connection, as hyper calls it.
struct HttpService<S> {
    service: TowerToHyperService<S>,
    connection: Arc<Connection>,
    info: ConnectionInfo,
    exchanges: Exchanges,
}

/// Who is told of each request and response, for the stream's sake.
enum Exchanges {
    Http1(Arc<Http1>),
    Http2(Arc<Control>),
}

impl<S, B> HyperService<Request<Incoming>> for HttpService<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone,
    B: Body,
{
    type Response = Response<ServedBody<B>>;
    type Error = S::Error;
    type Future = Answer<<TowerToHyperService<S> as HyperService<Request<Incoming>>>::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let in_flight = self.connection.begin_request();
        #[cfg(feature = "axum")]
        request.extensions_mut().insert(axum::extract::ConnectInfo(self.info.peer()));
        request.extensions_mut().insert(self.info.clone());
        let http1 = match &self.exchanges {
            Exchanges::Http1(http1) => {
                http1.asked();
                Some((http1.clone(), self.info.drain().clone()))
            }
            Exchanges::Http2(control) => {
                control.has_request(&request);
                None
            }
        };
        let (method, version) = (request.method().clone(), request.version());
        // hyper polls what belongs to an HTTP/2 stream in a task of its own.
        let span = Span::current();
        Answer { http1, in_flight, method, version, span, answer: self.service.call(request) }
    }
}

pin_project! {
    /// The future of [`HttpService`].
    struct Answer<F> {
        http1: Option<(Arc<Http1>, DrainHandle)>,
        in_flight: Option<InFlight>,
        method: Method,
        version: Version,
        span: Span,
        #[pin]
        answer: F,
    }
}

impl<F, B, E> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<ServedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = {
            let _in_span = this.span.enter();
            ready!(this.answer.poll(cx))?
        };
        let exchange: Option<Exchange> = this.http1.take().map(|(http1, drain)| {
            if http1.is_last_request() || drain.phase() >= DrainPhase::LastRequest {
                announce_close(&mut response);
            }
            http1.begin(this.method, *this.version, &response)
        });
        let in_flight = this.in_flight.take();
        let span = std::mem::replace(this.span, Span::none());
        Poll::Ready(Ok(response.map(|body| ServedBody::new(body, exchange, span, in_flight))))
    }
}

/// Serves a connection to its end. Whatever way that comes, the drop of its [`HttpStream`] ends it truthfully.
async fn serve_connection<S, B>(stream: ServerStream, service: S, connections: Connections, drain: DrainHandle)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let connection = stream.connection().clone();
    let info = ConnectionInfo::new(&stream, &connection, &drain);
    let peer = info.peer();
    let protocol = String::from_utf8_lossy(info.protocol().unwrap_or(b"http/1.1"));
    Span::current().record("protocol", &*protocol);
    let life = Life { max_age: connections.max_age.map(with_jitter), drain };
    let service = TowerToHyperService::new(service);
    let result = if info.protocol() == Some(b"h2") {
        let control = Arc::new(Control::new());
        let io = HttpStream::http2(stream, connection.clone(), control.clone(), connections.stall_timeout);
        let service = HttpService { service, connection, info, exchanges: Exchanges::Http2(control.clone()) };
        serve_http2(pin!(connections.http2.serve_connection(TokioIo::new(io), service)), &control, &life).await
    } else {
        let http1 = Arc::new(Http1::default());
        let io = HttpStream::http1(stream, connection.clone(), http1.clone(), connections.stall_timeout);
        let service = HttpService { service, connection, info, exchanges: Exchanges::Http1(http1.clone()) };
        let connection = connections.http1.serve_connection(TokioIo::new(io), service).with_upgrades();
        serve_http1(pin!(connection), &http1, &life).await
    };
    if let Err(error) = result {
        tracing::debug!(%peer, error = &error as &dyn Error, "the HTTP connection failed");
    }
}

/// When a connection has to end.
struct Life {
    max_age: Option<Duration>,
    drain: DrainHandle,
}

impl Life {
    /// Resolves when there should be one more request at most.
    async fn is_over(&self) {
        let age = async {
            match self.max_age {
                Some(limit) => sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = age => {}
            () = self.drain.reached(DrainPhase::LastRequest) => {}
        }
    }

    /// Resolves when an idle connection has had its window for that request.
    async fn window(&self) {
        let timing = *self.drain.timing();
        self.wait(timing.last_request.saturating_add(at_random(timing.jitter))).await;
    }

    async fn spread(&self) {
        let timing = *self.drain.timing();
        self.wait(at_random(timing.jitter)).await;
    }

    /// Waits for `time`, to the deadline at most.
    async fn wait(&self, time: Duration) {
        if time.is_zero() {
            return;
        }
        tokio::select! {
            () = sleep(time) => {}
            () = self.deadline() => {}
        }
    }

    async fn deadline(&self) {
        self.drain.reached(DrainPhase::Deadline).await;
    }
}

fn with_jitter(limit: Duration) -> Duration {
    scaled(limit, 1.0 + Server::AGE_JITTER * (2.0 * fastrand::f64() - 1.0))
}

fn at_random(limit: Duration) -> Duration {
    scaled(limit, fastrand::f64())
}

/// A limit that means "never" stays one.
fn scaled(limit: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(limit.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

async fn serve_http1<S, B>(
    mut connection: Pin<&mut hyper_http1::UpgradeableConnection<TokioIo<HttpStream>, HttpService<S>>>,
    http1: &Http1,
    life: &Life,
) -> hyper::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    tokio::select! {
        biased;
        () = life.is_over() => {}
        result = connection.as_mut() => return result,
    }
    http1.announce_last_request();
    tokio::select! {
        biased;
        () = life.window() => {}
        result = connection.as_mut() => return result,
    }
    // A request may be in the system's buffer, and Tokio's sockets ask the system again only after a turn of the runtime.
    yield_now().await;
    // What hyper has of a head it would throw away. Its header timeout bounds the wait for the rest.
    let no_head = poll_fn(|cx| match connection.as_mut().poll(cx) {
        Poll::Pending if !http1.has_half_head() => Poll::Ready(None),
        poll => poll.map(Some),
    });
    tokio::select! {
        biased;
        end = no_head => if let Some(result) = end { return result },
        () = life.deadline() => return Ok(()),
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        biased;
        result = connection => result,
        () = life.deadline() => Ok(()),
    }
}

async fn serve_http2<S, B>(
    mut connection: Pin<&mut hyper_http2::Connection<TokioIo<HttpStream>, HttpService<S>, TokioExecutor>>,
    control: &Control,
    life: &Life,
) -> hyper::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let mut ends = pin!(life.is_over());
    tokio::select! {
        biased;
        () = ends.as_mut() => {}
        result = connection.as_mut() => return result,
        // h2 waits for ever for a client that does not say all of its preface, and cannot be told to stop.
        () = sleep(Server::HEADER_TIMEOUT) => {
            if !control.has_preface() {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = ends => {}
                result = connection.as_mut() => return result,
            }
        }
    }
    let wait = async {
        match control.has_preface() {
            true => life.spread().await,
            false => life.window().await,
        }
    };
    tokio::select! {
        biased;
        () = wait => {}
        result = connection.as_mut() => return result,
    }
    // As for HTTP/1.
    yield_now().await;
    if let Poll::Ready(result) = poll_fn(|cx| Poll::Ready(connection.as_mut().poll(cx))).await {
        return result;
    }
    if !control.has_preface() {
        return Ok(());
    }
    //= https://www.rfc-editor.org/rfc/rfc9113#section-6.8
    //# A server that is attempting to gracefully shut down a connection
    //# SHOULD send an initial GOAWAY frame with the last stream identifier
    //# set to 2^31-1 and a NO_ERROR code.
    connection.as_mut().graceful_shutdown();
    let ping_timeout = life.drain.timing().ping_timeout;
    tokio::select! {
        biased;
        result = connection.as_mut() => return result,
        () = life.wait(ping_timeout) => {}
    }
    control.answer_ping();
    let end = poll_fn(|cx| match connection.as_mut().poll(cx) {
        Poll::Pending if control.is_stalled() => Poll::Ready(Ok(())),
        poll => poll,
    });
    tokio::select! {
        biased;
        result = end => result,
        () = life.deadline() => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_never_come_are_no_overflow() {
        for limit in [Duration::ZERO, Duration::from_secs(10), Duration::MAX] {
            for _ in 0..100 {
                assert!(at_random(limit) <= limit);
                let age = with_jitter(limit);
                assert!(
                    age <= scaled(limit, 1.0 + Server::AGE_JITTER) && age >= scaled(limit, 1.0 - Server::AGE_JITTER)
                );
            }
        }
    }
}
