//! What only the kernel can do with a socket, and a portable stand-in where it cannot.

#[cfg(target_os = "linux")]
use std::sync::{Mutex, PoisonError};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

#[cfg(target_os = "linux")]
use tokio::io::Interest;
use tokio::io::{AsyncRead, ReadBuf};
#[cfg(any(target_os = "linux", feature = "server"))]
use tokio::net::TcpStream;

use crate::session::TlsSession;

/// Has the socket under `transport` send RST when it is closed, also where the process is killed. Nothing happens where there is
/// none.
pub(crate) fn reset_on_drop<S: TlsSession>(transport: &S::Transport) {
    if let Some(socket) = S::socket(transport)
        && let Err(error) = socket.set_zero_linger()
    {
        // The peer sees FIN without close_notify then, which is no lie either.
        tracing::debug!(%error, "the connection is not reset, but closed");
    }
}

/// Where the kernel is told to put what is to be discarded, shared by all connections that discard.
pub(crate) struct Scratch {
    #[cfg(target_os = "linux")]
    bytes: Mutex<Box<[u8]>>,
}

/// At 64 KiB a discarding thread spends the least time for each byte; smaller and larger lengths cost more.
#[cfg(target_os = "linux")]
const LENGTH: usize = 64 * 1024;
/// On the stack, where discarding is reading.
const READ_LENGTH: usize = 4 * 1024;

impl Scratch {
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            bytes: Mutex::new(vec![0; LENGTH].into_boxed_slice()),
        }
    }

    /// Discards what has arrived at `transport`. Gives the number of bytes, 0 at its end.
    pub(crate) fn poll_discard<S: TlsSession>(
        &self,
        transport: &mut S::Transport,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        #[cfg(target_os = "linux")]
        if let Some(socket) = S::socket(transport) {
            return self.poll_discard_in_kernel(socket, cx);
        }
        let mut bytes = [0; READ_LENGTH];
        let mut buffer = ReadBuf::new(&mut bytes);
        ready!(Pin::new(transport).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// With `MSG_TRUNC`, `tcp(7)` drops the bytes without copying them; the buffer gives only the length, and is not touched.
    #[cfg(target_os = "linux")]
    fn poll_discard_in_kernel(&self, socket: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        use rustix::net::{RecvFlags, recv};
        loop {
            ready!(socket.poll_read_ready(cx))?;
            let discarded = socket.try_io(Interest::READABLE, || {
                let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
                let (_, length) = recv(socket, &mut bytes[..], RecvFlags::TRUNC)?;
                Ok(length)
            });
            match discarded {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

/// Takes [`reset_on_drop`] back: what the kernel has, it will send.
#[cfg(feature = "server")]
pub(crate) fn deliver_on_drop<S: TlsSession>(transport: &S::Transport) {
    #[expect(deprecated, reason = "a linger of some seconds blocks the thread that closes, none at all does not")]
    if let Some(socket) = S::socket(transport)
        && let Err(error) = socket.set_linger(None)
    {
        tracing::debug!(%error, "the connection will be reset");
    }
}

/// How long the kernel goes on to send to a peer that acknowledges nothing (`TCP_USER_TIMEOUT`, `tcp(7)`), where there is such a
/// limit.
#[cfg(feature = "server")]
pub(crate) fn limit_retransmission(socket: &TcpStream, limit: std::time::Duration) {
    #[cfg(target_os = "linux")]
    {
        let milliseconds = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(socket, milliseconds) {
            tracing::debug!(%error, "retransmission is not limited");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (socket, limit);
}

/// Whether some connections are not closed yet.
#[cfg(feature = "server")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenSockets {
    None,
    Some,
}

/// The bytes that the kernel has to send, or that peers have not acknowledged, on connections of this process that were accepted at
/// `addresses`; `None` where the kernel cannot tell.
///
/// `SIOCOUTQ` would need the sockets, and most are closed; `proc(5)` knows those, too, by their inode 0. A successor at the same
/// address has sockets of its own, which are no matter here.
#[cfg(feature = "server")]
pub(crate) fn unacknowledged(addresses: &[std::net::SocketAddr], open: OpenSockets) -> Option<u64> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let ours = match open {
        OpenSockets::None => std::collections::HashSet::new(),
        OpenSockets::Some => own_sockets(),
    };
    let is_ours = |socket: &Sender| socket.inode == CLOSED || ours.contains(&socket.inode);
    let sum = |table: String| -> u64 {
        let senders = table.lines().filter_map(Sender::parse).filter(is_ours);
        senders.filter(|socket| addresses.iter().any(|at| socket.is_at(*at))).map(|socket| socket.unacknowledged).sum()
    };
    let ipv4 = sum(std::fs::read_to_string("/proc/net/tcp").ok()?);
    // There is none where IPv6 is switched off.
    let ipv6 = std::fs::read_to_string("/proc/net/tcp6").map_or(0, sum);
    Some(ipv4 + ipv6)
}

/// The inodes of the sockets that this process has open.
#[cfg(feature = "server")]
fn own_sockets() -> std::collections::HashSet<u64> {
    let descriptors = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let targets = descriptors.filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok());
    targets.filter_map(|target| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect()
}

/// The inode of a socket that no process has open.
#[cfg(feature = "server")]
const CLOSED: u64 = 0;

/// A line of `/proc/net/tcp` or `/proc/net/tcp6` about a socket that has something to send, or to be acknowledged.
#[cfg(feature = "server")]
#[derive(Debug, PartialEq, Eq)]
struct Sender {
    local: std::net::SocketAddr,
    unacknowledged: u64,
    inode: u64,
}

#[cfg(feature = "server")]
impl Sender {
    fn parse(line: &str) -> Option<Self> {
        // sl, local_address, rem_address, st, tx_queue:rx_queue, tr:tm->when, retrnsmt, uid, timeout, inode
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (address, port) = fields.next()?.split_once(':')?;
        let (unacknowledged, _) = fields.nth(2)?.split_once(':')?;
        let unacknowledged = u64::from_str_radix(unacknowledged, 16).ok()?;
        // Most of a large table is connections that are idle, or wait for their time to be over.
        if unacknowledged == 0 {
            return None;
        }
        let inode = fields.nth(4)?.parse().ok()?;
        // Words of 32 bits in the byte order of this machine.
        let words: Option<Vec<u8>> = (0..address.len())
            .step_by(8)
            .map(|at| u32::from_str_radix(address.get(at..at + 8)?, 16).ok())
            .try_fold(Vec::new(), |bytes, word| Some([bytes, word?.to_ne_bytes().to_vec()].concat()));
        let bytes = words?;
        let address = match <[u8; 4]>::try_from(&bytes[..]) {
            Ok(bytes) => std::net::IpAddr::from(bytes),
            Err(_) => std::net::IpAddr::from(<[u8; 16]>::try_from(&bytes[..]).ok()?),
        };
        let port = u16::from_str_radix(port, 16).ok()?;
        Some(Self { local: (address.to_canonical(), port).into(), unacknowledged, inode })
    }

    /// Whether it was accepted by a listener at `address`.
    fn is_at(&self, address: std::net::SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.local.port() == address.port() && (ip.is_unspecified() || ip == self.local.ip())
    }
}

#[cfg(all(test, feature = "server", target_endian = "little"))]
mod tests {
    use super::{CLOSED, Sender};

    #[test]
    fn what_is_to_be_sent_is_read_from_the_kernels_tables() {
        let fin_wait =
            "   3: 0100007F:20FB 0100007F:C2D4 04 003E4E01:00000000 01:00000019 00000000     0        0 0 3 ffff8";
        let socket = Sender::parse(fin_wait).expect("a sender");
        assert_eq!(socket, Sender { local: ([127, 0, 0, 1], 8443).into(), unacknowledged: 0x3E_4E01, inode: CLOSED });
        assert!(socket.is_at(([0, 0, 0, 0], 8443).into()));
        assert!(socket.is_at("[::]:8443".parse().unwrap()));
        assert!(!socket.is_at(([127, 0, 0, 1], 8444).into()));
        assert!(!socket.is_at(([127, 0, 0, 2], 8443).into()));

        let mapped = "   0: 0000000000000000FFFF00000100007F:20FB 0000000000000000FFFF00000100007F:9C40 09 \
                      00000001:00000000 01:00000014 00000000     0        0 0 1 ffff8";
        let socket = Sender::parse(mapped).expect("a sender");
        assert_eq!(socket, Sender { local: ([127, 0, 0, 1], 8443).into(), unacknowledged: 1, inode: CLOSED });

        let open =
            "   4: 0100007F:20FB 0100007F:C2D4 01 00000000:00000000 00:00000000 00000000     0        0 84327 1 ffff8";
        assert_eq!(Sender::parse(open), None);
        assert_eq!(Sender::parse("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn open_sockets_are_counted_where_there_are_some_and_closed_ones_always() {
        use std::{
            io::{ErrorKind, Write},
            net::{TcpListener, TcpStream},
        };

        use super::{OpenSockets, unacknowledged};

        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let _client = TcpStream::connect(address).expect("a connection");
        let (mut server, _) = listener.accept().expect("a connection");
        server.set_nonblocking(true).expect("an option");
        let full = std::iter::repeat_with(|| server.write(&[0; 65536])).find_map(Result::err);
        assert_eq!(full.map(|error| error.kind()), Some(ErrorKind::WouldBlock));
        assert_eq!(unacknowledged(&[address], OpenSockets::None), Some(0));
        let bytes = unacknowledged(&[address], OpenSockets::Some).expect("Linux tells");
        assert!(bytes > 0);
        drop(server);
        assert!(unacknowledged(&[address], OpenSockets::None).expect("Linux tells") >= bytes);
    }
}
