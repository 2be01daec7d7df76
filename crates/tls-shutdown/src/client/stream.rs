//! [`ClientStream`]: a stream that its owner and the drain share.

use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use hyper::rt;
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::{exchange::Exchange, layer::Draining};
use crate::{
    runtime::wakers::remember,
    tls::{Abort, Records, ShutdownStream, TlsConnection, TlsSession},
};

/// What a [`ShutdownService`](super::ShutdownService) gives: a [`ShutdownStream`] that the [`ClientDrain`](super::ClientDrain)
/// can end, or the bare transport of a connection without TLS.
///
/// It is a stream of tokio and of `hyper::rt`.
///
/// Dropping one that was not shut down closes it, where nothing was written yet, or HTTP/1's last response was read to its end:
/// no message can be cut by that, and clients drop what they have connected in vain. In all other states it aborts, as a
/// [`ShutdownStream`] does.
///
/// # Errors
///
/// Those of a [`ShutdownStream`]. Once the drain has closed the connection, reads give its end, and writes
/// [`BrokenPipe`](io::ErrorKind::BrokenPipe). Where the drain has cut a request in flight, reads, flushes and shutdowns fail with
/// [`ConnectionAborted`](io::ErrorKind::ConnectionAborted), so that nothing cut looks complete. [`Draining`] is in both.
pub struct ClientStream<S: TlsSession> {
    inner: Inner<S>,
}

enum Inner<S: TlsSession> {
    Tls(Arc<Shared<S>>),
    Plain(TokioIo<S::Transport>),
}

impl<S: TlsSession> ClientStream<S> {
    pub(super) fn tls(stream: Arc<Shared<S>>) -> Self {
        Self { inner: Inner::Tls(stream) }
    }

    pub(super) fn plain(transport: S::Transport) -> Self {
        Self { inner: Inner::Plain(TokioIo::new(transport)) }
    }

    /// Shows the TLS stream to `look`, for what it knows about the connection: ALPN, certificates, the peer's address. `None`
    /// where there is no TLS, or the drain has closed the connection.
    pub fn with_session<T>(&self, look: impl FnOnce(&S) -> T) -> Option<T> {
        match &self.inner {
            Inner::Tls(shared) => shared.with(|link| link.stream.as_ref().map(|stream| look(stream.get_ref()))),
            Inner::Plain(_) => None,
        }
    }
}

/// A connection. Its owner holds the only lasting handle: the drain takes another for a moment, when it begins and at its limit.
pub(super) struct Shared<S: TlsSession>(Mutex<Link<S>>);

struct Link<S: TlsSession> {
    /// `None` once the drain has taken it.
    stream: Option<ShutdownStream<S>>,
    /// The stream on its way to the reaper, dropped where the lock is not held: `on_end` may be called then.
    leaving: Option<ShutdownStream<S>>,
    exchange: Exchange,
    phase: Phase,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The drain has begun: the stream leaves when nothing is in flight.
    Draining,
    /// The drain's limit has passed before that.
    Cut,
}

impl Phase {
    /// What the owner is told once the drain has taken the stream.
    fn end(self) -> io::Result<()> {
        match self {
            Self::Cut => Err(io::Error::new(io::ErrorKind::ConnectionAborted, Draining)),
            Self::Open | Self::Draining => Ok(()),
        }
    }
}

/// What the drain does to a connection, whatever its type.
pub(super) trait Drained: Send + Sync {
    /// Ends the connection as soon as nothing is in flight on it.
    fn wind_down(&self);
    /// Ends it now, unless it is closing already.
    fn cut(&self);
}

impl<S: TlsSession> Shared<S> {
    pub(super) fn new(mut stream: ShutdownStream<S>) -> Self {
        let exchange = Exchange::new(matches!(stream.get_mut().connection(), TlsConnection::Server(_)));
        let (leaving, reader, writer) = (None, None, None);
        Self(Mutex::new(Link { stream: Some(stream), leaving, exchange, phase: Phase::Open, reader, writer }))
    }

    /// Closes a connection that nobody has used.
    pub(super) fn close_unused(&self) {
        self.with(Link::leave);
    }

    fn with<T>(&self, act: impl FnOnce(&mut Link<S>) -> T) -> T {
        let mut link = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut link);
        let leaving = link.leaving.take();
        drop(link);
        drop(leaving);
        result
    }
}

impl<S: TlsSession<Transport: Send> + Send> Drained for Shared<S> {
    fn wind_down(&self) {
        self.with(|link| {
            link.phase = Phase::Draining;
            link.leave_if_idle();
            link.wake();
        });
    }

    fn cut(&self) {
        let cut = self.with(|link| {
            let stream = link.stream.take_if(|stream| !stream.has_begun_shutdown())?;
            link.phase = Phase::Cut;
            link.wake();
            Some(stream)
        });
        if let Some(stream) = cut {
            stream.abort(Abort::Fin);
        }
    }
}

impl<S: TlsSession> Link<S> {
    /// Has the stream leave its owner, if nothing is in flight: its shutdown is asked for, and the reaper takes it when it is
    /// dropped.
    fn leave_if_idle(&mut self) {
        if self.exchange.is_idle() {
            self.leave();
        }
    }

    fn leave(&mut self) {
        self.leaving = self.stream.take_if(|stream| !stream.has_begun_shutdown());
        if let Some(stream) = &mut self.leaving {
            stream.begin_shutdown();
        }
    }

    fn leave_if_due(&mut self) {
        if self.phase == Phase::Draining {
            self.leave_if_idle();
        }
    }

    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }

    /// Reads once, `room` bytes at most, into `put`.
    fn poll_read(&mut self, cx: &mut Context<'_>, room: usize, put: impl FnOnce(&[u8])) -> Poll<io::Result<()>> {
        if self.phase == Phase::Draining
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
                let data = &data[..data.len().min(room)];
                let amount = data.len();
                self.exchange.received(data);
                put(data);
                Pin::new(stream).consume(amount);
                self.leave_if_due();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                remember(&mut self.reader, cx.waker());
                Poll::Pending
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, Draining)));
        };
        let result = Pin::new(stream).poll_write_vectored(cx, buffers);
        if let Poll::Ready(Ok(amount)) = result {
            let mut left = amount;
            for buffer in buffers {
                let accepted = &buffer[..buffer.len().min(left)];
                left -= accepted.len();
                self.exchange.sent(accepted);
            }
            self.leave_if_due();
        }
        self.writer_waits(cx, result)
    }

    /// Flushes or shuts down, if the drain does not do that.
    fn poll_by(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut ShutdownStream<S>>, &mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(self.phase.end());
        };
        let result = poll(Pin::new(stream), cx);
        self.writer_waits(cx, result)
    }

    fn writer_waits<T>(&mut self, cx: &mut Context<'_>, result: Poll<T>) -> Poll<T> {
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
            Inner::Plain(transport) => Pin::new(transport.inner_mut()).poll_read(cx, buffer),
        }
    }
}

impl<S: TlsSession> rt::Read for ClientStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Tls(shared) => {
                shared.with(|link| link.poll_read(cx, buffer.remaining(), |data| buffer.put_slice(data)))
            }
            Inner::Plain(transport) => rt::Read::poll_read(Pin::new(transport), cx, buffer),
        }
    }
}

impl<S: TlsSession> AsyncWrite for ClientStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().inner {
            Inner::Tls(shared) => shared.with(|link| link.poll_write(cx, &[IoSlice::new(buffer)])),
            Inner::Plain(transport) => Pin::new(transport.inner_mut()).poll_write(cx, buffer),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().inner {
            Inner::Tls(shared) => shared.with(|link| link.poll_write(cx, buffers)),
            Inner::Plain(transport) => Pin::new(transport.inner_mut()).poll_write_vectored(cx, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.inner {
            Inner::Tls(_) => true,
            Inner::Plain(transport) => transport.inner().is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Tls(shared) => shared.with(|link| link.poll_by(cx, |stream, cx| stream.poll_flush(cx))),
            Inner::Plain(transport) => Pin::new(transport.inner_mut()).poll_flush(cx),
        }
    }

    /// Runs the stream's policy, as [`ShutdownStream`] does; ready at once where the drain has taken that over, and an error where it
    /// has cut the connection.
    ///
    /// # Panics
    ///
    /// When it has to wait outside a Tokio runtime with time enabled.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Tls(shared) => shared.with(|link| link.poll_by(cx, |stream, cx| stream.poll_shutdown(cx))),
            Inner::Plain(transport) => Pin::new(transport.inner_mut()).poll_shutdown(cx),
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
    /// What the transport tells, and HTTP/2 where ALPN has chosen it.
    fn connected(&self) -> Connected {
        let shared = match &self.inner {
            Inner::Tls(shared) => shared,
            Inner::Plain(transport) => return transport.inner().connected(),
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
            shared.with(Link::leave_if_idle);
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
