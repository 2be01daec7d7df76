//! HTTP/1 messages (RFC 9112), scanned in bytes that may be cut anywhere.

use memchr::memchr;

use super::h1_chunks::{Chunks, NotHttp, skip};

/// Follows the HTTP/1 messages of one direction of a connection. It keeps no line, so that no length of a line makes it miss one.
#[derive(Debug, Default)]
pub(crate) struct MessageScanner {
    part: MessagePart,
    line: Line,
    head: MessageHead,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum MessagePart {
    #[default]
    Head,
    /// The bytes that are left of a body whose length is known.
    Body(u64),
    Chunked(Chunks),
    /// The message ends with the connection.
    Rest,
}

/// How far a line of a head is.
#[derive(Debug, Default)]
enum Line {
    /// Nothing of it has passed.
    #[default]
    Begin,
    /// A CR, which ends the head if LF follows.
    Empty,
    /// The first line of the message.
    Start,
    /// The name of a field, with what is missing of it.
    Name(FramingField, &'static [u8]),
    Length(LengthValue),
    Coding(CodingValue),
    /// A field that says nothing of the body.
    Other,
}

/// A field that frames a body (RFC 9112 section 6).
#[derive(Clone, Copy, Debug)]
enum FramingField {
    ContentLength,
    TransferEncoding,
}

/// The value of a Content-Length.
#[derive(Clone, Copy, Debug)]
enum LengthValue {
    Begin,
    Digits(u64),
    /// Behind the digits.
    End(u64),
    Invalid,
}

/// The last of the codings that a Transfer-Encoding lists.
#[derive(Clone, Copy, Debug)]
enum CodingValue {
    /// What is missing of `chunked`.
    Chunked(&'static [u8]),
    /// Behind `chunked`.
    End,
    Other,
    /// There were bytes that are no text: nothing in the field is read.
    NoText,
}

const CONTENT_LENGTH: &[u8] = b"content-length";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding";
const CHUNKED: &[u8] = b"chunked";

#[derive(Debug, Default)]
pub(crate) struct MessageHead {
    /// The beginning of the first line.
    start: [u8; Self::START_LENGTH],
    start_length: usize,
    length: Length,
    coding: Coding,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Length {
    #[default]
    None,
    Bytes(u64),
    Invalid,
}

#[derive(Clone, Copy, Debug, Default)]
enum Coding {
    #[default]
    None,
    Chunked,
    Other,
}

impl MessageScanner {
    /// Whether a message may begin here.
    pub(crate) fn is_between(&self) -> bool {
        self.part == MessagePart::Head && matches!(self.line, Line::Begin) && !self.head.has_start()
    }

    /// Whether a part of a head has passed.
    #[cfg(feature = "server")]
    pub(crate) fn is_in_head(&self) -> bool {
        self.part == MessagePart::Head && !self.is_between()
    }

    /// Takes some of `data`. Returns a head when it is complete: the caller then [begins](Self::begin_body) its body.
    pub(crate) fn scan(&mut self, data: &mut &[u8]) -> Result<Option<MessageHead>, NotHttp> {
        match &mut self.part {
            MessagePart::Head => return Ok(self.scan_head(data)),
            MessagePart::Body(left) => {
                if skip(data, left) {
                    self.part = MessagePart::Head;
                }
            }
            MessagePart::Chunked(chunks) => {
                if chunks.scan(data)? {
                    self.part = MessagePart::Head;
                }
            }
            MessagePart::Rest => *data = &[],
        }
        Ok(None)
    }

    /// Sets what follows the head that has passed.
    pub(crate) fn begin_body(&mut self, body: MessagePart) {
        self.part = body;
    }

    /// The connection has ended, and with it a message that ends so.
    #[cfg(feature = "tower")]
    pub(crate) fn end(&mut self) {
        if self.part == MessagePart::Rest {
            self.part = MessagePart::Head;
        }
    }

    /// Takes bytes of a head. Returns the head when it is complete.
    fn scan_head(&mut self, data: &mut &[u8]) -> Option<MessageHead> {
        while let Some((&byte, rest)) = data.split_first() {
            // Most bytes of most heads.
            match self.line {
                Line::Begin if self.head.has_start() && says_nothing_of_body(data) => self.line = Line::Other,
                Line::Start if byte != b'\n' => {
                    self.line = self.head.push_start(data);
                    continue;
                }
                _ => {}
            }
            if matches!(self.line, Line::Other) {
                match memchr(b'\n', data) {
                    Some(end) => (*data, self.line) = (&data[end + 1..], Line::Begin),
                    None => *data = &[],
                }
                continue;
            }
            *data = rest;
            if byte != b'\n' {
                self.on_byte(byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            // Empty lines before a message are no part of it (RFC 9112 section 2.2).
            if matches!(line, Line::Begin | Line::Empty) && self.head.has_start() {
                return Some(std::mem::take(&mut self.head));
            }
            self.head.on_line_end(line);
        }
        None
    }

    fn on_byte(&mut self, byte: u8) {
        self.line = match self.line {
            Line::Begin if byte == b'\r' => Line::Empty,
            Line::Begin if !self.head.has_start() => self.head.push_start(&mut &[byte][..]),
            Line::Begin if byte.eq_ignore_ascii_case(&b'c') => {
                Line::Name(FramingField::ContentLength, &CONTENT_LENGTH[1..])
            }
            Line::Begin if byte.eq_ignore_ascii_case(&b't') => {
                Line::Name(FramingField::TransferEncoding, &TRANSFER_ENCODING[1..])
            }
            Line::Name(field, [next, rest @ ..]) if byte.eq_ignore_ascii_case(next) => Line::Name(field, rest),
            Line::Name(FramingField::ContentLength, []) if byte == b':' => Line::Length(LengthValue::Begin),
            Line::Name(FramingField::TransferEncoding, []) if byte == b':' => {
                Line::Coding(CodingValue::Chunked(CHUNKED))
            }
            Line::Length(value) => Line::Length(self.head.on_length_byte(value, byte)),
            Line::Coding(value) => Line::Coding(value.on_byte(byte)),
            Line::Begin | Line::Empty | Line::Start | Line::Name(..) | Line::Other => Line::Other,
        };
    }
}

/// Whether a line of a head that begins like this cannot be a field that frames a body, and is no end of the head. The ninth byte tells
/// Content-Length and Transfer-Encoding from most other names.
fn says_nothing_of_body(line: &[u8]) -> bool {
    !matches!(
        (line.first(), line.get(8)),
        (Some(b'c' | b'C'), Some(b'l' | b'L') | None)
            | (Some(b't' | b'T'), Some(b'-') | None)
            | (Some(b'\r' | b'\n'), _)
    )
}

impl CodingValue {
    fn on_byte(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::NoText, _) | (_, 0x80..) => Self::NoText,
            (_, b',') => Self::Chunked(CHUNKED),
            (Self::Chunked([next]), byte) if byte.eq_ignore_ascii_case(next) => Self::End,
            (Self::Chunked([next, rest @ ..]), byte) if byte.eq_ignore_ascii_case(next) => Self::Chunked(rest),
            (Self::Chunked(CHUNKED), b' ' | b'\t' | b'\r') => self,
            (Self::End, b' ' | b'\t' | b'\r') => Self::End,
            _ => Self::Other,
        }
    }
}

impl MessageHead {
    /// Enough for `HTTP/1.1 200`, and for each method that frames its response differently.
    const START_LENGTH: usize = 16;

    fn has_start(&self) -> bool {
        self.start_length > 0
    }

    /// Takes bytes of the first line. Returns how far that line is.
    fn push_start(&mut self, data: &mut &[u8]) -> Line {
        let room = &mut self.start[self.start_length..];
        let length = data.len().min(room.len());
        let length = data[..length].iter().position(|byte| *byte == b'\n').unwrap_or(length);
        room[..length].copy_from_slice(&data[..length]);
        self.start_length += length;
        *data = &data[length..];
        if self.start_length == Self::START_LENGTH { Line::Other } else { Line::Start }
    }

    fn on_line_end(&mut self, line: Line) {
        match line {
            Line::Length(value) => self.on_length(value),
            Line::Coding(CodingValue::End) => self.coding = Coding::Chunked,
            Line::Coding(_) => self.coding = Coding::Other,
            _ => {}
        }
    }

    fn on_length_byte(&mut self, value: LengthValue, byte: u8) -> LengthValue {
        match (value, byte) {
            // A list of equal values counts as one (RFC 9112 section 6.3), as in hyper's client.
            (_, b',') => {
                self.on_length(value);
                LengthValue::Begin
            }
            (LengthValue::Begin, b'0'..=b'9') => LengthValue::Digits(u64::from(byte - b'0')),
            (LengthValue::Digits(length), b'0'..=b'9') => {
                let length = length.checked_mul(10).and_then(|length| length.checked_add(u64::from(byte - b'0')));
                length.map_or(LengthValue::Invalid, LengthValue::Digits)
            }
            (LengthValue::Begin, b' ' | b'\t') => LengthValue::Begin,
            (LengthValue::Digits(length) | LengthValue::End(length), b' ' | b'\t' | b'\r') => LengthValue::End(length),
            _ => LengthValue::Invalid,
        }
    }

    fn on_length(&mut self, value: LengthValue) {
        self.length = match (self.length, value) {
            (Length::None, LengthValue::Digits(length) | LengthValue::End(length)) => Length::Bytes(length),
            (Length::Bytes(known), LengthValue::Digits(length) | LengthValue::End(length)) if known == length => {
                self.length
            }
            _ => Length::Invalid,
        };
    }

    /// The method of a request.
    #[cfg(feature = "tower")]
    pub(crate) fn method(&self) -> &[u8] {
        let start = &self.start[..self.start_length];
        start.split(|byte| *byte == b' ').next().unwrap_or_default()
    }

    /// The status of a response.
    #[cfg(feature = "tower")]
    pub(crate) fn status(&self) -> Result<u16, NotHttp> {
        let status = self.start[..self.start_length].strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
        status.and_then(|status| str::from_utf8(status).ok()?.parse().ok()).ok_or(NotHttp)
    }

    /// What follows this head. `otherwise` if no field says it.
    pub(crate) fn body(&self, otherwise: MessagePart) -> MessagePart {
        match (self.coding, self.length) {
            (Coding::Chunked, _) => MessagePart::Chunked(Chunks::default()),
            (Coding::Other, _) | (Coding::None, Length::Invalid) => MessagePart::Rest,
            (Coding::None, Length::Bytes(0)) => MessagePart::Head,
            (Coding::None, Length::Bytes(length)) => MessagePart::Body(length),
            (Coding::None, Length::None) => otherwise,
        }
    }
}

#[cfg(all(test, feature = "server"))]
mod tests;
