//! A body that follows a script.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::{HeaderMap, Response};

/// What a body does when it is polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It yields this many bytes, all `b'x'`.
    Data(usize),
    /// It yields trailers.
    Trailers,
    /// It yields nothing in this turn, and wakes its task.
    Turn,
    /// It never yields anything again.
    Stop,
    /// It fails.
    Fail,
    /// It panics.
    Panic,
}

/// Whether a body reports its end together with its last frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnowsItsEnd {
    /// Yes, as `Full` does.
    Yes,
    /// No, as a stream does.
    No,
}

/// A body that follows a script.
#[derive(Debug)]
pub struct ScriptedBody {
    steps: VecDeque<Step>,
    length: Option<u64>,
    knows_its_end: KnowsItsEnd,
}

impl ScriptedBody {
    /// A body of unknown length.
    pub fn new(steps: &[Step]) -> Self {
        Self { steps: steps.iter().copied().collect(), length: None, knows_its_end: KnowsItsEnd::No }
    }

    /// A body of this many bytes, which reports its length.
    pub fn full(length: usize) -> Self {
        Self { steps: [Step::Data(length)].into(), length: Some(length as u64), knows_its_end: KnowsItsEnd::Yes }
    }

    /// Sets whether it reports its end together with its last frame.
    pub fn knows_its_end(mut self, knows_its_end: KnowsItsEnd) -> Self {
        self.knows_its_end = knows_its_end;
        self
    }
}

impl Body for ScriptedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.steps.front() == Some(&Step::Stop) {
            return Poll::Pending;
        }
        match self.steps.pop_front() {
            None => Poll::Ready(None),
            Some(Step::Data(length)) => Poll::Ready(Some(Ok(Frame::data(vec![b'x'; length].into())))),
            Some(Step::Trailers) => Poll::Ready(Some(Ok(Frame::trailers(HeaderMap::new())))),
            Some(Step::Fail) => Poll::Ready(Some(Err(io::Error::other("as scripted")))),
            Some(Step::Panic) => panic!("as scripted"),
            Some(Step::Turn | Step::Stop) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.knows_its_end == KnowsItsEnd::Yes && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

/// A response with `body`.
pub fn answer(body: ScriptedBody) -> Result<Response<ScriptedBody>, Infallible> {
    Ok(Response::new(body))
}
