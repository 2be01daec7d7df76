//! What holds for `Records` over any bytes in any pieces. Fuzzing uses it too.

use std::{
    io,
    ops::Range,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use tls_shutdown::Records;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// A transport that returns its bytes in pieces, and then ends.
struct Pieces<'a, I> {
    bytes: &'a [u8],
    sizes: I,
}

impl<I: Iterator<Item = usize> + Unpin> AsyncRead for Pieces<'_, I> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let size = self.sizes.next().unwrap_or(usize::MAX);
        let (piece, rest) = self.bytes.split_at(size.min(self.bytes.len()).min(buffer.remaining()));
        buffer.put_slice(piece);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

/// Where the records are. The last one may be cut.
struct Layout {
    /// The range of each, by its header.
    records: Vec<Range<usize>>,
    /// Whether bytes follow that begin no header.
    is_not_tls_behind: bool,
}

impl Layout {
    fn of(bytes: &[u8]) -> Self {
        let mut records = Vec::new();
        let mut start = 0;
        loop {
            match bytes.get(start..).unwrap_or_default() {
                [20..=23, 3, _, high, low, ..] => {
                    let end = start + 5 + usize::from(*high) * 256 + usize::from(*low);
                    records.push(start..end);
                    start = end;
                }
                [] | [20..=23] | [20..=23, 3] | [20..=23, 3, _] | [20..=23, 3, _, _] => {
                    return Self { records, is_not_tls_behind: false };
                }
                _ => return Self { records, is_not_tls_behind: true },
            }
        }
    }
}

/// Reads `bytes`, which come in pieces of these sizes in turn, into a buffer of `space` bytes.
///
/// # Panics
///
/// If a read returns bytes of two records, or bytes that are no record, if a byte is lost or changed, or if bytes that are no record are
/// not reported.
pub fn assert_one_at_a_time(bytes: &[u8], pieces: &[usize], space: usize) {
    let layout = Layout::of(bytes);
    let mut records = Records::new(Pieces { bytes, sizes: pieces.iter().copied().cycle() });
    let mut buffer = vec![0; space];
    let mut given = 0;
    let end = loop {
        let read = pin!(records.read(&mut buffer)).poll(&mut Context::from_waker(Waker::noop()));
        match read {
            Poll::Ready(Ok(0)) => break Ok(()),
            Poll::Ready(Ok(amount)) => {
                assert_eq!(buffer[..amount], bytes[given..given + amount], "at {given}");
                let record = layout.records.iter().find(|record| record.contains(&given)).expect("a record");
                given += amount;
                assert!(given <= record.end, "{given} is beyond {record:?}");
            }
            Poll::Ready(Err(error)) => break Err(error.kind()),
            Poll::Pending => panic!("the transport never waits"),
        }
    };
    let whole = layout.records.last().map_or(0, |record| record.end.min(bytes.len()));
    assert_eq!(given, whole, "all that is a record is given");
    assert_eq!(end, if layout.is_not_tls_behind { Err(io::ErrorKind::InvalidData) } else { Ok(()) });
    let (leftover, transport) = records.into_parts();
    assert_eq!([&leftover[..], transport.bytes].concat(), bytes[whole..], "the rest is kept");
}
