//! [`ConnectionInfo`]: what a request can know of its connection.

use std::{future::pending, sync::Arc};

use rustls::{ServerConnection, pki_types::CertificateDer};

use super::{
    accepted_stream::AcceptedStream,
    connection::ConnectionRecord,
    drain::{DrainHandle, ServerDrain},
    lifetime::ConnectionLifetime,
    peer::{Peer, Transport},
    stream::ServerStream,
};
use crate::runtime::debug::debug_struct;

/// A request's connection, in the extensions of each request of a [`Server`](super::Server). Clones are cheap.
///
/// Under another server over a [`TlsListener`](super::TlsListener), make one from the connection's stream. With feature `axum`, it is an
/// extractor of axum, under a `Server` and under `axum::serve`.
///
/// ```
/// use tls_shutdown::server::{ConnectionInfo, ServerStream};
///
/// fn is_known(stream: &ServerStream) -> bool {
///     !ConnectionInfo::from(stream).certificates().is_empty()
/// }
/// ```
#[derive(Clone)]
pub struct ConnectionInfo {
    facts: Arc<Facts>,
}

struct Facts {
    peer: Peer,
    transport: Transport,
    protocol: Option<Vec<u8>>,
    server_name: Option<Arc<str>>,
    certificates: Vec<CertificateDer<'static>>,
    lifetime: Arc<ConnectionLifetime>,
    /// Whether a [`Server`](super::Server) has made this.
    is_of_server: bool,
}

impl Facts {
    fn new(connection: &ConnectionRecord, tls: Option<&ServerConnection>, lifetime: Arc<ConnectionLifetime>) -> Self {
        let certificates = tls.and_then(|tls| tls.peer_certificates()).unwrap_or_default();
        Self {
            peer: connection.peer,
            transport: connection.transport,
            protocol: tls.and_then(|tls| tls.alpn_protocol()).map(<[u8]>::to_vec),
            server_name: connection.server_name().cloned(),
            certificates: certificates.iter().cloned().map(CertificateDer::into_owned).collect(),
            lifetime,
            is_of_server: false,
        }
    }
}

impl ConnectionInfo {
    pub(super) fn new(stream: &AcceptedStream, lifetime: Arc<ConnectionLifetime>) -> Self {
        let tls = stream.tls().map(|stream| stream.get_ref().get_ref().get_ref().1);
        let facts = Facts::new(stream.connection(), tls, lifetime);
        Self { facts: Arc::new(Facts { is_of_server: true, ..facts }) }
    }

    /// Whether a [`Server`](super::Server) counts the requests of the connection in `drain`.
    pub(super) fn is_counted_in(&self, drain: &DrainHandle) -> bool {
        self.facts.is_of_server && self.drain().is_same(drain)
    }

    /// Who is at the other end: over TLS, the address that the [hook before TLS](super::TlsListener::before_tls) returned, if there is one.
    pub fn peer(&self) -> Peer {
        self.facts.peer
    }

    /// What carries the connection.
    pub fn transport(&self) -> Transport {
        self.facts.transport
    }

    /// The protocol that ALPN has chosen (RFC 7301). `None` if it has chosen none, and without TLS.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.facts.protocol.as_deref()
    }

    /// The name of the server that the client has asked for (SNI). `None` if it has asked for none, and without TLS.
    pub fn server_name(&self) -> Option<&str> {
        self.facts.server_name.as_deref()
    }

    /// The client's certificate chain, its own first. Empty if it sent none.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.facts.certificates
    }

    /// The server drain, so that endless responses and upgraded connections can end with it. The server itself ends
    /// [some kinds](super::EndlessResponse). If the connection takes part in no drain, the returned one never begins.
    pub fn drain(&self) -> &DrainHandle {
        self.facts.lifetime.drain()
    }

    /// Ends the connection after the requests in progress, as a server drain does. An HTTP/1 client reads `Connection: close` in the next
    /// response, an HTTP/2 client receives GOAWAY. For a handler that has learned that this client should go elsewhere.
    ///
    /// Only a [`Server`](super::Server) can do this. Under another server, the call has no effect.
    ///
    /// ```
    /// use tls_shutdown::server::ConnectionInfo;
    ///
    /// fn rebalance(connection: &ConnectionInfo) -> &'static str {
    ///     connection.close();
    ///     "the next request goes to another server"
    /// }
    /// ```
    pub fn close(&self) {
        self.facts.lifetime.close();
    }
}

impl From<&ServerStream> for ConnectionInfo {
    fn from(stream: &ServerStream) -> Self {
        let connection = stream.connection();
        let drain = connection.drain().cloned().unwrap_or_else(|| ServerDrain::on(pending()).handle());
        let lifetime = Arc::new(ConnectionLifetime::of_drain(drain));
        Self { facts: Arc::new(Facts::new(connection, Some(stream.get_ref().get_ref().get_ref().1), lifetime)) }
    }
}

debug_struct!({} ConnectionInfo, |info| {
    peer: info.peer(),
    transport: info.transport(),
    protocol: info.protocol().map(String::from_utf8_lossy),
    server_name: info.server_name(),
});
