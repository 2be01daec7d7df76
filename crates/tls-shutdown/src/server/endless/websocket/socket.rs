//! [`Socket`]: a WebSocket that the application and the server's drain share.

use std::{
    io::{self, IoSlice},
    mem,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use hyper::{
    rt::{Read, ReadBufCursor, Write},
    upgrade::Upgraded,
};
use tokio::{task::coop, time::Instant};

use super::frames::FrameScanner;
use crate::{
    runtime::{
        lock::lock,
        timer::{BoxedTimer, from_now},
        wakers::{remember, wake},
    },
    tls::ShutdownPolicy,
};

/// A Close frame with the code 1001: the endpoint is going away (RFC 6455 sections 5.5.1 and 7.4.1).
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

/// The shortest wait of a read behind the Close frame. A runtime that was busy has not delivered yet what had arrived in time.
const MIN_WAIT: Duration = Duration::from_millis(100);

/// The request of the handshake that hyper reads here, see [`replace`](super::upgrade::replace).
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

/// A WebSocket, and who may write to it.
///
/// Before the last request, and while a message of the application is half-sent, only the application writes. Then only the drain does,
/// until its Close frame is sent. So the stream never has to remember two tasks that write.
///
/// From then on, the client has the [close timeout](ShutdownPolicy::CLOSE_TIMEOUT) to end the WebSocket. A read that still waits for it then
/// ends the connection. What has arrived in time is read, however late the application is.
#[derive(Debug, Default)]
pub(super) struct Socket {
    stream: Stream,
    frames: FrameScanner,
    closing: Closing,
    /// The application's task, if it waits to write.
    writer: Option<Waker>,
    /// The application's task, if it waits to read.
    reader: Option<Waker>,
    /// When reads that wait behind the Close frame give up.
    read_ends: Option<Instant>,
    read_timer: BoxedTimer,
    /// The task that waits for the last request, and then sends the Close frame.
    closer: Option<Waker>,
    /// When it gives up.
    send_ends: Option<Instant>,
    send_timer: BoxedTimer,
}

#[derive(Debug)]
enum Stream {
    /// hyper makes the handshake that gives the stream to the application. It has not read the rest of the request.
    Handshake { request: &'static [u8], upgraded: Option<Upgraded> },
    /// The client's.
    Open(Upgraded),
    /// The application has dropped it, or the client has not ended it in time.
    Dropped,
}

impl Default for Stream {
    fn default() -> Self {
        Self::Handshake { request: REQUEST, upgraded: None }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Closing {
    /// The last request has not come.
    #[default]
    NotYet,
    /// The application has sent a Close frame, or has shut the stream down, or has chosen another protocol.
    ByApplication,
    /// The Close frame follows the message that is half-sent.
    AfterMessage,
    /// So much of the Close frame is sent.
    Sending(usize),
    /// The Close frame is sent, or could not be sent. The client has until then to end the WebSocket.
    Done { due: Instant },
}

impl Socket {
    /// The client's stream is there. Its first byte follows hyper's response.
    pub(super) fn open(&mut self, stream: Upgraded) {
        if let Stream::Handshake { upgraded, .. } = &mut self.stream {
            *upgraded = Some(stream);
        }
    }

    /// Whether the server has nothing to close any more. If not, wakes the task when it has.
    pub(super) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if matches!(self.stream, Stream::Dropped) || self.closing == Closing::ByApplication {
            return Poll::Ready(());
        }
        remember(&mut self.closer, cx.waker());
        Poll::Pending
    }

    /// Sends the Close frame as soon as no message is half-sent. A client that reads nothing keeps it, and with it the connection that the
    /// application has left, for the [stall timeout](ShutdownPolicy::STALL_TIMEOUT) at most.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_closed(cx).is_ready() {
            return Poll::Ready(());
        }
        if self.closing == Closing::NotYet {
            self.closing = Closing::AfterMessage;
        }
        if self.closing == Closing::AfterMessage && self.frames.is_between_messages() {
            self.closing = Closing::Sending(0);
            // Its write fails now.
            wake(&mut self.writer);
        }
        let (Stream::Open(stream), Closing::Sending(sent)) = (&mut self.stream, &mut self.closing) else {
            return Poll::Pending;
        };
        // An error ends the connection, and the application sees it, too.
        if poll_send(stream, sent, cx).is_pending() {
            let ends = *self.send_ends.get_or_insert_with(|| from_now(ShutdownPolicy::STALL_TIMEOUT));
            ready!(self.send_timer.poll_until(ends, cx));
        }
        self.closing = Closing::Done { due: from_now(ShutdownPolicy::CLOSE_TIMEOUT) };
        wake(&mut self.writer);
        // Its timeout begins now.
        wake(&mut self.reader);
        Poll::Ready(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let stream = match &mut self.stream {
            Stream::Open(stream) => stream,
            // The head of hyper's response. hyper hands it over at once, because all of it is accepted.
            Stream::Handshake { upgraded, .. } => {
                if let Some(stream) = upgraded.take() {
                    self.stream = Stream::Open(stream);
                }
                return Poll::Ready(Ok(buffers.iter().map(|buffer| buffer.len()).sum()));
            }
            Stream::Dropped => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        };
        let first = buffers.iter().find(|buffer| !buffer.is_empty()).map_or(&[][..], |buffer| &buffer[..]);
        let written = match self.closing {
            Closing::NotYet | Closing::ByApplication => Pin::new(stream).poll_write_vectored(cx, buffers),
            Closing::AfterMessage => {
                let message = self.frames.rest_of_message(first);
                Pin::new(stream).poll_write(cx, &first[..message])
            }
            //= https://www.rfc-editor.org/rfc/rfc6455#section-5.5.1
            //# The application MUST NOT send any more data frames after sending a
            //# Close frame.
            Closing::Sending(_) | Closing::Done { .. } if first.is_empty() => return Poll::Ready(Ok(0)),
            Closing::Sending(_) | Closing::Done { .. } => {
                // The answer to a Ping or to the client's Close must not end the reading.
                return Poll::Ready(self.frames.pass_control_frame(first).ok_or_else(closed_error));
            }
        };
        match written {
            Poll::Pending => remember(&mut self.writer, cx.waker()),
            Poll::Ready(Ok(length)) => self.on_written(buffers, length),
            Poll::Ready(Err(_)) => {}
        }
        written
    }

    /// The application has written so much of `buffers`.
    fn on_written(&mut self, buffers: &[IoSlice<'_>], mut length: usize) {
        for buffer in buffers {
            let piece = length.min(buffer.len());
            self.frames.pass(&buffer[..piece]);
            length -= piece;
        }
        if self.frames.has_closed() {
            self.leave_to_application();
        } else if self.closing == Closing::AfterMessage && self.frames.is_between_messages() {
            self.closing = Closing::Sending(0);
            wake(&mut self.closer);
        }
    }

    /// From now on, the server writes nothing.
    pub(super) fn leave_to_application(&mut self) {
        if matches!(self.closing, Closing::NotYet | Closing::AfterMessage) {
            self.closing = Closing::ByApplication;
            wake(&mut self.closer);
        }
    }

    /// A read has found something. A client whose time is over gains none by talking on.
    fn on_read(&mut self) {
        if !matches!(self.closing, Closing::Done { due } if due <= Instant::now()) {
            self.read_ends = None;
        }
    }

    //= https://www.rfc-editor.org/rfc/rfc6455#section-7.1.1
    //# An endpoint MAY close the connection via any means available when
    //# necessary, such as when under attack.
    /// A read has found nothing. Waits until the client's time to end the WebSocket is over, then takes the stream, to end it.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Stream> {
        let Closing::Done { due } = self.closing else {
            remember(&mut self.reader, cx.waker());
            return Poll::Pending;
        };
        let ends = *self.read_ends.get_or_insert_with(|| due.max(from_now(MIN_WAIT)));
        ready!(self.read_timer.poll_until(ends, cx));
        // A stream that is dropped wakes nobody.
        wake(&mut self.writer);
        Poll::Ready(mem::replace(&mut self.stream, Stream::Dropped))
    }

    /// Returns the stream if the application may flush it or shut it down. While the Close frame is being sent, it has to wait.
    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<Option<&mut Upgraded>> {
        remember(&mut self.writer, cx.waker());
        match &mut self.stream {
            Stream::Open(_) if matches!(self.closing, Closing::Sending(_)) => Poll::Pending,
            Stream::Open(stream) => Poll::Ready(Some(stream)),
            Stream::Handshake { .. } | Stream::Dropped => Poll::Ready(None),
        }
    }
}

/// Sends the rest of the Close frame, and all that was written before it.
fn poll_send(stream: &mut Upgraded, sent: &mut usize, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    while *sent < GOING_AWAY.len() {
        match ready!(Pin::new(&mut *stream).poll_write(cx, &GOING_AWAY[*sent..]))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            length => *sent += length,
        }
    }
    Pin::new(stream).poll_flush(cx)
}

fn closed_error() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the server shuts down, and has closed this WebSocket with code 1001")
}

fn overdue_error() -> io::Error {
    let text = "the server has closed this WebSocket with code 1001, and the client has not ended it in time";
    io::Error::new(io::ErrorKind::TimedOut, text)
}

/// The application's side of a [`Socket`].
pub(super) struct SocketIo(pub(super) Arc<Mutex<Socket>>);

impl Read for SocketIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let mut socket = lock(&self.0);
        match &mut socket.stream {
            Stream::Open(stream) => {
                if let Poll::Ready(read) = Pin::new(stream).poll_read(cx, buffer) {
                    socket.on_read();
                    return Poll::Ready(read);
                }
                if !coop::has_budget_remaining() {
                    // It may not have looked. The task is to look once more.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let overdue = ready!(socket.poll_overdue(cx));
                drop(socket);
                // What its end calls must not find the lock held.
                drop(overdue);
                Poll::Ready(Err(overdue_error()))
            }
            // hyper reads for the client's end, too. The stream has not come, and wakes hyper.
            Stream::Handshake { request: [], .. } => Poll::Pending,
            Stream::Handshake { request, .. } => {
                let (piece, rest) = request.split_at(request.len().min(buffer.remaining()));
                buffer.put_slice(piece);
                *request = rest;
                Poll::Ready(Ok(()))
            }
            Stream::Dropped => Poll::Ready(Err(overdue_error())),
        }
    }
}

impl Write for SocketIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_write(cx, &[IoSlice::new(buffer)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_write(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        matches!(&lock(&self.0).stream, Stream::Open(stream) if stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(lock(&self.0).poll_writable(cx)).map_or(Poll::Ready(Ok(())), |stream| Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = lock(&self.0);
        socket.leave_to_application();
        ready!(socket.poll_writable(cx)).map_or(Poll::Ready(Ok(())), |stream| Pin::new(stream).poll_shutdown(cx))
    }
}

impl Drop for SocketIo {
    /// Ends the connection, unless its Close frame is being sent: that ends it.
    fn drop(&mut self) {
        let mut socket = lock(&self.0);
        wake(&mut socket.closer);
        if matches!(socket.closing, Closing::Sending(_)) {
            return;
        }
        let stream = mem::replace(&mut socket.stream, Stream::Dropped);
        drop(socket);
        // What its end calls must not find the lock held.
        drop(stream);
    }
}
