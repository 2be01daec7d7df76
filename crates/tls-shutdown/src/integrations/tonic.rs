//! A tonic server over a [`TlsListener`](crate::server::TlsListener): `serve_with_incoming` accepts it, and requests know the client.
//!
//! `request.remote_addr()`, `local_addr()` and `peer_certs()` work as under tonic's own TLS. `remote_addr()` is the address that the
//! [hook before TLS](crate::server::TlsListener::before_tls) returned, if there is one.

use tonic::transport::server::{Connected, TcpConnectInfo, TlsConnectInfo};

use crate::server::ServerStream;

impl Connected for ServerStream {
    type ConnectInfo = TlsConnectInfo<TcpConnectInfo>;

    fn connect_info(&self) -> Self::ConnectInfo {
        let mut info = self.get_ref().get_ref().connect_info();
        info.get_mut().remote_addr = Some(self.peer());
        info
    }
}
