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
    pub(super) struct AnswerAfterRead<F, R> {
        read: Read,
        response: Option<R>,
        #[pin]
        answer: F,
    }
}

/// What hyper has read when the service has answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Read {
    /// The whole request: it has no body, or its version is HTTP/2, which ends streams and not connections.
    All,
    /// The head. The service may have dropped the body.
    Head,
}

impl<F, R> AnswerAfterRead<F, R> {
    /// Calls the service.
    pub(super) fn begin<B>(request: Request<B>, call: impl FnOnce(Request<B>) -> F) -> Self {
        let headers = request.headers();
        let has_body =
            headers.contains_key(TRANSFER_ENCODING) || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
        let read = if has_body && request.version() < Version::HTTP_2 { Read::Head } else { Read::All };
        Self { read, response: None, answer: call(request) }
    }
}

impl<F: Future<Output = Result<R, E>>, R, E> Future for AnswerAfterRead<F, R> {
    type Output = Result<R, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<R, E>> {
        let this = self.project();
        let response = match this.response.take() {
            Some(response) => response,
            None => ready!(this.answer.poll(cx))?,
        };
        match this.read {
            Read::All => Poll::Ready(Ok(response)),
            Read::Head => {
                *this.read = Read::All;
                *this.response = Some(response);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}
