//! [`Peer`] and [`Transport`]: who is at the other end of a connection, and over what.

use std::{any::TypeId, fmt, net::SocketAddr};

/// Who is at the other end of an accepted connection.
///
/// [`Display`](fmt::Display) writes the address, or `unix` or `unknown`.
///
/// ```
/// use tls_shutdown::server::Peer;
///
/// let peer = Peer::from(std::net::SocketAddr::from(([192, 0, 2, 1], 4711)));
/// assert_eq!(peer.address().map(|address| address.port()), Some(4711));
/// assert_eq!(Peer::Unix.address(), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// At this address.
    Address(SocketAddr),
    /// A process of this machine, over a Unix socket. Such a peer has no address.
    Unix,
    /// A [listener](crate::server::Listener) of your own did not tell.
    Unknown,
}

impl Peer {
    /// The address, if the peer has one.
    pub const fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(address),
            Self::Unix | Self::Unknown => None,
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl PartialEq<SocketAddr> for Peer {
    fn eq(&self, address: &SocketAddr) -> bool {
        self.address() == Some(*address)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// What carries an accepted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// TLS over TCP.
    Tls,
    /// TCP without TLS.
    Tcp,
    /// A Unix socket.
    Unix,
    /// A stream that this library does not know, of a [listener](crate::server::Listener) of your own.
    Custom,
}

impl Transport {
    /// The name that logs and the `tls-shutdown` command use: `tls`, `plain`, `unix` or `custom`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Tcp => "plain",
            Self::Unix => "unix",
            Self::Custom => "custom",
        }
    }

    /// The transport of a connection without TLS whose stream is of this type.
    pub(super) fn of_stream<T: 'static>() -> Self {
        let stream = TypeId::of::<T>();
        #[cfg(unix)]
        if stream == TypeId::of::<tokio::net::UnixStream>() {
            return Self::Unix;
        }
        if stream == TypeId::of::<tokio::net::TcpStream>() { Self::Tcp } else { Self::Custom }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
