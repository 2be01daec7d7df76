//! [`ConnectionInfo`]: what a request can know of its connection.

use std::{fmt, sync::Arc};

use rustls::pki_types::CertificateDer;

use super::{
    accepted_stream::AcceptedStream,
    drain::DrainHandle,
    peer::{Peer, Transport},
};

/// A request's connection, in the request's extensions. Clones are cheap.
#[derive(Clone)]
pub struct ConnectionInfo {
    facts: Arc<Facts>,
}

struct Facts {
    peer: Peer,
    transport: Transport,
    protocol: Option<Vec<u8>>,
    server_name: Option<String>,
    certificates: Vec<CertificateDer<'static>>,
    drain: DrainHandle,
}

impl ConnectionInfo {
    pub(super) fn new(stream: &AcceptedStream, drain: &DrainHandle) -> Self {
        let tls = stream.tls().map(|stream| stream.get_ref().get_ref().get_ref().1);
        let certificates = tls.and_then(|tls| tls.peer_certificates()).unwrap_or_default();
        Self {
            facts: Arc::new(Facts {
                peer: stream.peer(),
                transport: stream.transport(),
                protocol: tls.and_then(|tls| tls.alpn_protocol()).map(<[u8]>::to_vec),
                server_name: tls.and_then(|tls| tls.server_name()).map(str::to_owned),
                certificates: certificates.iter().cloned().map(CertificateDer::into_owned).collect(),
                drain: drain.clone(),
            }),
        }
    }

    /// Who is at the other end: over TLS, the address that the [hook before TLS](super::TlsListener::before_tls) returned, if there is one.
    pub fn peer(&self) -> Peer {
        self.facts.peer
    }

    /// What carries the connection.
    pub fn transport(&self) -> Transport {
        self.facts.transport
    }

    /// The protocol that ALPN has chosen (RFC 7301). `None` without TLS.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.facts.protocol.as_deref()
    }

    /// The name of the server that the client has asked for (SNI). `None` without TLS.
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
            .field("transport", &self.transport())
            .field("protocol", &self.protocol().map(String::from_utf8_lossy))
            .field("server_name", &self.server_name())
            .finish_non_exhaustive()
    }
}
