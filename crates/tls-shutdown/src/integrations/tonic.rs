//! A tonic server over a [`TlsListener`](crate::server::TlsListener).
//!
//! - [`Server::serve`](crate::server::Server::serve) takes tonic's `Routes`, and guarantees most. `request.remote_addr()`,
//!   `local_addr()` and `peer_certs()` work as under tonic's own TLS.
//! - `serve_with_incoming` takes the listener. There, these methods work if a feature of tonic for TLS is enabled. Without such a feature,
//!   use [`TlsConnectInfo`].
//!
//! The remote address is the one that the [hook before TLS](crate::server::TlsListener::before_tls) returned, if there is a hook.

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::server::{AcceptedStream, ServerStream};

/// The addresses and the client certificates of a request's connection: tonic's own type, which tonic exports only with a feature for TLS.
///
/// ```
/// use tls_shutdown::integrations::tonic::TlsConnectInfo;
///
/// fn client<T>(request: &tonic::Request<T>) -> Option<std::net::SocketAddr> {
///     request.extensions().get::<TlsConnectInfo>()?.get_ref().remote_addr()
/// }
/// ```
pub type TlsConnectInfo = <TlsStream<TcpStream> as Connected>::ConnectInfo;

impl Connected for ServerStream {
    type ConnectInfo = TlsConnectInfo;

    fn connect_info(&self) -> TlsConnectInfo {
        let mut info = self.get_ref().get_ref().connect_info();
        info.get_mut().remote_addr = Some(self.peer());
        info
    }
}

/// What tonic looks for in a request over TLS.
pub(super) fn tls_connect_info(stream: &AcceptedStream) -> Option<TlsConnectInfo> {
    stream.tls().map(Connected::connect_info)
}

/// What tonic looks for in a request over TCP, also under TLS.
pub(super) fn tcp_connect_info(stream: &AcceptedStream) -> Option<TcpConnectInfo> {
    let local_addr = stream.tcp()?.local_addr().ok();
    Some(TcpConnectInfo { local_addr, remote_addr: stream.peer().address() })
}

/// What tonic looks for in a request over a Unix socket.
#[cfg(unix)]
pub(super) fn unix_connect_info(stream: &AcceptedStream) -> Option<tonic::transport::server::UdsConnectInfo> {
    stream.unix().map(Connected::connect_info)
}
