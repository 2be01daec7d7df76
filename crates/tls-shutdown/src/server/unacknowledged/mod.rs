//! How far the peers' systems have acknowledged what was sent. Only the kernel knows it, and most sockets are closed when the drain asks.

#[cfg(target_os = "linux")]
mod sock_diag;

use std::net::SocketAddr;
#[cfg(target_os = "linux")]
use std::{collections::HashSet, fs};

use tokio::net::TcpStream;

/// Whether this process still has open connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenSockets {
    None,
    Some,
}

/// The bytes that are unsent or unacknowledged on connections that were accepted at `addresses`, or `None` if they are unknown. Blocks while
/// the kernel goes through its table.
///
/// It counts the open connections of this process, not those of a successor at the same address. A closed socket has no process any more,
/// so all of them count.
#[cfg(target_os = "linux")]
pub(crate) fn unacknowledged(addresses: &[SocketAddr], open: OpenSockets) -> Option<u64> {
    // Before the question: a socket that is closed in between still counts.
    let ours = match open {
        OpenSockets::None => HashSet::new(),
        OpenSockets::Some => own_sockets(),
    };
    let senders = sock_diag::senders(addresses).ok()?;
    let counts = |sender: &&sock_diag::Socket| {
        (sender.is_closed() || ours.contains(&sender.inode)) && addresses.iter().any(|address| sender.is_at(*address))
    };
    Some(senders.iter().filter(counts).map(|sender| sender.unacknowledged).sum())
}

/// The bytes of an open connection that the peer has acknowledged, or `None` if they are unknown. Does not block.
///
/// For a slow peer this is more exact than writability: the kernel reports free space only when a third of the buffer is free.
#[cfg(target_os = "linux")]
pub(crate) fn acknowledged(socket: &TcpStream) -> Option<u64> {
    sock_diag::acknowledged(socket.local_addr().ok()?, socket.peer_addr().ok()?).ok()
}

/// Whether the peer has acknowledged everything on the open connection between these addresses. `false` if that is unknown. Does not block.
#[cfg(target_os = "linux")]
pub(crate) fn is_acknowledged(local: SocketAddr, peer: SocketAddr) -> bool {
    sock_diag::unacknowledged(local, peer).is_ok_and(|bytes| bytes == 0)
}

/// Whether a TCP handshake is in progress at a listener's address, which is one that the client has not acknowledged. `None` if that is
/// unknown. Blocks while the kernel goes through its table.
#[cfg(target_os = "linux")]
pub(crate) fn has_handshakes(address: SocketAddr) -> Option<bool> {
    sock_diag::has_handshakes(address).ok()
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn is_acknowledged(_: SocketAddr, _: SocketAddr) -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn unacknowledged(_: &[SocketAddr], _: OpenSockets) -> Option<u64> {
    None
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn acknowledged(_: &TcpStream) -> Option<u64> {
    None
}

/// The inodes of the sockets that this process has open.
#[cfg(target_os = "linux")]
fn own_sockets() -> HashSet<u64> {
    let descriptors = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let targets = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    targets.filter_map(|target| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{
        io::{ErrorKind, Write},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn what_a_peer_takes_is_known() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let listener = tokio::net::TcpListener::bind(listen).await.expect("a free port");
            let mut client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a listener");
            let (mut server, _) = listener.accept().await.expect("a connection");
            let before = acknowledged(&server).expect("Linux reports it");
            server.write_all(&[0; 1000]).await.expect("room");
            client.read_exact(&mut [0; 1000]).await.expect("all of it");
            let mut after = acknowledged(&server).expect("Linux reports it");
            while after < before + 1000 {
                tokio::task::yield_now().await;
                after = acknowledged(&server).expect("Linux reports it");
            }
            assert_eq!(after, before + 1000);
        }
    }

    #[test]
    fn what_is_unacknowledged_is_what_was_written_and_not_received() {
        // The last address is of IPv6, and its connections are of IPv4.
        for (listen, host) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "127.0.0.1")] {
            let listener = TcpListener::bind(listen).expect("a free port");
            let address = listener.local_addr().expect("an address");
            let client = std::net::TcpStream::connect((host, address.port())).expect("a connection");
            let (mut server, _) = listener.accept().expect("a connection");
            let bytes = |open| unacknowledged(&[address], open).expect("Linux reports it");
            let received = || rustix::io::ioctl_fionread(&client).expect("a socket");
            assert_eq!([OpenSockets::None, OpenSockets::Some].map(bytes), [0, 0]);

            server.set_nonblocking(true).expect("an option");
            let mut written = 0;
            let full = loop {
                match server.write(&[0; 65536]) {
                    Ok(amount) => written += amount as u64,
                    Err(error) => break error,
                }
            };
            assert_eq!(full.kind(), ErrorKind::WouldBlock);
            // Without it the client's system may wait up to 200 ms.
            rustix::net::sockopt::set_tcp_quickack(&client, true).expect("an option");
            // Bytes still pass, until the client has no more room.
            let once = || {
                let before = received();
                let bytes = bytes(OpenSockets::Some);
                (written == before + bytes && received() == before).then_some(bytes)
            };
            let missing = std::iter::repeat_with(once).take(10_000).flatten().next().expect("written and not received");
            assert!(missing > 0);
            assert_eq!(bytes(OpenSockets::None), 0, "the socket is open, and may be another process's");

            drop(server);
            // FIN counts like a byte.
            assert_eq!(bytes(OpenSockets::None), missing + 1);
        }
    }
}
