//! The ways to serve that `docs/integrations.md` compares.

use crate::End;

/// A way to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integration {
    /// [`Server`](tls_shutdown::server::Server) over TLS.
    Server,
    /// [`Server`](tls_shutdown::server::Server) over TCP without TLS.
    PlainServer,
    /// [`Server`](tls_shutdown::server::Server) over a Unix socket.
    UnixServer,
    /// `axum::serve`.
    AxumServe,
    /// tonic.
    Tonic,
    /// A loop over [`TlsListener::accept`](tls_shutdown::server::TlsListener::accept), without HTTP.
    AcceptLoop,
    /// A server of another project. Only with the feature `frameworks`.
    Framework(Framework),
}
use Integration::{AcceptLoop, AxumServe, PlainServer, Tonic, UnixServer};

/// A server of another project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framework {
    /// axum-server, over a [`TlsListener`](tls_shutdown::server::TlsListener).
    AxumServer,
    /// axum-server over a socket of its own, with a `TlsAcceptor`.
    AxumServerAccept,
    /// `axum::serve` over the listener of the crate tls-listener, with a `TlsAcceptor`.
    TlsListenerCrate,
    /// poem, over a [`TlsListener`](tls_shutdown::server::TlsListener).
    Poem,
    /// salvo, over a [`TlsListener`](tls_shutdown::server::TlsListener).
    Salvo,
}

impl Framework {
    #[cfg(feature = "frameworks")]
    const ALL: &[Self] = &[Self::AxumServer, Self::AxumServerAccept, Self::TlsListenerCrate, Self::Poem, Self::Salvo];
    #[cfg(not(feature = "frameworks"))]
    const ALL: &[Self] = &[];
}

impl Integration {
    /// [`Server`](tls_shutdown::server::Server) over every socket.
    pub const SERVERS: [Self; 3] = [Self::Server, PlainServer, UnixServer];

    /// Every way.
    pub fn every() -> Vec<Self> {
        Self::with_frameworks(&[Self::Server, PlainServer, UnixServer, AxumServe, Tonic, AcceptLoop])
    }

    /// Those that speak TLS.
    pub fn tls() -> Vec<Self> {
        Self::with_frameworks(&[Self::Server, AxumServe, Tonic, AcceptLoop])
    }

    /// Those that speak HTTP/1.
    pub fn http1() -> Vec<Self> {
        Self::with_frameworks(&[Self::Server, PlainServer, UnixServer, AxumServe])
    }

    /// Those that speak HTTP/2.
    pub fn http2() -> Vec<Self> {
        Self::with_frameworks(&[Self::Server, PlainServer, UnixServer, AxumServe, Tonic])
    }

    fn with_frameworks(ours: &[Self]) -> Vec<Self> {
        ours.iter().copied().chain(Framework::ALL.iter().copied().map(Self::Framework)).collect()
    }

    /// How a connection of it ends in order.
    pub fn orderly_end(self) -> End {
        match self {
            PlainServer | UnixServer => End::Fin,
            Self::Server | AxumServe | Tonic | AcceptLoop | Self::Framework(_) => End::CloseNotify,
        }
    }

    /// Whether its requests pass a [`Server`](tls_shutdown::server::Server) or the layer of the drain. poem has requests of its own type.
    pub fn is_layered(self) -> bool {
        !matches!(self, AcceptLoop | Self::Framework(Framework::Poem))
    }

    /// Whether the layer sees that a request is dropped: salvo keeps it until the layer has answered.
    pub fn drops_requests_at_once(self) -> bool {
        self.is_layered() && self != Self::Framework(Framework::Salvo)
    }

    /// Whether one of our listeners owns its socket.
    pub fn owns_socket(self) -> bool {
        !matches!(self, Self::Framework(Framework::AxumServerAccept | Framework::TlsListenerCrate))
    }
}
