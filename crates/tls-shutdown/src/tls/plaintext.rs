//! [`Plaintext`]: a transport before TLS, or after TLS was taken off.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    runtime::forward::{forward_socket, forward_writes},
    tls::records::Records,
};

/// A transport from which TLS was taken off. It first reads the bytes that came behind the last record, then the transport.
///
/// TLS can be put on it again.
///
/// ```
/// # async fn example(tcp: tokio::net::TcpStream) -> std::io::Result<()> {
/// use tls_shutdown::{Plaintext, Records};
/// use tokio::io::AsyncWriteExt;
///
/// // A protocol that begins in plaintext has one type before TLS and after it.
/// let mut plain = Plaintext::new(tcp);
/// plain.write_all(b"220 ready\r\n").await?;
/// let under_tls = Records::new(plain);
/// # let _ = under_tls;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Plaintext<T> {
    /// What came behind the last record. In one piece, because nothing is added.
    leftover: VecDeque<u8>,
    transport: T,
}

impl<T> Plaintext<T> {
    /// Wraps a transport that has not had TLS yet.
    pub fn new(transport: T) -> Self {
        Self { leftover: VecDeque::new(), transport }
    }

    /// What remains of a transport after TLS.
    pub(crate) fn without_tls(records: Records<T>) -> Self {
        let (leftover, transport) = records.into_parts();
        Self { leftover: leftover.into(), transport }
    }

    /// The transport.
    pub fn get_ref(&self) -> &T {
        &self.transport
    }

    /// The transport. Bytes that you read from it overtake those that came behind the last record.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.transport
    }

    /// Returns the unread bytes that came behind the last record, and the transport.
    pub fn into_parts(self) -> (Vec<u8>, T) {
        (self.leftover.into(), self.transport)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Plaintext<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (leftover, _) = this.leftover.as_slices();
        if leftover.is_empty() {
            return Pin::new(&mut this.transport).poll_read(cx, out);
        }
        let amount = leftover.len().min(out.remaining());
        out.put_slice(&leftover[..amount]);
        this.leftover.drain(..amount);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncBufRead + Unpin> AsyncBufRead for Plaintext<T> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        match this.leftover.as_slices() {
            ([], _) => Pin::new(&mut this.transport).poll_fill_buf(cx),
            (leftover, _) => Poll::Ready(Ok(leftover)),
        }
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        let this = self.get_mut();
        if this.leftover.is_empty() {
            Pin::new(&mut this.transport).consume(amount);
        } else {
            this.leftover.drain(..amount);
        }
    }
}

forward_writes!({T: AsyncWrite + Unpin} Plaintext<T> => transport);
forward_socket!({T} Plaintext<T>, T, |plain| plain.get_ref());
