//! [`Records`]: a transport that passes on one TLS record at a time.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    runtime::forward::{forward_socket, forward_writes},
    tls::record_scanner::{HEADER, NotTls, is_plausible},
};

/// A transport that passes on one TLS record at a time to the TLS stream over it.
///
/// rustls reads as much as it can, and discards what follows the peer's close_notify. Plaintext that arrives in the same segment
/// would be lost. `Records` buffers in its place, and keeps the bytes behind the current record.
/// [`ShutdownStream::into_plaintext`](crate::ShutdownStream::into_plaintext) needs it. It must be there from the handshake on.
///
/// `Records` never passes on bytes that cannot be a TLS record. Reading fails with [`InvalidData`](io::ErrorKind), and
/// [`into_parts`](Self::into_parts) returns the bytes.
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
    /// Bytes of the transport that were not passed on: `buffer[start..end]`. Allocated at the first read.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of the current record that were not passed on; 0 if a header is next.
    left: usize,
}

/// The size of a read, and of the buffer of each connection. rustls reads 4 KiB at a time: fewer system calls pay for the copy. In a
/// larger buffer, the bytes leave the processor's nearest cache before rustls reads them, which costs more than the calls.
const READ_BYTES: usize = 12 * 1024;

impl<T> Records<T> {
    /// Wraps a transport from which no TLS byte was read yet.
    pub fn new(transport: T) -> Self {
        Self { transport, buffer: Vec::new(), start: 0, end: 0, left: 0 }
    }

    /// The transport.
    pub fn get_ref(&self) -> &T {
        &self.transport
    }

    /// The transport. Bytes that you read from it are missing in the record stream.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.transport
    }

    /// Returns the bytes that were read from the transport and not passed on, and the transport.
    pub fn into_parts(self) -> (Vec<u8>, T) {
        (self.buffer[self.start..self.end].to_vec(), self.transport)
    }

    /// How many of the buffered bytes may be passed on, or `None` if a header is next and not complete.
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

impl<T: AsyncRead + Unpin> Records<T> {
    /// Reads more into the buffer. Returns the number of bytes, 0 at the transport's end.
    fn poll_read_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.buffer.resize(READ_BYTES, 0);
        // This moves a part of a header at most: more is passed on before the next read.
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

impl<T: AsyncRead + Unpin> AsyncBufRead for Records<T> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        loop {
            match this.available() {
                Ok(Some(available)) => return Poll::Ready(Ok(&this.buffer[this.start..this.start + available])),
                Ok(None) => {
                    if ready!(this.poll_read_more(cx))? == 0 {
                        return Poll::Ready(Ok(&[]));
                    }
                }
                Err(not_tls) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, not_tls))),
            }
        }
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        let this = self.get_mut();
        this.start += amount;
        this.left -= amount;
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Records<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let available = ready!(self.as_mut().poll_fill_buf(cx))?;
        let amount = available.len().min(out.remaining());
        out.put_slice(&available[..amount]);
        self.consume(amount);
        Poll::Ready(Ok(()))
    }
}

forward_writes!({T: AsyncWrite + Unpin} Records<T> => transport);
forward_socket!({T} Records<T>, T, |records| records.get_ref());
