//! What is in flight on an HTTP/2 connection, known from the frames that pass by.
//!
//! h2 does not tell: frames wait for windows inside of it, so that neither the end of a body nor its drop says what the client
//! has. The frames that the transport has accepted do.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU8, Ordering},
};

/// RFC 9113 section 3.4.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD: usize = 9;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
const CONTINUATION: u8 = 0x9;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

const NO_ERROR: u32 = 0x0;
const CANCEL: u32 = 0x8;
/// The greatest stream identifier: the GOAWAY that has it only announces the final one (RFC 9113 section 6.8).
const EVERY_STREAM: u32 = (1 << 31) - 1;

/// What those who drive the connection want of its stream, and learn from it.
#[derive(Default)]
pub(super) struct Control {
    state: AtomicU8,
}

impl Control {
    const HAS_PREFACE: u8 = 1;
    const ANSWERS_PING: u8 = 2;
    const IS_STALLED: u8 = 4;

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
}

/// The frames of both directions.
pub(super) struct Frames {
    preface: usize,
    inbound: Walk,
    outbound: Walk,
    /// Streams of the client without a whole response.
    open: BTreeSet<u32>,
    last_stream: u32,
    /// What the last GOAWAY has promised to process.
    goaway: Option<u32>,
    pong: Pong,
}

/// The answer to the PING that h2 sends behind its first GOAWAY.
enum Pong {
    /// That PING was not sent.
    Undue,
    /// It was.
    Due([u8; 8]),
    /// Its answer is given to h2, from this position on.
    Giving([u8; HEAD + 8], usize),
    Given,
}

/// Follows frames through a stream of bytes that is cut anywhere.
#[derive(Default)]
struct Walk {
    head: [u8; HEAD],
    /// Bytes of `head` that are there.
    have: usize,
    /// Bytes of the payload that are still to come.
    left: usize,
    /// The first bytes of the payload: all of a PING, the stream of a GOAWAY.
    payload: [u8; 8],
    kept: usize,
    /// The flags of the HEADERS whose block goes on in CONTINUATION.
    block: Option<u8>,
    frames: u64,
}

/// A frame that has passed to its end.
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: [u8; 8],
    /// Whether it ends its stream, as far as the side that has sent it goes.
    ends_stream: bool,
}

impl Walk {
    /// Whether a frame may begin here, of whatever type.
    fn is_between(&self) -> bool {
        self.have == 0 && self.block.is_none()
    }

    /// Walks to the end of the next frame, if `bytes` go as far, and takes them away.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        let missing = HEAD - self.have;
        if missing > 0 {
            let amount = bytes.len().min(missing);
            self.head[self.have..self.have + amount].copy_from_slice(&bytes[..amount]);
            self.have += amount;
            *bytes = &bytes[amount..];
            if amount < missing {
                return None;
            }
            let [a, b, c, ..] = self.head;
            self.left = u32::from_be_bytes([0, a, b, c]) as usize;
            self.kept = 0;
        }
        let amount = bytes.len().min(self.left);
        let keep = amount.min(self.payload.len() - self.kept);
        self.payload[self.kept..self.kept + keep].copy_from_slice(&bytes[..keep]);
        self.kept += keep;
        self.left -= amount;
        *bytes = &bytes[amount..];
        if self.left > 0 {
            return None;
        }
        self.have = 0;
        self.frames += 1;
        Some(self.frame())
    }

    fn frame(&mut self) -> Frame {
        let [_, _, _, kind, flags, a, b, c, d] = self.head;
        let stream = u32::from_be_bytes([a, b, c, d]) & EVERY_STREAM;
        let ends_stream = match kind {
            DATA => flags & END_STREAM != 0,
            HEADERS if flags & END_HEADERS == 0 => {
                self.block = Some(flags);
                false
            }
            HEADERS => flags & END_STREAM != 0,
            CONTINUATION if flags & END_HEADERS != 0 => self.block.take().is_some_and(|flags| flags & END_STREAM != 0),
            _ => kind == RST_STREAM,
        };
        Frame { kind, flags, stream, payload: self.payload, ends_stream }
    }
}

impl Frames {
    pub(super) fn new() -> Self {
        Self {
            preface: 0,
            inbound: Walk::default(),
            outbound: Walk::default(),
            open: BTreeSet::new(),
            last_stream: 0,
            goaway: None,
            pong: Pong::Undue,
        }
    }

    /// Notes what h2 was given to read.
    pub(super) fn received(&mut self, mut bytes: &[u8], control: &Control) {
        if self.preface < PREFACE.len() {
            let amount = bytes.len().min(PREFACE.len() - self.preface);
            if bytes[..amount] != PREFACE[self.preface..self.preface + amount] {
                // h2 will find that out, too. Nothing behind it is a frame.
                return;
            }
            self.preface += amount;
            bytes = &bytes[amount..];
            if self.preface == PREFACE.len() {
                control.state.fetch_or(Control::HAS_PREFACE, Ordering::Relaxed);
            }
        }
        while !bytes.is_empty() {
            let Some(frame) = self.inbound.next(&mut bytes) else { return };
            match frame.kind {
                // h2 ignores what it has refused by GOAWAY, so that nothing would ever take it out again.
                HEADERS if frame.stream > self.last_stream && frame.stream <= self.last_served() => {
                    self.last_stream = frame.stream;
                    self.open.insert(frame.stream);
                }
                RST_STREAM => {
                    self.open.remove(&frame.stream);
                }
                _ => {}
            }
        }
    }

    /// Tells whether there is nothing to wait for.
    pub(super) fn note_stall(&self, control: &Control) {
        match self.inbound.is_between() || self.unanswered().next().is_some() {
            true => control.state.fetch_and(!Control::IS_STALLED, Ordering::Relaxed),
            false => control.state.fetch_or(Control::IS_STALLED, Ordering::Relaxed),
        };
    }

    /// Notes what the transport has accepted of h2.
    pub(super) fn sent(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Some(frame) = self.outbound.next(&mut bytes) else { return };
            if frame.ends_stream {
                self.open.remove(&frame.stream);
            }
            match frame.kind {
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

    /// Bytes to give h2 instead of the peer's, which has nothing to say now: the answer to its PING, if that is asked for. They are
    /// given once, in pieces of at most `limit`.
    pub(super) fn injected(&mut self, limit: usize, control: &Control) -> Option<&[u8]> {
        if let Pong::Due(payload) = self.pong
            && control.answers_ping()
            && control.has_preface()
            && self.inbound.is_between()
        {
            let mut frame = [0; HEAD + 8];
            frame[..HEAD].copy_from_slice(&[0, 0, 8, PING, ACK, 0, 0, 0, 0]);
            frame[HEAD..].copy_from_slice(&payload);
            self.pong = Pong::Giving(frame, 0);
        }
        let Pong::Giving(frame, position) = &mut self.pong else { return None };
        let start = *position;
        let end = frame.len().min(start + limit);
        *position = end;
        if start == frame.len() {
            self.pong = Pong::Given;
            return None;
        }
        match &self.pong {
            Pong::Giving(frame, _) => Some(&frame[start..end]),
            _ => None,
        }
    }

    /// Whether h2 has a part of an answer that is not the peer's, and must get the rest first.
    pub(super) fn is_injecting(&self) -> bool {
        matches!(self.pong, Pong::Giving(frame, position) if position < frame.len())
    }

    /// The last stream that is served, as far as a GOAWAY has said so.
    fn last_served(&self) -> u32 {
        self.goaway.unwrap_or(EVERY_STREAM)
    }

    /// The streams whose response is not at its end, among those that are not refused by a GOAWAY.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = u32> + '_ {
        let last = self.last_served();
        self.open.iter().copied().filter(move |stream| *stream <= last)
    }

    //= https://www.rfc-editor.org/rfc/rfc9113#section-6.8
    //# Endpoints SHOULD always send a GOAWAY frame before closing a
    //# connection so that the remote peer can know whether a stream has been
    //# partially processed or not.
    /// What tells the client of a connection that is ended from outside of h2: RST_STREAM for each response that is cut, and the
    /// final GOAWAY. Nothing where that is said, or where the transport has accepted a part of a frame only.
    pub(super) fn farewell(&self) -> Vec<u8> {
        let mut farewell = Vec::new();
        if !self.outbound.is_between() || self.outbound.frames == 0 {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// Both directions of a connection, cut into pieces of `size`.
    fn frames(size: usize, received: &[Vec<u8>], sent: &[Vec<u8>]) -> (Frames, Control) {
        let (mut frames, control) = (Frames::new(), Control::default());
        let received = [PREFACE.to_vec(), received.concat()].concat();
        received.chunks(size).for_each(|piece| frames.received(piece, &control));
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
        assert_eq!(all.injected(100, &control), None, "not asked for");
        control.answer_ping();
        all.received(&frame(DATA, 0, 1, &[0; 4])[..5], &control);
        assert_eq!(all.injected(100, &control), None, "within a frame");
        all.received(&frame(DATA, 0, 1, &[0; 4])[5..], &control);
        let mut answer: Vec<u8> = Vec::new();
        while let Some(piece) = all.injected(5, &control) {
            answer.extend_from_slice(piece);
        }
        assert_eq!(answer, frame(PING, ACK, 0, b"12345678"));
        assert_eq!(all.injected(5, &control), None);

        let (mut other, control) = frames(9, &[], &[frame(PING, 0, 0, b"12345678")]);
        control.answer_ping();
        assert_eq!(other.injected(100, &control), None, "that was a keep-alive");
    }

    #[test]
    fn streams_that_a_goaway_has_refused_are_not_kept() {
        let (mut all, control) = frames(9, &[], &[frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])]);
        for stream in [1, 3, 5] {
            all.received(&frame(HEADERS, END_HEADERS, stream, &[]), &control);
        }
        assert_eq!(all.open.len(), 1);
    }

    #[test]
    fn what_is_no_http2_has_no_preface() {
        let (mut frames, control) = (Frames::new(), Control::default());
        frames.received(b"PRI * HTTP/2.0\r\n\r\nGET / HTTP/1.1\r\n", &control);
        assert!(!control.has_preface());
    }
}
