//! The stream under hyper. It knows what is half-sent, so that it ends truthfully on every path, also when it is dropped.

mod early_end;
mod early_resets;
mod first_bytes;
mod flow_control;
pub(super) mod http1;
pub(super) mod http2;
mod open_requests;
mod reset_budget;
mod stall;
#[cfg(test)]
mod tests;
mod undelivered;
mod upgrade_deadline;

pub(super) use first_bytes::FirstBytes;

use std::{
    io::{self, IoSlice},
    mem,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};

use self::{
    early_end::length_before_reset,
    first_bytes::{Http2Taker, poll_decided},
    http1::{Delimiter, Http1Messages, ResponseProgress, Upgrade},
    http2::Http2Frames,
    stall::StallTimeout,
    upgrade_deadline::{UpgradeDeadline, check_deadline},
};
use crate::{
    runtime::{lock::lock, timer::BoxedTimer},
    server::accepted_stream::AcceptedStream,
    tls::Abort,
};

/// A server's stream under hyper, and after an upgrade under the new owner of the connection.
pub(super) struct HttpStream {
    /// `None` while it is dropped, and once the client has turned out to speak HTTP/2.
    stream: Option<AcceptedStream>,
    protocol: ProtocolState,
    /// `Some` until the client's first bytes show whether it speaks HTTP/2. Takes the stream then.
    http2: Option<Http2Taker>,
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

struct Http2Stream {
    frames: Arc<Mutex<Http2Frames>>,
    early_end: BoxedTimer,
    /// Whether the client has closed its half, and h2 was not told.
    withholds_end: bool,
    /// Requests that the client does not continue, and responses of which its windows let nothing more through.
    stall: StallTimeout,
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
    pub(super) fn new(stream: AcceptedStream, messages: &MessagesInFlight, stall_timeout: Duration) -> Self {
        let protocol = ProtocolState::new(messages, stall_timeout);
        let writing = StallTimeout::new(stall_timeout);
        Self { stream: Some(stream), protocol, http2: None, writing, write_was_blocked: false }
    }

    /// An HTTP/1 stream that gives itself away if the client turns out to speak HTTP/2, by prior knowledge (RFC 9113 section 3.3).
    pub(super) fn unless_http2(mut self) -> (Self, oneshot::Receiver<AcceptedStream>) {
        let (taker, http2) = oneshot::channel();
        self.http2 = Some(taker);
        (self, http2)
    }

    /// What the client sends first, without taking it. Empty at the end of the stream.
    pub(super) fn poll_first_bytes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        self.stream.as_mut().map_or(Poll::Ready(Ok(&[])), |stream| Pin::new(stream).poll_fill_buf(cx))
    }

    /// The client speaks another protocol than was thought. Nothing was read or written yet.
    pub(super) fn change_protocol(&mut self, messages: &MessagesInFlight, stall_timeout: Duration) {
        self.protocol = ProtocolState::new(messages, stall_timeout);
    }

    /// `None` once the client has turned out to speak HTTP/2. hyper's HTTP/1 connection is dropped then.
    fn parts(&mut self) -> Option<(Pin<&mut AcceptedStream>, &mut ProtocolState)> {
        Some((Pin::new(self.stream.as_mut()?), &mut self.protocol))
    }

    /// Bounds a wait for the client: by the stall timeout, or by the drain's deadline after an upgrade.
    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(stream) = &self.stream else { return Poll::Pending };
        match &mut self.protocol {
            ProtocolState::Http1(http1) if lock(&http1.messages).is_upgraded() => http1.write_deadline.poll(stream, cx),
            _ => self.writing.poll(cx, || stream.acknowledged()),
        }
    }

    /// hyper has handed over all of each response, but TLS may still hold the end of one that the client does not read.
    fn note_unsent(&self, stream: &AcceptedStream) {
        if self.writing.is_waiting() {
            stream.note_unsent();
        }
    }
}

impl Http1Stream {
    fn poll_read(
        &mut self,
        mut stream: Pin<&mut AcceptedStream>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut messages = lock(&self.messages);
        if messages.is_upgraded() {
            drop(messages);
            check_deadline(&stream)?;
            let read = stream.as_mut().poll_read(cx, buffer);
            return if read.is_pending() { self.read_deadline.poll(&stream, cx).map(Err) } else { read };
        }
        let before = buffer.filled().len();
        let read = stream.as_mut().poll_read(cx, buffer);
        self.read_is_blocked = read.is_pending();
        let bytes = &buffer.filled()[before..];
        if !bytes.is_empty() {
            self.reading.on_progress();
            messages.on_received(bytes);
        } else if read.is_pending() && messages.lacks_body() {
            let error = ready!(self.reading.poll(cx, || None));
            messages.on_broken_body();
            return Poll::Ready(Err(error));
        } else if buffer.remaining() > 0 && matches!(read, Poll::Ready(Ok(()))) {
            messages.on_end(stream.get_mut());
        }
        read
    }

    /// An upgraded connection has no more time at the deadline. A response that ends with the connection must not look complete if that
    /// ends early, whatever the cause.
    fn before_write(&mut self, stream: Pin<&mut AcceptedStream>) -> io::Result<()> {
        let mut messages = lock(&self.messages);
        if messages.is_upgraded() {
            messages.on_upgraded_write();
            return check_deadline(&stream);
        }
        messages.on_write();
        if messages.delimiter == Delimiter::Connection {
            stream.get_mut().set_abort_mode(Abort::Reset);
        }
        Ok(())
    }

    /// Checks whether the client is still there while it is answered. hyper does not read then, as it lets clients close their half.
    fn check_client(&mut self, mut stream: Pin<&mut AcceptedStream>, cx: &mut Context<'_>) -> io::Result<()> {
        let Poll::Ready(bytes) = stream.as_mut().poll_fill_buf(cx)? else { return Ok(()) };
        if bytes.is_empty() {
            lock(&self.messages).on_end(stream.get_mut());
        }
        if self.read_is_blocked {
            // The transport does not wake hyper for bytes that were read here.
            self.read_is_blocked = false;
            cx.waker().wake_by_ref();
        }
        Ok(())
    }
}

impl Http2Stream {
    /// Reads what h2 is to see of the client.
    fn poll_read(
        &mut self,
        mut stream: Pin<&mut AcceptedStream>,
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
            let has_ended = received.is_ready();
            if has_ended {
                frames.on_end(stream.as_mut().get_mut());
            }
            self.withholds_end = has_ended && frames.can_answer();
            if has_ended && !self.withholds_end {
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
        mut stream: Pin<&mut AcceptedStream>,
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
        let this = self.get_mut();
        if this.http2.is_some() {
            ready!(poll_decided(&mut this.http2, &mut this.stream, cx))?;
        }
        match this.parts() {
            Some((stream, ProtocolState::Http1(http1))) => http1.poll_read(stream, cx, buffer),
            Some((stream, ProtocolState::Http2(http2))) => http2.poll_read(stream, cx, buffer),
            None => Poll::Pending,
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
            Some((mut stream, ProtocolState::Http1(http1))) => {
                http1.before_write(stream.as_mut())?;
                stream.poll_write_vectored(cx, buffers)
            }
            Some((stream, ProtocolState::Http2(http2))) => http2.poll_write(stream, cx, buffers),
            None => return Poll::Pending,
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
        let Some((mut stream, protocol)) = this.parts() else { return Poll::Pending };
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
        let flushed = stream.get_mut().poll_flush_counted(cx, &mut written);
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
        let Some((stream, protocol)) = self.get_mut().parts() else { return Poll::Pending };
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
        let undelivered = self.undelivered(&stream);
        stream.set_undelivered(undelivered);
        match &self.protocol {
            ProtocolState::Http1(http1) => {
                let (upgrade, response, delimiter) = {
                    let mut messages = lock(&http1.messages);
                    if messages.is_answering() {
                        messages.read_waiting_requests(&mut stream);
                    }
                    stream.connection().count_unserved(messages.unserved());
                    (messages.upgrade, messages.response, messages.delimiter)
                };
                if upgrade != Upgrade::None {
                    stream.connection().mark_upgraded();
                }
                match (response, delimiter) {
                    // Its end may be the end of a message, and its owner has not shut it down.
                    (ResponseProgress::Complete, _) if upgrade == Upgrade::Unknown => return stream.note_unsent(),
                    (ResponseProgress::Complete, _) if upgrade == Upgrade::WebSocket => stream.note_unsent(),
                    (ResponseProgress::Complete, _) => self.note_unsent(&stream),
                    // Nothing of the response was sent.
                    (ResponseProgress::Awaited, _) | (_, Delimiter::Framing) => stream.connection().count_cut(1),
                    (_, Delimiter::Connection) => {
                        stream.connection().count_cut(1);
                        return stream.reset();
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
            // The client gets no more time.
            stream.mark_timed_out();
        }
        stream.begin_shutdown();
    }
}
