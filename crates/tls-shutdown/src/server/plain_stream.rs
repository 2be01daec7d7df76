//! [`PlainStream`]: a connection without TLS, and how it ends.
//!
//! FIN takes the place of close_notify. Nobody signs it, so that it proves less: [`Ending`] has the same names, and the handbook states
//! what each of them proves without TLS.

use std::{
    any::Any,
    io, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::Instant,
};

use super::connection::ConnectionRecord;
use crate::{
    runtime::{debug::debug_struct, forward::forward_writes},
    tls::{
        Abort, Ending, Reaper, ShutdownReport, ShutdownState, Undelivered,
        socket::{deliver_on_close, reset_on_close},
    },
};

/// A connection without TLS. Its drop leaves an unfinished end to the reaper.
pub(super) struct PlainStream {
    /// `None` only while it is dropped.
    end: Option<PlainEnd>,
    reaper: Reaper,
    undelivered: Undelivered,
    /// Among the connections of a server that limits them.
    _place: Option<OwnedSemaphorePermit>,
}

const WHOLE: &str = "the socket is there until it is dropped";

/// The stream of a [`Listener`](crate::server::Listener).
pub(super) enum PlainSocket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
    Custom(Box<dyn CustomStream>),
}

/// A stream that this library does not know.
pub(super) trait CustomStream: AsyncRead + AsyncWrite + Unpin + Send + Any {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + Any> CustomStream for T {}

impl PlainSocket {
    pub(super) fn new<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: T) -> Self {
        let mut stream = Some(stream);
        if let Some(tcp) = take(&mut stream) {
            return Self::Tcp(tcp);
        }
        #[cfg(unix)]
        if let Some(unix) = take(&mut stream) {
            return Self::Unix(unix);
        }
        Self::Custom(Box::new(stream.expect("it was not taken")))
    }
}

/// Takes the stream if it is of type `U`.
fn take<T: 'static, U: 'static>(stream: &mut Option<T>) -> Option<U> {
    let stream: &mut dyn Any = stream;
    stream.downcast_mut().and_then(Option::take)
}

/// Calls a method of the socket, without dynamic dispatch for those that this library knows.
macro_rules! with_socket {
    ($socket:expr, |$inner:ident| $call:expr) => {
        match $socket {
            PlainSocket::Tcp($inner) => $call,
            #[cfg(unix)]
            PlainSocket::Unix($inner) => $call,
            PlainSocket::Custom($inner) => $call,
        }
    };
}

/// Calls a method of the end of a stream.
macro_rules! with_end {
    ($end:expr, |$inner:ident| $call:expr) => {
        match $end {
            Some($inner) => $call,
            None => unreachable!("{WHOLE}"),
        }
    };
}

/// A socket, and what is known of both its halves. It reports when it is dropped.
pub(super) struct PlainEnd {
    socket: PlainSocket,
    connection: Arc<ConnectionRecord>,
    abort_mode: Abort,
    /// When the shutdown began.
    began: Option<Instant>,
    local: LocalHalf,
    remote: RemoteHalf,
    /// The first failure.
    failure: Option<Ending>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LocalHalf {
    Open,
    /// FIN was sent, behind everything else.
    Finished,
    /// The peer sent FIN, and then did not take ours any more.
    Refused,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RemoteHalf {
    Open,
    /// FIN came, and no message was cut by it as far as is known.
    Finished,
    /// FIN came while a response was due: the client has closed its half, or has left.
    HalfClosed,
    /// FIN came within a message.
    Truncated,
}

impl PlainStream {
    pub(super) fn new(
        socket: PlainSocket,
        connection: Arc<ConnectionRecord>,
        reaper: &Reaper,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let end = PlainEnd {
            socket,
            connection,
            abort_mode: Abort::Fin,
            began: None,
            local: LocalHalf::Open,
            remote: RemoteHalf::Open,
            failure: None,
        };
        Self { end: Some(end), reaper: reaper.clone(), undelivered: Undelivered::default(), _place: place }
    }

    pub(super) fn connection(&self) -> &Arc<ConnectionRecord> {
        &self.end().connection
    }

    pub(super) fn socket(&self) -> &PlainSocket {
        &self.end().socket
    }

    /// Waits until there is something to read, as far as the socket tells.
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.socket() {
            PlainSocket::Tcp(tcp) => tcp.poll_read_ready(cx),
            #[cfg(unix)]
            PlainSocket::Unix(unix) => unix.poll_read_ready(cx),
            PlainSocket::Custom(_) => Poll::Ready(Ok(())),
        }
    }

    /// Whether FIN was not sent, and nothing has failed.
    pub(super) fn is_writable(&self) -> bool {
        let end = self.end();
        end.began.is_none() && end.failure.is_none()
    }

    /// What is known of both halves, and how the connection ends.
    pub(super) fn get_mut(&mut self) -> &mut PlainEnd {
        self.end.as_mut().expect(WHOLE)
    }

    /// Ends the connection by RST, if the transport has one.
    pub(super) fn reset(mut self) {
        if let Some(mut end) = self.end.take() {
            end.set_abort_mode(Abort::Reset);
        }
    }

    /// Sets what the client may not have received yet.
    pub(super) fn set_undelivered(&mut self, undelivered: Undelivered) {
        self.undelivered = undelivered;
    }

    fn end(&self) -> &PlainEnd {
        self.end.as_ref().expect(WHOLE)
    }
}

impl Drop for PlainStream {
    fn drop(&mut self) {
        let Some(end) = self.end.take() else { return };
        if end.is_unfinished() {
            self.reaper.linger_with(end, mem::take(&mut self.undelivered));
        }
    }
}

impl AsyncRead for PlainStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().get_mut().poll_receive(cx, buffer)
    }
}

forward_writes!({} PlainStream => end, with_end);

impl PlainEnd {
    /// Sets what TCP does if the connection ends before FIN was sent, also if the process is killed.
    pub(super) fn set_abort_mode(&mut self, abort: Abort) {
        if self.abort_mode == abort {
            return;
        }
        self.abort_mode = abort;
        if let PlainSocket::Tcp(tcp) = &self.socket {
            match abort {
                Abort::Reset => reset_on_close(tcp),
                Abort::Fin => deliver_on_close(tcp),
            }
        }
    }

    /// Whether the shutdown has begun, and the peer may still need an open socket: a reset over its data would destroy ours.
    fn is_unfinished(&self) -> bool {
        let is_finished = self.local != LocalHalf::Open && self.remote != RemoteHalf::Open;
        self.began.is_some() && self.failure.is_none() && !is_finished
    }

    /// Notes the failure of a call.
    fn note<T>(&mut self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &result {
            self.failure.get_or_insert(Ending::of_transport_error(error.kind()));
        }
        result
    }

    /// States more precisely when FIN came.
    pub(super) fn mark(&mut self, remote: RemoteHalf) {
        if self.remote == RemoteHalf::Finished {
            self.remote = remote;
        }
    }

    /// Notes that the client has kept the server waiting for too long. It gets no more time.
    pub(super) fn mark_timed_out(&mut self) {
        self.failure.get_or_insert(Ending::TimedOut);
    }

    /// Sends FIN, as far as that needs no wait. The drop leaves the rest to the reaper.
    pub(super) fn begin_shutdown(&mut self) {
        let _ = self.poll_finish(&mut Context::from_waker(Waker::noop()));
    }

    /// Reads. After the peer's FIN, a failure is not noted, unless a response was due: a peer that has closed may reset the connection over
    /// whatever follows, as over the GOAWAY of an idle connection.
    fn poll_receive(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, has_room) = (buffer.filled().len(), buffer.remaining() > 0);
        let read = with_socket!(&mut self.socket, |socket| Pin::new(socket).poll_read(cx, buffer));
        if matches!(self.remote, RemoteHalf::Finished | RemoteHalf::Truncated) {
            return read;
        }
        if let Poll::Ready(Ok(())) = read
            && buffer.filled().len() == before
            && has_room
            && self.remote == RemoteHalf::Open
        {
            self.remote = RemoteHalf::Finished;
        }
        self.note(read)
    }

    /// Sends FIN behind everything else.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.local != LocalHalf::Open {
            return Poll::Ready(Ok(()));
        }
        if self.began.is_none() {
            self.began = Some(Instant::now());
            self.set_abort_mode(Abort::Fin);
        }
        let finished = with_socket!(&mut self.socket, |socket| Pin::new(socket).poll_shutdown(cx));
        match finished {
            Poll::Ready(Ok(())) => self.local = LocalHalf::Finished,
            Poll::Ready(Err(_)) if matches!(self.remote, RemoteHalf::Finished | RemoteHalf::Truncated) => {
                self.local = LocalHalf::Refused;
                return Poll::Ready(Ok(()));
            }
            _ => {}
        }
        self.note(finished)
    }

    fn ending(&self) -> Ending {
        match (self.failure, self.local, self.remote) {
            (Some(failure), ..) => failure,
            (None, _, RemoteHalf::Truncated) => Ending::Truncated,
            (None, LocalHalf::Finished | LocalHalf::Refused, RemoteHalf::Finished) => Ending::Complete,
            // Nobody knows whether a client that had closed its half has read the response.
            (None, LocalHalf::Finished | LocalHalf::Refused, RemoteHalf::Open | RemoteHalf::HalfClosed) => Ending::Sent,
            (None, LocalHalf::Open, _) => Ending::Aborted,
        }
    }
}

impl AsyncRead for PlainEnd {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_receive(cx, buffer)
    }
}

impl AsyncWrite for PlainEnd {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = with_socket!(&mut this.socket, |socket| Pin::new(socket).poll_write(cx, bytes));
        this.note(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = with_socket!(&mut this.socket, |socket| Pin::new(socket).poll_write_vectored(cx, buffers));
        this.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        with_socket!(&self.socket, |socket| socket.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = with_socket!(&mut this.socket, |socket| Pin::new(socket).poll_flush(cx));
        this.note(flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_finish(cx)
    }
}

impl Drop for PlainEnd {
    fn drop(&mut self) {
        let received = matches!(self.remote, RemoteHalf::Finished | RemoteHalf::HalfClosed);
        let state = match (self.local == LocalHalf::Finished, received) {
            (false, false) => ShutdownState::Open,
            (true, false) => ShutdownState::Sent,
            (false, true) => ShutdownState::Received,
            (true, true) => ShutdownState::Both,
        };
        let elapsed = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        let report = ShutdownReport::of_plain_connection(self.ending(), state, elapsed);
        self.connection.report(&report);
    }
}

debug_struct!({} PlainStream, |stream| {
    peer: stream.connection().peer,
    transport: stream.connection().transport,
});
