//! HTTP/1 messages (RFC 9112), followed through a stream of bytes that is cut anywhere.

use std::{mem, str};

/// How much of a line of a head is looked at; what matters there is shorter.
const LINE_LIMIT: usize = 1024;

/// The bytes are no messages of HTTP/1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotHttp;

/// The HTTP/1 messages that pass in one direction.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    part: Part,
    /// The beginning of the line that passes.
    line: Vec<u8>,
    head: Head,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Part {
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
pub(crate) struct Head {
    /// The first line.
    pub(crate) start: Vec<u8>,
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
    /// Whether no part of a message has passed.
    pub(crate) fn is_between(&self) -> bool {
        self.part == Part::Head && self.line.is_empty() && self.head.start.is_empty()
    }

    /// Whether a part of a head has passed.
    #[cfg(feature = "server")]
    pub(crate) fn is_in_head(&self) -> bool {
        self.part == Part::Head && !self.is_between()
    }

    /// Passes some of `data`; gives a head when it is whole. The caller then says what follows it.
    pub(crate) fn pass(&mut self, data: &mut &[u8]) -> Result<Option<Head>, NotHttp> {
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

    /// What follows the head that has passed.
    pub(crate) fn begin_body(&mut self, body: Part) {
        self.part = body;
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

    fn on_line(&mut self, line: &[u8]) -> Result<Option<Head>, NotHttp> {
        match (&self.part, line) {
            (Part::Head, []) if self.head.start.is_empty() => {}
            (Part::Head, []) => return Ok(Some(mem::take(&mut self.head))),
            (Part::Head, line) if self.head.start.is_empty() => self.head.start = line.to_vec(),
            (Part::Head, line) => self.head.on_field(line)?,
            (Part::ChunkSize, line) => {
                let size = line.split(|byte| *byte == b';').next().and_then(|size| str::from_utf8(size).ok());
                let size = size.and_then(|size| u64::from_str_radix(size.trim(), 16).ok()).ok_or(NotHttp)?;
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
    fn on_field(&mut self, line: &[u8]) -> Result<(), NotHttp> {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default().trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            // A list of the same is taken for one (RFC 9112 section 6.3), as hyper's client takes it.
            for value in value.split(|byte| *byte == b',') {
                let length = str::from_utf8(value.trim_ascii()).ok().and_then(|value| value.parse().ok());
                let length = length.ok_or(NotHttp)?;
                if self.length.is_some_and(|known: u64| known != length) {
                    return Err(NotHttp);
                }
                self.length = Some(length);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
            self.coding = if last.eq_ignore_ascii_case(b"chunked") { Coding::Chunked } else { Coding::Other };
        }
        Ok(())
    }

    #[cfg(feature = "tower")]
    pub(crate) fn status(&self) -> Result<u16, NotHttp> {
        let status = self.start.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
        status.and_then(|status| str::from_utf8(status).ok()?.parse().ok()).ok_or(NotHttp)
    }

    /// What follows, `otherwise` where no field says.
    pub(crate) fn body(&self, otherwise: Part) -> Part {
        match (&self.coding, self.length) {
            (Coding::Chunked, _) => Part::ChunkSize,
            (Coding::Other, _) => Part::Rest,
            (Coding::None, Some(0)) => Part::Head,
            (Coding::None, Some(length)) => Part::Body(length),
            (Coding::None, None) => otherwise,
        }
    }
}
