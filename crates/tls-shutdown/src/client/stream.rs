//! [`ClientStream`]: a stream that its owner and the drain share.

use std::{
    fmt,
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker, ready},
};

use hyper::rt;
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::{
    draining::Draining,
    exchange::Exchange,
    retirement::{PoolLimits, Retirement},
};
use crate::{
    runtime::{lock::lock, wakers::remember},
    tls::{Abort, Records, ShutdownState, ShutdownStream, TlsConnection, TlsSession},
};

/// The response of a [`ShutdownService`](super::ShutdownService): a [`ShutdownStream`] that the [`ClientDrain`](super::ClientDrain) can
/// end, or the bare transport of a connection without TLS. It is a stream of tokio and of `hyper::rt`.
///
/// Dropping it between messages closes cleanly; in mid-message it aborts. A connection is between messages before its first write, and
/// after the last byte of an HTTP/1 response, or the server's close_notify if that is the response's end. Clients drop such connections if
/// another one became free first.
///
/// # Errors
///
/// Those of a [`ShutdownStream`]. After the drain or a limit of the layer has closed the connection, reads return its end, and writes fail
/// with [`BrokenPipe`](io::ErrorKind::BrokenPipe). After the drain has cut a request in flight, reads, flushes and shutdowns fail with
/// [`ConnectionAborted`](io::ErrorKind::ConnectionAborted), so that nothing cut looks complete. The drain's errors contain [`Draining`].
///
/// ```
/// # use tls_shutdown::client::ClientStream;
/// # use tokio::net::TcpStream;
/// # use tokio_rustls::client::TlsStream;
/// fn alpn(stream: &ClientStream<TlsStream<TcpStream>>) -> Option<Vec<u8>> {
///     stream.with_session(|tls| tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))?
/// }
/// ```
pub struct ClientStream<S: TlsSession> {
    inner: Inner<S>,
}

enum Inner<S: TlsSession> {
    Tls(Arc<SharedStream<S>>),
    Plain(S::Transport),
}

impl<S: TlsSession> ClientStream<S> {
    pub(super) fn tls(stream: Arc<SharedStream<S>>) -> Self {
        Self { inner: Inner::Tls(stream) }
    }

    pub(super) fn plain(transport: S::Transport) -> Self {
        Self { inner: Inner::Plain(transport) }
    }

    /// Calls `look` with the TLS stream, for ALPN, certificates and the peer's address. Returns `None` if the connection has no TLS, or
    /// the drain has closed it.
    ///
    /// The connection is locked meanwhile: `look` must neither wait nor use this stream, which would wait for itself.
    pub fn with_session<T>(&self, look: impl FnOnce(&S) -> T) -> Option<T> {
        match &self.inner {
            Inner::Tls(shared) => shared.with(|link| link.stream.as_ref().map(|stream| look(stream.get_ref()))),
            Inner::Plain(_) => None,
        }
    }
}

/// A connection. Its owner holds the only lasting handle. The drain upgrades its weak one when it begins and at its timeout.
pub(super) struct SharedStream<S: TlsSession>(Mutex<Link<S>>);

struct Link<S: TlsSession> {
    /// `None` once it was closed in the place of its owner.
    stream: Option<ShutdownStream<S>>,
    /// The stream on its way to the reaper. It is dropped after the lock is released, because the drop may call `on_end`.
    closed: Option<ShutdownStream<S>>,
    exchange: Exchange,
    phase: LinkPhase,
    /// Whether a shutdown of the owner has succeeded. The owner may read on.
    is_half_closed: bool,
    /// `None` if nothing limits how long the connection is kept.
    retirement: Option<Box<Retirement>>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LinkPhase {
    Open,
    /// It is too old, or was idle for too long. It is closed when nothing is in flight.
    Retiring,
    /// The drain has begun, and closes the stream when nothing is in flight.
    Draining,
    /// The drain's timeout has passed before that.
    Cut,
}

impl LinkPhase {
    /// The result of the owner's reads after the drain has closed the stream.
    fn end(self) -> io::Result<()> {
        match self {
            Self::Cut => Err(io::Error::new(io::ErrorKind::ConnectionAborted, Draining)),
            Self::Open | Self::Retiring | Self::Draining => Ok(()),
        }
    }

    /// The error of the owner's writes after that.
    fn write_error(self) -> io::Error {
        match self {
            Self::Retiring => {
                io::Error::new(io::ErrorKind::BrokenPipe, "the connection is too old, or was idle for too long")
            }
            Self::Open | Self::Draining | Self::Cut => io::Error::new(io::ErrorKind::BrokenPipe, Draining),
        }
    }

    /// Whether the connection is closed as soon as nothing is in flight.
    fn is_ending(self) -> bool {
        matches!(self, Self::Retiring | Self::Draining)
    }
}

/// A connection of any type, as the drain sees it.
pub(super) trait Drained: Send + Sync {
    /// Closes the connection as soon as nothing is in flight on it.
    fn close_when_idle(&self);
    /// Aborts the connection now, unless it is closing already.
    fn cut(&self);
}

impl<S: TlsSession> SharedStream<S> {
    pub(super) fn new(mut stream: ShutdownStream<S>, limits: PoolLimits) -> Self {
        let exchange = Exchange::new(matches!(stream.get_mut().connection(), TlsConnection::Server(_)));
        let (retirement, phase) = (Retirement::begin(limits), LinkPhase::Open);
        let (is_half_closed, closed, reader, writer) = (false, None, None, None);
        let stream = Some(stream);
        Self(Mutex::new(Link { stream, closed, exchange, phase, is_half_closed, retirement, reader, writer }))
    }

    /// Closes a connection that nobody has used.
    pub(super) fn close_unused(&self) {
        self.with(Link::close);
    }

    fn with<T>(&self, act: impl FnOnce(&mut Link<S>) -> T) -> T {
        let mut link = lock(&self.0);
        let result = act(&mut link);
        let closed = link.closed.take();
        drop(link);
        drop(closed);
        result
    }
}

impl<S: TlsSession<Transport: Send> + Send> Drained for SharedStream<S> {
    fn close_when_idle(&self) {
        self.with(|link| {
            link.phase = LinkPhase::Draining;
            link.close_if_idle();
            link.wake();
        });
    }

    fn cut(&self) {
        let cut = self.with(|link| {
            let stream = link.take()?;
            link.phase = LinkPhase::Cut;
            link.wake();
            Some(stream)
        });
        if let Some(stream) = cut {
            stream.abort(Abort::Fin);
        }
    }
}

impl<S: TlsSession> Link<S> {
    fn close_if_idle(&mut self) {
        if self.exchange.is_idle() {
            self.close();
        }
    }

    /// Begins the shutdown in the place of the owner. The reaper finishes it.
    fn close(&mut self) {
        self.closed = self.take();
        if let Some(stream) = &mut self.closed {
            stream.begin_shutdown();
        }
    }

    /// Takes the stream from its owner. Leaves one whose shutdown is in progress, has failed, or is complete: the owner ends it.
    fn take(&mut self) -> Option<ShutdownStream<S>> {
        let is_half_closed = self.is_half_closed;
        self.stream
            .take_if(|stream| !stream.has_begun_shutdown() || (is_half_closed && stream.state() != ShutdownState::Both))
    }

    fn close_if_due(&mut self) {
        if self.phase.is_ending() {
            self.close_if_idle();
        }
    }

    /// Notes that bytes have passed.
    fn on_use(&mut self) {
        if let Some(retirement) = &mut self.retirement {
            retirement.on_use();
        }
    }

    /// Waits until the connection has to retire, and begins that.
    fn poll_retire(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(retirement) = self.retirement.as_mut().filter(|_| self.phase == LinkPhase::Open) else {
            return Poll::Pending;
        };
        ready!(retirement.poll_due(self.exchange.is_in_use(), cx));
        self.phase = LinkPhase::Retiring;
        self.exchange.retire();
        self.close_if_idle();
        Poll::Ready(())
    }

    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }

    /// Reads once, `room` bytes at most, and passes them to `put`.
    fn poll_read(&mut self, cx: &mut Context<'_>, room: usize, put: impl FnOnce(&[u8])) -> Poll<io::Result<()>> {
        if self.phase.is_ending()
            && let Some(goaway) = self.exchange.goaway(room)
        {
            put(goaway);
            return Poll::Ready(Ok(()));
        }
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(self.phase.end());
        };
        match Pin::new(&mut *stream).poll_fill_buf(cx) {
            Poll::Ready(Ok(data)) => {
                if data.is_empty() {
                    self.exchange.received_end();
                }
                let data = &data[..data.len().min(room)];
                let amount = data.len();
                self.exchange.received(data);
                put(data);
                Pin::new(stream).consume(amount);
                self.on_use();
                self.close_if_due();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                remember(&mut self.reader, cx.waker());
                ready!(self.poll_retire(cx));
                // The end, GOAWAY, or nothing yet.
                self.poll_read(cx, room, put)
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(self.phase.write_error()));
        };
        let result = Pin::new(stream).poll_write_vectored(cx, buffers);
        if let Poll::Ready(Ok(amount)) = result {
            let mut left = amount;
            for buffer in buffers {
                let accepted = &buffer[..buffer.len().min(left)];
                left -= accepted.len();
                self.exchange.sent(accepted);
            }
            self.on_use();
            self.close_if_due();
        }
        self.remember_writer(cx, result)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_with(cx, |stream, cx| stream.poll_shutdown(cx)))?;
        self.is_half_closed = true;
        self.close_if_due();
        Poll::Ready(Ok(()))
    }

    /// Flushes or shuts down with `poll`, unless the drain has closed the stream.
    fn poll_with(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut ShutdownStream<S>>, &mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(self.phase.end());
        };
        let result = poll(Pin::new(stream), cx);
        self.remember_writer(cx, result)
    }

    fn remember_writer<T>(&mut self, cx: &mut Context<'_>, result: Poll<T>) -> Poll<T> {
        if result.is_pending() {
            remember(&mut self.writer, cx.waker());
        }
        result
    }
}

impl<S: TlsSession> AsyncRead for ClientStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Tls(shared) => {
                shared.with(|link| link.poll_read(cx, buffer.remaining(), |data| buffer.put_slice(data)))
            }
            Inner::Plain(transport) => Pin::new(transport).poll_read(cx, buffer),
        }
    }
}

impl<S: TlsSession> rt::Read for ClientStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: rt::ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        rt::Read::poll_read(pin!(TokioIo::new(self.get_mut())), cx, buffer)
    }
}

impl<S: TlsSession> AsyncWrite for ClientStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().inner {
            Inner::Tls(shared) => shared.with(|link| link.poll_write(cx, &[IoSlice::new(buffer)])),
            Inner::Plain(transport) => Pin::new(transport).poll_write(cx, buffer),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().inner {
            Inner::Tls(shared) => shared.with(|link| link.poll_write(cx, buffers)),
            Inner::Plain(transport) => Pin::new(transport).poll_write_vectored(cx, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.inner {
            Inner::Tls(_) => true,
            Inner::Plain(transport) => transport.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Tls(shared) => shared.with(|link| link.poll_with(cx, |stream, cx| stream.poll_flush(cx))),
            Inner::Plain(transport) => Pin::new(transport).poll_flush(cx),
        }
    }

    /// Runs the stream's policy, as [`ShutdownStream`] does. If the drain has closed the connection, returns at once, with an error if it
    /// has cut a request.
    ///
    /// # Panics
    ///
    /// If it has to wait outside of a Tokio runtime with time enabled.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Tls(shared) => shared.with(|link| link.poll_shutdown(cx)),
            Inner::Plain(transport) => Pin::new(transport).poll_shutdown(cx),
        }
    }
}

impl<S: TlsSession> rt::Write for ClientStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(self, cx, buffer)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write_vectored(self, cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        AsyncWrite::is_write_vectored(self)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(self, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(self, cx)
    }
}

impl<S: TlsSession<Transport: Connection>> Connection for ClientStream<S> {
    /// The transport's information, and HTTP/2 if ALPN has chosen it.
    fn connected(&self) -> Connected {
        let shared = match &self.inner {
            Inner::Tls(shared) => shared,
            Inner::Plain(transport) => return transport.connected(),
        };
        shared.with(|link| {
            let Some(stream) = &mut link.stream else {
                return Connected::new();
            };
            let (transport, connection) = stream.get_mut().parts();
            let connected = transport.connected();
            if connection.common_state().alpn_protocol() == Some(b"h2") { connected.negotiated_h2() } else { connected }
        })
    }
}

impl<T: Connection> Connection for Records<T> {
    fn connected(&self) -> Connected {
        self.get_ref().connected()
    }
}

impl<S: TlsSession> Drop for ClientStream<S> {
    fn drop(&mut self) {
        if let Inner::Tls(shared) = &self.inner {
            shared.with(Link::close_if_idle);
        }
    }
}

impl<S: TlsSession> fmt::Debug for ClientStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.inner {
            Inner::Tls(_) => "ClientStream::Tls",
            Inner::Plain(_) => "ClientStream::Plain",
        };
        f.debug_struct(name).finish_non_exhaustive()
    }
}
