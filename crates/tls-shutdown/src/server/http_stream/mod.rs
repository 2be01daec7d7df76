//! The stream under hyper. It knows what is half-sent, so that it ends truthfully on every path, also when it is dropped.

mod early_end;
mod flow_control;
pub(super) mod http1;
pub(super) mod http2;
mod reset_budget;
mod stall;
#[cfg(test)]
mod tests;

use std::{
    future::Future,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use self::{
    early_end::length_before_reset,
    http1::{Delimiter, Http1Messages, ResponseProgress, Upgrade},
    http2::Http2Frames,
    stall::StallTimeout,
};
use crate::{
    runtime::{lock::lock, timer::BoxedTimer},
    server::{drain::DrainPhase, stream::ServerStream, unacknowledged::acknowledged},
    tls::Abort,
};

/// A server's stream under hyper, and after an upgrade under the new owner of the connection.
pub(super) struct HttpStream {
    /// `None` only while it is dropped.
    stream: Option<ServerStream>,
    protocol: ProtocolState,
    /// A response that the client does not read.
    writing: StallTimeout,
    /// TLS accepts some writes even if the client reads nothing. After one that had to wait, the next one that is accepted shows progress.
    write_was_blocked: bool,
}

/// What is in flight on a connection. Its stream shares it with its service, its response bodies and its driver.
#[derive(Clone)]
pub(super) enum MessagesInFlight {
    Http1(Arc<Mutex<Http1Messages>>),
    Http2(Arc<Mutex<Http2Frames>>),
}

enum ProtocolState {
    Http1(Http1Stream),
    Http2(Http2Stream),
}

struct Http1Stream {
    messages: Arc<Mutex<Http1Messages>>,
    /// A request's body that the client does not continue.
    reading: StallTimeout,
    /// Whether hyper waits for something to read.
    read_is_blocked: bool,
    /// Of reads after an upgrade.
    read_deadline: UpgradeDeadline,
    /// Of writes after an upgrade.
    write_deadline: UpgradeDeadline,
}

/// How many stall timeouts an HTTP/2 client may take to open a window, and to send more of a request. Most open a window when they have used
/// up a half, and some windows are large. The messages of a gRPC stream may be far apart.
const HTTP2_TIMEOUTS: u32 = 5;

/// How much is read to count the requests that nobody serves: more than clients pipeline.
const MAX_WAITING_BYTES: usize = 64 * 1024;

struct Http2Stream {
    frames: Arc<Mutex<Http2Frames>>,
    early_end: BoxedTimer,
    /// Whether the client has closed its half, and h2 was not told.
    withholds_end: bool,
    /// Requests that the client does not continue, and responses of which its windows let nothing more through.
    stall: StallTimeout,
}

/// Waits for the deadline of the server drain. Only an upgraded connection needs it, which hyper knows no more. Its reads and its writes
/// may belong to two tasks.
#[derive(Default)]
struct UpgradeDeadline(Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>);

impl UpgradeDeadline {
    fn poll(&mut self, stream: &ServerStream, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(drain) = stream.connection().drain() else { return Poll::Pending };
        let deadline = self.0.get_or_insert_with(|| {
            let drain = drain.clone();
            Box::pin(async move { drain.reached(DrainPhase::Deadline).await })
        });
        ready!(deadline.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(deadline_error())
    }
}

fn check_deadline(stream: &ServerStream) -> io::Result<()> {
    match stream.connection().drain() {
        Some(drain) if drain.phase() >= DrainPhase::Deadline => Err(deadline_error()),
        _ => Ok(()),
    }
}

fn deadline_error() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the server has no more time for this connection")
}

impl ProtocolState {
    fn new(messages: &MessagesInFlight, stall_timeout: Duration) -> Self {
        match messages.clone() {
            MessagesInFlight::Http1(messages) => Self::Http1(Http1Stream {
                messages,
                reading: StallTimeout::new(stall_timeout),
                read_is_blocked: false,
                read_deadline: UpgradeDeadline::default(),
                write_deadline: UpgradeDeadline::default(),
            }),
            MessagesInFlight::Http2(frames) => Self::Http2(Http2Stream {
                frames,
                early_end: BoxedTimer::default(),
                withholds_end: false,
                stall: StallTimeout::new(stall_timeout.saturating_mul(HTTP2_TIMEOUTS)),
            }),
        }
    }
}

impl HttpStream {
    pub(super) fn new(stream: ServerStream, messages: &MessagesInFlight, stall_timeout: Duration) -> Self {
        let protocol = ProtocolState::new(messages, stall_timeout);
        Self { stream: Some(stream), protocol, writing: StallTimeout::new(stall_timeout), write_was_blocked: false }
    }

    /// What the client sends first, without taking it. Empty at the end of the stream.
    pub(super) fn poll_first_bytes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        self.stream.as_mut().map_or(Poll::Ready(Ok(&[])), |stream| Pin::new(stream).poll_fill_buf(cx))
    }

    /// The client speaks another protocol than was thought. Nothing was read or written yet.
    pub(super) fn change_protocol(&mut self, messages: &MessagesInFlight, stall_timeout: Duration) {
        self.protocol = ProtocolState::new(messages, stall_timeout);
    }

    fn parts(&mut self) -> (Pin<&mut ServerStream>, &mut ProtocolState) {
        let stream = self.stream.as_mut().expect("the stream is there until it is dropped");
        (Pin::new(stream), &mut self.protocol)
    }

    /// Bounds a wait for the client: by the stall timeout, or by the drain's deadline after an upgrade.
    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(stream) = &self.stream else { return Poll::Pending };
        match &mut self.protocol {
            ProtocolState::Http1(http1) if lock(&http1.messages).is_upgraded() => http1.write_deadline.poll(stream, cx),
            _ => self.writing.poll(cx, || acknowledged(stream.get_ref().get_ref().get_ref().0)),
        }
    }

    /// hyper has handed over all of each response, but TLS may still hold the end of one that the client does not read.
    fn note_unsent(&self, stream: &ServerStream) {
        if self.writing.is_waiting() && stream.get_ref().get_ref().get_ref().1.wants_write() {
            stream.connection().mark_unsent();
        }
    }
}

impl Http1Stream {
    fn poll_read(
        &mut self,
        mut stream: Pin<&mut ServerStream>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if lock(&self.messages).is_upgraded() {
            check_deadline(&stream)?;
            let read = stream.as_mut().poll_read(cx, buffer);
            return if read.is_pending() { self.read_deadline.poll(&stream, cx).map(Err) } else { read };
        }
        let before = buffer.filled().len();
        let read = stream.poll_read(cx, buffer);
        self.read_is_blocked = read.is_pending();
        let bytes = &buffer.filled()[before..];
        if !bytes.is_empty() {
            self.reading.on_progress();
            lock(&self.messages).on_received(bytes);
        } else if read.is_pending() && lock(&self.messages).lacks_body() {
            return self.reading.poll(cx, || None).map(Err);
        }
        read
    }

    /// An upgraded connection has no more time at the deadline. A response that ends with the connection must not look complete if that
    /// ends early, whatever the cause.
    fn before_write(&mut self, stream: Pin<&mut ServerStream>) -> io::Result<()> {
        let mut messages = lock(&self.messages);
        if messages.is_upgraded() {
            return check_deadline(&stream);
        }
        messages.on_write();
        if messages.delimiter == Delimiter::Connection {
            stream.get_mut().get_mut().set_abort_mode(Abort::Reset);
        }
        Ok(())
    }

    /// Checks whether the client is still there while it is answered. hyper does not read then, as it lets clients close their half.
    fn check_client(&mut self, stream: Pin<&mut ServerStream>, cx: &mut Context<'_>) -> io::Result<()> {
        match stream.poll_fill_buf(cx) {
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Ready(Ok(_)) if self.read_is_blocked => {
                // The transport does not wake hyper for bytes that were read here.
                self.read_is_blocked = false;
                cx.waker().wake_by_ref();
            }
            _ => {}
        }
        Ok(())
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
        let mut frames = lock(&self.frames);
        frames.early_ends.before_read();
        loop {
            frames.stage_frame();
            frames.pass(&[], buffer);
            frames.check_resets()?;
            if buffer.filled().len() > before || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if frames.holds_request() {
                // h2 gives the service what it has before it reads again.
                frames.early_ends.yield_to_service();
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let received = stream.as_mut().poll_fill_buf(cx)?;
            if let Poll::Ready(bytes @ [_, ..]) = received {
                let taken = frames.pass(bytes, buffer);
                stream.as_mut().consume(taken);
                continue;
            }
            self.withholds_end = received.is_ready() && frames.can_answer();
            if received.is_ready() && !self.withholds_end {
                return Poll::Ready(Ok(()));
            }
            match frames.next_early_end() {
                Some(due) => ready!(self.early_end.poll_until(due, cx)),
                None => return poll_stall(&mut self.stall, &frames, cx).map(Err),
            }
        }
    }

    fn poll_write(
        &mut self,
        mut stream: Pin<&mut ServerStream>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut frames = lock(&self.frames);
        let length = length_before_reset(&frames.outbound, buffers);
        let first = buffers.iter().find(|buffer| !buffer.is_empty()).map_or(&[][..], |buffer| &buffer[..]);
        let first = [IoSlice::new(&first[..first.len().min(length)])];
        let is_whole = buffers.iter().map(|buffer| buffer.len()).sum::<usize>() <= length;
        let buffers = if is_whole { buffers } else { &first };
        let written = ready!(stream.as_mut().poll_write_vectored(cx, buffers))?;
        let (mut left, mut cut) = (written, 0);
        for buffer in buffers {
            let piece = left.min(buffer.len());
            cut += frames.on_sent(&buffer[..piece]);
            left -= piece;
        }
        if cut > 0 {
            stream.connection().count_cut(cut);
        }
        if self.withholds_end && !frames.can_answer() {
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(written))
    }
}

/// Reads the requests that hyper has not read, because it reads nothing while it is answering. Nobody will serve them.
fn read_waiting_requests(stream: &mut ServerStream, messages: &mut Http1Messages) {
    let (mut read, mut cx) = (0, Context::from_waker(Waker::noop()));
    while read < MAX_WAITING_BYTES
        && let Poll::Ready(Ok(bytes @ [_, ..])) = Pin::new(&mut *stream).poll_fill_buf(&mut cx)
    {
        let amount = bytes.len();
        messages.on_received(bytes);
        read += amount;
        Pin::new(&mut *stream).consume(amount);
    }
}

/// Bounds the time for which the client neither sends nor lets anything through.
fn poll_stall(stall: &mut StallTimeout, frames: &Http2Frames, cx: &mut Context<'_>) -> Poll<io::Error> {
    if frames.waits_for_client() {
        return stall.poll(cx, || Some(frames.progress()));
    }
    stall.on_progress();
    Poll::Pending
}

impl AsyncRead for HttpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().parts() {
            (stream, ProtocolState::Http1(http1)) => http1.poll_read(stream, cx, buffer),
            (stream, ProtocolState::Http2(http2)) => http2.poll_read(stream, cx, buffer),
        }
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
        let written = match this.parts() {
            (mut stream, ProtocolState::Http1(http1)) => {
                http1.before_write(stream.as_mut())?;
                stream.poll_write_vectored(cx, buffers)
            }
            (stream, ProtocolState::Http2(http2)) => http2.poll_write(stream, cx, buffers),
        };
        if written.is_pending() {
            this.write_was_blocked = true;
            return this.poll_timeout(cx).map(Err);
        }
        if mem::take(&mut this.write_was_blocked) {
            this.writing.on_progress();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (mut stream, protocol) = this.parts();
        if let ProtocolState::Http1(http1) = protocol {
            let is_answering = {
                let mut messages = lock(&http1.messages);
                // From this call on, the stream has all bytes, and sends them before close_notify.
                messages.on_flush();
                messages.is_answering() && !messages.is_upgraded()
            };
            if is_answering {
                http1.check_client(stream.as_mut(), cx)?;
            }
        }
        let mut written = 0;
        let flushed = stream.get_mut().get_mut().poll_flush_counted(cx, &mut written);
        if written > 0 || flushed.is_ready() {
            this.writing.on_progress();
        }
        if flushed.is_pending() {
            return this.poll_timeout(cx).map(Err);
        }
        // What was sent may have been all that the client lets through.
        if let (Poll::Ready(Ok(())), ProtocolState::Http2(http2)) = (&flushed, &mut this.protocol)
            && let Poll::Ready(error) = poll_stall(&mut http2.stall, &lock(&http2.frames), cx)
        {
            return Poll::Ready(Err(error));
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (stream, protocol) = self.get_mut().parts();
        let stream = stream.get_mut();
        // If a client with open requests sends close_notify, h2 ends without any frame. The client may still read.
        if let ProtocolState::Http2(http2) = protocol {
            let mut frames = lock(&http2.frames);
            if frames.unanswered().next().is_some() {
                frames.send_final_frames(stream);
            }
        }
        Pin::new(stream).poll_shutdown(cx)
    }
}

impl Drop for HttpStream {
    //= https://www.rfc-editor.org/rfc/rfc9112#section-9.8
    //# Servers MUST attempt to initiate an exchange of closure alerts with
    //# the client before closing the connection.
    /// Ends a connection that nobody has ended: with close_notify if no message is cut, or if the framing shows that it is cut.
    fn drop(&mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        match &self.protocol {
            ProtocolState::Http1(http1) => {
                let (upgrade, response, delimiter) = {
                    let mut messages = lock(&http1.messages);
                    if messages.is_answering() {
                        read_waiting_requests(&mut stream, &mut messages);
                    }
                    stream.connection().count_unserved(messages.unserved());
                    (messages.upgrade, messages.response, messages.delimiter)
                };
                if upgrade != Upgrade::None {
                    stream.connection().mark_upgraded();
                }
                match (response, delimiter) {
                    // Its end may be the end of a message, and its owner has not shut it down.
                    (ResponseProgress::Complete, _) if upgrade == Upgrade::Unknown => return,
                    (ResponseProgress::Complete, _) => self.note_unsent(&stream),
                    // Nothing of the response was sent.
                    (ResponseProgress::Awaited, _) | (_, Delimiter::Framing) => stream.connection().count_cut(1),
                    (_, Delimiter::Connection) => {
                        stream.connection().count_cut(1);
                        return stream.into_inner().abort(Abort::Reset);
                    }
                }
            }
            ProtocolState::Http2(http2) => {
                let mut frames = lock(&http2.frames);
                if frames.unanswered().next().is_none() {
                    self.note_unsent(&stream);
                }
                frames.send_final_frames(&mut stream);
                stream.connection().count_cut(frames.unanswered().count() as u64);
            }
        }
        if self.writing.has_timed_out() {
            // It has had its time.
            stream.get_mut().set_stall_timeout(Duration::ZERO);
        }
        stream.get_mut().begin_shutdown();
    }
}
