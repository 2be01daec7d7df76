//! Event streams: which responses they are, and where an event ends (WHATWG HTML, "Server-sent events").

use std::any::TypeId;

use bytes::Bytes;
use http_body::Body;
use hyper::{
    HeaderMap, Response,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
};
use memchr::memchr2;

/// Whether a response is an event stream that can be followed.
pub(super) fn is_event_stream<B: Body + 'static>(response: &Response<B>) -> bool {
    let headers = response.headers();
    has_media_type(headers, b"text/event-stream")
        && !headers.contains_key(CONTENT_ENCODING)
        && !headers.contains_key(CONTENT_LENGTH)
        && response.body().size_hint().exact().is_none()
        && TypeId::of::<B::Data>() == TypeId::of::<Bytes>()
}

/// Whether a message has this media type, with any parameters.
fn has_media_type(headers: &HeaderMap, media_type: &[u8]) -> bool {
    let value = headers.get(CONTENT_TYPE).map_or(&[][..], |value| value.as_bytes());
    let name = value.split(|byte| *byte == b';').next().unwrap_or_default();
    name.trim_ascii().eq_ignore_ascii_case(media_type)
}

/// A stream may begin with it.
const BYTE_ORDER_MARK: &[u8; 3] = b"\xef\xbb\xbf";

/// Follows the lines of an event stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EventScanner {
    at: Position,
    /// The bytes of the [byte order mark](BYTE_ORDER_MARK) that have passed, or all if there is none.
    mark: usize,
    /// Whether fields of an event have begun that no blank line has ended.
    has_fields: bool,
    /// How the line before ended. A stream whose lines end with CR LF has an LF behind each CR.
    line_end: LineEnd,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Position {
    /// Before the first byte of a line.
    #[default]
    LineStart,
    /// In a comment, which belongs to no event.
    Comment,
    Field,
    /// After a CR that may be followed by LF.
    Cr,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LineEnd {
    #[default]
    Lf,
    Cr,
    CrLf,
}

impl EventScanner {
    /// Whether the stream can end here, without cutting an event or a line.
    pub(super) fn is_between(&self) -> bool {
        let is_line_start = match self.at {
            Position::LineStart => true,
            Position::Cr => self.line_end == LineEnd::Cr,
            Position::Comment | Position::Field => false,
        };
        is_line_start && !self.has_fields && matches!(self.mark, 0 | 3)
    }

    /// Follows `bytes`. Returns the last place in them at which the stream can end.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut between = self.is_between().then_some(0);
        let mut index = 0;
        while let Some(byte) = bytes.get(index) {
            if let Some(expected) = BYTE_ORDER_MARK.get(self.mark) {
                if byte == expected {
                    self.mark += 1;
                    index += 1;
                    between = self.is_between().then_some(index).or(between);
                    continue;
                }
                if self.mark > 0 {
                    (self.at, self.has_fields) = (Position::Field, true);
                }
                self.mark = BYTE_ORDER_MARK.len();
            }
            let is_after_cr = self.at == Position::Cr;
            if is_after_cr && *byte != b'\n' {
                self.end_line(LineEnd::Cr);
                // Only now it is sure that no LF belongs to the CR.
                if self.is_between() {
                    between = Some(index);
                }
            }
            match byte {
                b'\n' if is_after_cr => self.end_line(LineEnd::CrLf),
                b'\n' => {
                    self.has_fields &= self.at != Position::LineStart;
                    self.end_line(LineEnd::Lf);
                }
                b'\r' => {
                    self.has_fields &= self.at != Position::LineStart;
                    self.at = Position::Cr;
                }
                b':' if self.at == Position::LineStart => self.at = Position::Comment,
                _ if self.at == Position::LineStart => {
                    self.at = Position::Field;
                    self.has_fields = true;
                }
                _ => {}
            }
            index += 1;
            if self.is_between() {
                between = Some(index);
            }
            // What a line contains does not matter.
            if matches!(self.at, Position::Comment | Position::Field) {
                let line = &bytes[index..];
                index += memchr2(b'\n', b'\r', line).unwrap_or(line.len());
            }
        }
        between
    }

    fn end_line(&mut self, line_end: LineEnd) {
        (self.at, self.line_end) = (Position::LineStart, line_end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of a stream. `true` if it can end behind the line.
    const LINES: [(&str, bool); 12] = [
        ("data: 1", false),
        ("", true),
        ("", true),
        (": a comment", true),
        ("id: 7", false),
        (": a comment in an event", false),
        (":", false),
        ("data", false),
        ("data: 2: 3", false),
        ("", true),
        (":", true),
        ("event: unfinished", false),
    ];

    #[test]
    fn an_event_ends_with_a_blank_line_wherever_its_bytes_are_split() {
        for (begin, line_end) in [("", "\n"), ("", "\r\n"), ("", "\r"), ("\u{feff}", "\n"), ("\u{feff}", "\r\n")] {
            let (mut stream, mut ends) = (begin.to_owned(), vec![0, begin.len()]);
            for (line, can_end) in LINES {
                stream += line;
                stream += line_end;
                ends.extend(can_end.then_some(stream.len()));
            }
            for whole in 0..=stream.len() {
                let last_end = ends.iter().copied().filter(|end| *end <= whole).max().expect("the beginning");
                for cut in 0..=whole {
                    let (mut scanner, bytes) = (EventScanner::default(), &stream.as_bytes()[..whole]);
                    let (first, second) = (scanner.scan(&bytes[..cut]), scanner.scan(&bytes[cut..]));
                    let found = second.map(|end| end + cut).or(first);
                    assert_eq!((found, scanner.is_between()), (Some(last_end), last_end == whole), "{cut} {bytes:?}");
                }
            }
        }
    }

    #[test]
    fn line_ends_may_be_mixed() {
        for (stream, last_end) in [
            (&b"data: 1\r\ndata: 2\n\r\ndata"[..], Some(19)),
            (b"data: 1\n\r", Some(0)),
            (b"data: 1\n\rdata", Some(9)),
            (b"data: 1\r\r\ndata", Some(10)),
            (b"data: 1\r\n\r", Some(0)),
            (b"data: 1\r\n\r\r", Some(11)),
            (b"\xef\xbb\xbf: a comment\n", Some(15)),
            (b"\xef\xbb: a field\n", Some(0)),
            (b": \n\xef\xbb\xbf: a field\n", Some(3)),
        ] {
            assert_eq!(EventScanner::default().scan(stream), last_end, "{}", stream.escape_ascii());
        }
    }
}
