//! What is in flight on an HTTP/2 connection, known from the frames that pass.
//!
//! h2 does not report it: frames wait for windows inside of it, so that neither the end of a body nor its drop shows what the client has.
//! The frames that the transport has accepted show it.

use std::{
    io,
    ops::ControlFlow,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use http_body::Body;
use hyper::{Method, Request};
use tokio::{
    io::{AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{
    early_end::{EarlyEnds, Upload},
    early_resets::EarlyResets,
    http1::content_length,
    open_requests::{Bodies, OpenRequests},
    reset_budget::ResetBudget,
};
use crate::{
    http::h2_scanner::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, EVERY_STREAM, FLAGS, Frame, FrameHead, FrameScanner, GOAWAY,
        HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    },
    server::{accepted_stream::AcceptedStream, endless::opens_websocket, lifetime::ClientWait},
};

/// RFC 9113 section 3.4.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const NO_ERROR: u32 = 0x0;
pub(super) const PROTOCOL_ERROR: u32 = 0x1;
const INTERNAL_ERROR: u32 = 0x2;
const CANCEL: u32 = 0x8;
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// The frames of both directions, and h2's view of the client's frames. Shared by hyper's service, the driver of the connection and its
/// stream.
///
/// h2 reads what the client has sent, with two exceptions: the answer to its own PING, see [`answer_ping`](Self::answer_ping), and the
/// end of a request that is cut short, see [`EarlyEnds`].
#[derive(Default)]
pub(in crate::server) struct Http2Frames {
    next: NextInbound,
    /// The bytes of the preface that have passed.
    preface: usize,
    inbound: FrameScanner,
    pub(super) outbound: FrameScanner,
    /// A head or a small frame, as far as h2 has not read it.
    staged: Vec<u8>,
    requests: OpenRequests,
    /// The request whose header block is incomplete.
    opening: Option<OpeningRequest>,
    /// The last request whose header block is complete.
    last_stream: u32,
    /// The last stream that the last GOAWAY promised to process.
    goaway: Option<u32>,
    pub(super) early_ends: EarlyEnds,
    /// The PING that h2 has sent behind its first GOAWAY, until it is answered.
    ping: Option<[u8; 8]>,
    ping_timed_out: bool,
    resets: ResetBudget,
    early_resets: EarlyResets,
}

/// A request whose header block continues in CONTINUATION.
struct OpeningRequest {
    stream: u32,
    upload: Upload,
    began: Instant,
}

/// What the client sends next.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum NextInbound {
    #[default]
    Preface,
    Head,
    /// Nothing: the head of a request was received, and waits until the service has the request before.
    HeldHead,
    Payload,
    /// Anything. It is not HTTP/2, and h2 finds that out as well.
    Invalid,
}

impl Http2Frames {
    /// Whether the client has sent its preface. Before that, h2 does nothing.
    pub(in crate::server) fn has_preface(&self) -> bool {
        !matches!(self.next, NextInbound::Preface | NextInbound::Invalid)
    }

    /// The client has ended its half.
    pub(super) fn on_end(&self, stream: &mut AcceptedStream) {
        if self.is_in_request() {
            stream.mark_truncated();
        } else if self.unanswered().next().is_some() {
            stream.mark_half_closed();
        }
    }

    /// Whether the client has sent a part of a frame or of a request, and not all of it.
    fn is_in_request(&self) -> bool {
        let is_in_preface = self.next == NextInbound::Preface && self.preface > 0;
        is_in_preface || !self.inbound.is_between() || self.opening.is_some() || self.requests.has_upload()
    }

    /// Answers h2's PING in the place of a client that does not.
    pub(in crate::server) fn answer_ping(&mut self) {
        self.ping_timed_out = true;
    }

    /// What the server waits for from the client. `None` before the preface is complete: `serve_http2` waits for that.
    pub(in crate::server) fn wait(&self) -> ClientWait {
        match (self.requests.idle_since(), &self.opening) {
            (Some(_), Some(opening)) => ClientWait::Head { since: opening.began },
            (Some(since), None) if self.has_preface() => ClientWait::Request { since },
            _ => ClientWait::None,
        }
    }

    /// When the client was sent the last of what it needs.
    pub(super) fn answered(&self) -> Instant {
        self.requests.answered()
    }

    /// Whether the client has sent a part of a frame, and no request is open: h2 then waits for the rest without limit.
    pub(in crate::server) fn is_stuck_in_frame(&self) -> bool {
        !self.inbound.is_between() && !self.holds_request() && !self.requests.has_any(self.last_served())
    }

    /// The service is given a request. Returns how many responses were cut before that: h2 has already reset the request.
    pub(in crate::server) fn on_request<B: Body>(&mut self, request: &Request<B>) -> u64 {
        self.early_resets.on_request();
        if let Some(stream) = self.early_ends.on_request(request)
            && let Some(open) = self.requests.get_mut(stream)
        {
            open.upload.length = content_length(request.headers());
            open.last_frame = opens_websocket(request).then(Instant::now);
            open.is_connect = *request.method() == Method::CONNECT;
        }
        self.early_resets.take_cut()
    }

    /// Checks whether the client may still send.
    ///
    /// # Errors
    ///
    /// If it cancels its requests faster than they can be answered.
    pub(super) fn check_resets(&self) -> io::Result<()> {
        if self.resets.is_exceeded() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the client has cancelled too many requests"));
        }
        Ok(())
    }

    /// Whether the next request waits until the service has the one before.
    pub(super) fn holds_request(&self) -> bool {
        self.next == NextInbound::HeldHead
    }

    /// Gives h2 what it is to read before `bytes` of the client, then as many of those as there is room for. Returns how many it took.
    pub(super) fn pass(&mut self, bytes: &[u8], room: &mut ReadBuf<'_>) -> usize {
        let mut rest = bytes;
        if bytes.is_empty() && self.staged.is_empty() && !self.holds_request() {
            return 0;
        }
        loop {
            if !self.staged.is_empty() {
                let amount = hand_over(&mut &self.staged[..], room, usize::MAX).len();
                self.staged.drain(..amount);
                if !self.staged.is_empty() {
                    break;
                }
            }
            match self.next {
                NextInbound::Head if rest.is_empty() => break,
                NextInbound::Head | NextInbound::HeldHead => {
                    let Some(head) = self.inbound.head(&mut rest) else { break };
                    if self.stage_head(head).is_break() {
                        self.next = NextInbound::HeldHead;
                        break;
                    }
                    self.next = NextInbound::Payload;
                }
                NextInbound::Payload => {
                    let piece = hand_over(&mut rest, room, self.inbound.left());
                    if let [_, _, _, SETTINGS, flags, ..] = self.inbound.head_bytes()
                        && flags & ACK == 0
                    {
                        self.requests.read_settings(Bodies::Responses, piece);
                    }
                    let Some(frame) = self.inbound.payload(piece) else { break };
                    self.on_received(&frame);
                    self.next = NextInbound::Head;
                }
                NextInbound::Preface => {
                    let expected = &PREFACE[self.preface..];
                    let piece = hand_over(&mut rest, room, expected.len());
                    self.preface += piece.len();
                    if !expected.starts_with(piece) {
                        self.next = NextInbound::Invalid;
                    } else if self.preface == PREFACE.len() {
                        self.next = NextInbound::Head;
                    } else {
                        break;
                    }
                }
                NextInbound::Invalid => {
                    hand_over(&mut rest, room, usize::MAX);
                    break;
                }
            }
        }
        bytes.len() - rest.len()
    }

    //= https://www.rfc-editor.org/rfc/rfc9113#section-8.1.1
    //# For malformed requests, a server MAY send an HTTP response prior to
    //# closing or resetting the stream.
    /// Stages the head of a frame for h2, unless the frame has to wait.
    fn stage_head(&mut self, head: FrameHead) -> ControlFlow<()> {
        let ends = head.flags & END_STREAM != 0;
        let mut withholds_end = false;
        if head.kind == HEADERS && head.stream > self.last_stream && !ends {
            self.early_ends.admit(head.stream)?;
        } else if head.kind == DATA
            && let Some(open) = self.requests.get_mut(head.stream)
        {
            open.upload.on_data(head.data);
            if ends && open.upload.is_short() && open.is_answered && !open.has_response {
                self.early_ends.withhold(head.stream);
                withholds_end = true;
            }
        }
        self.staged.extend(self.inbound.head_bytes());
        if withholds_end {
            self.staged[FLAGS] &= !END_STREAM;
        }
        ControlFlow::Continue(())
    }

    /// Notes a frame that h2 was given.
    fn on_received(&mut self, frame: &Frame) {
        match frame.kind {
            // h2 ignores a request that it has refused by GOAWAY. Nothing would ever end it.
            HEADERS if frame.stream > self.last_stream && frame.stream <= self.last_served() => {
                let (stream, upload) = (frame.stream, Upload::after_head(frame.flags));
                if frame.flags & END_HEADERS == 0 {
                    self.opening = Some(OpeningRequest { stream, upload, began: Instant::now() });
                } else {
                    self.open(stream, upload);
                }
            }
            PING if frame.flags & ACK != 0 && self.ping == Some(frame.payload) => self.ping = None,
            RST_STREAM => {
                let open = self.requests.remove(frame.stream);
                self.early_ends.forget(frame.stream);
                // To cancel the rest of a response is no abuse, and neither is the rest of a request that is answered to its end.
                if open.is_some_and(|open| !open.has_response && (!open.is_answered || !open.upload.has_ended)) {
                    self.resets.on_reset();
                }
            }
            DATA | HEADERS | CONTINUATION => {
                if frame.kind == DATA {
                    self.requests.on_data(Bodies::Uploads, frame.stream, frame.length);
                }
                if frame.ends_stream {
                    self.requests.on_upload_end(frame.stream);
                }
            }
            WINDOW_UPDATE => self.requests.widen(Bodies::Responses, frame.stream, first_word(frame) & EVERY_STREAM),
            _ => {}
        }
        if frame.flags & END_HEADERS != 0
            && frame.kind == CONTINUATION
            && let Some(OpeningRequest { stream, upload, .. }) = self.opening.take()
        {
            self.open(stream, upload);
        }
    }

    /// The header block of a request is complete.
    fn open(&mut self, stream: u32, upload: Upload) {
        self.last_stream = stream;
        self.early_resets.on_head();
        self.requests.insert(stream, upload);
    }

    /// Notes what the transport has accepted of h2. Returns how many responses h2 has cut by that.
    pub(super) fn on_sent(&mut self, mut bytes: &[u8]) -> u64 {
        let mut cut = 0;
        while !bytes.is_empty()
            && let Some(head) = self.outbound.head(&mut bytes)
        {
            let (payload, rest) = bytes.split_at(bytes.len().min(self.outbound.left()));
            bytes = rest;
            if head.kind == SETTINGS && head.flags & ACK == 0 {
                self.requests.read_settings(Bodies::Uploads, payload);
            }
            let Some(frame) = self.outbound.payload(payload) else { break };
            if frame.ends_stream && frame.kind != RST_STREAM && self.requests.on_response_end(frame.stream) {
                self.resets.on_response();
            }
            match frame.kind {
                HEADERS => self.requests.get_mut(frame.stream).into_iter().for_each(|open| open.is_answered = true),
                DATA => {
                    self.requests.on_data(Bodies::Responses, frame.stream, frame.length);
                    self.early_ends.on_progress(frame.stream);
                }
                RST_STREAM => {
                    self.early_ends.forget(frame.stream);
                    // By other codes, h2 also refuses a request that the service was not given.
                    let has_failed = matches!(first_word(&frame), INTERNAL_ERROR | CANCEL);
                    match self.requests.remove(frame.stream) {
                        Some(open) if open.has_response => {}
                        Some(open) if open.is_answered || has_failed => cut += 1,
                        Some(_) => self.early_resets.on_reset(),
                        None => {}
                    }
                }
                WINDOW_UPDATE => self.requests.widen(Bodies::Uploads, frame.stream, first_word(&frame) & EVERY_STREAM),
                GOAWAY => self.goaway = Some(first_word(&frame) & EVERY_STREAM),
                PING if frame.flags & ACK == 0 && self.goaway == Some(EVERY_STREAM) => {
                    self.ping = Some(frame.payload);
                }
                _ => {}
            }
        }
        cut + self.early_resets.take_cut()
    }

    /// Whether h2 may be given a frame that the client has not sent.
    fn can_stage(&self) -> bool {
        self.next == NextInbound::Head && self.inbound.is_between() && self.staged.is_empty()
    }

    /// Stages a frame that the client has not sent, if one is due.
    pub(super) fn stage_frame(&mut self) {
        if !self.can_stage() {
            return;
        }
        if let Some(payload) = self.ping.take_if(|_| self.ping_timed_out) {
            self.staged.extend([0, 0, 8, PING, ACK, 0, 0, 0, 0]);
            self.staged.extend(payload);
        } else if let Some(stream) = self.early_ends.take_due() {
            self.staged.extend([0, 0, 0, DATA, END_STREAM]);
            self.staged.extend(stream.to_be_bytes());
        }
    }

    /// When h2 has to see the end of a request that is cut short. Within a frame of the client, nothing can be staged.
    pub(super) fn next_early_end(&self) -> Option<Instant> {
        if self.can_stage() { self.early_ends.next_due() } else { None }
    }

    /// Whether a client that has closed its half can still be answered.
    pub(super) fn can_answer(&self) -> bool {
        self.requests.can_answer(self.last_served())
    }

    /// Whether all requests wait for the client, and there is one.
    pub(super) fn waits_for_client(&self) -> bool {
        self.requests.waits_for_client(self.last_served())
    }

    /// The bytes of both directions' bodies.
    pub(super) fn progress(&self) -> u64 {
        self.requests.progress()
    }

    /// The last stream that is served, as far as a GOAWAY has announced it.
    fn last_served(&self) -> u32 {
        self.goaway.unwrap_or(EVERY_STREAM)
    }

    /// The streams whose response is incomplete, without those that a GOAWAY has refused.
    pub(in crate::server) fn unanswered(&self) -> impl Iterator<Item = u32> + '_ {
        self.requests.unanswered(self.last_served())
    }

    //= https://www.rfc-editor.org/rfc/rfc9113#section-6.8
    //# Endpoints SHOULD always send a GOAWAY frame before closing a
    //# connection so that the remote peer can know whether a stream has been
    //# partially processed or not.
    /// The frames for a client whose connection ends without h2: RST_STREAM for each response that is cut, and the final GOAWAY. Empty if
    /// they were sent, and if the transport has accepted only a part of a frame.
    fn final_frames(&self) -> Vec<u8> {
        let mut frames = Vec::new();
        if !self.outbound.is_between() || self.outbound.frames() == 0 {
            return frames;
        }
        for stream in self.unanswered() {
            frames.extend([0, 0, 4, RST_STREAM, 0]);
            frames.extend(stream.to_be_bytes());
            frames.extend(CANCEL.to_be_bytes());
        }
        if self.goaway.is_none_or(|last| last == EVERY_STREAM) {
            frames.extend([0, 0, 8, GOAWAY, 0, 0, 0, 0, 0]);
            frames.extend(self.last_stream.to_be_bytes());
            //= https://www.rfc-editor.org/rfc/rfc9113#section-3.4
            //# Clients and servers MUST treat an invalid connection preface as a
            //# connection error (Section 5.4.1) of type PROTOCOL_ERROR.
            let error = match self.next {
                NextInbound::Invalid => PROTOCOL_ERROR,
                _ if self.resets.is_exceeded() => ENHANCE_YOUR_CALM,
                _ => NO_ERROR,
            };
            frames.extend(error.to_be_bytes());
        }
        frames
    }

    /// Sends the [final frames](Self::final_frames), as far as the stream accepts them now. What is missing cuts what it would have cut.
    pub(super) fn send_final_frames(&mut self, stream: &mut AcceptedStream) {
        if !stream.is_writable() {
            return;
        }
        let (frames, mut sent) = (self.final_frames(), 0);
        let mut cx = Context::from_waker(Waker::noop());
        while sent < frames.len()
            && let Poll::Ready(Ok(amount @ 1..)) = Pin::new(&mut *stream).poll_write(&mut cx, &frames[sent..])
        {
            sent += amount;
        }
        stream.connection().count_cut(self.on_sent(&frames[..sent]));
    }
}

/// The first 32 bits of a frame's payload.
fn first_word(frame: &Frame) -> u32 {
    let [a, b, c, d, ..] = frame.payload;
    u32::from_be_bytes([a, b, c, d])
}

/// Moves the beginning of `bytes`, `limit` bytes at most, to where there is room.
fn hand_over<'a>(bytes: &mut &'a [u8], room: &mut ReadBuf<'_>, limit: usize) -> &'a [u8] {
    let (piece, rest) = bytes.split_at(bytes.len().min(limit).min(room.remaining()));
    room.put_slice(piece);
    *bytes = rest;
    piece
}

#[cfg(test)]
pub(super) mod tests;
