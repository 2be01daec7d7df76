//! HTTP/1 messages (RFC 9112), scanned in bytes that may be cut anywhere.

use std::{mem, str};

/// The bytes of a head's line that are kept. The fields that matter are shorter.
const MAX_LINE_BYTES: usize = 1024;

/// The bytes are not HTTP/1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotHttp;

/// Follows the HTTP/1 messages of one direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct MessageScanner {
    part: MessagePart,
    /// The beginning of the current line.
    line: Vec<u8>,
    head: MessageHead,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum MessagePart {
    #[default]
    Head,
    /// The bytes that are left of a body whose length is known.
    Body(u64),
    ChunkSize,
    /// The bytes that are left of a chunk and of the end of its line.
    Chunk(u64),
    Trailers,
    /// The message ends with the connection.
    Rest,
}

#[derive(Debug, Default)]
pub(crate) struct MessageHead {
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

impl MessageScanner {
    /// Whether a message may begin here.
    pub(crate) fn is_between(&self) -> bool {
        self.part == MessagePart::Head && self.line.is_empty() && self.head.start.is_empty()
    }

    /// Whether a part of a head has passed.
    #[cfg(feature = "server")]
    pub(crate) fn is_in_head(&self) -> bool {
        self.part == MessagePart::Head && !self.is_between()
    }

    /// Takes some of `data`. Returns a head when it is complete: the caller then [begins](Self::begin_body) its body.
    pub(crate) fn scan(&mut self, data: &mut &[u8]) -> Result<Option<MessageHead>, NotHttp> {
        match &mut self.part {
            MessagePart::Body(left) => {
                if skip(data, left) {
                    self.part = MessagePart::Head;
                }
            }
            MessagePart::Chunk(left) => {
                if skip(data, left) {
                    self.part = MessagePart::ChunkSize;
                }
            }
            MessagePart::Rest => *data = &[],
            MessagePart::Head | MessagePart::ChunkSize | MessagePart::Trailers => {
                if self.scan_line(data) {
                    let line = mem::take(&mut self.line);
                    return self.on_line(line.trim_ascii_end());
                }
            }
        }
        Ok(None)
    }

    /// Sets what follows the head that has passed.
    pub(crate) fn begin_body(&mut self, body: MessagePart) {
        self.part = body;
    }

    /// Takes bytes of a line. Returns whether the line is complete.
    fn scan_line(&mut self, data: &mut &[u8]) -> bool {
        let end = data.iter().position(|byte| *byte == b'\n');
        let (piece, rest) = data.split_at(end.map_or(data.len(), |end| end + 1));
        let room = MAX_LINE_BYTES.saturating_sub(self.line.len());
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
        *data = rest;
        end.is_some()
    }

    fn on_line(&mut self, line: &[u8]) -> Result<Option<MessageHead>, NotHttp> {
        match (&self.part, line) {
            (MessagePart::Head, []) if self.head.start.is_empty() => {}
            (MessagePart::Head, []) => return Ok(Some(mem::take(&mut self.head))),
            (MessagePart::Head, line) if self.head.start.is_empty() => self.head.start = line.to_vec(),
            (MessagePart::Head, line) => self.head.on_field(line)?,
            (MessagePart::ChunkSize, line) => {
                let size = line.split(|byte| *byte == b';').next().and_then(|size| str::from_utf8(size).ok());
                let size = size.and_then(|size| u64::from_str_radix(size.trim(), 16).ok()).ok_or(NotHttp)?;
                self.part = if size == 0 { MessagePart::Trailers } else { MessagePart::Chunk(size.saturating_add(2)) };
            }
            (MessagePart::Trailers, []) => self.part = MessagePart::Head,
            _ => {}
        }
        Ok(None)
    }
}

/// Takes bytes of `data`, `left` at most. Returns whether nothing is left.
fn skip(data: &mut &[u8], left: &mut u64) -> bool {
    let amount = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
    *data = &data[amount..];
    *left -= amount as u64;
    *left == 0
}

impl MessageHead {
    fn on_field(&mut self, line: &[u8]) -> Result<(), NotHttp> {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default().trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            // A list of equal values counts as one (RFC 9112 section 6.3), as in hyper's client.
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

    /// What follows this head. `otherwise` if no field says it.
    pub(crate) fn body(&self, otherwise: MessagePart) -> MessagePart {
        match (&self.coding, self.length) {
            (Coding::Chunked, _) => MessagePart::ChunkSize,
            (Coding::Other, _) => MessagePart::Rest,
            (Coding::None, Some(0)) => MessagePart::Head,
            (Coding::None, Some(length)) => MessagePart::Body(length),
            (Coding::None, None) => otherwise,
        }
    }
}
