//! [`Exchange`]: whether an HTTP client's connection has a request in flight, told from the bytes that pass.
//!
//! A client's stream sees neither requests nor responses. hyper tells nobody when it has read a response to its end, and a
//! wrapper around each request would have to be asked for by each user. The framing tells it.

use std::{collections::VecDeque, mem, str};

use super::Draining;
use crate::frames::{GOAWAY, HEAD, Walk};

/// How much of a line of a head is looked at; what matters there is shorter.
const LINE_LIMIT: usize = 1024;

/// What a client's connection is used for.
#[derive(Debug)]
pub(super) enum Exchange {
    /// HTTP/1, or nothing has passed yet.
    Http1(Http1),
    Http2(Http2),
    /// Another protocol, or an upgraded connection: nobody knows when it is idle.
    Unknown,
}

/// The bytes are not what they were taken for.
#[derive(Debug, PartialEq, Eq)]
enum Instead {
    Http2,
    Unknown,
}

impl Exchange {
    pub(super) fn new(is_server: bool) -> Self {
        if is_server { Self::Unknown } else { Self::Http1(Http1::default()) }
    }

    /// The transport's TLS has accepted `data` of ours.
    pub(super) fn sent(&mut self, data: &[u8]) {
        if let Self::Http1(http1) = self {
            let result = http1.sent(data);
            self.become_instead(result);
        }
    }

    /// `data` of the peer was read.
    pub(super) fn received(&mut self, data: &[u8]) {
        match self {
            Self::Http1(http1) => {
                let result = http1.received(data);
                self.become_instead(result);
            }
            Self::Http2(http2) => http2.received(data),
            Self::Unknown => {}
        }
    }

    fn become_instead(&mut self, result: Result<(), Instead>) {
        match result {
            Ok(()) => {}
            Err(Instead::Http2) => *self = Self::Http2(Http2::default()),
            Err(Instead::Unknown) => *self = Self::Unknown,
        }
    }

    /// Whether nothing is in flight, as far as is known: an HTTP/2 client itself knows, see [`goaway`](Self::goaway).
    pub(super) fn is_idle(&self) -> bool {
        matches!(self, Self::Http1(http1) if http1.is_idle())
    }

    /// The next part of the GOAWAY that an HTTP/2 client is to read in place of the peer's bytes, `room` bytes at most; `None`
    /// where it has read it, or must not now.
    pub(super) fn goaway(&mut self, room: usize) -> Option<&'static [u8]> {
        match self {
            Self::Http2(http2) => http2.goaway(room),
            Self::Http1(_) | Self::Unknown => None,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Http1 {
    requests: Messages,
    responses: Messages,
    /// The requests whose response's head has not come.
    asked: VecDeque<Asked>,
}

/// What in a request's method changes the framing of its response.
#[derive(Debug)]
enum Asked {
    Head,
    Connect,
    Other,
}

impl Http1 {
    fn is_idle(&self) -> bool {
        self.asked.is_empty() && self.requests.is_between() && self.responses.is_between()
    }

    fn sent(&mut self, mut data: &[u8]) -> Result<(), Instead> {
        while !data.is_empty() {
            let Some(head) = self.requests.pass(&mut data)? else { continue };
            self.asked.push_back(match head.start.split(|byte| *byte == b' ').next() {
                Some(b"PRI") => return Err(Instead::Http2),
                Some(b"HEAD") => Asked::Head,
                Some(b"CONNECT") => Asked::Connect,
                _ => Asked::Other,
            });
            self.requests.part = head.body(Part::Head);
        }
        Ok(())
    }

    fn received(&mut self, mut data: &[u8]) -> Result<(), Instead> {
        while !data.is_empty() {
            let Some(head) = self.responses.pass(&mut data)? else { continue };
            let status = head.status()?;
            if matches!(status, 100 | 102..=199) {
                continue;
            }
            let asked = self.asked.pop_front().ok_or(Instead::Unknown)?;
            // As RFC 9112 section 6.3 lists it.
            self.responses.part = match (asked, status) {
                (_, 101) | (Asked::Connect, 200..=299) => return Err(Instead::Unknown),
                (Asked::Head, _) | (_, 204 | 304) => Part::Head,
                _ => head.body(Part::Rest),
            };
        }
        Ok(())
    }
}

/// The HTTP/1 messages that pass in one direction.
#[derive(Debug, Default)]
struct Messages {
    part: Part,
    /// The beginning of the line that passes.
    line: Vec<u8>,
    head: Head,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Head,
    /// What is left of a body whose length is known.
    Body(u64),
    ChunkSize,
    /// What is left of a chunk, and the end of its line.
    Chunk(u64),
    Trailers,
    /// The connection's end is the message's.
    Rest,
}

#[derive(Debug, Default)]
struct Head {
    start: Vec<u8>,
    length: Option<u64>,
    coding: Coding,
}

#[derive(Debug, Default)]
enum Coding {
    #[default]
    None,
    Chunked,
    Other,
}

impl Messages {
    fn is_between(&self) -> bool {
        self.part == Part::Head && self.line.is_empty() && self.head.start.is_empty()
    }

    /// Passes some of `data`; gives a head when it is whole. The caller then says what follows it.
    fn pass(&mut self, data: &mut &[u8]) -> Result<Option<Head>, Instead> {
        match &mut self.part {
            Part::Body(left) => {
                if skip(data, left) {
                    self.part = Part::Head;
                }
            }
            Part::Chunk(left) => {
                if skip(data, left) {
                    self.part = Part::ChunkSize;
                }
            }
            Part::Rest => *data = &[],
            Part::Head | Part::ChunkSize | Part::Trailers => {
                if self.pass_line(data) {
                    let line = mem::take(&mut self.line);
                    return self.on_line(line.trim_ascii_end());
                }
            }
        }
        Ok(None)
    }

    /// Whether the line is whole.
    fn pass_line(&mut self, data: &mut &[u8]) -> bool {
        let end = data.iter().position(|byte| *byte == b'\n');
        let (piece, rest) = data.split_at(end.map_or(data.len(), |end| end + 1));
        let room = LINE_LIMIT.saturating_sub(self.line.len());
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
        *data = rest;
        end.is_some()
    }

    fn on_line(&mut self, line: &[u8]) -> Result<Option<Head>, Instead> {
        match (&self.part, line) {
            (Part::Head, []) if self.head.start.is_empty() => {}
            (Part::Head, []) => return Ok(Some(mem::take(&mut self.head))),
            (Part::Head, line) if self.head.start.is_empty() => self.head.start = line.to_vec(),
            (Part::Head, line) => self.head.on_field(line)?,
            (Part::ChunkSize, line) => {
                let size = line.split(|byte| *byte == b';').next().and_then(|size| str::from_utf8(size).ok());
                let size = size.and_then(|size| u64::from_str_radix(size.trim(), 16).ok()).ok_or(Instead::Unknown)?;
                self.part = if size == 0 { Part::Trailers } else { Part::Chunk(size.saturating_add(2)) };
            }
            (Part::Trailers, []) => self.part = Part::Head,
            _ => {}
        }
        Ok(None)
    }
}

/// Whether all that was `left` has passed.
fn skip(data: &mut &[u8], left: &mut u64) -> bool {
    let amount = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
    *data = &data[amount..];
    *left -= amount as u64;
    *left == 0
}

impl Head {
    fn on_field(&mut self, line: &[u8]) -> Result<(), Instead> {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default().trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            self.length = Some(length.ok_or(Instead::Unknown)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
            self.coding = if last.eq_ignore_ascii_case(b"chunked") { Coding::Chunked } else { Coding::Other };
        }
        Ok(())
    }

    fn status(&self) -> Result<u16, Instead> {
        let status = self.start.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
        status.and_then(|status| str::from_utf8(status).ok()?.parse().ok()).ok_or(Instead::Unknown)
    }

    /// What follows, `otherwise` where no field says.
    fn body(&self, otherwise: Part) -> Part {
        match (&self.coding, self.length) {
            (Coding::Chunked, _) => Part::ChunkSize,
            (Coding::Other, _) => Part::Rest,
            (Coding::None, Some(0)) => Part::Head,
            (Coding::None, Some(length)) => Part::Body(length),
            (Coding::None, None) => otherwise,
        }
    }
}

/// Frames on their way to an HTTP/2 client, and the one that is put between them.
#[derive(Debug)]
pub(super) struct Http2 {
    frames: Walk,
    /// What the client has not read of our GOAWAY.
    goaway: &'static [u8],
}

const GOAWAY_FIELDS: usize = 8;

/// A server's graceful GOAWAY: NO_ERROR, and a last stream that is beyond all (RFC 9113 section 6.8). A client opens no more
/// streams then, and ends the connection after its last one, or at once. The debug data is what errors tell then.
const OUR_GOAWAY: &[u8; HEAD + GOAWAY_FIELDS + Draining::TEXT.len()] = &{
    let mut frame = [0; HEAD + GOAWAY_FIELDS + Draining::TEXT.len()];
    frame[2] = (GOAWAY_FIELDS + Draining::TEXT.len()) as u8;
    frame[3] = GOAWAY;
    let (_, fields) = frame.split_at_mut(HEAD);
    let (last_stream_and_error, debug_data) = fields.split_at_mut(GOAWAY_FIELDS);
    last_stream_and_error.copy_from_slice(b"\x7f\xff\xff\xff\0\0\0\0");
    debug_data.copy_from_slice(Draining::TEXT.as_bytes());
    frame
};

impl Default for Http2 {
    fn default() -> Self {
        Self { frames: Walk::default(), goaway: OUR_GOAWAY }
    }
}

impl Http2 {
    fn received(&mut self, mut data: &[u8]) {
        while let Some(frame) = self.frames.next(&mut data) {
            if frame.kind == GOAWAY {
                // The server's says the same, or more, and ours after it could take that back, which is an error.
                self.goaway = &[];
            }
        }
    }

    fn goaway(&mut self, room: usize) -> Option<&'static [u8]> {
        if self.goaway.is_empty() || room == 0 || !self.frames.is_between() {
            return None;
        }
        let (piece, rest) = self.goaway.split_at(room.min(self.goaway.len()));
        self.goaway = rest;
        Some(piece)
    }
}

#[cfg(test)]
mod tests;
