//! [`Exchange`]: whether an HTTP client's connection has a request in flight, known from the bytes that pass.
//!
//! A client's stream sees neither requests nor responses. hyper does not report when it has read a response to its end, and each user
//! would have to add a wrapper around requests. The framing shows it.

use std::{collections::VecDeque, sync::LazyLock};

use super::draining::Draining;
use crate::{
    http::h2_scanner::{FrameScanner, GOAWAY},
    http::{
        h1_chunks::NotHttp,
        h1_scanner::{MessagePart, MessageScanner},
    },
};

/// What a client's connection is used for.
#[derive(Debug)]
pub(super) enum Exchange {
    /// HTTP/1, or nothing has passed yet.
    Http1(Http1),
    Http2(Http2),
    /// HTTP/1, and the server has said something that nobody has asked for, a 408 perhaps: a client ends such a connection.
    Surplus,
    /// Another protocol, or an upgraded connection: nobody knows when it is idle.
    Unknown,
}

/// The bytes are not what they were taken for.
#[derive(Debug, PartialEq, Eq)]
enum Instead {
    Http2,
    Surplus,
    Unknown,
}

impl From<NotHttp> for Instead {
    fn from(_: NotHttp) -> Self {
        Self::Unknown
    }
}

impl Exchange {
    pub(super) fn new(is_server: bool) -> Self {
        if is_server { Self::Unknown } else { Self::Http1(Http1::default()) }
    }

    /// The transport's TLS has accepted `data` of ours.
    pub(super) fn sent(&mut self, data: &[u8]) {
        match self {
            // A line without anything is no request: some protocols ask that way.
            Self::Http1(http1) if http1.is_idle() && data.starts_with(b"\r") => *self = Self::Unknown,
            Self::Http1(http1) => {
                let result = http1.sent(data);
                self.become_instead(result);
            }
            Self::Surplus => *self = Self::Unknown,
            Self::Http2(_) | Self::Unknown => {}
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
            Self::Surplus | Self::Unknown => {}
        }
    }

    /// The peer's close_notify was read.
    pub(super) fn received_end(&mut self) {
        if let Self::Http1(http1) = self {
            http1.responses.end();
        }
    }

    fn become_instead(&mut self, result: Result<(), Instead>) {
        match result {
            Ok(()) => {}
            Err(Instead::Http2) => *self = Self::Http2(Http2::default()),
            Err(Instead::Surplus) => *self = Self::Surplus,
            Err(Instead::Unknown) => *self = Self::Unknown,
        }
    }

    /// Whether nothing is in flight, as far as is known: an HTTP/2 client itself knows, see [`goaway`](Self::goaway).
    pub(super) fn is_idle(&self) -> bool {
        match self {
            Self::Http1(http1) => http1.is_idle(),
            Self::Surplus => true,
            Self::Http2(_) | Self::Unknown => false,
        }
    }

    /// Whether closing the connection now, or with GOAWAY, could cut something. An HTTP/2 client finishes what is in flight after GOAWAY.
    pub(super) fn is_in_use(&self) -> bool {
        !matches!(self, Self::Http2(_)) && !self.is_idle()
    }

    /// The GOAWAY of an HTTP/2 client that is not drained. It has no debug data, which would say that it is.
    pub(super) fn retire(&mut self) {
        if let Self::Http2(http2) = self
            && http2.goaway == *OUR_GOAWAY
        {
            http2.goaway = RETIRING_GOAWAY;
        }
    }

    /// The next part of the GOAWAY that an HTTP/2 client is to read in place of the peer's bytes, `room` bytes at most.
    /// `None` if the client has read all of it, or must not read it now.
    pub(super) fn goaway(&mut self, room: usize) -> Option<&'static [u8]> {
        match self {
            Self::Http2(http2) => http2.goaway(room),
            Self::Http1(_) | Self::Surplus | Self::Unknown => None,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Http1 {
    requests: MessageScanner,
    responses: MessageScanner,
    /// The requests whose response's head has not come.
    asked: VecDeque<Asked>,
    /// Responses whose head has come.
    answered: u64,
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
            let Some(head) = self.requests.scan(&mut data)? else { continue };
            self.asked.push_back(match head.method() {
                b"PRI" => return Err(Instead::Http2),
                b"HEAD" => Asked::Head,
                b"CONNECT" => Asked::Connect,
                _ => Asked::Other,
            });
            self.requests.begin_body(head.body(MessagePart::Head));
        }
        Ok(())
    }

    fn received(&mut self, mut data: &[u8]) -> Result<(), Instead> {
        while !data.is_empty() {
            if self.is_idle() {
                // Before any request it is another protocol, in which the server begins.
                return Err(if self.answered > 0 { Instead::Surplus } else { Instead::Unknown });
            }
            let Some(head) = self.responses.scan(&mut data)? else { continue };
            let status = head.status()?;
            if matches!(status, 100 | 102..=199) {
                continue;
            }
            let asked = self.asked.pop_front().ok_or(Instead::Unknown)?;
            self.answered += 1;
            // As RFC 9112 section 6.3 lists it.
            let body = match (asked, status) {
                (_, 101) | (Asked::Connect, 200..=299) => return Err(Instead::Unknown),
                (Asked::Head, _) | (_, 204 | 304) => MessagePart::Head,
                _ => head.body(MessagePart::Rest),
            };
            self.responses.begin_body(body);
        }
        Ok(())
    }
}

/// Frames on their way to an HTTP/2 client, and the one that is put between them.
#[derive(Debug)]
pub(super) struct Http2 {
    frames: FrameScanner,
    /// What the client has not read of our GOAWAY.
    goaway: &'static [u8],
}

/// A server's graceful GOAWAY: NO_ERROR, and a last stream that is beyond all (RFC 9113 section 6.8). A client opens no more
/// streams then, and ends the connection after its last one, or at once.
const RETIRING_GOAWAY: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\0";

/// The same with debug data, which errors tell then.
static OUR_GOAWAY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut frame = [RETIRING_GOAWAY, Draining::TEXT.as_bytes()].concat();
    // The last byte of the length.
    frame[2] += Draining::TEXT.len() as u8;
    frame
});

impl Default for Http2 {
    fn default() -> Self {
        Self { frames: FrameScanner::default(), goaway: &OUR_GOAWAY }
    }
}

impl Http2 {
    fn received(&mut self, mut data: &[u8]) {
        while let Some(frame) = self.frames.next_frame(&mut data) {
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
