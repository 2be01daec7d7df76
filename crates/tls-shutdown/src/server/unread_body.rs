//! [`AnswerAfterRead`]: an HTTP/1 response says `Connection: close` if the service left a part of the request unread.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::{
    Request, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use pin_project_lite::pin_project;

//= https://www.rfc-editor.org/rfc/rfc9112#section-9.6
//# A sender SHOULD send a Connection header field (Section 7.6.1 of
//# [HTTP]) containing the "close" connection option when it intends to
//# close a connection.
pin_project! {
    /// The answer of a service, which hyper gets after it has tried to read the rest of the request.
    ///
    /// A service may drop the body of a request before it has come whole. hyper notices that only when it reads next. Then it reads what is
    /// there, and if that is not the rest, it closes the connection after the response. It can say `Connection: close` only before it writes
    /// the head. So the response waits for one turn of hyper's task.
    #[derive(Debug)]
    #[project = AnswerProjection]
    pub(super) enum AnswerAfterRead<F, R> {
        // The service has not answered.
        Awaited {
            read: Read,
            #[pin]
            answer: F,
        },
        // The response waits for hyper's read.
        Withheld { response: Option<R> },
    }
}

/// What hyper has read when the service has answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Read {
    /// The whole request: it has no body, or its version is HTTP/2, which ends streams and not connections.
    All,
    /// The head. The service may have dropped the body.
    Head,
}

impl Read {
    /// What is read when the service is given `request`.
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        if request.version() == Version::HTTP_2 {
            return Self::All;
        }
        let headers = request.headers();
        let has_body =
            headers.contains_key(TRANSFER_ENCODING) || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
        if has_body { Self::Head } else { Self::All }
    }
}

impl<F: Future<Output = Result<R, E>>, R, E> Future for AnswerAfterRead<F, R> {
    type Output = Result<R, E>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<R, E>> {
        match self.as_mut().project() {
            AnswerProjection::Awaited { read, answer } => {
                let response = ready!(answer.poll(cx))?;
                if *read == Read::All {
                    return Poll::Ready(Ok(response));
                }
                self.set(Self::Withheld { response: Some(response) });
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            AnswerProjection::Withheld { response } => {
                Poll::Ready(Ok(response.take().expect("a future that has ended is not polled")))
            }
        }
    }
}
