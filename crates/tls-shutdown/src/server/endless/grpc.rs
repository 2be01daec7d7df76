//! gRPC calls: which requests they are, and the status with which a server ends them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

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

/// The trailers of a call that the server has no more time for.
pub(super) fn status_unavailable() -> HeaderMap {
    let mut status = HeaderMap::with_capacity(2);
    status.insert(GRPC_STATUS, UNAVAILABLE);
    status.insert(GRPC_MESSAGE, HeaderValue::from_static("the server is shutting down"));
    status
}

/// The calls of a connection, or of all connections under a layer.
#[derive(Clone, Debug, Default)]
pub(in crate::server) struct GrpcCalls(Arc<AtomicBool>);

impl GrpcCalls {
    /// A request has come.
    pub(super) fn begin<B>(&self, request: &Request<B>, drain: &DrainHandle) -> Option<GrpcCall> {
        let is_call = request.version() == Version::HTTP_2 && is_grpc(request.headers());
        is_call.then(|| {
            self.0.store(true, Ordering::Relaxed);
            GrpcCall { drain: drain.clone(), deadline: None }
        })
    }

    /// Whether there was a call.
    pub(in crate::server) fn have_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A call in progress.
#[derive(Debug)]
pub(crate) struct GrpcCall {
    drain: DrainHandle,
    /// Made at the first wait, so that a call that is answered at once costs nothing.
    deadline: Option<Wait>,
}

impl GrpcCall {
    /// Whether the deadline has come.
    pub(super) fn is_out_of_time(&self) -> bool {
        self.drain.phase() >= DrainPhase::Deadline
    }

    /// The server gives the call a status in the place of the service.
    pub(super) fn end(&self) -> HeaderMap {
        self.drain.count(|tally| tally.calls_ended += 1);
        status_unavailable()
    }

    /// Waits for the deadline.
    pub(super) fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline.get_or_insert_with(|| {
            let drain = self.drain.clone();
            Wait::new(async move { drain.reached(DrainPhase::Deadline).await })
        });
        deadline.poll(cx)
    }
}
