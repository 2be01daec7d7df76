//! [`TlsAcceptor`]: the handshakes of a server that accepts TCP connections by itself.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use rustls::ServerConfig;
use tokio::net::TcpStream;

use super::{
    config::ConfigHandle,
    handshakes::{HandshakeOptions, Handshakes, handshake},
    listening_socket::Arrival,
};
use crate::{
    runtime::{debug::debug_struct, timer::not_zero},
    server::{
        connection::{Accepted, ConnectionObservers},
        drain::{Delivery, DrainHandle, ListenerInDrain, ListenerUser},
        report::ConnectionReport,
        stream::ServerStream,
    },
};

/// Makes a [`ServerStream`] of a TCP connection that somebody else has accepted: for frameworks that own the listening socket. With features
/// `axum-server` and `tls-listener`, it is the acceptor of these crates.
///
/// A [`TlsListener`](super::TlsListener) guarantees more: it closes its socket when a drain stops accepting, and serves first what the system
/// has accepted. It also limits the handshakes in progress. `docs/integrations.md` lists both. Clones share their reaper and their
/// configuration.
///
/// ```
/// # async fn example(config: rustls::ServerConfig, tcp: tokio::net::TcpListener) -> std::io::Result<()> {
/// use tls_shutdown::server::{ServerDrain, TlsAcceptor};
///
/// let drain = ServerDrain::on_terminate_signal()?;
/// let acceptor = TlsAcceptor::new(config).with_drain(&drain.handle(), tcp.local_addr()?);
/// let (connection, _) = tcp.accept().await?;
/// let stream = acceptor.accept(connection).await?;
/// # let _ = stream;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TlsAcceptor {
    options: Arc<HandshakeOptions>,
    observers: ConnectionObservers,
}

impl TlsAcceptor {
    /// Creates an acceptor with the defaults of [`TlsListener`](super::TlsListener).
    pub fn new(config: impl Into<Arc<ServerConfig>>) -> Self {
        Self { options: Arc::new(HandshakeOptions::new(config.into())), observers: ConnectionObservers::default() }
    }

    /// Limits the time of a handshake. Default: [`HANDSHAKE_TIMEOUT`](super::TlsListener::HANDSHAKE_TIMEOUT).
    ///
    /// # Panics
    ///
    /// If `timeout` is 0. For no limit, use [`Duration::MAX`].
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        Arc::make_mut(&mut self.options).timeout = not_zero(timeout);
        self
    }

    /// Calls `on_end` once for each connection, as [`TlsListener::on_end`](super::TlsListener::on_end) does.
    pub fn on_end(mut self, on_end: impl Fn(&ConnectionReport) + Send + Sync + 'static) -> Self {
        self.observers.on_end.push(Arc::new(on_end));
        self
    }

    /// Joins a server drain: it counts the connections, and waits for them and for what their peers have not acknowledged. `address` is that of
    /// the listening socket. The owner of that socket must close it: when
    /// [`last_request_over`](DrainHandle::last_request_over) resolves, for example.
    pub fn with_drain(mut self, drain: &DrainHandle, address: SocketAddr) -> Self {
        self.observers.drain = Some(drain.clone());
        drain.register(ListenerInDrain {
            delivery: Delivery::Acknowledged(address),
            reaper: self.options.reaper.clone(),
            shed: Arc::default(),
            user: ListenerUser::Framework,
        });
        self
    }

    /// A handle that replaces the TLS configuration while the server runs.
    pub fn config_handle(&self) -> ConfigHandle {
        self.options.config.clone()
    }

    /// Carries out the handshake.
    ///
    /// # Errors
    ///
    /// [`ConnectionAborted`](ErrorKind::ConnectionAborted), with the [reason](crate::server::HandshakeFailure) in words. The report to
    /// [`on_end`](Self::on_end) has the rest. If the client has already reset the connection, the system's error, without a report.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with time enabled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the connection, which is reported.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<ServerStream> {
        let peer = tcp.peer_addr()?;
        let accepted = Accepted::new(&self.observers, peer.into());
        // Alone, so that it is never shed.
        let attempt = Handshakes::new().enter(accepted);
        let arrival = Arrival { stream: tcp, peer, place: None };
        let stream = handshake(arrival, attempt, self.options.clone(), self.observers.drain.clone()).await;
        stream.map_err(|failure| io::Error::new(ErrorKind::ConnectionAborted, failure.to_string()))
    }
}

debug_struct!({} TlsAcceptor, |acceptor| { handshake_timeout: acceptor.options.timeout });
