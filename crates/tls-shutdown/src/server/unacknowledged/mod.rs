//! What peers have not acknowledged, which only the kernel knows: most of the sockets are closed when it is asked.
//!
//! `sock_diag(7)` tells at once. Where it is not there, `proc(5)` does, in time that grows with all connections of the machine.

#[cfg(target_os = "linux")]
mod proc;
#[cfg(target_os = "linux")]
mod sock_diag;

use std::net::SocketAddr;
#[cfg(target_os = "linux")]
use std::{collections::HashSet, fs};

use tokio::net::TcpStream;

/// Whether some connections are not closed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenSockets {
    None,
    Some,
}

/// The bytes that the kernel has to send, or that peers have not acknowledged, on connections that were accepted at `addresses` and are
/// closed, or are this process's; `None` where nothing is known. What a successor at the same address has open is no matter; of closed
/// sockets nobody can tell whose they were.
#[cfg(target_os = "linux")]
pub(crate) fn unacknowledged(addresses: &[SocketAddr], open: OpenSockets) -> Option<u64> {
    if addresses.is_empty() {
        return None;
    }
    // First, so that one which is closed meanwhile is still counted.
    let ours = match open {
        OpenSockets::None => HashSet::new(),
        OpenSockets::Some => own_sockets(),
    };
    let senders = sock_diag::senders(addresses).or_else(|error| {
        tracing::debug!(%error, "there is no sock_diag, so connections are looked for in the table");
        proc::senders()
    });
    let senders = senders.ok()?;
    let is_ours = |socket: &&Sender| socket.inode == CLOSED || ours.contains(&socket.inode);
    let is_at = |socket: &&Sender| addresses.iter().any(|address| socket.is_at(*address));
    Some(senders.iter().filter(is_ours).filter(is_at).map(|socket| socket.unacknowledged).sum())
}

/// How many bytes of an open connection the peer has acknowledged; `None` where nothing is known.
///
/// That a socket has room shows how a slow peer comes on only now and then: the kernel tells of it when a third is free.
#[cfg(target_os = "linux")]
pub(crate) fn acknowledged(socket: &TcpStream) -> Option<u64> {
    sock_diag::acknowledged(socket.local_addr().ok()?, socket.peer_addr().ok()?).ok()
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn acknowledged(_: &TcpStream) -> Option<u64> {
    None
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn unacknowledged(_: &[SocketAddr], _: OpenSockets) -> Option<u64> {
    None
}

/// The inodes of the sockets that this process has open.
#[cfg(target_os = "linux")]
fn own_sockets() -> HashSet<u64> {
    let descriptors = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let targets = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    targets.filter_map(|target| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect()
}

/// The inode of a socket that no process has open.
#[cfg(target_os = "linux")]
const CLOSED: u64 = 0;

/// A socket that has something to send, or to be acknowledged.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sender {
    local: SocketAddr,
    unacknowledged: u64,
    inode: u64,
}

#[cfg(target_os = "linux")]
impl Sender {
    /// Whether it was accepted by a listener at `address`.
    fn is_at(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.local.port() == address.port() && (ip.is_unspecified() || ip == self.local.ip())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{
        io::{ErrorKind, Write},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn a_socket_is_at_the_address_of_its_listener() {
        let socket = Sender { local: ([127, 0, 0, 1], 8443).into(), unacknowledged: 1, inode: CLOSED };
        assert!(socket.is_at(([0, 0, 0, 0], 8443).into()));
        assert!(socket.is_at("[::]:8443".parse().unwrap()));
        assert!(!socket.is_at(([127, 0, 0, 1], 8444).into()));
        assert!(!socket.is_at(([127, 0, 0, 2], 8443).into()));
    }

    #[tokio::test]
    async fn what_a_peer_takes_is_known() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let listener = tokio::net::TcpListener::bind(listen).await.expect("a free port");
            let mut client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a listener");
            let (mut server, _) = listener.accept().await.expect("a connection");
            let before = acknowledged(&server).expect("Linux tells");
            server.write_all(&[0; 1000]).await.expect("room");
            client.read_exact(&mut [0; 1000]).await.expect("all of it");
            let mut after = acknowledged(&server).expect("Linux tells");
            while after < before + 1000 {
                tokio::task::yield_now().await;
                after = acknowledged(&server).expect("Linux tells");
            }
            assert_eq!(after, before + 1000);
        }
    }

    /// Both ways to ask say the same, of sockets that are open, and of those that are closed.
    #[test]
    fn what_is_to_be_sent_is_known() {
        // Of the last one the address is of IPv6, and its connections are of IPv4.
        for (listen, host) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "127.0.0.1")] {
            let listener = TcpListener::bind(listen).expect("a free port");
            let address = listener.local_addr().expect("an address");
            let client = std::net::TcpStream::connect((host, address.port())).expect("a connection");
            let (mut server, _) = listener.accept().expect("a connection");
            let here = |senders: std::io::Result<Vec<Sender>>| -> Vec<Sender> {
                senders.expect("Linux tells").into_iter().filter(|socket| socket.is_at(address)).collect()
            };
            // Between the two something may be acknowledged; that ends when the client has no room.
            let once = || {
                let told = here(sock_diag::senders(&[address]));
                let listed = here(proc::senders());
                let [of_closed, of_all] =
                    [OpenSockets::None, OpenSockets::Some].map(|open| unacknowledged(&[address], open));
                let is_steady = told == here(sock_diag::senders(&[address]));
                is_steady.then(|| {
                    assert_eq!(told, listed);
                    (told, of_closed.expect("Linux tells"), of_all.expect("Linux tells"))
                })
            };
            let both = || std::iter::repeat_with(once).take(100).find_map(|told| told).expect("no change");
            assert_eq!(both(), (vec![], 0, 0));
            server.set_nonblocking(true).expect("an option");
            let full = std::iter::repeat_with(|| server.write(&[0; 65536])).find_map(Result::err);
            assert_eq!(full.map(|error| error.kind()), Some(ErrorKind::WouldBlock));
            // Has the client's system acknowledge now what it would within 200 ms.
            rustix::net::sockopt::set_tcp_quickack(&client, true).expect("an option");
            let (told, of_closed, of_all) = both();
            let [Sender { unacknowledged: bytes, inode, .. }] = told[..] else { panic!("{told:?}") };
            assert!(bytes > 0 && own_sockets().contains(&inode));
            assert_eq!((of_closed, of_all), (0, bytes));
            drop(server);
            let (told, of_closed, _) = both();
            // FIN counts like a byte.
            assert_eq!((told[0].inode, of_closed), (CLOSED, bytes + 1));
        }
    }
}
