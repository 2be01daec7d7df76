//! [`AcceptedStream`]: the stream of a connection under a server, with TLS or without.

use std::{
    any::Any,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_util::io::poll_read_buf;

use super::{
    connection::ConnectionRecord,
    peer::{Peer, Transport},
    plain_stream::{PlainSocket, PlainStream, RemoteHalf},
    stream::ServerStream,
    unacknowledged::acknowledged,
};
use crate::{
    runtime::forward::forward_writes,
    tls::{Abort, ShutdownState, Undelivered},
};

/// How much is read ahead at most.
const READ_AHEAD_BYTES: usize = 8 * 1024;

/// The stream of a connection that a [`Server`](super::Server) has accepted, for [`Server::connect_info`](super::Server::connect_info).
///
/// ```
/// use tls_shutdown::server::AcceptedStream;
///
/// fn cipher(stream: &AcceptedStream) -> Option<rustls::CipherSuite> {
///     let (_, tls) = stream.tls()?.get_ref().get_ref().get_ref();
///     tls.negotiated_cipher_suite().map(|cipher| cipher.suite())
/// }
/// ```
#[derive(Debug)]
pub struct AcceptedStream {
    inner: InnerStream,
    /// Bytes that were read before hyper asked for them, and that it does not have.
    ahead: BytesMut,
}

#[derive(Debug)]
enum InnerStream {
    Tls(ServerStream),
    Plain(PlainStream),
}

/// Calls a method of the stream.
macro_rules! with_stream {
    ($stream:expr, |$inner:ident| $call:expr) => {
        match $stream {
            InnerStream::Tls($inner) => $call,
            InnerStream::Plain($inner) => $call,
        }
    };
}

impl From<ServerStream> for AcceptedStream {
    fn from(stream: ServerStream) -> Self {
        Self { inner: InnerStream::Tls(stream), ahead: BytesMut::new() }
    }
}

impl From<PlainStream> for AcceptedStream {
    fn from(stream: PlainStream) -> Self {
        Self { inner: InnerStream::Plain(stream), ahead: BytesMut::new() }
    }
}

impl AcceptedStream {
    /// Who is at the other end. Over TLS, the address that the [hook before TLS](super::TlsListener::before_tls) returned, if there is one.
    pub fn peer(&self) -> Peer {
        self.connection().peer
    }

    /// What carries the connection.
    pub fn transport(&self) -> Transport {
        self.connection().transport
    }

    /// The TLS stream, if the connection has TLS.
    pub fn tls(&self) -> Option<&ServerStream> {
        match &self.inner {
            InnerStream::Tls(stream) => Some(stream),
            InnerStream::Plain(_) => None,
        }
    }

    /// The TCP socket, also under TLS.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self.plain() {
            Some(PlainSocket::Tcp(tcp)) => Some(tcp),
            _ => Some(self.tls()?.get_ref().get_ref().get_ref().0),
        }
    }

    /// The Unix socket.
    #[cfg(unix)]
    pub fn unix(&self) -> Option<&tokio::net::UnixStream> {
        match self.plain()? {
            PlainSocket::Unix(unix) => Some(unix),
            _ => None,
        }
    }

    /// The stream of a [listener](super::Listener) of your own, if it is of this type and neither a TCP socket nor a Unix socket.
    pub fn custom<T: 'static>(&self) -> Option<&T> {
        match self.plain()? {
            PlainSocket::Custom(custom) => (&**custom as &dyn Any).downcast_ref(),
            _ => None,
        }
    }

    fn plain(&self) -> Option<&PlainSocket> {
        match &self.inner {
            InnerStream::Plain(stream) => Some(stream.socket()),
            InnerStream::Tls(_) => None,
        }
    }

    pub(super) fn connection(&self) -> &Arc<ConnectionRecord> {
        with_stream!(&self.inner, |stream| stream.connection())
    }

    /// Whether our half is open.
    pub(super) fn is_writable(&self) -> bool {
        match &self.inner {
            InnerStream::Tls(stream) => {
                matches!(stream.get_ref().state(), ShutdownState::Open | ShutdownState::Received)
            }
            InnerStream::Plain(stream) => stream.is_writable(),
        }
    }

    /// Whether TLS holds bytes that the transport has not accepted.
    pub(super) fn has_unsent(&self) -> bool {
        self.tls().is_some_and(|stream| stream.get_ref().get_ref().get_ref().1.wants_write())
    }

    /// Notes for the report whether it does.
    pub(super) fn note_unsent(&self) {
        if self.has_unsent() {
            self.connection().mark_unsent();
        }
    }

    /// The bytes that the client's system has acknowledged, or `None` if they are unknown.
    pub(super) fn acknowledged(&self) -> Option<u64> {
        acknowledged(self.tcp()?)
    }

    /// Sets what TCP does if the connection ends before its close was announced, also if the process is killed.
    pub(super) fn set_abort_mode(&mut self, abort: Abort) {
        with_stream!(&mut self.inner, |stream| stream.get_mut().set_abort_mode(abort));
    }

    /// The client's FIN has come within a message. TLS notices that by itself.
    pub(super) fn mark_truncated(&mut self) {
        if let InnerStream::Plain(stream) = &mut self.inner {
            stream.get_mut().mark(RemoteHalf::Truncated);
        }
    }

    /// The client's FIN has come while a response was due. With TLS, close_notify says that the client has closed only its half.
    pub(super) fn mark_half_closed(&mut self) {
        self.connection().mark_half_closed();
        if let InnerStream::Plain(stream) = &mut self.inner {
            stream.get_mut().mark(RemoteHalf::HalfClosed);
        }
    }

    /// The client gets no more time: what it does not read at once is given up.
    pub(super) fn mark_timed_out(&mut self) {
        match &mut self.inner {
            InnerStream::Tls(stream) => stream.get_mut().set_stall_timeout(Duration::ZERO),
            InnerStream::Plain(stream) => stream.get_mut().mark_timed_out(),
        }
    }

    /// Sets what the client may not have received yet.
    pub(super) fn set_undelivered(&mut self, undelivered: Undelivered) {
        match &mut self.inner {
            InnerStream::Tls(stream) => stream.get_mut().set_undelivered(undelivered),
            InnerStream::Plain(stream) => stream.set_undelivered(undelivered),
        }
    }

    /// Begins a shutdown, as far as that needs no wait. The drop leaves the rest to the reaper.
    pub(super) fn begin_shutdown(&mut self) {
        with_stream!(&mut self.inner, |stream| stream.get_mut().begin_shutdown());
    }

    /// Ends the connection by RST, if the transport has one.
    pub(super) fn reset(self) {
        match self.inner {
            InnerStream::Tls(stream) => stream.into_inner().abort(Abort::Reset),
            InnerStream::Plain(stream) => stream.reset(),
        }
    }

    /// Flushes. Adds what TLS has sent meanwhile to `written`.
    pub(super) fn poll_flush_counted(&mut self, cx: &mut Context<'_>, written: &mut u64) -> Poll<io::Result<()>> {
        match &mut self.inner {
            InnerStream::Tls(stream) => stream.get_mut().poll_flush_counted(cx, written),
            InnerStream::Plain(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// What was read ahead, and was not taken.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Reads more ahead. Returns the number of bytes, 0 at the end of the stream.
    pub(super) fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let InnerStream::Plain(stream) = &self.inner {
            // While a connection waits for its client, it needs no buffer.
            ready!(stream.poll_read_ready(cx))?;
        }
        self.ahead.reserve(READ_AHEAD_BYTES);
        with_stream!(&mut self.inner, |stream| poll_read_buf(Pin::new(stream), cx, &mut self.ahead))
    }
}

impl AsyncRead for AcceptedStream {
    /// Reads one TLS record, as hyper does over the bare stream. [`ShutdownStream`](crate::ShutdownStream) looks for more, which most
    /// requests do not have.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let InnerStream::Plain(stream) = &mut this.inner
            && this.ahead.is_empty()
        {
            return Pin::new(stream).poll_read(cx, buffer);
        }
        let data = ready!(Pin::new(&mut *this).poll_fill_buf(cx))?;
        let amount = data.len().min(buffer.remaining());
        buffer.put_slice(&data[..amount]);
        Pin::new(&mut *this).consume(amount);
        if this.ahead.is_empty() {
            // Most HTTP/1 connections read ahead once, or never.
            this.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncBufRead for AcceptedStream {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.ahead.is_empty() && this.tls().is_none() {
            ready!(this.poll_read_ahead(cx))?;
        }
        match &mut this.inner {
            InnerStream::Tls(stream) if this.ahead.is_empty() => Pin::new(stream).poll_fill_buf(cx),
            _ => Poll::Ready(Ok(&this.ahead)),
        }
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        let this = self.get_mut();
        match &mut this.inner {
            InnerStream::Tls(stream) if this.ahead.is_empty() => Pin::new(stream).consume(amount),
            _ => this.ahead.advance(amount),
        }
    }
}

forward_writes!({} AcceptedStream => inner, with_stream);
