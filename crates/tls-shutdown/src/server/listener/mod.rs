//! [`TlsListener`]: accepts TLS connections side by side, and stops without losing one.

mod accept_errors;
mod acceptor;
mod bind;
mod bound_sessions;
mod client_auth;
mod client_hello;
mod config;
mod handshakes;
mod listening_socket;
mod pem;
mod plain;
mod server_listener;
mod tcp_socket;
#[cfg(unix)]
mod unix;

pub use acceptor::TlsAcceptor;
pub use config::ConfigHandle;
pub use listening_socket::Listener;
pub use server_listener::ServerListener;
pub use tcp_socket::TcpSocket;
#[cfg(unix)]
pub use unix::UnixSocket;

use std::{
    future::Future,
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream, ToSocketAddrs, lookup_host},
    sync::Semaphore,
};

use self::{
    handshakes::{HandshakeOptions, Handshakes},
    listening_socket::{Arrival, ListeningSocket},
    pem::PemFiles,
    server_listener::AnyListener,
};
use super::{
    accepted_stream::AcceptedStream,
    connection::{ConnectionObservers, OnConnectionEnd},
    drain::{Delivery, DrainHandle, ListenerInDrain, ListenerUser},
    report::ConnectionReport,
    stream::ServerStream,
};
use crate::{
    runtime::{debug::debug_struct, timer::not_zero},
    tls::{Reaper, ShutdownPolicy},
};

/// Listens on a TCP socket and returns TLS connections whose handshake is finished.
///
/// - Handshakes run side by side, each within a [timeout](Self::handshake_timeout), so that a slow client delays nobody. At the
///   [limit](Self::max_handshakes), the oldest handshake without a complete ClientHello is shed.
/// - Its streams shut down by the listener's [policy](Self::with_policy), unidirectionally by default, and have its
///   [reaper](Self::with_reaper).
/// - [`on_end`](Self::on_end) is called once for each accepted connection, also if its handshake failed.
/// - [In a server drain](Self::with_drain), it accepts the connections in the system's queue, then closes the socket. It still returns
///   the connections whose handshakes are in progress.
/// - It logs errors of the system, a lack of file descriptors for example, and retries after a pause.
///
/// [`accept`](Self::accept) returns the connections. The listener is also a [`Stream`] of them, as tonic needs it, and, with features
/// of these names, what `axum::serve`, axum-server, poem and salvo accept from.
///
/// ```
/// # use std::sync::Arc;
/// # use tls_shutdown::server::TlsListener;
/// # async fn example(config: rustls::ServerConfig) -> std::io::Result<()> {
/// let mut listener = TlsListener::bind("127.0.0.1:8443", config)
///     .await?
///     .on_end(|report| println!("{report}"));
/// while let Some((stream, peer)) = listener.accept().await {
///     // Serve it, shut it down, drop it.
/// #   let _ = (stream, peer);
/// }
/// # Ok(())
/// # }
/// ```
///
/// A drain resets no client that connects while it closes the socket, within the limits of [`TcpSocket`]. If another process may have the
/// socket, too, a connection that enters the queue behind the last accept is reset: after [`as_fd`](Self::as_fd), and on a socket of
/// [`from_std`](Self::from_std) or [`from_tcp`](Self::from_tcp). A [notice](crate::server::ServerDrain::notice), or a successor that shares
/// the socket, avoids that.
#[must_use = "dropping the listener closes its socket and resets the connections in its queue"]
pub struct TlsListener {
    socket: ListeningSocket<TcpSocket>,
    address: io::Result<SocketAddr>,
    handshakes: Handshakes,
    options: Arc<HandshakeOptions>,
    observers: ConnectionObservers,
    user: ListenerUser,
}

impl TlsListener {
    /// Default [number of handshakes](Self::max_handshakes) in progress.
    pub const MAX_HANDSHAKES: usize = handshakes::MAX_HANDSHAKES;
    /// Default [time of a handshake](Self::handshake_timeout).
    pub const HANDSHAKE_TIMEOUT: Duration = handshakes::HANDSHAKE_TIMEOUT;

    /// Listens on the first of the addresses on which that is possible.
    ///
    /// # Errors
    ///
    /// The last error of the system if no address is possible.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// After a drop, nothing listens.
    pub async fn bind(address: impl ToSocketAddrs, config: impl Into<Arc<ServerConfig>>) -> io::Result<Self> {
        Ok(Self::new(TcpSocket::bind(address).await?, config.into()))
    }

    /// Listens on the first of the addresses on which that is possible, with the certificate chain and the key in PEM files. Clients may
    /// choose HTTP/2 or HTTP/1 by ALPN. [`ConfigHandle::reload_pem`] reads the files again.
    ///
    /// ```no_run
    /// # use tls_shutdown::server::{Readiness, Server, ServerDrain, TlsListener};
    /// # async fn example(app: Readiness) -> Result<(), Box<dyn std::error::Error>> {
    /// let listener = TlsListener::bind_pem("0.0.0.0:8443", "cert.pem", "key.pem").await?;
    /// let report = Server::new(listener).drain(ServerDrain::on_terminate_signal()?).serve(app).await;
    /// # let _ = report;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - The process has no default [`CryptoProvider`](rustls::crypto::CryptoProvider). The error states how to install one.
    /// - A file cannot be read, contains no certificate or no key, or the key is that of another certificate. The error names the file.
    /// - No address is possible. The error names them, and has the kind and the text of the last one's.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// After a drop, nothing listens.
    pub async fn bind_pem(
        address: impl ToSocketAddrs,
        certificate_chain: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> io::Result<Self> {
        let files = PemFiles { certificate_chain: certificate_chain.into(), key: key.into() };
        let config = ConfigHandle::from_files(files)?;
        let addresses: Vec<_> = lookup_host(address).await?.collect();
        let mut listener = Self::bind(&addresses[..], config.current()).await.map_err(|error| {
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            io::Error::new(error.kind(), format!("cannot listen on {}: {error}", addresses.join(" or ")))
        })?;
        listener.options_mut().config = config;
        Ok(listener)
    }

    /// Listens on an existing socket: opened by systemd, inherited from a predecessor, or set up by hand. Makes it non-blocking.
    ///
    /// # Errors
    ///
    /// If the socket cannot be made non-blocking or cannot be registered with the runtime.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn from_std(listener: std::net::TcpListener, config: impl Into<Arc<ServerConfig>>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::from_tcp(TcpListener::from_std(listener)?, config))
    }

    /// Listens on a Tokio socket.
    pub fn from_tcp(tcp: TcpListener, config: impl Into<Arc<ServerConfig>>) -> Self {
        Self::new(TcpSocket::of_unknown_origin(tcp), config.into())
    }

    fn new(socket: TcpSocket, config: Arc<ServerConfig>) -> Self {
        Self {
            address: socket.local_addr(),
            socket: ListeningSocket::new(socket),
            handshakes: Handshakes::new(),
            options: Arc::new(HandshakeOptions::new(config)),
            observers: ConnectionObservers::default(),
            user: ListenerUser::default(),
        }
    }

    /// Sets the policy of the streams. Default: [`unidirectional`](ShutdownPolicy::unidirectional).
    pub fn with_policy(mut self, policy: ShutdownPolicy) -> Self {
        self.options_mut().policy = policy;
        self
    }

    /// Sets the reaper of the streams. Default: its own, with the default [limits](crate::ReaperLimits).
    pub fn with_reaper(mut self, reaper: &Reaper) -> Self {
        self.options_mut().reaper = reaper.clone();
        self
    }

    /// The reaper of the streams. [Wait for it](Reaper::wait_idle) before the process exits. A server drain does that.
    pub fn reaper(&self) -> &Reaper {
        &self.options.reaper
    }

    /// Limits the time from the accept to the end of the handshake. It includes the [hook before TLS](Self::before_tls).
    /// Default: [`HANDSHAKE_TIMEOUT`](Self::HANDSHAKE_TIMEOUT).
    ///
    /// # Panics
    ///
    /// If `timeout` is 0. For no limit, use [`Duration::MAX`].
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.options_mut().timeout = not_zero(timeout);
        self
    }

    /// Limits the handshakes in progress. Default: [`MAX_HANDSHAKES`](Self::MAX_HANDSHAKES).
    ///
    /// At the limit, a further connection sheds the oldest handshake without a complete ClientHello, if that is older than a quarter of a
    /// second. If all have sent one, it sheds the oldest that has used a quarter of the [handshake timeout](Self::handshake_timeout).
    /// Otherwise it waits in the system's queue: connections of one burst do not shed each other. On Linux, a client whose first bytes have
    /// arrived is never silent, also if this process is too busy to read them. Connections that [`close`](Self::close) accepts come on top of
    /// the limit.
    ///
    /// # Panics
    ///
    /// If `max` is 0.
    pub fn max_handshakes(mut self, max: usize) -> Self {
        assert!(max > 0, "a listener without handshakes accepts nothing");
        self.options_mut().max = max;
        self
    }

    /// Limits how long the system continues to send to a peer that acknowledges nothing (`TCP_USER_TIMEOUT`; Linux). Default: the
    /// system's own limit, about 15 minutes. It also ends a connection whose peer is alive but reads nothing for this long.
    pub fn tcp_user_timeout(mut self, timeout: Duration) -> Self {
        self.options_mut().tcp_user_timeout = Some(timeout);
        self
    }

    /// Calls `hook` with each connection before its TLS handshake. The hook can refuse the connection with an error, or return the
    /// address that a balancer sends first (the PROXY protocol). It must not read a byte of TLS.
    pub fn before_tls<F, R>(mut self, hook: F) -> Self
    where
        F: Fn(TcpStream, SocketAddr) -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send + 'static,
    {
        self.options_mut().before_tls = Some(Arc::new(move |tcp, peer| Box::pin(hook(tcp, peer))));
        self
    }

    /// Calls `on_end` once for each accepted connection, whatever became of it. Each call adds one; they are called in order, and a panic
    /// in one does not keep the others from being called.
    ///
    /// It runs where the last part of the connection is dropped, so it should be short and must not block.
    pub fn on_end(mut self, on_end: impl Fn(&ConnectionReport) + Send + Sync + 'static) -> Self {
        self.observers.on_end.push(Arc::new(on_end));
        self
    }

    /// Joins a server drain. The drain counts the connections. When it stops accepting, the listener accepts the connections in the
    /// system's queue and closes its socket. [`accept`](Self::accept) returns the rest, and then `None`.
    pub fn with_drain(mut self, drain: &DrainHandle) -> Self {
        self.join_drain(drain);
        self
    }

    /// A handle that replaces the TLS configuration while the listener runs.
    pub fn config_handle(&self) -> ConfigHandle {
        self.options.config.clone()
    }

    /// The address of the socket.
    ///
    /// # Errors
    ///
    /// If the system did not report it.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.address.as_ref().copied().map_err(|error| error.kind().into())
    }

    /// The number of handshakes that the [limit](Self::max_handshakes) has ended early.
    pub fn shed(&self) -> u64 {
        // A statistic: it orders nothing.
        self.handshakes.shed.load(Ordering::Relaxed)
    }

    /// The listening socket, for a successor. `None` once the listener is [closed](Self::close).
    #[cfg(unix)]
    pub fn as_fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.socket.get_ref().map(std::os::fd::AsFd::as_fd)
    }

    /// Returns the next connection whose handshake is finished, and its peer's address. Returns `None` once the listener is
    /// [closed](Self::close) and no handshake is in progress. New handshakes begin only while this is polled.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with time enabled.
    ///
    /// # Cancel safety
    ///
    /// You can drop the future and call this again: no connection is lost.
    pub async fn accept(&mut self) -> Option<(ServerStream, SocketAddr)> {
        let stream = std::future::poll_fn(|cx| self.poll_accept(cx)).await?;
        let peer = stream.peer();
        Some((stream, peer))
    }

    /// Stops listening. Accepts the connections in the system's queue, which would be reset with the socket, and closes the socket. Unlike a
    /// drain, it does not wait for TCP handshakes that are in progress.
    /// [`accept`](Self::accept) still returns these connections. If the system refuses to accept, because file descriptors are used up
    /// for example, the socket stays open until that is over, for the [handshake timeout](Self::handshake_timeout) at most. Does nothing on a
    /// closed listener.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with time enabled.
    pub fn close(&mut self) {
        self.socket.close(self.options.timeout);
        // Sheds nothing, because none of these connections has had time to send anything.
        while let Some(arrival) = self.socket.next_queued() {
            self.begin(arrival);
        }
    }

    /// Accepts for a server of another project. It stops by a signal or a handle of its own, and not when its listener ends.
    #[cfg(any(feature = "axum", feature = "axum-server", feature = "poem", feature = "salvo"))]
    pub(crate) async fn accept_for_framework(&mut self) -> (ServerStream, SocketAddr) {
        match self.serve_framework().accept().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    /// A server that knows no phases accepts the connections.
    fn serve_framework(&mut self) -> &mut Self {
        self.user = ListenerUser::Framework;
        self
    }

    fn join_drain(&mut self, drain: &DrainHandle) {
        self.observers.drain = Some(drain.clone());
        self.socket.join(drain);
    }

    fn options_mut(&mut self) -> &mut HandshakeOptions {
        Arc::make_mut(&mut self.options)
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<ServerStream>> {
        self.register();
        loop {
            if let Poll::Ready(stream) = self.handshakes.poll_finished(cx) {
                return Poll::Ready(Some(stream));
            }
            let next_place = self.handshakes.next_place(&self.options);
            match self.socket.poll_accept(cx, next_place, self.options.timeout) {
                Poll::Ready(Some(arrival)) => {
                    if self.socket.get_ref().is_some() {
                        self.handshakes.make_place(&self.options);
                    }
                    self.begin(arrival);
                }
                Poll::Ready(None) if self.handshakes.len() == 0 => return Poll::Ready(None),
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Registers with the drain, once: the drain needs the reaper and the rest of the options.
    fn register(&mut self) {
        if let Some(drain) = self.socket.take_unregistered() {
            let address = self.address.as_ref().ok().copied();
            drain.register(ListenerInDrain {
                delivery: address.map_or(Delivery::Unknown, Delivery::Acknowledged),
                reaper: self.options.reaper.clone(),
                shed: self.handshakes.shed.clone(),
                user: self.user,
            });
        }
    }

    fn begin(&mut self, arrival: Arrival<TcpSocket>) {
        self.handshakes.begin(arrival, &self.observers, self.options.clone());
    }
}

impl From<TlsListener> for ServerListener {
    fn from(listener: TlsListener) -> Self {
        Self(Box::new(listener))
    }
}

impl AnyListener for TlsListener {
    fn join(&mut self, drain: &DrainHandle, on_end: &[OnConnectionEnd], places: Option<&Arc<Semaphore>>) {
        self.socket.limit(places);
        self.observers.on_end.extend_from_slice(on_end);
        if self.options.config.current().alpn_protocols.is_empty() {
            tracing::info!("HTTP/1 only: the TLS configuration offers no protocol by ALPN");
        }
        self.join_drain(drain);
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<AcceptedStream>> {
        self.poll_accept(cx).map(|stream| stream.map(AcceptedStream::from))
    }
}

/// The connections of [`TlsListener::accept`], as tonic's `serve_with_incoming` needs them. No item is an error.
impl Stream for TlsListener {
    type Item = io::Result<ServerStream>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().serve_framework().poll_accept(cx).map(|stream| stream.map(Ok))
    }
}

debug_struct!({} TlsListener, |listener| {
    address: listener.address,
    handshakes: listener.handshakes.len(),
    shed: listener.shed(),
});
