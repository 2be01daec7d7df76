//! [`DrainBody`]: the body of a response, which ends with the server if it has no end of its own.

use std::{
    any::Any,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::{
    HeaderMap, Response,
    header::{CONTENT_TYPE, HeaderValue},
};
use pin_project_lite::pin_project;

use super::{
    event_stream::EventScanner,
    grpc::{GrpcCall, is_grpc},
    wait::Wait,
};
use crate::server::{drain::InFlight, http_stream::http1::ResponseInProgress};

pin_project! {
    /// The response body of a [`DrainService`](super::super::DrainService). The request is in flight until it is dropped.
    #[derive(Debug)]
    pub struct DrainBody<B> {
        // `None` if the service had no time to answer.
        #[pin]
        body: Option<B>,
        end: End,
        // Of an HTTP/1 connection of a `Server`.
        pub(in crate::server) progress: Option<ResponseInProgress>,
        pub(in crate::server) in_flight: Option<InFlight>,
    }
}

/// What ends the body, beside itself.
#[derive(Debug)]
enum End {
    /// Nothing.
    Service,
    /// The last request, between two events.
    LastRequest { wait: Option<Wait>, events: EventScanner },
    /// The deadline of the drain.
    Deadline(GrpcCall),
    /// It has been ended here.
    Ended,
}

type NextFrame<B> = Option<Result<Frame<<B as Body>::Data>, <B as Body>::Error>>;

impl<B: Body + 'static> DrainBody<B> {
    fn new(body: Option<B>, end: End) -> Self {
        Self { body, end, progress: None, in_flight: None }
    }

    /// A body that ends by itself.
    pub(super) fn of_service(body: B) -> Self {
        Self::new(Some(body), End::Service)
    }

    /// The body of an event stream.
    pub(super) fn of_events(body: B, last_request: Wait) -> Self {
        let end = End::LastRequest { wait: Some(last_request), events: EventScanner::default() };
        Self::new(Some(body), end)
    }

    /// The body of the response to a gRPC call.
    pub(super) fn of_call(response: Response<B>, call: GrpcCall) -> Response<Self> {
        // A response of known length is not endless, and hyper announces the length.
        let has_status = is_grpc(response.headers()) && response.body().size_hint().exact().is_none();
        let end = if has_status { End::Deadline(call) } else { End::Service };
        response.map(|body| Self::new(Some(body), end))
    }

    /// The response to a gRPC call that the service has not answered at the deadline: its status alone.
    pub(in crate::server) fn of_status(status: HeaderMap) -> Response<Self> {
        let mut response = Response::new(Self::new(None, End::Ended));
        *response.headers_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        response
    }

    /// The next frame, unless the body ends here.
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<NextFrame<B>> {
        let this = self.project();
        let Some(body) = this.body.as_pin_mut() else { return Poll::Ready(None) };
        match this.end {
            End::Service => body.poll_frame(cx),
            End::Ended => Poll::Ready(None),
            End::LastRequest { wait, events } => {
                if wait.as_mut().is_some_and(|wait| wait.poll(cx).is_ready()) {
                    *wait = None;
                }
                let is_last = wait.is_none();
                let mut frame = match body.poll_frame(cx) {
                    Poll::Ready(frame) => frame,
                    Poll::Pending if is_last && events.is_between() => None,
                    Poll::Pending => return Poll::Pending,
                };
                if let Some(Ok(frame)) = &mut frame
                    && let Some(data) = frame.data_mut()
                    && let Some(data) = (data as &mut dyn Any).downcast_mut::<Bytes>()
                {
                    let between = events.scan(data);
                    if is_last && let Some(between) = between {
                        data.truncate(between);
                        *this.end = End::Ended;
                    }
                }
                Poll::Ready(frame)
            }
            End::Deadline(call) => {
                if !call.is_out_of_time() {
                    match body.poll_frame(cx) {
                        Poll::Pending => ready!(call.poll_deadline(cx)),
                        frame => return frame,
                    }
                }
                let status = call.end();
                *this.end = End::Ended;
                Poll::Ready(Some(Ok(Frame::trailers(status))))
            }
        }
    }
}

impl<B: Body + 'static> Body for DrainBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(self.as_mut().poll_next(cx));
        let is_end = self.progress.is_some() && self.is_end_stream();
        if let Some(progress) = self.project().progress {
            match &frame {
                Some(Ok(frame)) => {
                    progress.on_frame(frame);
                    if is_end {
                        progress.on_end();
                    }
                }
                None => progress.on_end(),
                Some(Err(_)) => {}
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.end, End::Ended) || self.body.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.end, &self.body) {
            (End::Service, Some(body)) => body.size_hint(),
            (_, None) => SizeHint::with_exact(0),
            _ => SizeHint::new(),
        }
    }
}
