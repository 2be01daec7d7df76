//! TLS record boundaries: [`Records`], under a TLS stream, never gives it a byte beyond the record it is in; [`Plaintext`] is
//! what is left when TLS has been taken off.

use std::{
    error, fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A transport that gives the TLS stream over it one record at a time.
///
/// rustls reads as much as it can get, and discards what follows the peer's close_notify: plaintext that comes in the same
/// segment would be lost. Under it, this buffers in its place, and keeps what belongs to nobody yet. It has to be there from
/// the handshake on. [`ShutdownStream::into_plaintext`](crate::ShutdownStream::into_plaintext) needs it.
///
/// Bytes that cannot be a TLS record are not given on, and not lost: reading fails with [`InvalidData`](io::ErrorKind), and
/// [`into_parts`](Self::into_parts) has them.
///
/// ```
/// # use tls_shutdown::{Records, ShutdownStream, Unwrap};
/// # use tokio::{io::AsyncWriteExt, net::TcpStream};
/// # use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
/// # async fn clear_command_channel(
/// #     connector: TlsConnector, name: ServerName<'static>, tcp: TcpStream,
/// # ) -> std::io::Result<()> {
/// let mut stream = ShutdownStream::new(connector.connect(name, Records::new(tcp)).await?);
/// stream.write_all(b"CCC\r\n").await?;
/// // .. read the answer, then:
/// let mut plain = stream.into_plaintext(Unwrap::Initiate).await?;
/// plain.write_all(b"PWD\r\n").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Records<T> {
    transport: T,
    /// Bytes of the transport that were not given on: `buffer[start..end]`. Made at the first read.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of the current record that were not given on; 0 where a header is due.
    left: usize,
}

/// A record's header.
const HEADER: usize = 5;
/// What is asked of the transport at once, and the memory that it takes for a connection: a copy more than rustls's own reads of
/// 4 KiB is paid for by fewer system calls.
const READ_SIZE: usize = 32 * 1024;

impl<T> Records<T> {
    /// Wraps a transport on which no TLS byte was read yet.
    pub fn new(transport: T) -> Self {
        Self { transport, buffer: Vec::new(), start: 0, end: 0, left: 0 }
    }

    /// The transport.
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// What was read from the transport and belongs to no record that was given on, and the transport.
    pub fn into_parts(self) -> (Vec<u8>, T) {
        (self.buffer[self.start..self.end].to_vec(), self.transport)
    }

    /// How much of what is buffered may be given on, or `None` where a header is due and not whole.
    fn available(&mut self) -> Result<Option<usize>, NotTls> {
        let buffered = &self.buffer[self.start..self.end];
        if self.left == 0 {
            let header = &buffered[..buffered.len().min(HEADER)];
            if !is_plausible(header) {
                return Err(NotTls);
            }
            let &[_, _, _, high, low] = header else {
                return Ok(None);
            };
            self.left = HEADER + usize::from(u16::from_be_bytes([high, low]));
        }
        Ok(Some(self.left.min(buffered.len())).filter(|available| *available > 0))
    }
}

/// Whether these bytes, up to a header's length, can begin a record: of a type of TLS 1.2 or 1.3, and a version 3.x.
///
/// The minor version is no matter: RFC 9846 section 5.1 has it ignored, and a ClientHello may say 3.1.
fn is_plausible(header: &[u8]) -> bool {
    header.first().is_none_or(|content_type| (20..=23).contains(content_type))
        && header.get(1).is_none_or(|major| *major == 3)
}

/// Bytes that are not TLS where a record is due. [`Records`] gives it as an [`io::Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotTls;

impl fmt::Display for NotTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the peer sent bytes that are not TLS")
    }
}

impl error::Error for NotTls {}

impl<T: AsyncRead + Unpin> Records<T> {
    /// Reads more into the buffer. Gives the number of bytes, 0 at the transport's end.
    fn poll_read_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.buffer.resize(READ_SIZE, 0);
        // A part of a header at most: more than that is given on before more is read.
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let mut unfilled = ReadBuf::new(&mut self.buffer[self.end..]);
        ready!(Pin::new(&mut self.transport).poll_read(cx, &mut unfilled))?;
        let amount = unfilled.filled().len();
        self.end += amount;
        Poll::Ready(Ok(amount))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Records<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match this.available() {
                Ok(Some(available)) => {
                    let amount = available.min(out.remaining());
                    out.put_slice(&this.buffer[this.start..this.start + amount]);
                    this.start += amount;
                    this.left -= amount;
                    return Poll::Ready(Ok(()));
                }
                Ok(None) => {
                    if ready!(this.poll_read_more(cx))? == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
                Err(not_tls) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, not_tls))),
            }
        }
    }
}

/// A transport that TLS was taken off: it reads what had come behind the last record first, then on.
///
/// TLS can be put on it again.
#[derive(Debug)]
pub struct Plaintext<T> {
    leftover: Vec<u8>,
    start: usize,
    transport: T,
}

impl<T> Plaintext<T> {
    /// A transport on which TLS was not put yet: for a protocol that begins in plaintext, so that it has one type before and after.
    pub fn new(transport: T) -> Self {
        Self { leftover: Vec::new(), start: 0, transport }
    }

    /// What is left of a transport under TLS.
    pub(crate) fn without_tls(records: Records<T>) -> Self {
        let (leftover, transport) = records.into_parts();
        Self { leftover, start: 0, transport }
    }

    /// The transport.
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// What has come behind the last record and was not read yet, and the transport.
    pub fn into_parts(mut self) -> (Vec<u8>, T) {
        self.leftover.drain(..self.start);
        (self.leftover, self.transport)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Plaintext<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let leftover = &this.leftover[this.start..];
        if leftover.is_empty() {
            return Pin::new(&mut this.transport).poll_read(cx, out);
        }
        let amount = leftover.len().min(out.remaining());
        out.put_slice(&leftover[..amount]);
        this.start += amount;
        Poll::Ready(Ok(()))
    }
}

/// Writing is the transport's own business.
macro_rules! write_through {
    ($wrapper:ident) => {
        impl<T: AsyncWrite + Unpin> AsyncWrite for $wrapper<T> {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.get_mut().transport).poll_write(cx, bytes)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffers: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.get_mut().transport).poll_write_vectored(cx, buffers)
            }

            fn is_write_vectored(&self) -> bool {
                self.transport.is_write_vectored()
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.get_mut().transport).poll_flush(cx)
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.get_mut().transport).poll_shutdown(cx)
            }
        }
    };
}

write_through!(Records);
write_through!(Plaintext);

/// Follows record headers in a byte stream, to tell whether what comes where a record is due looks like TLS at all.
///
/// rustls gives that answer itself, except where its error is lost in a caught panic (see
/// [`process`](crate::tls::session::TlsConnection::process)).
#[derive(Debug, Default)]
pub(crate) struct RecordWalk {
    header: [u8; 5],
    header_filled: usize,
    body_left: usize,
    sync: Sync,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Sync {
    #[default]
    Records,
    Lost,
}

impl RecordWalk {
    /// Takes the next bytes of the stream. The first ones ever are taken for the beginning of a record: where rustls holds a part
    /// of one already, the walk is lost at once, and an error that was lost in a panic may be taken for bytes that are not TLS.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.sync == Sync::Records {
            let in_body = self.body_left.min(bytes.len());
            self.body_left -= in_body;
            bytes = &bytes[in_body..];
            if let Some((&byte, rest)) = bytes.split_first() {
                self.header[self.header_filled] = byte;
                self.header_filled += 1;
                bytes = rest;
                self.check_header();
            }
        }
    }

    /// Whether a header was no TLS record's.
    pub(crate) fn is_lost(&self) -> bool {
        self.sync == Sync::Lost
    }

    fn check_header(&mut self) {
        //= https://www.rfc-editor.org/rfc/rfc8446#section-5.1
        //# legacy_record_version:  MUST be set to 0x0303 for all records
        //# generated by a TLS 1.3 implementation other than an initial
        //# ClientHello
        let [_, _, _, length @ ..] = self.header;
        let plausible = is_plausible(&self.header[..self.header_filled]);
        if !plausible {
            self.sync = Sync::Lost;
        } else if self.header_filled == self.header.len() {
            self.header_filled = 0;
            self.body_left = usize::from(u16::from_be_bytes(length));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RecordWalk;

    fn walk(bytes: &[u8], piece: usize) -> bool {
        let mut walk = RecordWalk::default();
        bytes.chunks(piece).for_each(|bytes| walk.pass(bytes));
        walk.is_lost()
    }

    #[test]
    fn follows_records_in_any_pieces() {
        let records = [&[23, 3, 3, 0, 2, 0xff, 0xff][..], &[21, 3, 3, 0, 0], &[22, 3, 1, 1, 0], &[9; 256]].concat();
        for piece in 1..records.len() {
            assert!(!walk(&records, piece), "in pieces of {piece}");
            assert!(walk(&[&records[..], b"220 plain"].concat(), piece), "in pieces of {piece}");
            assert!(walk(&[&records[..], &[23, 2]].concat(), piece), "in pieces of {piece}");
        }
    }
}
