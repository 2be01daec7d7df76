//! [`TlsListener`] as the listener of axum-server, and [`TlsAcceptor`] as its acceptor. Feature `axum-server`.

use std::{io, net::SocketAddr, pin::Pin};

use ::axum_server::{AddrListener, Address, accept::Accept};
use tokio::{net::TcpStream, sync::Mutex};

use crate::server::{ConnectionInfo, ServerStream, TlsAcceptor, TlsListener};

/// [`TlsListener`] under axum-server. It keeps more than [`TlsAcceptor`] does: axum-server resets the connections in the queue of a socket
/// of its own.
///
/// ```
/// # fn example(listener: tls_shutdown::server::TlsListener) {
/// use tls_shutdown::integrations::axum_server::TlsAddress;
///
/// let server = axum_server::Server::<TlsAddress>::from_listener(listener.into());
/// # }
/// ```
#[derive(Debug)]
pub struct AxumServerListener(Mutex<TlsListener>, io::Result<SocketAddr>);

/// The address of axum-server for an [`AxumServerListener`]. With feature `axum`, serve
/// `app.into_make_service_with_connect_info::<ConnectionInfo>()` or `::<SocketAddr>()`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TlsAddress {
    /// The peer's address; that of the socket if axum-server asks where it listens.
    pub address: SocketAddr,
    /// The peer's connection.
    pub connection: Option<ConnectionInfo>,
}

impl Address for TlsAddress {
    type Stream = ServerStream;
    type Listener = AxumServerListener;
}

impl From<TlsListener> for AxumServerListener {
    fn from(listener: TlsListener) -> Self {
        let address = listener.local_addr();
        Self(Mutex::new(listener), address)
    }
}

impl AddrListener<ServerStream, TlsAddress> for AxumServerListener {
    /// Fails always, because a [`TlsListener`] needs a configuration, too.
    async fn bind_to(_: TlsAddress) -> io::Result<Self> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "bind a TlsListener, and pass it to Server::from_listener"))
    }

    async fn accept_stream(&self) -> io::Result<(ServerStream, TlsAddress)> {
        let (stream, address) = self.0.lock().await.accept_for_framework().await;
        let connection = Some(ConnectionInfo::from(&stream));
        Ok((stream, TlsAddress { address, connection }))
    }

    fn get_local_addr(&self) -> io::Result<TlsAddress> {
        let address = self.1.as_ref().map_err(|error| error.kind())?;
        Ok(TlsAddress { address: *address, connection: None })
    }
}

/// For `axum_server::bind(address).acceptor(acceptor)`.
impl<S: Send + 'static> Accept<TcpStream, S> for TlsAcceptor {
    type Stream = ServerStream;
    type Service = S;
    type Future = Pin<Box<dyn Future<Output = io::Result<(ServerStream, S)>> + Send>>;

    fn accept(&self, tcp: TcpStream, service: S) -> Self::Future {
        let acceptor = self.clone();
        Box::pin(async move { Ok((acceptor.accept(tcp).await?, service)) })
    }
}

#[cfg(feature = "axum")]
impl ::axum::extract::connect_info::Connected<TlsAddress> for SocketAddr {
    fn connect_info(peer: TlsAddress) -> Self {
        peer.address
    }
}

#[cfg(feature = "axum")]
impl ::axum::extract::connect_info::Connected<TlsAddress> for ConnectionInfo {
    fn connect_info(peer: TlsAddress) -> Self {
        peer.connection.expect("axum-server connects only peers")
    }
}
