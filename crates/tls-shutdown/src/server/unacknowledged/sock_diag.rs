//! `sock_diag(7)`: asks the kernel for all sockets of a port, or for one connection. The kernel leaves out sockets that are closed at both
//! ends.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    ops::ControlFlow,
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType,
    netlink::{self, SocketAddrNetlink},
    recv, sendto, socket_with,
    sockopt::{Timeout, set_socket_timeout},
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const IPPROTO_TCP: u8 = 6;

/// The length of `struct nlmsghdr`, of which each message has one.
const HEADER: usize = 16;
/// The length of `struct inet_diag_msg`, and the offsets of its fields. Attributes follow it.
const MESSAGE: usize = 72;
const PORT: usize = 4;
const ADDRESS: usize = 8;
const UNACKNOWLEDGED: usize = 60;
const INODE: usize = 68;
/// The attribute that contains a `struct tcp_info`, and the offset of `tcpi_bytes_acked` behind the attribute's header.
const INET_DIAG_INFO: u16 = 2;
const BYTES_ACKED: usize = 4 + 120;

/// The states in which bytes can be unacknowledged: ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK and CLOSING.
const OF_SENDERS: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// SYN_RECV, and the state in which the kernel itself keeps such a connection, NEW_SYN_RECV.
const OF_HANDSHAKES: u32 = 1 << 3 | 1 << 12;

/// How long each datagram of a dump may take.
const DUMP_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest datagram of a dump.
const DATAGRAM: usize = 32 * 1024;

/// A socket that the kernel reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    local: SocketAddr,
    /// The bytes that are unsent or unacknowledged.
    pub(super) unacknowledged: u64,
    pub(super) inode: u64,
}

impl Socket {
    /// Whether no process has the socket open.
    pub(super) fn is_closed(&self) -> bool {
        self.inode == 0
    }

    /// Whether a listener at `address` has accepted it.
    pub(super) fn is_at(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.local.port() == address.port() && (ip.is_unspecified() || ip == self.local.ip())
    }
}

/// The sockets at the ports of `addresses` with unacknowledged bytes. Blocks.
pub(super) fn senders(addresses: &[SocketAddr]) -> io::Result<Vec<Socket>> {
    sockets(addresses, OF_SENDERS, |socket| socket.unacknowledged > 0)
}

/// Whether a TCP handshake is in progress at a listener's address. Blocks.
pub(super) fn has_handshakes(address: SocketAddr) -> io::Result<bool> {
    Ok(!sockets(&[address], OF_HANDSHAKES, |socket| socket.is_at(address))?.is_empty())
}

/// Those of the sockets at the ports of `addresses`, in one of these states, which `filter` lets pass. Blocks.
fn sockets(addresses: &[SocketAddr], states: u32, filter: impl Fn(&Socket) -> bool) -> io::Result<Vec<Socket>> {
    let socket = open()?;
    set_socket_timeout(&socket, Timeout::Recv, Some(DUMP_TIMEOUT))?;
    let mut ports: Vec<_> = addresses.iter().map(|address| (family_of(address), address.port())).collect();
    ports.sort_unstable_by_key(|(family, port)| (family.as_raw(), *port));
    ports.dedup();
    let mut found = Vec::new();
    let mut buffer = vec![0; DATAGRAM];
    for (family, port) in ports {
        send(&socket, &request(NLM_F_REQUEST | NLM_F_DUMP, family, 0, states, [port, 0], [[0; 16]; 2]))?;
        let mut keep = |socket| found.extend(Some(socket).filter(&filter));
        while read(receive(&socket, &mut buffer, RecvFlags::empty())?, family, &mut keep)?.is_continue() {}
    }
    Ok(found)
}

/// The bytes that the peer of this connection has acknowledged. Does not block.
pub(super) fn acknowledged(local: SocketAddr, peer: SocketAddr) -> io::Result<u64> {
    receive_acknowledged(&ask(local, peer, 1 << (INET_DIAG_INFO - 1))?)
}

/// The bytes that are unsent or unacknowledged on this connection. Does not block.
pub(super) fn unacknowledged(local: SocketAddr, peer: SocketAddr) -> io::Result<u64> {
    let mut buffer = [0; 1024];
    let answer = receive_answer(&ask(local, peer, 0)?, &mut buffer)?;
    let bytes = field(answer, HEADER + UNACKNOWLEDGED).map(u32::from_ne_bytes);
    bytes.map(u64::from).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Asks for one connection. The kernel answers such a question within the system call that sends it.
fn ask(mut local: SocketAddr, mut peer: SocketAddr, extensions: u8) -> io::Result<OwnedFd> {
    let socket = open()?;
    for address in [&mut local, &mut peer] {
        address.set_ip(address.ip().to_canonical());
    }
    let (ports, addresses) = ([local.port(), peer.port()], [local.ip(), peer.ip()].map(padded));
    send(&socket, &request(NLM_F_REQUEST, family_of(&local), extensions, OF_SENDERS, ports, addresses))?;
    Ok(socket)
}

/// Receives the kernel's answer to a question for one connection.
fn receive_answer<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let answer = receive(socket, buffer, RecvFlags::DONTWAIT)?;
    match field(answer, 4).map(u16::from_ne_bytes) {
        Some(NLMSG_ERROR) => Err(io::ErrorKind::NotFound.into()),
        _ => Ok(answer),
    }
}

fn receive_acknowledged(socket: &OwnedFd) -> io::Result<u64> {
    let mut buffer = [0; 1024];
    let answer = receive_answer(socket, &mut buffer)?;
    let mut attributes = answer.get(HEADER + MESSAGE..).unwrap_or_default();
    while let (Some(length), Some(kind)) = (field(attributes, 0), field(attributes, 2)) {
        if u16::from_ne_bytes(kind) == INET_DIAG_INFO {
            let bytes = field(attributes, BYTES_ACKED).map(u64::from_ne_bytes);
            return bytes.ok_or_else(|| io::ErrorKind::InvalidData.into());
        }
        let length = usize::from(u16::from_ne_bytes(length)).max(4);
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Err(io::ErrorKind::InvalidData.into())
}

fn family_of(address: &SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

fn padded(ip: IpAddr) -> [u8; 16] {
    let mut bytes = [0; 16];
    match ip {
        IpAddr::V4(ip) => bytes[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => bytes = ip.octets(),
    }
    bytes
}

fn open() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?)
}

fn send(socket: &OwnedFd, message: &[u8]) -> io::Result<usize> {
    Ok(sendto(socket, message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?)
}

/// Receives one datagram.
fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8], flags: RecvFlags) -> io::Result<&'a [u8]> {
    let (_, length) = recv(socket, &mut *buffer, flags)?;
    let datagram = buffer.get(..length).filter(|datagram| !datagram.is_empty());
    datagram.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// A `struct nlmsghdr` with a `struct inet_diag_req_v2`. Of ports and addresses, the first is the local one.
fn request(
    flags: u16,
    family: AddressFamily,
    extensions: u8,
    states: u32,
    ports: [u16; 2],
    addresses: [[u8; 16]; 2],
) -> Vec<u8> {
    let [length, sequence, sender, interface]: [u32; 4] = [72, 0, 0, 0];
    let any_cookie = [0xff; 8];
    [
        &length.to_ne_bytes()[..],
        &SOCK_DIAG_BY_FAMILY.to_ne_bytes(),
        &flags.to_ne_bytes(),
        &[sequence, sender].map(u32::to_ne_bytes).concat(),
        &[family.as_raw() as u8, IPPROTO_TCP, extensions, 0],
        &states.to_ne_bytes(),
        &ports.map(u16::to_be_bytes).concat(),
        &addresses.concat(),
        &interface.to_ne_bytes(),
        &any_cookie,
    ]
    .concat()
}

/// Reads the messages of one datagram of a dump. It continues until the kernel ends it.
fn read(mut datagram: &[u8], family: AddressFamily, keep: &mut impl FnMut(Socket)) -> io::Result<ControlFlow<()>> {
    while let (Some(length), Some(kind)) = (field(datagram, 0), field(datagram, 4)) {
        let length = u32::from_ne_bytes(length) as usize;
        let message = datagram.get(HEADER..length).ok_or(io::ErrorKind::InvalidData)?;
        match u16::from_ne_bytes(kind) {
            NLMSG_DONE => return Ok(ControlFlow::Break(())),
            NLMSG_ERROR => {
                let number = field(message, 0).map_or(0, i32::from_ne_bytes);
                return Err(io::Error::from_raw_os_error(-number));
            }
            _ => keep(parse(message, family).ok_or(io::ErrorKind::InvalidData)?),
        }
        // Messages are aligned.
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(ControlFlow::Continue(()))
}

fn parse(message: &[u8], family: AddressFamily) -> Option<Socket> {
    let ip = match family {
        AddressFamily::INET => IpAddr::from(field::<4>(message, ADDRESS)?),
        _ => IpAddr::from(field::<16>(message, ADDRESS)?),
    };
    Some(Socket {
        local: SocketAddr::new(ip.to_canonical(), u16::from_be_bytes(field(message, PORT)?)),
        unacknowledged: u32::from_ne_bytes(field(message, UNACKNOWLEDGED)?).into(),
        inode: u32::from_ne_bytes(field(message, INODE)?).into(),
    })
}

fn field<const LENGTH: usize>(bytes: &[u8], offset: usize) -> Option<[u8; LENGTH]> {
    bytes.get(offset..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn a_socket_is_at_the_address_of_its_listener() {
        let socket = Socket { local: ([127, 0, 0, 1], 8443).into(), unacknowledged: 1, inode: 0 };
        assert!(socket.is_at(([0, 0, 0, 0], 8443).into()));
        assert!(socket.is_at("[::]:8443".parse().unwrap()));
        assert!(!socket.is_at(([127, 0, 0, 1], 8444).into()));
        assert!(!socket.is_at(([127, 0, 0, 2], 8443).into()));
    }

    /// `poll_write` asks this question: the kernel may not keep it waiting.
    #[test]
    fn an_answer_that_is_not_there_is_not_waited_for() {
        let socket = open().expect("Linux has netlink");
        set_socket_timeout(&socket, Timeout::Recv, Some(DUMP_TIMEOUT)).expect("an option");
        let asked_at = Instant::now();
        let error = receive_acknowledged(&socket).expect_err("nothing was sent");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(asked_at.elapsed() < DUMP_TIMEOUT / 2);
    }
}
