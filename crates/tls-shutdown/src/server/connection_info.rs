//! [`ConnectionInfo`]: what a request can know of its connection.

use std::{fmt, net::SocketAddr, sync::Arc};

use rustls::pki_types::CertificateDer;

use super::{drain::DrainHandle, stream::ServerStream};

/// A request's connection, in the request's extensions. Clones are cheap.
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
    pub(super) fn new(stream: &ServerStream, drain: &DrainHandle) -> Self {
        let tls = stream.get_ref().get_ref().get_ref().1;
        let certificates = tls.peer_certificates().unwrap_or_default();
        Self {
            facts: Arc::new(Facts {
                peer: stream.peer(),
                protocol: tls.alpn_protocol().map(<[u8]>::to_vec),
                server_name: tls.server_name().map(str::to_owned),
                certificates: certificates.iter().cloned().map(CertificateDer::into_owned).collect(),
                drain: drain.clone(),
            }),
        }
    }

    /// The peer's address, or the address that the [hook before TLS](super::TlsListener::before_tls) returned.
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

    /// The client's certificate chain, its own first. Empty if it sent none.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.facts.certificates
    }

    /// The server drain, so that endless responses and upgraded connections can end with it. The server itself ends
    /// [some kinds](super::EndlessResponse).
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
