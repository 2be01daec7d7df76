//! [`Server`]: HTTP/1 and HTTP/2 with hyper, over TLS, TCP and Unix sockets. Every connection ends truthfully.

mod accepted_stream;
mod connection;
mod connection_info;
mod drain;
mod endless;
mod handshake_failure;
mod http_stream;
mod lifetime;
mod listener;
mod negotiated;
mod peer;
mod plain_stream;
mod report;
mod retirement;
mod serve_connection;
mod serve_http1;
mod serve_http2;
mod service;
mod stream;
mod tickets;
mod unacknowledged;
mod unread_body;

pub use accepted_stream::AcceptedStream;
pub use connection_info::ConnectionInfo;
pub use drain::{
    Acknowledgement, DrainGuard, DrainHandle, DrainLayer, DrainPhase, DrainReport, DrainResponse, DrainService, Notice,
    Readiness, ServerDrain,
};
pub use endless::{DrainBody, EndlessResponse};
pub use handshake_failure::HandshakeFailure;
#[cfg(unix)]
pub use listener::UnixSocket;
pub use listener::{ConfigHandle, Listener, ServerListener, TcpSocket, TlsAcceptor, TlsListener};
pub use negotiated::Protocol;
pub use peer::{Peer, Transport};
pub use report::{ConnectionReport, ResponseDelivery};
pub use serve_http2::HyperExecutor;
pub use stream::ServerStream;
pub use tickets::{InvalidTicketKey, TicketKey, TicketKeys, UnsupportedProvider};

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http_body::Body;
use hyper::{
    Request, Response,
    body::Incoming,
    server::conn::{http1, http2},
};
use hyper_util::rt::TokioTimer;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::task::TaskTracker;
use tower_service::Service;
use tracing::Instrument;

use self::{
    connection::OnConnectionEnd,
    endless::kind::LeftToApplication,
    lifetime::Limits,
    serve_connection::{ConnectionOptions, serve_connection},
    service::Insert,
};
// The only import that runs upwards: handlers find what their framework looks for, and no user has to ask for it.
use crate::{
    http::BoxError,
    integrations::add_connect_info,
    runtime::{debug::debug_struct, timer::not_zero},
};

/// Serves HTTP/1 and HTTP/2 with hyper, over TLS, TCP and Unix sockets. ALPN selects the version; without ALPN, the first bytes do: a client
/// may begin with HTTP/2 (prior knowledge). A client that negotiates `h2` and speaks HTTP/1 is served, too.
///
/// - **Every path ends truthfully.** If no message was cut, the connection ends with close_notify: when it is idle, at a header timeout, a
///   parse error, an error or panic of the service before the response, a server drain, an aborted task. If a response was cut whose end is
///   the end of the connection (RFC 9112 section 9.8), it ends with RST and without close_notify, also if the process is killed. HTTP/2
///   clients receive RST_STREAM for each cut response, GOAWAY and close_notify.
/// - A response that was sent before the request was read arrives: the listener's [reaper](crate::Reaper) reads the rest of the request.
///   If the service drops a request that has not come whole, the HTTP/1 response says `Connection: close`, or the connection stays in use.
///   A service that drops the request after the response has begun cannot say so any more: read the request to its end.
/// - An HTTP/2 client that cancels its requests faster than they can be answered (rapid reset, CVE-2023-44487) receives GOAWAY with
///   ENHANCE_YOUR_CALM. It may cancel 200 at once, 100 more in each second, and one more for four complete responses.
/// - [`drain`](Self::drain) ends the server without losing a request. It ends event streams, WebSockets and gRPC calls in the way of their
///   [protocol](EndlessResponse), and the application need not know of that.
/// - A truncation or a reset by the client ends its connection at once, and drops the service's future.
/// - What the server and the service log about a connection is in a span `connection` with its `peer` and `protocol`, at level DEBUG.
/// - Each request carries a [`ConnectionInfo`] in its extensions. With feature `axum` also axum's `ConnectInfo<ConnectionInfo>`, and
///   `ConnectInfo<SocketAddr>` if the peer has an address, with feature `tonic` what `request.remote_addr()` and `peer_certs()` need.
///   [`connect_info`](Self::connect_info) adds values of your own.
///
/// To offer HTTP/2 over TLS, use [`TlsListener::bind_pem`], or set `config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()]` in
/// the listener's configuration. Without ALPN, most clients speak HTTP/1, and the log states that once.
///
/// Without TLS, FIN takes the place of close_notify in all of this. A cut response is reset over TCP; a Unix socket has no reset.
///
/// The service is a `tower::Service`, which is cloned for each request: an `axum::Router`, tonic's `Routes`, `tower::service_fn`.
///
/// ```no_run
/// # use std::time::Duration;
/// # use tls_shutdown::server::{Server, ServerDrain, TlsListener};
/// # async fn example(config: rustls::ServerConfig, app: tls_shutdown::server::Readiness) -> std::io::Result<()> {
/// let listener = TlsListener::bind("0.0.0.0:8443", config).await?;
/// let report = Server::new(listener)
///     .header_timeout(Duration::from_secs(10))
///     .http2(|http2| http2.max_concurrent_streams(100))
///     .on_end(|report| println!("{report}"))
///     .drain(ServerDrain::on_terminate_signal()?.grace_period(Duration::from_secs(60)))
///     .serve(app)
///     .await;
/// println!("{report}");
/// # Ok(())
/// # }
/// ```
///
/// Its limits:
///
/// - If the deadline cuts an HTTP/1 response that is framed by Content-Length or chunks, the connection ends with close_notify. The framing
///   shows the cut to each client that checks it.
/// - Without TLS, a client that sends FIN while it is answered may have closed only its half, and is answered. A client that has left is
///   noticed when its system resets the connection. `half_close(false)` of [`http1`](Self::http1) takes FIN for a client that has left.
/// - A disconnect is noticed only after all received bytes have been read, so not while the service leaves a request's body unread. A client
///   that has sent close_notify may still wait for its response, and is answered. If it has left, the next write shows that, and nothing
///   before. `half_close(false)` takes close_notify, too, for a client that has left.
/// - If an HTTP/2 request ends short of its Content-Length after you have answered, the body error is delayed until the response makes no
///   progress for 5 s, so that the response is not lost. Exception: requests that end with trailers.
#[must_use]
pub struct Server {
    listeners: Vec<ServerListener>,
    on_end: Vec<OnConnectionEnd>,
    drain: Option<ServerDrain>,
    max_connections: Option<usize>,
    options: ConnectionOptions,
}

impl Server {
    /// Default [header timeout](Self::header_timeout).
    pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
    /// Default [idle timeout](Self::idle_timeout), as nginx's `keepalive_timeout`. It is longer than the 60 s for which most load balancers
    /// keep idle connections: the side that closes first should be the one that sends requests.
    pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
    /// Default number of HTTP/2 streams that a client may have open.
    pub const MAX_CONCURRENT_STREAMS: u32 = 200;
    /// Default [stall timeout](Self::stall_timeout), as nginx's `send_timeout` and `client_body_timeout`.
    pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);
    /// The part of the [maximum age](Self::max_connection_age) by which the age of a connection differs at random, at most.
    pub const AGE_JITTER: f64 = lifetime::AGE_JITTER;

    /// Creates a server with defaults that suit the open Internet.
    ///
    /// A client may close its half of the connection right after a request: it still receives its response. On HTTP/2, it receives as much
    /// of it as its windows let through, since it can no longer open them. The rest is reset and counted.
    ///
    /// The listener is a [`TlsListener`], or, without TLS, a [`TcpSocket`], a [`UnixSocket`], tokio's `TcpListener` or `UnixListener`, or a
    /// [`Listener`] of your own. [`add_listener`](Self::add_listener) adds more.
    pub fn new(listener: impl Into<ServerListener>) -> Self {
        let mut http1 = http1::Builder::new();
        http1.timer(TokioTimer::new()).header_read_timeout(None).half_close(true);
        let mut http2 = http2::Builder::new(HyperExecutor::new());
        http2.timer(TokioTimer::new()).max_concurrent_streams(Self::MAX_CONCURRENT_STREAMS);
        let (connect_info, stall_timeout) = (Vec::new(), Self::STALL_TIMEOUT);
        let (header_timeout, idle_timeout) = (Self::HEADER_TIMEOUT, Self::IDLE_TIMEOUT);
        let limits = Limits { header_timeout, idle_timeout, ..Limits::NONE };
        let left_to_application = LeftToApplication::default();
        let options = ConnectionOptions { http1, http2, connect_info, limits, stall_timeout, left_to_application };
        let (listeners, on_end) = (vec![listener.into()], Vec::new());
        add_connect_info(Self { listeners, on_end, drain: None, max_connections: None, options })
    }

    /// Serves the connections of another listener, too, by the same service and in the same drain.
    ///
    /// ```no_run
    /// # use tls_shutdown::server::{Readiness, Server, ServerDrain, TcpSocket, TlsListener, UnixSocket};
    /// # async fn example(config: rustls::ServerConfig, app: Readiness) -> std::io::Result<()> {
    /// let report = Server::new(TlsListener::bind("0.0.0.0:8443", config).await?)
    ///     .add_listener(TcpSocket::bind("127.0.0.1:8080").await?)
    ///     .add_listener(UnixSocket::bind("/run/app/http.sock").await?)
    ///     .drain(ServerDrain::on_terminate_signal()?)
    ///     .serve(app)
    ///     .await;
    /// # let _ = report;
    /// # Ok(())
    /// # }
    /// ```
    pub fn add_listener(mut self, listener: impl Into<ServerListener>) -> Self {
        self.listeners.push(listener.into());
        self
    }

    /// Configures HTTP/1 with hyper's own builder.
    pub fn http1(mut self, configure: impl FnOnce(&mut http1::Builder) -> &mut http1::Builder) -> Self {
        configure(&mut self.options.http1);
        self
    }

    /// Configures HTTP/2 with hyper's own builder.
    pub fn http2(
        mut self,
        configure: impl FnOnce(&mut http2::Builder<HyperExecutor>) -> &mut http2::Builder<HyperExecutor>,
    ) -> Self {
        configure(&mut self.options.http2);
        self
    }

    /// Inserts a value into the extensions of each request. `make` is called once for each connection. If it returns `None`, nothing is
    /// inserted.
    ///
    /// ```
    /// # use tls_shutdown::server::Server;
    /// #[derive(Clone)]
    /// struct Cipher(Option<rustls::CipherSuite>);
    ///
    /// # fn example(server: Server) -> Server {
    /// server.connect_info(|stream| {
    ///     let (_, tls) = stream.tls()?.get_ref().get_ref().get_ref();
    ///     Some(Cipher(tls.negotiated_cipher_suite().map(|cipher| cipher.suite())))
    /// })
    /// # }
    /// ```
    pub fn connect_info<T: Clone + Send + Sync + 'static>(
        self,
        make: impl Fn(&AcceptedStream) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        self.insert_into_requests(move |stream, _| make(stream))
    }

    /// As [`connect_info`](Self::connect_info), and `make` receives what requests know of the connection.
    pub(crate) fn insert_into_requests<T: Clone + Send + Sync + 'static>(
        mut self,
        make: impl Fn(&AcceptedStream, &ConnectionInfo) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        self.options.connect_info.push(Box::new(move |stream, info| {
            let value = make(stream, info)?;
            let insert: Insert = Box::new(move |extensions| drop(extensions.insert(value.clone())));
            Some(insert)
        }));
        self
    }

    /// Limits the connections of all listeners together, from the accept on. Those that are closing in the background do not count: the
    /// listener's [reaper](crate::Reaper) has a limit of its own.
    ///
    /// At the limit, a further connection ends one that has been idle for a second or longer, which need not be the one that has been so for
    /// longest. If there is none, it waits until a connection ends. Behind it, connections wait in the system's queue. A server drain accepts
    /// all that wait. Default: no maximum.
    ///
    /// # Panics
    ///
    /// If `max` is 0.
    pub fn max_connections(mut self, max: usize) -> Self {
        assert!(max > 0, "a server without connections serves nothing");
        self.max_connections = Some(max);
        self
    }

    /// Ends connections at this age, more or less by [`AGE_JITTER`](Self::AGE_JITTER), as a server drain does: with a last request, or
    /// with GOAWAY. Clients then connect anew, to another server if a balancer has one, and drains are short. Default: no maximum.
    pub fn max_connection_age(mut self, age: Duration) -> Self {
        self.options.limits.max_age = Some(age);
        self
    }

    /// Ends connections after this number of requests, as [`max_connection_age`](Self::max_connection_age) does. On HTTP/2, requests that are
    /// on their way are still answered, also beyond the number. Default: no maximum.
    ///
    /// # Panics
    ///
    /// If `max` is 0.
    pub fn max_requests(mut self, max: u64) -> Self {
        assert!(max > 0, "a connection without a request serves nothing");
        self.options.limits.max_requests = Some(max);
        self
    }

    /// Closes a connection whose client takes longer than this for the head of an HTTP/1 request, from its first byte on, or for the preface
    /// of HTTP/2. On an HTTP/2 connection without other requests, also if it takes longer than this for the CONTINUATION frames of a request.
    /// Default: [`HEADER_TIMEOUT`](Self::HEADER_TIMEOUT).
    ///
    /// # Panics
    ///
    /// If `timeout` is 0. For no limit, use [`Duration::MAX`].
    pub fn header_timeout(mut self, timeout: Duration) -> Self {
        self.options.limits.header_timeout = not_zero(timeout);
        self
    }

    /// Ends a connection that has had no request in flight for this long. HTTP/2 clients receive GOAWAY. Default:
    /// [`IDLE_TIMEOUT`](Self::IDLE_TIMEOUT).
    ///
    /// An HTTP/1 client may send its next request in the moment in which the connection is closed. RFC 9112 section 9.3.1 lets it repeat
    /// only idempotent requests. So let the client's own idle timeout be shorter.
    ///
    /// # Panics
    ///
    /// If `timeout` is 0. For no limit, use [`Duration::MAX`].
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.options.limits.idle_timeout = not_zero(timeout);
        self
    }

    /// Closes a connection whose client reads nothing of a response for this long, or, on HTTP/1, sends no TLS record of a request's
    /// body that the service waits for. On Linux a client has read what its system has acknowledged; elsewhere, what made room in the
    /// socket. Detection takes between one and two times the timeout. Upgraded connections are not bounded by it. Default:
    /// [`STALL_TIMEOUT`](Self::STALL_TIMEOUT).
    ///
    /// An HTTP/2 client may read everything and open no window (RFC 9113 section 5.2), or may not continue a request that is not answered.
    /// The connection is closed if all of its requests, tunnels included, stand still for five times the timeout: many clients open a window
    /// only when half of it is used, some windows have megabytes, and the messages of a gRPC stream may be far apart.
    ///
    /// Its limit: it does not bound a request whose response has begun, while both sides are silent. If the client is gone, hyper's
    /// `keep_alive_interval` ends the connection. If not, the [maximum age](Self::max_connection_age) or a drain does.
    ///
    /// # Panics
    ///
    /// If `timeout` is 0. For no limit, use [`Duration::MAX`].
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.options.stall_timeout = not_zero(timeout);
        self
    }

    /// Leaves a kind of endless response to the application. By default, the server ends each [kind](EndlessResponse) in the way of its
    /// protocol when it drains. An application that ends its own finds the phase in [`ConnectionInfo::drain`]. Default: none.
    ///
    /// ```
    /// # use tls_shutdown::server::{EndlessResponse, Server};
    /// # fn example(server: Server) -> Server {
    /// server.leave_to_application(EndlessResponse::WebSocket)
    /// # }
    /// ```
    pub fn leave_to_application(mut self, kind: EndlessResponse) -> Self {
        self.options.left_to_application.leave(kind);
        self
    }

    /// Calls `on_end` once for each accepted connection of every listener, as [`TlsListener::on_end`] does.
    pub fn on_end(mut self, on_end: impl Fn(&ConnectionReport) + Send + Sync + 'static) -> Self {
        self.on_end.push(Arc::new(on_end));
        self
    }

    /// Sets when and how the server ends. Default: never by itself.
    pub fn drain(mut self, drain: ServerDrain) -> Self {
        self.drain = Some(drain);
        self
    }

    /// Serves until the server is drained. Returns the report of the drain.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with time enabled.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends all connections truthfully, without a drain, but for those that were upgraded: they belong to their owners.
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
        drain.run(server.serve_in(&handle, service)).await.0
    }

    /// Serves as a part of a drain that somebody else [runs](ServerDrain::run), for example together with other servers. The server's own
    /// [`drain`](Self::drain) is ignored. Returns when the drain has stopped it and its connections have ended.
    ///
    /// ```no_run
    /// # use tls_shutdown::server::{DrainReport, Readiness, Server, ServerDrain};
    /// # async fn example(public: Server, admin: Server, app: Readiness) -> std::io::Result<DrainReport> {
    /// let drain = ServerDrain::on_terminate_signal()?;
    /// let handle = drain.handle();
    /// let both = async {
    ///     tokio::join!(public.serve_in(&handle, app), admin.serve_in(&handle, handle.readiness()));
    /// };
    /// Ok(drain.run(both).await.0)
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with time enabled.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends all connections truthfully, without a drain, but for those that were upgraded: they belong to their owners.
    pub async fn serve_in<S, B>(self, drain: &DrainHandle, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let (on_end, options) = (self.on_end, Arc::new(self.options));
        let mut listeners = self.listeners;
        let places = self.max_connections.map(|max| Arc::new(Semaphore::new(max)));
        listeners.iter_mut().for_each(|listener| listener.0.join(drain, &on_end, places.as_ref()));
        // Dropped with this future, and with it all connections that are not upgraded.
        let mut tasks = JoinSet::new();
        // Of those in `tasks` that have not ended. To wait for it wakes this task once, and not for each connection that ends in a drain.
        let connections = TaskTracker::new();
        while let Some(stream) = poll_fn(|cx| poll_accept(&mut listeners, cx)).await {
            while tasks.try_join_next().is_some() {}
            let span = tracing::debug_span!("connection", peer = %stream.peer(), protocol = tracing::field::Empty);
            let served = serve_connection(stream, service.clone(), options.clone(), drain.clone());
            // Boxed, since Tokio moves a whole task when it ends.
            tasks.spawn(Box::pin(connections.track_future(served.instrument(span))));
        }
        connections.close();
        connections.wait().await;
    }
}

debug_struct!({} Server, |server| {
    listeners: server.listeners,
    drain: server.drain,
    max_connections: server.max_connections,
    max_age: server.options.limits.max_age,
    max_requests: server.options.limits.max_requests,
    header_timeout: server.options.limits.header_timeout,
    idle_timeout: server.options.limits.idle_timeout,
    stall_timeout: server.options.stall_timeout,
});

/// The next connection of any listener. `None` once all of them are closed.
fn poll_accept(listeners: &mut [ServerListener], cx: &mut Context<'_>) -> Poll<Option<AcceptedStream>> {
    let mut result = Poll::Ready(None);
    for index in 0..listeners.len() {
        match listeners[index].0.poll_accept(cx) {
            Poll::Ready(Some(stream)) => {
                // Clients of one listener must not keep those of another waiting.
                listeners.rotate_left(index + 1);
                return Poll::Ready(Some(stream));
            }
            Poll::Ready(None) => {}
            Poll::Pending => result = Poll::Pending,
        }
    }
    result
}
