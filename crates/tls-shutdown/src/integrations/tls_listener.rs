//! [`TlsAcceptor`] as the `AsyncTls` of the crate tls-listener. Feature `tls-listener`.

use std::{io, pin::Pin};

use ::tls_listener::AsyncTls;
use tokio::net::TcpStream;

use crate::server::{ServerStream, TlsAcceptor};

/// ```
/// # fn example(config: rustls::ServerConfig, tcp: tokio::net::TcpListener) {
/// use tls_listener::TlsListener;
/// use tls_shutdown::server::TlsAcceptor;
///
/// let listener = TlsListener::new(TlsAcceptor::new(config), tcp);
/// # }
/// ```
impl AsyncTls<TcpStream> for TlsAcceptor {
    type Stream = ServerStream;
    type Error = io::Error;
    type AcceptFuture = Pin<Box<dyn Future<Output = io::Result<ServerStream>> + Send>>;

    fn accept(&self, tcp: TcpStream) -> Self::AcceptFuture {
        let acceptor = self.clone();
        Box::pin(async move { acceptor.accept(tcp).await })
    }
}
