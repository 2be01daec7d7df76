//! The stream that a [`Server`](super::Server) gives hyper: it knows what is half-sent, so that its end tells the truth on every
//! path, a drop among them.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep_until},
};

mod flow_control;
pub(super) mod http1;
pub(super) mod http2;
mod stall;

use self::{
    http1::{Delimiter, Http1, Progress, Requests, Upgrade},
    http2::{Control, Frames},
    stall::Stall,
};
use crate::{
    server::{connection::Connection, drain::DrainPhase, stream::ServerStream, unacknowledged::acknowledged},
    tls::{Abort, ShutdownState},
};

/// A server's stream under hyper, and, after an upgrade, under whoever took it over.
pub(in crate::server) struct HttpStream {
    /// `None` only while it is dropped.
    stream: Option<ServerStream>,
    connection: Arc<Connection>,
    protocol: Protocol,
    /// A response that the client does not take.
    writing: Stall,
    last_write: LastWrite,
}

/// What the stream has taken of hyper. It takes some even if the client does not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LastWrite {
    Taken,
    Blocked,
}

enum Protocol {
    Http1(Box<Http1Stream>),
    Http2(Box<Http2Stream>),
}

/// How many stall limits a client may take to open a window: most do when they have used up a half of it, and some have large ones.
const WINDOW_SHARE: u32 = 5;

struct Http2Stream {
    frames: Frames,
    control: Arc<Control>,
    overdue: Option<Pin<Box<Sleep>>>,
    /// Responses that the client lets nothing more of through.
    window: Stall,
}

struct Http1Stream {
    http1: Arc<Http1>,
    requests: Requests,
    /// A request's body that the client does not go on with.
    reading: Stall,
    wants: Wants,
    /// Of reads after an upgrade.
    read_deadline: Option<Deadline>,
    /// Of writes after an upgrade.
    write_deadline: Option<Deadline>,
}

/// What hyper's last read has come to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wants {
    Nothing,
    /// It waits for something to read.
    More,
}

/// Resolves at the deadline of the server drain. Only upgraded connections, of which hyper knows nothing more, wait for it; reading
/// and writing may be two tasks.
type Deadline = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

impl HttpStream {
    pub(in crate::server) fn http1(
        stream: ServerStream,
        connection: Arc<Connection>,
        http1: Arc<Http1>,
        stall_timeout: Duration,
    ) -> Self {
        let http1 = Http1Stream {
            http1,
            requests: Requests::new(),
            reading: Stall::new(stall_timeout),
            wants: Wants::Nothing,
            read_deadline: None,
            write_deadline: None,
        };
        let protocol = Protocol::Http1(Box::new(http1));
        Self::new(stream, connection, protocol, stall_timeout)
    }

    pub(in crate::server) fn http2(
        stream: ServerStream,
        connection: Arc<Connection>,
        control: Arc<Control>,
        stall_timeout: Duration,
    ) -> Self {
        let http2 = Http2Stream {
            frames: Frames::new(),
            control,
            overdue: None,
            window: Stall::new(stall_timeout.saturating_mul(WINDOW_SHARE)),
        };
        let protocol = Protocol::Http2(Box::new(http2));
        Self::new(stream, connection, protocol, stall_timeout)
    }

    fn new(stream: ServerStream, connection: Arc<Connection>, protocol: Protocol, stall_timeout: Duration) -> Self {
        let (writing, last_write) = (Stall::new(stall_timeout), LastWrite::Taken);
        Self { stream: Some(stream), connection, protocol, writing, last_write }
    }

    fn stream(&mut self) -> Pin<&mut ServerStream> {
        Pin::new(self.stream.as_mut().expect("there is a stream until it is dropped"))
    }

    /// Before a write: an upgraded connection has no more time at the deadline, and what ends with the connection must not look
    /// complete if that ends early, by whatever cause.
    fn before_write(&mut self) -> io::Result<()> {
        let Protocol::Http1(this) = &self.protocol else { return Ok(()) };
        if self.is_upgraded() {
            return self.before_deadline();
        }
        if this.http1.delimiter() == Delimiter::Connection {
            self.stream().get_mut().get_mut().set_abort_mode(Abort::Reset);
        }
        Ok(())
    }

    /// hyper has handed over all of each response, but TLS may still have the end of one, which the client does not take.
    fn note_unsent(&self, stream: &ServerStream) {
        if self.writing.waits() && stream.get_ref().get_ref().get_ref().1.wants_write() {
            self.connection.mark_unsent();
        }
    }

    /// h2 ends without a word where a client that has requests out says close_notify; it may still listen.
    fn say_farewell_to_unanswered(&mut self) {
        let Protocol::Http2(http2) = &mut self.protocol else { return };
        let Some(stream) = self.stream.as_mut().filter(|stream| is_open(stream)) else { return };
        if http2.frames.unanswered().next().is_some() {
            let farewell = http2.frames.farewell();
            let said = say_farewell(stream, &farewell);
            http2.frames.sent(&farewell[..said]);
            self.connection.count_cut(http2.frames.take_cut());
        }
    }

    fn is_upgraded(&self) -> bool {
        matches!(&self.protocol, Protocol::Http1(this) if this.http1.upgrade() != Upgrade::None)
    }

    fn before_deadline(&self) -> io::Result<()> {
        match self.connection.drain() {
            Some(drain) if drain.phase() >= DrainPhase::Deadline => Err(out_of_time()),
            _ => Ok(()),
        }
    }

    /// Notes what the transport has accepted.
    fn after_write(&mut self, written: &Poll<io::Result<usize>>, buffers: &[IoSlice<'_>]) {
        if let (Protocol::Http2(http2), Poll::Ready(Ok(amount))) = (&mut self.protocol, written) {
            let Http2Stream { frames, control, .. } = &mut **http2;
            let mut left = *amount;
            for buffer in buffers {
                let piece = left.min(buffer.len());
                frames.sent(&buffer[..piece]);
                left -= piece;
            }
            frames.note_stall(control);
            if let cut @ 1.. = frames.take_cut() {
                self.connection.count_cut(cut);
            }
        }
    }

    /// The result of a write, whose wait is bounded.
    fn write_within_limits<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_pending() {
            self.last_write = LastWrite::Blocked;
            return self.poll_limits(cx).map(Err);
        }
        if self.last_write == LastWrite::Blocked {
            // There is room again.
            self.last_write = LastWrite::Taken;
            self.writing.moved();
        }
        written
    }

    /// The client takes nothing more now: that is bounded by a limit, and after an upgrade by the deadline.
    fn poll_limits(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match &mut self.protocol {
            Protocol::Http1(this) if this.http1.upgrade() != Upgrade::None => {
                poll_deadline(&self.connection, &mut this.write_deadline, cx)
            }
            _ => {
                let socket = self.stream.as_ref().map(|stream| stream.get_ref().get_ref().get_ref().0);
                self.writing.poll(cx, || socket.and_then(acknowledged))
            }
        }
    }
}

/// Ends the wait of an upgraded connection, which is left to whoever took it over, at the deadline.
fn poll_deadline(connection: &Connection, deadline: &mut Option<Deadline>, cx: &mut Context<'_>) -> Poll<io::Error> {
    let Some(drain) = connection.drain() else { return Poll::Pending };
    let deadline = deadline.get_or_insert_with(|| {
        let drain = drain.clone();
        Box::pin(async move { drain.reached(DrainPhase::Deadline).await })
    });
    ready!(deadline.as_mut().poll(cx));
    *deadline = Box::pin(std::future::ready(()));
    Poll::Ready(out_of_time())
}

fn out_of_time() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the server has no more time for this connection")
}

impl AsyncRead for HttpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_upgraded() {
            this.before_deadline()?;
        }
        let before = buffer.filled().len();
        let stream = Pin::new(this.stream.as_mut().expect("there is a stream until it is dropped"));
        match &mut this.protocol {
            Protocol::Http2(http2) => {
                let read = http2.poll_read(stream, cx, buffer);
                http2.frames.note_stall(&http2.control);
                read
            }
            Protocol::Http1(http1) => {
                let read = stream.poll_read(cx, buffer);
                if http1.http1.upgrade() != Upgrade::None {
                    return match read {
                        Poll::Pending => poll_deadline(&this.connection, &mut http1.read_deadline, cx).map(Err),
                        read => read,
                    };
                }
                http1.read(&buffer.filled()[before..], &read, cx)?;
                read
            }
        }
    }
}

impl Http1Stream {
    /// Notes what hyper's read has come to.
    fn read(&mut self, bytes: &[u8], read: &Poll<io::Result<()>>, cx: &mut Context<'_>) -> io::Result<()> {
        self.wants = if read.is_pending() { Wants::More } else { Wants::Nothing };
        if !bytes.is_empty() {
            self.reading.moved();
            self.requests.received(bytes, &self.http1);
        } else if read.is_pending()
            && self.requests.lack_body()
            && let Poll::Ready(error) = self.reading.poll(cx, || None)
        {
            return Err(error);
        }
        Ok(())
    }

    /// Looks whether the client is still there while it is answered. hyper does not read then, if it lets clients close their half.
    fn look_for_the_end(&mut self, stream: Pin<&mut ServerStream>, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.http1.is_answering() {
            return Ok(());
        }
        match stream.poll_fill_buf(cx) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(_)) if self.wants == Wants::More => {
                // What has just come is here now, and the system would not tell hyper of it.
                self.wants = Wants::Nothing;
                cx.waker().wake_by_ref();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Http2Stream {
    /// Reads what h2 is to see of the client.
    fn poll_read(
        &mut self,
        mut stream: Pin<&mut ServerStream>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let Self { frames, control, .. } = self;
        frames.hear(control);
        loop {
            frames.stage(control);
            frames.pass(&[], buffer, control);
            if buffer.filled().len() > before || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if frames.has_to_wait(control) {
                // h2 gives the service what it has before it reads again.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match stream.as_mut().poll_fill_buf(cx)? {
                Poll::Ready([]) => return Poll::Ready(Ok(())),
                Poll::Ready(bytes) => {
                    let taken = frames.pass(bytes, buffer, control);
                    stream.as_mut().consume(taken);
                }
                Poll::Pending => {
                    let Some(due) = frames.overdue() else { return self.poll_window(cx).map(Err) };
                    let sleep = self.overdue.get_or_insert_with(|| Box::pin(sleep_until(due)));
                    if sleep.deadline() != due {
                        sleep.as_mut().reset(due);
                    }
                    ready!(sleep.as_mut().poll(cx));
                }
            }
        }
    }

    /// The client has said all that it has to say for now: how long it lets nothing through is bounded.
    fn poll_window(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.frames.waits_for_window() {
            return self.window.poll(cx, || Some(self.frames.data_sent()));
        }
        self.window.moved();
        Poll::Pending
    }
}

impl AsyncWrite for HttpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buffer)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.before_write()?;
        let length = match &this.protocol {
            Protocol::Http1(_) => usize::MAX,
            Protocol::Http2(this) => this.frames.record_length(buffers),
        };
        let first = buffers.iter().find(|buffer| !buffer.is_empty()).map_or(&[][..], |buffer| &buffer[..]);
        let buffers = match buffers.iter().map(|buffer| buffer.len()).sum::<usize>() <= length {
            true => buffers,
            false => &[IoSlice::new(&first[..first.len().min(length)])],
        };
        let written = this.stream().poll_write_vectored(cx, buffers);
        this.after_write(&written, buffers);
        this.write_within_limits(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Protocol::Http1(http1) = &mut this.protocol {
            // From this call on, the bytes are ours, and go out before close_notify.
            http1.http1.flushed();
            if http1.http1.upgrade() == Upgrade::None {
                let stream = Pin::new(this.stream.as_mut().expect("there is a stream until it is dropped"));
                http1.look_for_the_end(stream, cx)?;
            }
        }
        let mut written = 0;
        let flushed = this.stream().get_mut().get_mut().poll_flush_counted(cx, &mut written);
        if written > 0 || flushed.is_ready() {
            this.writing.moved();
        }
        match (flushed, &mut this.protocol) {
            // What was sent may have been all that the client lets through.
            (Poll::Ready(Ok(())), Protocol::Http2(http2)) => match http2.poll_window(cx) {
                Poll::Ready(error) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Ready(Ok(())),
            },
            (Poll::Ready(result), _) => Poll::Ready(result),
            (Poll::Pending, _) => this.poll_limits(cx).map(Err),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.say_farewell_to_unanswered();
        this.stream().poll_shutdown(cx)
    }
}

impl Drop for HttpStream {
    //= https://www.rfc-editor.org/rfc/rfc9112#section-9.8
    //# Servers MUST attempt to initiate an exchange of closure alerts with
    //# the client before closing the connection.
    /// Ends what nobody has ended: close_notify where no message is cut, or where the framing tells that it is.
    fn drop(&mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        match &self.protocol {
            Protocol::Http1(this) => {
                let http1 = &this.http1;
                let upgrade = http1.upgrade();
                if upgrade != Upgrade::None {
                    self.connection.mark_upgraded();
                }
                match (http1.progress(), http1.delimiter()) {
                    // Its end may be the end of a message. Whoever took it over has not shut it down.
                    (Progress::Whole, _) if upgrade == Upgrade::Unknown => return,
                    (Progress::Whole, _) => self.note_unsent(&stream),
                    // Nothing of the answer is out.
                    (Progress::Asked, _) | (_, Delimiter::Framing) => self.connection.count_cut(1),
                    (_, Delimiter::Connection) => {
                        self.connection.count_cut(1);
                        return stream.into_inner().abort(Abort::Reset);
                    }
                }
            }
            Protocol::Http2(this) => {
                let frames = &this.frames;
                match frames.unanswered().count() as u64 {
                    0 => self.note_unsent(&stream),
                    cut => self.connection.count_cut(cut),
                }
                if is_open(&stream) {
                    say_farewell(&mut stream, &frames.farewell());
                }
            }
        }
        if self.writing.is_over() {
            // It has had its time.
            stream.get_mut().set_stall_timeout(Duration::ZERO);
        }
        stream.get_mut().begin_shutdown();
    }
}

/// Whether something can still be said.
fn is_open(stream: &ServerStream) -> bool {
    matches!(stream.get_ref().state(), ShutdownState::Open | ShutdownState::Received)
}

/// Writes as much as the stream takes now; it does not block, and takes some even if the peer does not. Tells how much that was.
fn say_farewell(stream: &mut ServerStream, farewell: &[u8]) -> usize {
    let mut cx = Context::from_waker(Waker::noop());
    let mut said = 0;
    while said < farewell.len() {
        match Pin::new(&mut *stream).poll_write(&mut cx, &farewell[said..]) {
            Poll::Ready(Ok(amount @ 1..)) => said += amount,
            // The frames that are missing are missed: their absence cuts what they would have.
            _ => break,
        }
    }
    said
}
