//! `sock_diag(7)`: the kernel is asked for the sockets of one port, and leaves out those that are over.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType,
    netlink::{self, SocketAddrNetlink},
    recv, sendto, socket_with,
    sockopt::{Timeout, set_socket_timeout},
};

use super::Sender;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const IPPROTO_TCP: u8 = 6;

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Bytes of `struct inet_diag_req_v2`, and where in it the port is.
const REQUEST: usize = 56;
const REQUESTED_PORT: usize = 8;
/// Where in `struct inet_diag_msg` the local port and address, what is to be sent, and the inode are.
const PORT: usize = 4;
const ADDRESS: usize = 8;
const TO_SEND: usize = 60;
const INODE: usize = 68;

/// Where in the request the extensions are, and the addresses and ports.
const EXTENSIONS: usize = 2;
const REQUESTED_PEER_PORT: usize = 10;
const REQUESTED_ADDRESSES: [usize; 2] = [12, 28];
const COOKIE: usize = 48;
/// Bytes of `struct inet_diag_msg`; attributes follow.
const MESSAGE: usize = 72;
const ATTRIBUTE_HEADER: usize = 4;
/// The attribute that is a `struct tcp_info`, and where in that the bytes are that the peer has acknowledged.
const INET_DIAG_INFO: u16 = 2;
const ACKNOWLEDGED: usize = 120;

/// States in which something can be under way: ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK and CLOSING.
const STATES: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

/// How long each answer may take: it is there at once, or there is none.
const LIMIT: Duration = Duration::from_secs(1);

/// As much as the kernel gives at once.
const LENGTH: usize = 32 * 1024;

/// The sockets at the ports of `addresses` that have something to send.
pub(super) fn senders(addresses: &[SocketAddr]) -> io::Result<Vec<Sender>> {
    let socket = open()?;
    let mut listening: Vec<_> = addresses.iter().map(|address| (family_of(address.ip()), address.port())).collect();
    listening.sort_unstable_by_key(|(family, port)| (family.as_raw(), *port));
    listening.dedup();
    let mut senders = Vec::new();
    let mut buffer = vec![0; LENGTH];
    for (family, port) in listening {
        sendto(&socket, &request(family, port), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        loop {
            let (_, length) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
            let datagram = buffer.get(..length).filter(|datagram| !datagram.is_empty());
            if read(datagram.ok_or(io::ErrorKind::InvalidData)?, family, &mut senders)? == Dump::Done {
                break;
            }
        }
    }
    Ok(senders)
}

fn family_of(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

/// How many bytes the peer of this connection has acknowledged.
pub(super) fn acknowledged(local: SocketAddr, peer: SocketAddr) -> io::Result<u64> {
    let socket = open()?;
    let (local_ip, peer_ip) = (local.ip().to_canonical(), peer.ip().to_canonical());
    let family = family_of(local_ip);
    let mut message = request(family, local.port());
    message[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    let request = &mut message[HEADER..];
    request[EXTENSIONS] = 1 << (INET_DIAG_INFO - 1);
    request[REQUESTED_PEER_PORT..][..2].copy_from_slice(&peer.port().to_be_bytes());
    for (start, ip) in REQUESTED_ADDRESSES.into_iter().zip([local_ip, peer_ip]) {
        match ip {
            IpAddr::V4(ip) => request[start..][..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => request[start..][..16].copy_from_slice(&ip.octets()),
        }
    }
    // None: the addresses say enough.
    request[COOKIE..].fill(0xff);
    sendto(&socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0; 1024];
    let (_, length) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    let answer = answer.get(..length).ok_or(io::ErrorKind::InvalidData)?;
    if field(answer, 4).map(u16::from_ne_bytes) == Some(NLMSG_ERROR) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut attributes = answer.get(HEADER + MESSAGE..).unwrap_or_default();
    while let (Some(length), Some(kind)) = (field(attributes, 0), field(attributes, 2)) {
        let length = usize::from(u16::from_ne_bytes(length)).max(ATTRIBUTE_HEADER);
        if u16::from_ne_bytes(kind) == INET_DIAG_INFO {
            let bytes = field(attributes, ATTRIBUTE_HEADER + ACKNOWLEDGED).map(u64::from_ne_bytes);
            return bytes.ok_or_else(|| io::ErrorKind::InvalidData.into());
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Err(io::ErrorKind::InvalidData.into())
}

fn open() -> io::Result<OwnedFd> {
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(LIMIT))?;
    Ok(socket)
}

#[derive(PartialEq, Eq)]
enum Dump {
    GoesOn,
    Done,
}

fn request(family: AddressFamily, port: u16) -> [u8; HEADER + REQUEST] {
    let mut message = [0; HEADER + REQUEST];
    message[..4].copy_from_slice(&((HEADER + REQUEST) as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    let request = &mut message[HEADER..];
    request[0] = family.as_raw() as u8;
    request[1] = IPPROTO_TCP;
    request[4..8].copy_from_slice(&STATES.to_ne_bytes());
    request[REQUESTED_PORT..][..2].copy_from_slice(&port.to_be_bytes());
    message
}

/// Reads the messages of one datagram.
fn read(mut datagram: &[u8], family: AddressFamily, senders: &mut Vec<Sender>) -> io::Result<Dump> {
    while let Some(header) = datagram.first_chunk::<HEADER>() {
        let [a, b, c, d, e, f, ..] = *header;
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let message = datagram.get(HEADER..length).ok_or(io::ErrorKind::InvalidData)?;
        match u16::from_ne_bytes([e, f]) {
            NLMSG_DONE => return Ok(Dump::Done),
            NLMSG_ERROR => {
                let number = field(message, 0).map_or(0, i32::from_ne_bytes);
                return Err(io::Error::from_raw_os_error(-number));
            }
            _ => {
                let sender = parse(message, family).ok_or(io::ErrorKind::InvalidData)?;
                senders.extend(Some(sender).filter(|sender| sender.unacknowledged > 0));
            }
        }
        // Each begins at a multiple of four.
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Dump::GoesOn)
}

fn parse(message: &[u8], family: AddressFamily) -> Option<Sender> {
    let address = match family {
        AddressFamily::INET => IpAddr::from(field::<4>(message, ADDRESS)?),
        _ => IpAddr::from(field::<16>(message, ADDRESS)?),
    };
    Some(Sender {
        local: SocketAddr::new(address.to_canonical(), u16::from_be_bytes(field(message, PORT)?)),
        unacknowledged: u32::from_ne_bytes(field(message, TO_SEND)?).into(),
        inode: u32::from_ne_bytes(field(message, INODE)?).into(),
    })
}

fn field<const LENGTH: usize>(message: &[u8], start: usize) -> Option<[u8; LENGTH]> {
    message.get(start..)?.first_chunk().copied()
}
