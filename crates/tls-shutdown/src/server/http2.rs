//! What is in flight on an HTTP/2 connection, known from the frames that pass by.
//!
//! h2 does not tell: frames wait for windows inside of it, so that neither the end of a body nor its drop says what the client
//! has. The frames that the transport has accepted do.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
    time::Duration,
};

use http_body::Body;
use hyper::{Request, header::CONTENT_LENGTH};
use tokio::{io::ReadBuf, time::Instant};

use crate::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, EVERY_STREAM, FLAGS, Frame, GOAWAY, HEAD, HEADERS, Head, PING,
    RST_STREAM, Walk,
};

/// RFC 9113 section 3.4.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const NO_ERROR: u32 = 0x0;
const INTERNAL_ERROR: u32 = 0x2;
const CANCEL: u32 = 0x8;

/// How long a response may stand still, before h2 is told that its request was cut short.
const CUT_SHORT_LIMIT: Duration = Duration::from_secs(5);

/// What those who drive the connection and who serve its requests want of its stream, and learn from it. They are one task.
pub(super) struct Control {
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

    pub(super) fn new() -> Self {
        Self { state: AtomicU8::new(0), requests: AtomicU64::new(0), length: AtomicU64::new(Self::NO_REQUEST) }
    }

    /// Whether the client has said that it speaks HTTP/2. Before that, h2 does nothing.
    pub(super) fn has_preface(&self) -> bool {
        self.state.load(Ordering::Relaxed) & Self::HAS_PREFACE != 0
    }

    /// Has the stream answer h2's PING in the place of a client that does not.
    pub(super) fn answer_ping(&self) {
        self.state.fetch_or(Self::ANSWERS_PING, Ordering::Relaxed);
    }

    /// Whether the client has said a part of a frame, and no response is owed to it: h2 then waits for the rest, for ever.
    pub(super) fn is_stalled(&self) -> bool {
        self.state.load(Ordering::Relaxed) & Self::IS_STALLED != 0
    }

    fn answers_ping(&self) -> bool {
        self.state.load(Ordering::Relaxed) & Self::ANSWERS_PING != 0
    }

    /// The service is given a request.
    pub(super) fn has_request<B: Body>(&self, request: &Request<B>) {
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
pub(super) struct Frames {
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
    last_stream: u32,
    /// What the last GOAWAY has promised to process.
    goaway: Option<u32>,
    pong: Pong,
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

#[derive(Default)]
struct Open {
    /// The Content-Length.
    length: Option<u64>,
    received: u64,
    progress: Progress,
}

#[derive(Default, PartialEq, Eq)]
enum Progress {
    #[default]
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

impl Frames {
    pub(super) fn new() -> Self {
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
        }
    }

    /// Before h2 reads: learns which request the service was given.
    pub(super) fn hear(&mut self, control: &Control) {
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
    pub(super) fn has_to_wait(&mut self, control: &Control) -> bool {
        match &mut self.announced {
            Some(Announced { next: next @ Next::Waits, .. }) => {
                *next = Next::WaitsSince(control.requests.load(Ordering::Relaxed));
                true
            }
            _ => false,
        }
    }

    /// Gives h2 what it is to read before `bytes` of the client, and of those what there is room for. Tells how many it took.
    pub(super) fn pass(&mut self, bytes: &[u8], room: &mut ReadBuf<'_>, control: &Control) -> usize {
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
                self.last_stream = frame.stream;
                match frame.flags & END_HEADERS != 0 {
                    true => drop(self.open.insert(frame.stream, Open::default())),
                    false => self.opening = Some(frame.stream),
                }
            }
            CONTINUATION if frame.flags & END_HEADERS != 0 => {
                let opened = self.opening.take().map(|stream| (stream, Open::default()));
                self.open.extend(opened);
            }
            PING if frame.flags & ACK != 0 && matches!(self.pong, Pong::Due(payload) if payload == frame.payload) => {
                self.pong = Pong::Given;
            }
            RST_STREAM => {
                self.open.remove(&frame.stream);
                self.cut_short.remove(&frame.stream);
            }
            _ => {}
        }
    }

    /// Tells whether there is nothing to wait for.
    pub(super) fn note_stall(&self, control: &Control) {
        let is_waiting = self.announced.as_ref().is_some_and(|announced| announced.next != Next::NotThere);
        match self.inbound.is_between() || is_waiting || self.unanswered().next().is_some() {
            true => control.state.fetch_and(!Control::IS_STALLED, Ordering::Relaxed),
            false => control.state.fetch_or(Control::IS_STALLED, Ordering::Relaxed),
        };
    }

    /// Notes what the transport has accepted of h2.
    pub(super) fn sent(&mut self, mut bytes: &[u8]) {
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
    pub(super) fn take_cut(&mut self) -> u64 {
        std::mem::take(&mut self.cut)
    }

    /// Whether h2 may be given a frame that is not the client's.
    fn can_stage(&self) -> bool {
        matches!(self.phase, Phase::Head) && self.inbound.is_between() && self.staged.is_empty()
    }

    /// Stages what is due of what the client has not said, or not said now.
    pub(super) fn stage(&mut self, control: &Control) {
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
    pub(super) fn overdue(&self) -> Option<Instant> {
        let (_, moved) = self.first_cut_short().filter(|_| self.can_stage())?;
        Some(moved + CUT_SHORT_LIMIT)
    }

    /// The last stream that is served, as far as a GOAWAY has said so.
    fn last_served(&self) -> u32 {
        self.goaway.unwrap_or(EVERY_STREAM)
    }

    /// The streams whose response is not at its end, among those that are not refused by a GOAWAY.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = u32> + '_ {
        let last = self.last_served();
        self.open.keys().copied().filter(move |stream| *stream <= last)
    }

    //= https://www.rfc-editor.org/rfc/rfc9113#section-6.8
    //# Endpoints SHOULD always send a GOAWAY frame before closing a
    //# connection so that the remote peer can know whether a stream has been
    //# partially processed or not.
    /// What tells the client of a connection that is ended from outside of h2: RST_STREAM for each response that is cut, and the
    /// final GOAWAY. Nothing where that is said, or where the transport has accepted a part of a frame only.
    pub(super) fn farewell(&self) -> Vec<u8> {
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
            farewell.extend(NO_ERROR.to_be_bytes());
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
mod tests {
    use super::*;

    /// What h2 reads, if the client says this and `room` bytes at most are read at a time.
    fn receive(frames: &mut Frames, mut bytes: &[u8], room: usize, control: &Control) -> Vec<u8> {
        receive_some(frames, &mut bytes, room, control)
    }

    /// The same, with what is left where a request has to wait.
    fn receive_some(frames: &mut Frames, bytes: &mut &[u8], room: usize, control: &Control) -> Vec<u8> {
        let mut read = Vec::new();
        loop {
            frames.hear(control);
            frames.stage(control);
            let mut buffer = vec![0; room];
            let mut buffer = ReadBuf::new(&mut buffer);
            let taken = frames.pass(bytes, &mut buffer, control);
            *bytes = &bytes[taken..];
            read.extend_from_slice(buffer.filled());
            if buffer.filled().is_empty() && taken == 0 {
                return read;
            }
        }
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// Both directions of a connection, cut into pieces of `size`.
    fn frames(size: usize, received: &[Vec<u8>], sent: &[Vec<u8>]) -> (Frames, Control) {
        let (mut frames, control) = (Frames::new(), Control::new());
        let received = [PREFACE.to_vec(), received.concat()].concat();
        let mut read = Vec::new();
        for mut piece in received.chunks(size) {
            read.extend(receive_some(&mut frames, &mut piece, size, &control));
            while frames.has_to_wait(&control) {
                control.has_request(&request(None));
                read.extend(receive_some(&mut frames, &mut piece, size, &control));
            }
        }
        // h2 gets the beginning of a head with its end.
        assert!(received.starts_with(&read) && received.len() - read.len() < HEAD, "{} {}", received.len(), read.len());
        sent.concat().chunks(size).for_each(|piece| frames.sent(piece));
        (frames, control)
    }

    #[test]
    fn a_response_is_unanswered_until_its_last_byte_is_out() {
        let requests = [
            frame(4, 0, 0, &[]),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0; 30]),
            frame(HEADERS, 0, 3, &[0; 10]),
            frame(CONTINUATION, END_HEADERS, 3, &[0; 500]),
            frame(DATA, END_STREAM, 3, &[0; 3000]),
            frame(HEADERS, END_HEADERS | END_STREAM, 5, &[]),
            frame(HEADERS, END_HEADERS, 7, &[]),
            frame(RST_STREAM, 0, 7, &[0; 4]),
        ];
        let responses = [
            frame(4, 0, 0, &[]),
            frame(HEADERS, END_STREAM, 1, &[0; 10]),
            frame(CONTINUATION, END_HEADERS, 1, &[0; 10]),
            frame(HEADERS, END_HEADERS, 3, &[0; 10]),
            frame(DATA, END_STREAM, 3, &[0; 100]),
        ];
        for size in [1, 2, 3, 7, 24, 100, 100_000] {
            let (all, control) = frames(size, &requests, &responses);
            assert!(control.has_preface());
            assert_eq!(all.unanswered().collect::<Vec<_>>(), [5]);
            let mut cut = responses.concat();
            cut.pop();
            let (cut, _) = frames(size, &requests, &[cut]);
            assert_eq!(cut.unanswered().collect::<Vec<_>>(), [3, 5]);
            assert!(cut.farewell().is_empty(), "within a frame");
            let (cut, _) = frames(size, &requests, &responses[..2]);
            assert!(cut.farewell().is_empty(), "within a header block");
        }
    }

    #[test]
    fn the_farewell_resets_what_is_open_and_goes_away() {
        let requests = [frame(HEADERS, END_HEADERS | END_STREAM, 1, &[]), frame(HEADERS, END_HEADERS, 3, &[])];
        let (all, _) = frames(5, &requests, &[frame(4, 0, 0, &[]), frame(HEADERS, END_HEADERS | END_STREAM, 1, &[])]);
        let goaway = frame(GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]);
        assert_eq!(all.farewell(), [frame(RST_STREAM, 0, 3, &[0, 0, 0, 8]), goaway.clone()].concat());
        let (done, _) = frames(5, &requests, &[frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])]);
        assert_eq!(done.unanswered().collect::<Vec<_>>(), [1], "3 is refused");
        assert_eq!(done.farewell(), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]));
        let (nothing, _) = frames(5, &[], &[]);
        assert!(nothing.farewell().is_empty(), "SETTINGS come first");
    }

    #[test]
    fn a_ping_is_answered_once_between_frames_and_only_if_asked() {
        let sent = [frame(GOAWAY, 0, 0, &[0x7f, 255, 255, 255, 0, 0, 0, 0]), frame(PING, 0, 0, b"12345678")];
        let (mut all, control) = frames(9, &[], &sent);
        assert_eq!(receive(&mut all, &[], 100, &control), [], "not asked for");
        control.answer_ping();
        let data = frame(DATA, 0, 1, &[0; 4]);
        assert_eq!(receive(&mut all, &data[..5], 100, &control), frame(PING, ACK, 0, b"12345678"), "before the frame");
        assert_eq!(receive(&mut all, &data[5..], 5, &control), data);
        assert_eq!(receive(&mut all, &[], 5, &control), []);

        let (mut all, control) = frames(9, &[data[..5].to_vec()], &sent);
        control.answer_ping();
        assert_eq!(receive(&mut all, &[], 100, &control), [], "within a frame");
        assert_eq!(receive(&mut all, &data[5..], 4, &control), [data, frame(PING, ACK, 0, b"12345678")].concat());

        let (mut answered, control) = frames(9, &[], &sent);
        let pong = frame(PING, ACK, 0, b"12345678");
        assert_eq!(receive(&mut answered, &pong, 100, &control), pong);
        control.answer_ping();
        assert_eq!(receive(&mut answered, &[], 100, &control), [], "the client has answered");

        let (mut other, control) = frames(9, &[], &[frame(PING, 0, 0, b"12345678")]);
        control.answer_ping();
        assert_eq!(receive(&mut other, &[], 5, &control), [], "that was a keep-alive");
    }

    #[test]
    fn streams_that_a_goaway_has_refused_are_not_kept() {
        let (mut all, control) = frames(9, &[], &[frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])]);
        for stream in [1, 3, 5] {
            receive(&mut all, &frame(HEADERS, END_HEADERS | END_STREAM, stream, &[]), 9, &control);
        }
        assert_eq!(all.open.len(), 1);
    }

    #[test]
    fn what_is_no_http2_has_no_preface() {
        for size in [1, 7, 100] {
            let (mut frames, control) = (Frames::new(), Control::new());
            let rubbish = b"PRI * HTTP/2.0\r\n\r\nGET / HTTP/1.1\r\n";
            let read = rubbish.chunks(size).map(|piece| receive(&mut frames, piece, size, &control));
            assert!(read.collect::<Vec<_>>().concat() == rubbish);
            assert!(!control.has_preface());
        }
    }

    fn request(length: Option<u64>) -> Request<String> {
        let mut request = Request::new("unread".to_owned());
        if let Some(length) = length {
            request.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        request
    }

    /// The second request with a body is not given before the service has the first, or h2 has refused it.
    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_request_that_is_cut_short_waits_for_its_response() {
        let opening = |stream| frame(HEADERS, END_HEADERS, stream, &[]);
        let end = |stream| frame(DATA, END_STREAM, stream, &[]);
        let no_end = |stream| frame(DATA, 0, stream, &[]);
        let begun = |stream| frame(HEADERS, END_HEADERS, stream, &[]);
        let (mut all, control) = frames(100, &[], &[]);
        let upload = [opening(1), opening(3), opening(5), frame(DATA, 0, 1, &[0; 10])].concat();
        assert_eq!(receive(&mut all, &upload, 100, &control), opening(1));
        let mut rest = &upload[opening(1).len() + HEAD..];
        for length in [Some(20), None] {
            assert!(all.has_to_wait(&control));
            control.has_request(&request(length));
            let read = receive(&mut all, rest, 100, &control);
            let next = if length.is_some() { opening(3) } else { [opening(5), rest.to_vec()].concat() };
            assert_eq!(read, next);
            rest = rest.get(HEAD..).unwrap_or_default();
        }
        control.has_request(&request(Some(20)));
        all.sent(&[begun(1), begun(3)].concat());
        // 1 has ten bytes of twenty; 3 has no length; 5 has no response.
        assert_eq!(receive(&mut all, &end(1), 100, &control), no_end(1));
        assert_eq!(receive(&mut all, &end(3), 100, &control), end(3));
        assert_eq!(receive(&mut all, &end(5), 100, &control), end(5));
        // It comes when the response has stood still.
        tokio::time::advance(CUT_SHORT_LIMIT / 2).await;
        all.sent(&frame(DATA, 0, 1, &[0; 10]));
        tokio::time::advance(CUT_SHORT_LIMIT / 2).await;
        assert_eq!(receive(&mut all, &[], 100, &control), []);
        tokio::time::advance(CUT_SHORT_LIMIT / 2).await;
        assert_eq!(receive(&mut all, &[], 100, &control), end(1));
        assert_eq!(receive(&mut all, &[], 100, &control), []);
    }

    /// Within a frame of the client nothing can be given to h2, and a timer that is over would be polled for ever.
    #[tokio::test(start_paused = true)]
    async fn an_end_that_is_due_waits_for_the_end_of_a_frame() {
        let (mut all, control) = frames(100, &[frame(HEADERS, END_HEADERS, 1, &[])], &[]);
        control.has_request(&request(Some(20)));
        all.sent(&frame(HEADERS, END_HEADERS, 1, &[]));
        let end = frame(DATA, END_STREAM, 1, &[]);
        assert_eq!(receive(&mut all, &end, 100, &control), frame(DATA, 0, 1, &[]));
        assert!(all.overdue().is_some());
        let other = frame(PING, 0, 0, &[0; 8]);
        receive(&mut all, &other[..1], 100, &control);
        tokio::time::advance(CUT_SHORT_LIMIT).await;
        assert_eq!(all.overdue(), None);
        assert_eq!(receive(&mut all, &other[1..], 100, &control), [other, end].concat());
    }

    #[test]
    fn half_a_head_is_no_request_yet() {
        let begin = frame(HEADERS, 0, 1, &[0; 10]);
        let (mut all, control) = frames(100, &[begin], &[]);
        assert_eq!(all.unanswered().count(), 0);
        receive(&mut all, &frame(CONTINUATION, END_HEADERS, 1, &[0; 10]), 100, &control);
        assert_eq!(all.unanswered().count(), 1);
    }

    #[test]
    fn a_request_that_h2_refuses_is_waited_for_once() {
        let opening = |stream| frame(HEADERS, END_HEADERS, stream, &[]);
        let (mut all, control) = frames(100, &[], &[]);
        assert_eq!(receive(&mut all, &[opening(1), opening(3)].concat(), 100, &control), opening(1));
        assert!(all.has_to_wait(&control));
        assert_eq!(receive(&mut all, &[], 100, &control), opening(3));
        control.has_request(&request(Some(20)));
        all.hear(&control);
        assert_eq!(all.open[&1].length, None);
        assert_eq!(all.open[&3].length, Some(20));
    }

    #[test]
    fn a_whole_request_ends_though_its_response_has_begun() {
        for padding in [0, 1, 200] {
            for missing in [0, 1] {
                let (mut all, control) = frames(100, &[frame(HEADERS, END_HEADERS, 1, &[])], &[]);
                control.has_request(&request(Some(20 + missing)));
                all.sent(&frame(HEADERS, END_HEADERS, 1, &[]));
                let payload = [vec![padding], vec![0; 20 + usize::from(padding)]].concat();
                let data = |flags| frame(DATA, flags | crate::frames::PADDED, 1, &payload);
                let expected = data(if missing == 0 { END_STREAM } else { 0 });
                let bytes = data(END_STREAM);
                let read = bytes.chunks(7).map(|piece| receive(&mut all, piece, 3, &control));
                assert_eq!(read.collect::<Vec<_>>().concat(), expected, "{padding} {missing}");
            }
        }
    }
}
