//! `/proc/net/tcp` and `/proc/net/tcp6`: all sockets of the network namespace, in text.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
};

use super::Sender;

pub(super) fn senders() -> io::Result<Vec<Sender>> {
    let ipv4 = fs::read_to_string("/proc/net/tcp")?;
    // There is none where IPv6 is switched off.
    let ipv6 = fs::read_to_string("/proc/net/tcp6").unwrap_or_default();
    Ok(ipv4.lines().chain(ipv6.lines()).filter_map(parse).collect())
}

/// `None` for whatever has nothing to send, which is most of a large table.
fn parse(line: &str) -> Option<Sender> {
    // sl, local_address, rem_address, st, tx_queue:rx_queue, tr:tm->when, retrnsmt, uid, timeout, inode
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    let (unacknowledged, _) = fields.nth(2)?.split_once(':')?;
    let unacknowledged = u64::from_str_radix(unacknowledged, 16).ok()?;
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
        Ok(bytes) => IpAddr::from(bytes),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(&bytes[..]).ok()?),
    };
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Sender { local: SocketAddr::new(address.to_canonical(), port), unacknowledged, inode })
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;
    use crate::server::unacknowledged::CLOSED;

    #[test]
    fn lines_are_read() {
        let local: SocketAddr = ([127, 0, 0, 1], 8443).into();
        let fin_wait =
            "   3: 0100007F:20FB 0100007F:C2D4 04 003E4E01:00000000 01:00000019 00000000     0        0 0 3 ffff8";
        assert_eq!(parse(fin_wait), Some(Sender { local, unacknowledged: 0x3E_4E01, inode: CLOSED }));
        let mapped = "   0: 0000000000000000FFFF00000100007F:20FB 0000000000000000FFFF00000100007F:9C40 09 \
                      00000001:00000000 01:00000014 00000000     0        0 84327 1 ffff8";
        assert_eq!(parse(mapped), Some(Sender { local, unacknowledged: 1, inode: 84327 }));
        let idle =
            "   4: 0100007F:20FB 0100007F:C2D4 01 00000000:00000000 00:00000000 00000000     0        0 84327 1 ffff8";
        assert_eq!(parse(idle), None);
        assert_eq!(parse("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt"), None);
    }
}
