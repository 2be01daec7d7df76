//! What is in flight on an HTTP/2 connection, known from the frames that pass by.
//!
//! h2 does not tell: frames wait for windows inside of it, so that neither the end of a body nor its drop says what the client
//! has. The frames that the transport has accepted do.

use std::{
    collections::BTreeMap,
    io::IoSlice,
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
    time::Duration,
};

use http_body::Body;
use hyper::{Request, header::CONTENT_LENGTH};
use tokio::{io::ReadBuf, time::Instant};

use super::flow_control::Windows;
use crate::http::h2_scanner::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, EVERY_STREAM, FLAGS, Frame, GOAWAY, HEAD, HEADERS, Head, PING,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, Walk,
};

/// RFC 9113 section 3.4.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const NO_ERROR: u32 = 0x0;
const PROTOCOL_ERROR: u32 = 0x1;
const INTERNAL_ERROR: u32 = 0x2;
const CANCEL: u32 = 0x8;

/// How long a response may stand still, before h2 is told that its request was cut short.
const CUT_SHORT_LIMIT: Duration = Duration::from_secs(5);

/// What those who drive the connection and who serve its requests want of its stream, and learn from it. They are one task.
pub(in crate::server) struct Control {
    state: AtomicU8,
    /// Requests that the service was given.
    requests: AtomicU64,
    /// The length of the last of them that has a body, until the stream has heard it.
    length: AtomicU64,
}

impl Control {
    const HAS_PREFACE: u8 = 1;
    const ANSWERS_PING: u8 = 2;
    const IS_STALLED: u8 = 4;

    const NO_REQUEST: u64 = u64::MAX;
    const NO_LENGTH: u64 = u64::MAX - 1;

    pub(in crate::server) fn new() -> Self {
        Self { state: AtomicU8::new(0), requests: AtomicU64::new(0), length: AtomicU64::new(Self::NO_REQUEST) }
    }

    /// Whether the client has said that it speaks HTTP/2. Before that, h2 does nothing.
    pub(in crate::server) fn has_preface(&self) -> bool {
        self.state.load(Ordering::Relaxed) & Self::HAS_PREFACE != 0
    }

    /// Has the stream answer h2's PING in the place of a client that does not.
    pub(in crate::server) fn answer_ping(&self) {
        self.state.fetch_or(Self::ANSWERS_PING, Ordering::Relaxed);
    }

    /// Whether the client has said a part of a frame, and no response is owed to it: h2 then waits for the rest, for ever.
    pub(in crate::server) fn is_stalled(&self) -> bool {
        self.state.load(Ordering::Relaxed) & Self::IS_STALLED != 0
    }

    fn answers_ping(&self) -> bool {
        self.state.load(Ordering::Relaxed) & Self::ANSWERS_PING != 0
    }

    /// The service is given a request.
    pub(in crate::server) fn has_request<B: Body>(&self, request: &Request<B>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if !request.body().is_end_stream() {
            let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
            self.length.store(length.unwrap_or(Self::NO_LENGTH), Ordering::Relaxed);
        }
    }
}

//= https://www.rfc-editor.org/rfc/rfc9113#section-8.1.1
//# For malformed requests, a server MAY send an HTTP response prior to
//# closing or resetting the stream.
/// The frames of both directions, and h2's view of the client's.
///
/// h2 sees what the client has sent, but for two things: the answer to its own PING, see [`Control::answer_ping`], and the end of
/// a request that is cut short.
///
/// Some clients, curl for one, end their upload when they see that the answer is an error: with fewer bytes than the Content-Length
/// that they have announced. To h2 that is a malformed request, and it resets the stream, with all of the answer that is not yet out.
/// So END_STREAM of such a request is kept from h2 as long as its response moves.
pub(in crate::server) struct Frames {
    phase: Phase,
    inbound: Walk,
    outbound: Walk,
    /// What h2 is given before the next bytes of the client.
    staged: Staged,
    /// Requests of the client without a whole response, by their streams.
    open: BTreeMap<u32, Open>,
    /// The one whose head has not wholly come.
    opening: Option<u32>,
    /// The request with a body that the service was not yet given.
    announced: Option<Announced>,
    /// Streams whose end h2 has not seen, and when their response moved last.
    cut_short: BTreeMap<u32, Instant>,
    /// Responses that h2 has cut by RST_STREAM, and nobody has heard of yet.
    cut: u64,
    /// The last request whose head has wholly come.
    last_stream: u32,
    /// What the last GOAWAY has promised to process.
    goaway: Option<u32>,
    pong: Pong,
    windows: Windows,
    /// Bytes of responses.
    data_sent: u64,
}

/// What is next of the client.
enum Phase {
    /// The rest of the preface, from this position on.
    Preface(usize),
    Head,
    Payload,
    /// What is no HTTP/2: h2 will find that out, too.
    Rubbish,
}

struct Open {
    /// The Content-Length.
    length: Option<u64>,
    received: u64,
    progress: Progress,
    /// How much more of the response the client lets through.
    window: i64,
}

#[derive(PartialEq, Eq)]
enum Progress {
    Asked,
    /// The head of the response is out.
    Begun,
}

/// h2 has the head of a request with a body; the next such has to wait until it is known which of them the service is given.
struct Announced {
    stream: u32,
    next: Next,
}

/// The next request with a body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    NotThere,
    Waits,
    /// It waits since h2 was told that there is nothing to read, when the service had been given so many requests.
    WaitsSince(u64),
}

/// The answer to the PING that h2 sends behind its first GOAWAY.
enum Pong {
    /// That PING was not sent.
    Undue,
    /// It was.
    Due([u8; 8]),
    /// By the client, or in its place.
    Given,
}

/// A head, or a small frame, that h2 has not wholly read.
#[derive(Default)]
struct Staged {
    bytes: [u8; HEAD + 8],
    position: usize,
    length: usize,
}

impl Staged {
    fn set(&mut self, pieces: [&[u8]; 2]) {
        (self.position, self.length) = (0, 0);
        for piece in pieces {
            self.bytes[self.length..][..piece.len()].copy_from_slice(piece);
            self.length += piece.len();
        }
    }

    fn is_empty(&self) -> bool {
        self.position == self.length
    }

    fn move_to(&mut self, room: &mut ReadBuf<'_>) {
        let amount = room.remaining().min(self.length - self.position);
        room.put_slice(&self.bytes[self.position..][..amount]);
        self.position += amount;
    }
}

impl Open {
    fn new(window: i64) -> Self {
        Self { length: None, received: 0, progress: Progress::Asked, window }
    }
}

impl Frames {
    pub(in crate::server) fn new() -> Self {
        Self {
            phase: Phase::Preface(0),
            inbound: Walk::default(),
            outbound: Walk::default(),
            staged: Staged::default(),
            open: BTreeMap::new(),
            opening: None,
            announced: None,
            cut_short: BTreeMap::new(),
            cut: 0,
            last_stream: 0,
            goaway: None,
            pong: Pong::Undue,
            windows: Windows::new(),
            data_sent: 0,
        }
    }

    /// Before h2 reads: learns which request the service was given.
    pub(in crate::server) fn hear(&mut self, control: &Control) {
        let length = control.length.swap(Control::NO_REQUEST, Ordering::Relaxed);
        if length != Control::NO_REQUEST
            && let Some(announced) = self.announced.take()
            && let Some(open) = self.open.get_mut(&announced.stream)
        {
            open.length = Some(length).filter(|length| *length != Control::NO_LENGTH);
        }
        // h2 gives the service what it has whenever it has read: if it gives nothing more, it has refused that request.
        let requests = control.requests.load(Ordering::Relaxed);
        self.announced.take_if(|announced| announced.next == Next::WaitsSince(requests));
    }

    /// Whether the next request has to wait until the service was given the one before. h2 is told that there is nothing to read
    /// then.
    pub(in crate::server) fn has_to_wait(&mut self, control: &Control) -> bool {
        match &mut self.announced {
            Some(Announced { next: next @ Next::Waits, .. }) => {
                *next = Next::WaitsSince(control.requests.load(Ordering::Relaxed));
                true
            }
            _ => false,
        }
    }

    /// Gives h2 what it is to read before `bytes` of the client, and of those what there is room for. Tells how many it took.
    pub(in crate::server) fn pass(&mut self, bytes: &[u8], room: &mut ReadBuf<'_>, control: &Control) -> usize {
        let mut rest = bytes;
        loop {
            self.staged.move_to(room);
            if !self.staged.is_empty() {
                break;
            }
            match &mut self.phase {
                Phase::Head => {
                    let Some(head) = self.inbound.head(&mut rest) else { break };
                    if !self.begin(head) {
                        break;
                    }
                    self.phase = Phase::Payload;
                }
                Phase::Payload => {
                    let piece = hand_over(&mut rest, room, self.inbound.left());
                    if let [_, _, _, SETTINGS, flags, ..] = self.inbound.head_bytes()
                        && flags & ACK == 0
                    {
                        let change = self.windows.set(piece);
                        if change != 0 {
                            self.open.values_mut().for_each(|open| open.window += change);
                        }
                    }
                    let Some(frame) = self.inbound.payload(piece) else { break };
                    self.received(&frame);
                    self.phase = Phase::Head;
                }
                Phase::Preface(position) => {
                    let piece = hand_over(&mut rest, room, PREFACE.len() - *position);
                    let expected = &PREFACE[*position..][..piece.len()];
                    *position += piece.len();
                    if piece != expected {
                        self.phase = Phase::Rubbish;
                    } else if *position == PREFACE.len() {
                        self.phase = Phase::Head;
                        control.state.fetch_or(Control::HAS_PREFACE, Ordering::Relaxed);
                    } else {
                        break;
                    }
                }
                Phase::Rubbish => {
                    hand_over(&mut rest, room, usize::MAX);
                    break;
                }
            }
        }
        bytes.len() - rest.len()
    }

    /// Stages the head of a frame, unless the frame has to wait.
    fn begin(&mut self, head: Head) -> bool {
        let ends = head.flags & END_STREAM != 0;
        let mut keeps_end = false;
        if head.kind == HEADERS && head.stream > self.last_stream && !ends {
            if let Some(announced) = &mut self.announced {
                announced.next = Next::Waits;
                return false;
            }
            self.announced = Some(Announced { stream: head.stream, next: Next::NotThere });
        } else if head.kind == DATA
            && let Some(open) = self.open.get_mut(&head.stream)
        {
            open.received += head.data as u64;
            let is_short = open.length.is_some_and(|length| open.received < length);
            if ends && is_short && open.progress == Progress::Begun {
                self.cut_short.insert(head.stream, Instant::now());
                keeps_end = true;
            }
        }
        self.staged.set([self.inbound.head_bytes(), &[]]);
        if keeps_end {
            self.staged.bytes[FLAGS] &= !END_STREAM;
        }
        true
    }

    /// Notes what h2 was given to read.
    fn received(&mut self, frame: &Frame) {
        match frame.kind {
            // h2 ignores what it has refused by GOAWAY, so that nothing would ever take it out again.
            HEADERS if frame.stream > self.last_stream && frame.stream <= self.last_served() => {
                self.opening = Some(frame.stream);
            }
            PING if frame.flags & ACK != 0 && matches!(self.pong, Pong::Due(payload) if payload == frame.payload) => {
                self.pong = Pong::Given;
            }
            RST_STREAM => {
                self.open.remove(&frame.stream);
                self.cut_short.remove(&frame.stream);
            }
            WINDOW_UPDATE => {
                let [a, b, c, d, ..] = frame.payload;
                let increment = i64::from(u32::from_be_bytes([a, b, c, d]) & EVERY_STREAM);
                match self.open.get_mut(&frame.stream) {
                    Some(open) => open.window += increment,
                    None if frame.stream == 0 => self.windows.widen(increment),
                    None => {}
                }
            }
            _ => {}
        }
        if frame.flags & END_HEADERS != 0
            && matches!(frame.kind, HEADERS | CONTINUATION)
            && let Some(stream) = self.opening.take()
        {
            self.last_stream = stream;
            self.open.insert(stream, Open::new(self.windows.initial()));
        }
    }

    /// Whether each stream is one whose response waits for the client to let more of it through, and there is one.
    pub(in crate::server) fn waits_for_window(&self) -> bool {
        let waits = |open: &Open| open.progress == Progress::Begun && (self.windows.are_closed() || open.window <= 0);
        let mut open = self.open.range(..=self.last_served()).map(|(_, open)| open).peekable();
        open.peek().is_some() && open.all(waits)
    }

    /// How many bytes of responses were sent.
    pub(in crate::server) fn data_sent(&self) -> u64 {
        self.data_sent
    }

    /// Tells whether there is nothing to wait for.
    pub(in crate::server) fn note_stall(&self, control: &Control) {
        let is_waiting = self.announced.as_ref().is_some_and(|announced| announced.next != Next::NotThere);
        match self.inbound.is_between() || is_waiting || self.unanswered().next().is_some() {
            true => control.state.fetch_and(!Control::IS_STALLED, Ordering::Relaxed),
            false => control.state.fetch_or(Control::IS_STALLED, Ordering::Relaxed),
        };
    }

    /// How many of these bytes of h2 go into one TLS record: all up to a RST_STREAM that is not the first frame.
    ///
    /// Some versions of curl, 7.88 among them, lose a response if the RST_STREAM behind it, which says that the rest of the request is
    /// not wanted, comes in the same record.
    pub(in crate::server) fn record_length(&self, buffers: &[IoSlice<'_>]) -> usize {
        let mut walk = self.outbound.clone();
        let (mut length, mut frame) = (0, 0);
        for buffer in buffers {
            let mut rest = &buffer[..];
            while !rest.is_empty() {
                if walk.is_between() {
                    frame = length + buffer.len() - rest.len();
                }
                let Some(head) = walk.head(&mut rest) else { break };
                if head.kind == RST_STREAM && frame > 0 {
                    return frame;
                }
                walk.next(&mut rest);
            }
            length += buffer.len();
        }
        length
    }

    /// Notes what the transport has accepted of h2.
    pub(in crate::server) fn sent(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Some(frame) = self.outbound.next(&mut bytes) else { return };
            let answered = if frame.ends_stream { self.open.remove(&frame.stream) } else { None };
            match frame.kind {
                HEADERS => {
                    if let Some(open) = self.open.get_mut(&frame.stream) {
                        open.progress = Progress::Begun;
                    }
                }
                DATA => {
                    self.data_sent += u64::from(frame.length);
                    self.windows.sent(frame.length.into());
                    if let Some(open) = self.open.get_mut(&frame.stream) {
                        open.window -= i64::from(frame.length);
                    }
                    if let Some(moved) = self.cut_short.get_mut(&frame.stream) {
                        *moved = Instant::now();
                    }
                }
                RST_STREAM => {
                    self.cut_short.remove(&frame.stream);
                    let [a, b, c, d, ..] = frame.payload;
                    // By other codes h2 refuses a request that nobody was asked to answer.
                    let fails = matches!(u32::from_be_bytes([a, b, c, d]), INTERNAL_ERROR | CANCEL);
                    let is_cut = answered.is_some_and(|open| open.progress == Progress::Begun || fails);
                    self.cut += u64::from(is_cut);
                }
                GOAWAY => {
                    let [a, b, c, d, ..] = frame.payload;
                    self.goaway = Some(u32::from_be_bytes([a, b, c, d]) & EVERY_STREAM);
                }
                PING if frame.flags & ACK == 0 && self.goaway == Some(EVERY_STREAM) => {
                    self.pong = Pong::Due(frame.payload);
                }
                _ => {}
            }
        }
    }

    /// How many responses h2 has cut since this was asked last.
    pub(in crate::server) fn take_cut(&mut self) -> u64 {
        std::mem::take(&mut self.cut)
    }

    /// Whether h2 may be given a frame that is not the client's.
    fn can_stage(&self) -> bool {
        matches!(self.phase, Phase::Head) && self.inbound.is_between() && self.staged.is_empty()
    }

    /// Stages what is due of what the client has not said, or not said now.
    pub(in crate::server) fn stage(&mut self, control: &Control) {
        if !self.can_stage() {
            return;
        }
        if let Pong::Due(payload) = self.pong
            && control.answers_ping()
        {
            self.staged.set([&[0, 0, 8, PING, ACK, 0, 0, 0, 0], &payload]);
            self.pong = Pong::Given;
        } else if let Some((stream, moved)) = self.first_cut_short()
            && moved + CUT_SHORT_LIMIT <= Instant::now()
        {
            self.cut_short.remove(&stream);
            self.staged.set([&[0, 0, 0, DATA, END_STREAM], &stream.to_be_bytes()]);
        }
    }

    /// The request that is cut short and whose response has stood still the longest.
    fn first_cut_short(&self) -> Option<(u32, Instant)> {
        let (stream, moved) = self.cut_short.iter().min_by_key(|(_, moved)| **moved)?;
        Some((*stream, *moved))
    }

    /// When h2 has to see the end of a request that is cut short. Within a frame of the client, nothing can be given to it.
    pub(in crate::server) fn overdue(&self) -> Option<Instant> {
        let (_, moved) = self.first_cut_short().filter(|_| self.can_stage())?;
        Some(moved + CUT_SHORT_LIMIT)
    }

    /// The last stream that is served, as far as a GOAWAY has said so.
    fn last_served(&self) -> u32 {
        self.goaway.unwrap_or(EVERY_STREAM)
    }

    /// The streams whose response is not at its end, among those that are not refused by a GOAWAY.
    pub(in crate::server) fn unanswered(&self) -> impl Iterator<Item = u32> + '_ {
        let last = self.last_served();
        self.open.keys().copied().filter(move |stream| *stream <= last)
    }

    //= https://www.rfc-editor.org/rfc/rfc9113#section-6.8
    //# Endpoints SHOULD always send a GOAWAY frame before closing a
    //# connection so that the remote peer can know whether a stream has been
    //# partially processed or not.
    /// What tells the client of a connection that is ended from outside of h2: RST_STREAM for each response that is cut, and the
    /// final GOAWAY. Nothing where that is said, or where the transport has accepted a part of a frame only.
    pub(in crate::server) fn farewell(&self) -> Vec<u8> {
        let mut farewell = Vec::new();
        if !self.outbound.is_between() || self.outbound.frames() == 0 {
            return farewell;
        }
        for stream in self.unanswered() {
            farewell.extend([0, 0, 4, RST_STREAM, 0]);
            farewell.extend(stream.to_be_bytes());
            farewell.extend(CANCEL.to_be_bytes());
        }
        if self.goaway.is_none_or(|last| last == EVERY_STREAM) {
            farewell.extend([0, 0, 8, GOAWAY, 0, 0, 0, 0, 0]);
            farewell.extend(self.last_stream.to_be_bytes());
            //= https://www.rfc-editor.org/rfc/rfc9113#section-3.4
            //# Clients and servers MUST treat an invalid connection preface as a
            //# connection error (Section 5.4.1) of type PROTOCOL_ERROR.
            let is_broken = matches!(self.phase, Phase::Rubbish);
            farewell.extend(if is_broken { PROTOCOL_ERROR } else { NO_ERROR }.to_be_bytes());
        }
        farewell
    }
}

/// Moves the beginning of `bytes` to where there is room, `limit` bytes at most.
fn hand_over<'a>(bytes: &mut &'a [u8], room: &mut ReadBuf<'_>, limit: usize) -> &'a [u8] {
    let (piece, rest) = bytes.split_at(bytes.len().min(limit).min(room.remaining()));
    room.put_slice(piece);
    *bytes = rest;
    piece
}

#[cfg(test)]
mod tests;
