//! [`EarlyEnds`]: HTTP/2 requests that end short of their Content-Length while they are answered.
//!
//! Some clients, curl for one, end their upload when they see that the response is an error: with fewer bytes than the Content-Length that
//! they announced. h2 takes that for a malformed request, resets the stream, and discards the part of the response that it has not sent.
//! So END_STREAM of such a request is withheld from h2 while its response makes progress.
//!
//! This can go when h2 leaves the response alone: when `Recv::recv_data` reports a "content-length underflow" to the reader of the body,
//! and does not return `Error::library_reset`. The test `h2_resets_the_response_to_a_request_that_is_cut_short` fails then.

use std::{collections::BTreeMap, io::IoSlice, mem, ops::ControlFlow, time::Duration};

use http_body::Body;
use hyper::{Method, Request};
use tokio::time::Instant;

use crate::http::h2_scanner::{END_STREAM, FrameScanner, RST_STREAM};

/// How long a response may make no progress before h2 sees the end of its request.
pub(super) const PROGRESS_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct EarlyEnds {
    /// The request with a body that h2 has, and that it has not given to the service. The service does not know the stream of a request,
    /// so that h2 may have only one of them.
    awaiting: Option<u32>,
    /// Whether h2 was told that there is nothing to read, and has given nothing to the service since.
    has_yielded: bool,
    /// The streams whose END_STREAM is withheld, and when their response last made progress.
    withheld: BTreeMap<u32, Instant>,
}

/// The body of a request.
#[derive(Default)]
pub(super) struct Upload {
    /// The Content-Length, once the service has the request.
    pub(super) length: Option<u64>,
    received: u64,
    /// Whether the client has ended it.
    pub(super) has_ended: bool,
}

impl Upload {
    /// The body of a request whose head has these flags.
    pub(super) fn after_head(flags: u8) -> Self {
        Self { has_ended: flags & END_STREAM != 0, ..Self::default() }
    }

    pub(super) fn on_data(&mut self, length: usize) {
        self.received += length as u64;
    }

    pub(super) fn is_short(&self) -> bool {
        self.length.is_some_and(|length| self.received < length)
    }
}

impl EarlyEnds {
    /// h2 gives the service all that it has before it reads again: if it gave nothing, it has refused the request.
    pub(super) fn before_read(&mut self) {
        if mem::take(&mut self.has_yielded) {
            self.awaiting = None;
        }
    }

    /// Lets a request with a body pass to h2, unless another one awaits the service.
    pub(super) fn admit(&mut self, stream: u32) -> ControlFlow<()> {
        if self.awaiting.is_some() {
            return ControlFlow::Break(());
        }
        self.awaiting = Some(stream);
        ControlFlow::Continue(())
    }

    /// h2 is told that there is nothing to read, so that it gives the service what it has.
    pub(super) fn yield_to_service(&mut self) {
        self.has_yielded = true;
    }

    /// The service is given a request. Returns its stream, if it has a body or is a tunnel.
    pub(super) fn on_request<B: Body>(&mut self, request: &Request<B>) -> Option<u32> {
        self.has_yielded = false;
        // hyper takes the body of a tunnel for its upgrade.
        self.awaiting.take_if(|_| !request.body().is_end_stream() || request.method() == Method::CONNECT)
    }

    pub(super) fn withhold(&mut self, stream: u32) {
        self.withheld.insert(stream, Instant::now());
    }

    /// A part of the stream's response was sent.
    pub(super) fn on_progress(&mut self, stream: u32) {
        if let Some(last) = self.withheld.get_mut(&stream) {
            *last = Instant::now();
        }
    }

    /// The stream was reset.
    pub(super) fn forget(&mut self, stream: u32) {
        self.withheld.remove(&stream);
    }

    /// When the next end has to be given to h2.
    pub(super) fn next_due(&self) -> Option<Instant> {
        Some(*self.withheld.values().min()? + PROGRESS_TIMEOUT)
    }

    /// Takes a stream whose end is due.
    pub(super) fn take_due(&mut self) -> Option<u32> {
        let (&stream, &last) = self.withheld.iter().min_by_key(|(_, last)| **last)?;
        if last + PROGRESS_TIMEOUT > Instant::now() {
            return None;
        }
        self.withheld.remove(&stream)?;
        Some(stream)
    }
}

/// Returns how many of these bytes of h2 go into one TLS record: those before a RST_STREAM that is not the first frame.
///
/// h2 sends RST_STREAM behind the response to a request whose rest is not wanted. curl 7.88 loses the response if both come in one
/// record. Debian 12 has that curl: this can go in July 2028, when its support ends.
pub(super) fn length_before_reset(outbound: &FrameScanner, buffers: &[IoSlice<'_>]) -> usize {
    let mut scanner = outbound.clone();
    let (mut length, mut frame) = (0, 0);
    for buffer in buffers {
        let mut rest = &buffer[..];
        while !rest.is_empty() {
            if scanner.is_at_head() {
                frame = length + buffer.len() - rest.len();
            }
            let Some(head) = scanner.head(&mut rest) else { break };
            if head.kind == RST_STREAM && frame > 0 {
                return frame;
            }
            scanner.skip_payload(&mut rest);
        }
        length += buffer.len();
    }
    length
}
