//! [`TlsListener`](crate::server::TlsListener) as the incoming connections of a tonic server.

use std::net::SocketAddr;

use rustls::pki_types::CertificateDer;
use tonic::transport::server::Connected;

use crate::server::ServerStream;

/// What is known of a gRPC call's connection: in the request's extensions of a tonic server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TlsConnectInfo {
    /// The peer's address; what the [hook before TLS](crate::server::TlsListener::before_tls) said, if there is one. `None` where the stream is of
    /// no [`TlsListener`](crate::server::TlsListener).
    pub peer: Option<SocketAddr>,
    /// The client's certificate chain, its own first; empty where none was asked for or sent.
    pub certificates: Vec<CertificateDer<'static>>,
}

impl Connected for ServerStream {
    type ConnectInfo = TlsConnectInfo;

    fn connect_info(&self) -> TlsConnectInfo {
        let certificates = self.session().get_ref().1.peer_certificates().unwrap_or_default();
        TlsConnectInfo {
            peer: self.peer(),
            certificates: certificates.iter().cloned().map(CertificateDer::into_owned).collect(),
        }
    }
}
