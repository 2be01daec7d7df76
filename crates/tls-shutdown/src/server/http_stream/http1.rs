//! What is half-sent on an HTTP/1 connection.
//!
//! hyper does not tell, and neither do the end and the drop of a body: what was yielded may still be in hyper's buffer. But hyper
//! calls `poll_flush` only when that is empty. So a response is whole once its body has yielded its end and `poll_flush` was
//! called after that.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};
use hyper::{
    Method, Response, StatusCode, Version,
    header::{CONTENT_LENGTH, UPGRADE},
};
use pin_project_lite::pin_project;
use tracing::Span;

use crate::{
    http::h1_scanner::{Messages, NotHttp, Part},
    server::drain::InFlight,
};

/// How far the response in progress is; shared by the service, which begins it, its body, and the stream. They are polled by one
/// task.
#[derive(Debug, Default)]
pub(in crate::server) struct Http1 {
    progress: AtomicU8,
    delimiter: AtomicU8,
    upgrade: AtomicU8,
    last_request: AtomicU8,
    head: AtomicU8,
}

/// The client's requests, as hyper gets them: it does not tell whether it has a part of one, or waits for one.
pub(in crate::server) struct Requests {
    /// `None` once it is something else: hyper will find that out, too.
    messages: Option<Messages>,
}

impl Requests {
    pub(in crate::server) fn new() -> Self {
        Self { messages: Some(Messages::default()) }
    }

    /// hyper was given this to read.
    pub(in crate::server) fn received(&mut self, mut bytes: &[u8], http1: &Http1) {
        let Some(messages) = &mut self.messages else { return };
        while !bytes.is_empty() {
            match messages.pass(&mut bytes) {
                Ok(None) => {}
                Ok(Some(head)) => messages.begin_body(head.body(Part::Head)),
                Err(NotHttp) => {
                    self.messages = None;
                    break;
                }
            }
        }
        let has_half_head = self.messages.as_ref().is_some_and(Messages::is_in_head);
        http1.head.store(has_half_head.into(), Ordering::Relaxed);
    }

    /// Whether the client has not sent all of a request's body, as far as is known.
    pub(in crate::server) fn lack_body(&self) -> bool {
        self.messages.as_ref().is_none_or(|messages| !messages.is_between() && !messages.is_in_head())
    }
}

/// How far the response in progress is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::server) enum Progress {
    /// There is none, or all of it was handed to the transport.
    Whole,
    /// The service has a request, and has not answered it.
    Asked,
    /// Its body has not ended.
    Open,
    /// Its body has ended; a part may still be in hyper's buffer.
    Unflushed,
    /// Its body was dropped before its end.
    Cut,
}

/// What tells a client that a response is at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::server) enum Delimiter {
    /// Content-Length, or the last chunk, or that there is no body.
    Framing,
    /// The end of the connection: close_notify (RFC 9112 section 9.8).
    Connection,
}

/// What an upgraded connection has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::server) enum Upgrade {
    /// It is not upgraded.
    None,
    /// A WebSocket, which has its own Close frame: the end of the connection says nothing.
    WebSocket,
    /// Something of which nothing is known: its end may be the end of a message.
    Unknown,
}

impl Http1 {
    pub(in crate::server) fn progress(&self) -> Progress {
        match self.progress.load(Ordering::Relaxed) {
            0 => Progress::Whole,
            1 => Progress::Asked,
            2 => Progress::Open,
            3 => Progress::Unflushed,
            _ => Progress::Cut,
        }
    }

    /// A response that is cut stays so: hyper ends the connection.
    fn set_progress(&self, progress: Progress) {
        if self.progress() != Progress::Cut {
            self.progress.store(progress as u8, Ordering::Relaxed);
        }
    }

    pub(in crate::server) fn delimiter(&self) -> Delimiter {
        match self.delimiter.load(Ordering::Relaxed) {
            0 => Delimiter::Framing,
            _ => Delimiter::Connection,
        }
    }

    pub(in crate::server) fn upgrade(&self) -> Upgrade {
        match self.upgrade.load(Ordering::Relaxed) {
            0 => Upgrade::None,
            1 => Upgrade::WebSocket,
            _ => Upgrade::Unknown,
        }
    }

    /// Has the next response say `Connection: close`.
    pub(in crate::server) fn announce_last_request(&self) {
        self.last_request.store(1, Ordering::Relaxed);
    }

    pub(in crate::server) fn is_last_request(&self) -> bool {
        self.last_request.load(Ordering::Relaxed) != 0
    }

    /// Whether a part of the next request's head is there.
    pub(in crate::server) fn has_half_head(&self) -> bool {
        self.head.load(Ordering::Relaxed) != 0
    }

    /// The service is called.
    pub(in crate::server) fn asked(&self) {
        self.set_progress(Progress::Asked);
    }

    /// Whether the service was called, and not all of its response is there.
    pub(in crate::server) fn is_answering(&self) -> bool {
        matches!(self.progress(), Progress::Asked | Progress::Open)
    }

    /// hyper has called `poll_flush`.
    pub(in crate::server) fn flushed(&self) {
        if self.progress() == Progress::Unflushed {
            self.set_progress(Progress::Whole);
        }
    }

    /// The service has answered a request. Gives what follows the response's body.
    pub(in crate::server) fn begin<B: Body>(
        self: &Arc<Self>,
        method: &Method,
        version: Version,
        response: &Response<B>,
    ) -> Exchange {
        let (status, body) = (response.status(), response.body());
        let becomes_tunnel = *method == Method::CONNECT && status.is_success();
        if status == StatusCode::SWITCHING_PROTOCOLS || becomes_tunnel {
            let is_websocket = response
                .headers()
                .get(UPGRADE)
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
            let upgrade = if is_websocket { Upgrade::WebSocket } else { Upgrade::Unknown };
            self.upgrade.store(upgrade as u8, Ordering::Relaxed);
        }
        let length = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let length: Option<u64> = length.or_else(|| body.size_hint().exact());
        let can_chunk = version >= Version::HTTP_11 && response.version() >= Version::HTTP_11;
        let delimiter = if length.is_some() || can_chunk { Delimiter::Framing } else { Delimiter::Connection };
        // hyper drops the body of such a response.
        let has_no_body = *method == Method::HEAD
            || becomes_tunnel
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || length == Some(0)
            || body.is_end_stream();
        let delimiter = if has_no_body { Delimiter::Framing } else { delimiter };
        self.delimiter.store(delimiter as u8, Ordering::Relaxed);
        self.set_progress(Progress::Open);
        let mut exchange = Exchange { http1: self.clone(), left: length, is_settled: false };
        if has_no_body {
            exchange.settle();
        }
        exchange
    }
}

/// A response whose body is being sent. Dropped before its end, it is cut.
#[derive(Debug)]
pub(in crate::server) struct Exchange {
    http1: Arc<Http1>,
    /// What is missing of the Content-Length.
    left: Option<u64>,
    is_settled: bool,
}

impl Exchange {
    fn settle(&mut self) {
        if !self.is_settled {
            self.is_settled = true;
            self.http1.set_progress(Progress::Unflushed);
        }
    }

    /// The body has yielded so many bytes.
    fn yielded(&mut self, amount: usize) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(amount as u64);
            if *left == 0 {
                self.settle();
            }
        }
    }

    /// The body has yielded its end.
    fn ended(&mut self) {
        // A body that is shorter than its Content-Length is an error for hyper.
        if self.left.is_none_or(|left| left == 0) {
            self.settle();
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.is_settled {
            self.http1.set_progress(Progress::Cut);
        }
    }
}

pin_project! {
    /// The body of a response, whose end is taken note of.
    pub struct ServedBody<B> {
        #[pin]
        body: B,
        // HTTP/2 has frames that tell.
        exchange: Option<Exchange>,
        span: Span,
        _in_flight: Option<InFlight>,
    }
}

impl<B> ServedBody<B> {
    pub(in crate::server) fn new(body: B, exchange: Option<Exchange>, span: Span, in_flight: Option<InFlight>) -> Self {
        Self { body, exchange, span, _in_flight: in_flight }
    }
}

impl<B: Body> Body for ServedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        use bytes::Buf;
        let mut this = self.project();
        let frame = {
            let _in_span = this.span.enter();
            ready!(this.body.as_mut().poll_frame(cx))
        };
        if let Some(exchange) = this.exchange {
            match &frame {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        exchange.yielded(data.remaining());
                    }
                    if frame.is_trailers() || this.body.is_end_stream() {
                        exchange.ended();
                    }
                }
                None => exchange.ended(),
                Some(Err(_)) => {}
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
