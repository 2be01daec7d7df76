//! What is half-sent on an HTTP/1 connection.
//!
//! hyper does not report it, and neither do the end and the drop of a body: hyper may still buffer what the body yielded. But hyper calls
//! `poll_flush` only when its buffer is empty. So a response is complete once its body has yielded its end and `poll_flush` was called
//! after that.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use http_body::{Body, Frame};
use hyper::{
    HeaderMap, Method, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE},
};
use tokio::{io::AsyncBufRead, time::Instant};

use crate::{
    http::{
        h1_chunks::NotHttp,
        h1_scanner::{MessagePart, MessageScanner},
    },
    runtime::lock::lock,
    server::{accepted_stream::AcceptedStream, lifetime::ClientWait},
};

/// How much is read to count the requests that nobody serves: more than clients pipeline.
const MAX_WAITING_BYTES: usize = 64 * 1024;

/// The messages of both directions. Shared by hyper's service, the bodies of its responses, the driver of the connection and its stream.
#[derive(Debug)]
pub(in crate::server) struct Http1Messages {
    /// The requests that hyper was given to read.
    requests: MessageScanner,
    /// Those of them whose head is whole, and that the service was not given.
    waiting: u64,
    /// When the head that is incomplete began.
    head_began: Option<Instant>,
    /// The responses that were handed to the transport to their last byte.
    answered: u64,
    /// When the last of them was, or the last write to a WebSocket, or when the connection began.
    idle_since: Instant,
    pub(super) response: ResponseProgress,
    pub(super) delimiter: Delimiter,
    pub(super) upgrade: Upgrade,
    /// Whether the next response announces `Connection: close`.
    pub(in crate::server) is_last_request: bool,
    /// Whether the last request that was read has a body that cannot be read to its end.
    has_broken_body: bool,
    /// Whether a response has announced it, or was one of hyper's own, which answer what is no request.
    has_announced_close: bool,
}

/// How far the response in progress is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ResponseProgress {
    /// There is none, or all of it was handed to the transport.
    #[default]
    Complete,
    /// The service has a request, and has not answered it.
    Awaited,
    /// Its body has not ended.
    Body,
    /// Its body has ended. A part may still be in hyper's buffer.
    Unflushed,
    /// Its body was dropped before its end.
    Cut,
}

/// What shows a client the end of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Delimiter {
    /// Content-Length, the last chunk, or that there is no body.
    #[default]
    Framing,
    /// The end of the connection: close_notify (RFC 9112 section 9.8).
    Connection,
}

/// What an upgraded connection has become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Upgrade {
    /// It is not upgraded.
    #[default]
    None,
    /// A WebSocket, which has its own Close frame: the end of the connection ends no message.
    WebSocket,
    /// An unknown protocol: the end of the connection may end a message.
    Unknown,
}

impl Default for Http1Messages {
    fn default() -> Self {
        Self {
            requests: MessageScanner::default(),
            waiting: 0,
            head_began: None,
            answered: 0,
            idle_since: Instant::now(),
            response: ResponseProgress::default(),
            delimiter: Delimiter::default(),
            upgrade: Upgrade::default(),
            is_last_request: false,
            has_broken_body: false,
            has_announced_close: false,
        }
    }
}

impl Http1Messages {
    pub(super) fn is_upgraded(&self) -> bool {
        self.upgrade != Upgrade::None
    }

    /// Whether the client has begun a request that is not answered to its last byte. hyper would discard a part of a head.
    pub(in crate::server) fn is_busy(&self) -> bool {
        self.response != ResponseProgress::Complete || self.waiting > 0 || !self.requests.is_between()
    }

    /// The number of responses that the client was sent to their last byte.
    pub(in crate::server) fn answered(&self) -> u64 {
        self.answered
    }

    /// When the last of these responses ended, if there are more than `before`.
    pub(in crate::server) fn answered_since(&self, before: u64) -> Option<Instant> {
        (self.answered > before).then_some(self.idle_since)
    }

    /// What the server waits for from the client.
    pub(in crate::server) fn wait(&self) -> ClientWait {
        match self.head_began {
            Some(began) if self.response == ResponseProgress::Complete => ClientWait::Head { since: began },
            _ if self.is_busy() => ClientWait::None,
            _ => ClientWait::Request { since: self.idle_since },
        }
    }

    /// The requests that came whole, behind a response that is cut, and that nobody has answered or refused. Behind an upgrade, nothing is a
    /// request.
    pub(super) fn unserved(&self) -> u64 {
        if self.has_announced_close || self.is_upgraded() { 0 } else { self.waiting }
    }

    /// Whether the client has not sent all of a request's body, as far as is known.
    pub(super) fn lacks_body(&self) -> bool {
        !self.requests.is_between() && !self.requests.is_in_head()
    }

    /// The client has ended its half.
    pub(super) fn on_end(&self, stream: &mut AcceptedStream) {
        if !self.requests.is_between() {
            stream.mark_truncated();
        } else if self.is_busy() {
            stream.mark_half_closed();
        }
    }

    /// Whether the service has a request, and its response is not complete.
    pub(super) fn is_answering(&self) -> bool {
        matches!(self.response, ResponseProgress::Awaited | ResponseProgress::Body)
    }

    /// hyper was given `bytes` to read.
    pub(super) fn on_received(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let next = match self.requests.scan(&mut bytes) {
                Ok(None) => continue,
                Ok(Some(head)) => {
                    self.waiting += 1;
                    // The next one begins now, also if it has come in the same read.
                    self.head_began = None;
                    head.body(MessagePart::Head)
                }
                // hyper finds that out as well.
                Err(NotHttp) => {
                    self.on_broken_body();
                    MessagePart::Rest
                }
            };
            self.requests.begin_body(next);
        }
        if !self.requests.is_in_head() {
            self.head_began = None;
        } else if self.head_began.is_none() {
            self.head_began = Some(Instant::now());
        }
    }

    /// Reads the requests that hyper has not read, because it reads nothing while it is answering. Nobody will serve them.
    pub(super) fn read_waiting_requests(&mut self, stream: &mut AcceptedStream) {
        let (mut read, mut cx) = (0, Context::from_waker(Waker::noop()));
        while read < MAX_WAITING_BYTES
            && let Poll::Ready(Ok(bytes @ [_, ..])) = Pin::new(&mut *stream).poll_fill_buf(&mut cx)
        {
            let amount = bytes.len();
            self.on_received(bytes);
            read += amount;
            Pin::new(&mut *stream).consume(amount);
        }
    }

    /// The service is given a request.
    pub(in crate::server) fn on_request(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
        self.set_response(ResponseProgress::Awaited);
        self.is_last_request |= self.has_broken_body && self.waiting == 0;
    }

    /// The body of the last request that was read is malformed, or stalls. hyper reads nothing behind it, and closes the connection behind the
    /// response to that request.
    pub(super) fn on_broken_body(&mut self) {
        self.has_broken_body = true;
        self.is_last_request |= self.waiting == 0;
    }

    /// hyper has called `poll_flush`.
    pub(super) fn on_flush(&mut self) {
        if self.response == ResponseProgress::Unflushed {
            self.response = ResponseProgress::Complete;
            self.answered += 1;
            self.idle_since = Instant::now();
        }
    }

    /// hyper writes.
    pub(super) fn on_write(&mut self) {
        // Its own response, to something that it does not take for a request. It closes the connection behind it.
        self.has_announced_close |= self.response == ResponseProgress::Complete;
    }

    /// The new owner of an upgraded connection writes.
    pub(super) fn on_upgraded_write(&mut self) {
        if self.upgrade == Upgrade::WebSocket {
            self.idle_since = Instant::now();
        }
    }

    /// A response that is cut stays cut: hyper ends the connection.
    fn set_response(&mut self, progress: ResponseProgress) {
        if self.response != ResponseProgress::Cut {
            self.response = progress;
        }
    }
}

/// A response whose body is being sent. If it is dropped before its end, the response is cut.
#[derive(Debug)]
pub(in crate::server) struct ResponseInProgress {
    /// `None` once the body has ended.
    messages: Option<Arc<Mutex<Http1Messages>>>,
    /// The bytes that are missing of the Content-Length.
    left: Option<u64>,
}

impl ResponseInProgress {
    /// The service has answered a request.
    pub(in crate::server) fn begin<B: Body>(
        messages: Arc<Mutex<Http1Messages>>,
        method: &Method,
        version: Version,
        response: &Response<B>,
    ) -> Self {
        let status = response.status();
        let is_tunnel = *method == Method::CONNECT && status.is_success();
        let can_chunk = version >= Version::HTTP_11 && response.version() >= Version::HTTP_11;
        let length = match can_chunk && response.headers().contains_key(TRANSFER_ENCODING) {
            // The last chunk follows the end of the body, which may come later than its last byte.
            true => None,
            false => content_length(response.headers()).or_else(|| response.body().size_hint().exact()),
        };
        // hyper drops the body of such a response.
        let has_no_body = *method == Method::HEAD
            || is_tunnel
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || length == Some(0)
            || response.body().is_end_stream();
        {
            let mut messages = lock(&messages);
            if status == StatusCode::SWITCHING_PROTOCOLS || is_tunnel {
                let protocol = response.headers().get(UPGRADE);
                let is_websocket = protocol.is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(b"websocket"));
                messages.upgrade = if is_websocket { Upgrade::WebSocket } else { Upgrade::Unknown };
            }
            let is_framed = has_no_body || length.is_some() || can_chunk;
            messages.has_announced_close |= announces_close(response.headers());
            messages.delimiter = if is_framed { Delimiter::Framing } else { Delimiter::Connection };
            messages.set_response(ResponseProgress::Body);
        }
        let mut this = Self { messages: Some(messages), left: length };
        if has_no_body {
            this.end();
        }
        this
    }

    /// The body has yielded `frame`.
    pub(in crate::server) fn on_frame<D: bytes::Buf>(&mut self, frame: &Frame<D>) {
        let Some(data) = frame.data_ref() else { return self.on_end() };
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(data.remaining() as u64);
            if *left == 0 {
                self.end();
            }
        }
    }

    /// The body has yielded its end. For hyper, a body that is shorter than its Content-Length is an error.
    pub(in crate::server) fn on_end(&mut self) {
        if self.left.is_none_or(|left| left == 0) {
            self.end();
        }
    }

    fn end(&mut self) {
        if let Some(messages) = self.messages.take() {
            lock(&messages).set_response(ResponseProgress::Unflushed);
        }
    }
}

impl Drop for ResponseInProgress {
    fn drop(&mut self) {
        if let Some(messages) = &self.messages {
            lock(messages).set_response(ResponseProgress::Cut);
        }
    }
}

/// Whether a message says that the connection ends behind it (RFC 9112 section 9.6).
pub(in crate::server) fn announces_close(headers: &HeaderMap) -> bool {
    let mut options = headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// The valid Content-Length of a message, if it has one.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    /// hyper writes the last chunk at the end of the body.
    #[test]
    fn a_chunked_response_ends_with_its_body_and_not_with_its_last_byte() {
        let body = http_body_util::Full::new(&b"hello"[..]);
        for (coding, before_end, at_end) in [
            (None, ResponseProgress::Unflushed, ResponseProgress::Unflushed),
            (Some("chunked"), ResponseProgress::Body, ResponseProgress::Unflushed),
        ] {
            let mut response = Response::new(body);
            response.headers_mut().extend(coding.map(|coding| (TRANSFER_ENCODING, coding.parse().expect("a value"))));
            let messages = Arc::<Mutex<Http1Messages>>::default();
            let mut progress = ResponseInProgress::begin(messages.clone(), &Method::GET, Version::HTTP_11, &response);
            progress.on_frame(&Frame::data(&b"hello"[..]));
            assert_eq!(lock(&messages).response, before_end, "{coding:?}");
            progress.on_end();
            assert_eq!(lock(&messages).response, at_end, "{coding:?}");
        }
    }

    /// One read has the end of a head and the beginning of the next one.
    #[tokio::test(start_paused = true)]
    async fn each_head_has_its_own_beginning() {
        let mut messages = Http1Messages::default();
        messages.on_received(b"GET / HT");
        let began = Instant::now();
        assert_eq!(messages.wait(), ClientWait::Head { since: began });
        advance(Duration::from_secs(9)).await;
        messages.on_received(b"TP/1.1\r\n");
        assert_eq!(messages.wait(), ClientWait::Head { since: began });
        messages.on_received(b"\r\nGET / HT");
        assert_eq!(messages.wait(), ClientWait::Head { since: Instant::now() });
        messages.on_received(b"TP/1.1\r\n\r\n");
        assert_eq!(messages.wait(), ClientWait::None);
    }
}
