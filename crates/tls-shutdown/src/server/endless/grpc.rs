//! gRPC calls: which requests they are, and the status with which a server ends them.

use std::task::{Context, Poll};

use hyper::{
    HeaderMap, Request, Version,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};

use super::wait::Wait;
use crate::server::drain::{DrainHandle, DrainPhase};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// The number of the status.
const UNAVAILABLE: HeaderValue = HeaderValue::from_static("14");

const MEDIA_TYPE: &[u8] = b"application/grpc";

/// Whether a message is one of gRPC: `application/grpc` in any case (RFC 9110 section 8.3.1), also with a suffix such as `+proto`. gRPC-Web
/// has a media type of its own, and its status is in the body.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).map_or(&[][..], |value| value.as_bytes());
    value.split_at_checked(MEDIA_TYPE.len()).is_some_and(|(name, rest)| {
        name.eq_ignore_ascii_case(MEDIA_TYPE) && matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'))
    })
}

pub(super) fn is_grpc_call<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_2 && is_grpc(request.headers())
}

/// A call in progress.
#[derive(Debug)]
pub(crate) struct GrpcCall {
    drain: DrainHandle,
    /// Made at the first wait, so that a call that is answered at once costs nothing.
    deadline: Option<Wait>,
}

impl GrpcCall {
    pub(super) fn begin(drain: &DrainHandle) -> Self {
        Self { drain: drain.clone(), deadline: None }
    }

    /// Whether the deadline has come.
    pub(super) fn is_out_of_time(&self) -> bool {
        self.drain.phase() >= DrainPhase::Deadline
    }

    /// The server gives the call a status in the place of the service. Returns the trailers that say so.
    pub(super) fn end(&self) -> HeaderMap {
        self.drain.count(|tally| tally.calls_ended += 1);
        let mut status = HeaderMap::with_capacity(2);
        status.insert(GRPC_STATUS, UNAVAILABLE);
        status.insert(GRPC_MESSAGE, HeaderValue::from_static("the server is shutting down"));
        status
    }

    /// Waits for the deadline.
    pub(super) fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.deadline.get_or_insert_with(|| Wait::new(self.drain.reached(DrainPhase::Deadline))).poll(cx)
    }
}
