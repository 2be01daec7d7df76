//! A listening socket, and its options.

use std::{io, net::SocketAddr};

use tokio::net::{TcpListener, TcpSocket as UnboundSocket};

/// The length of the system's queue of connections that are not accepted yet. Clients wait for seconds once Tokio's default of 128 is
/// full.
const BACKLOG: u32 = 1024;

/// Listens on `address`.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => UnboundSocket::new_v4()?,
        SocketAddr::V6(_) => UnboundSocket::new_v6()?,
    };
    // A restarted server need not wait until old connections are forgotten. (Outside of Unix this lets two servers share a port.)
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
