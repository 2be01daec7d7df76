//! [`HttpService`]: the user's service as hyper calls it for one connection.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};
use hyper::{Request, Response, body::Incoming, http::Extensions, service::Service as HyperService};
use hyper_util::service::TowerToHyperService;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    accepted_stream::AcceptedStream,
    connection::ConnectionRecord,
    connection_info::ConnectionInfo,
    drain::{DrainResponse, FirstRequest, announce_close},
    endless::DrainBody,
    http_stream::{
        MessagesInFlight,
        http1::{Http1Messages, ResponseInProgress},
    },
    lifetime::ConnectionLifetime,
    unread_body::Read,
};
use crate::runtime::lock::lock;

/// Inserts a value into the extensions of a request.
pub(super) type Insert = Box<dyn Fn(&mut Extensions) + Send + Sync>;
/// Makes that value for a connection, if it has one.
pub(super) type MakeInsert = Box<dyn Fn(&AcceptedStream, &ConnectionInfo) -> Option<Insert> + Send + Sync>;

#[derive(Clone)]
pub(super) struct HttpService<S> {
    pub(super) service: TowerToHyperService<S>,
    pub(super) connection: Arc<ConnectionRecord>,
    pub(super) info: ConnectionInfo,
    pub(super) connect_info: Arc<[Insert]>,
    pub(super) messages: MessagesInFlight,
    pub(super) lifetime: Arc<ConnectionLifetime>,
}

impl<S, B> HyperService<Request<Incoming>> for HttpService<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone,
    B: Body + 'static,
{
    type Response = Response<ServedBody<B>>;
    type Error = S::Error;
    type Future = Answer<<TowerToHyperService<S> as HyperService<Request<Incoming>>>::Future, B>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let (in_flight, number) = self.connection.begin_request();
        if number == 1 {
            request.extensions_mut().insert(FirstRequest(self.info.drain().clone()));
        }
        self.lifetime.on_request(number);
        request.extensions_mut().insert(self.info.clone());
        self.connect_info.iter().for_each(|insert| insert(request.extensions_mut()));
        let messages = match &self.messages {
            MessagesInFlight::Http1(messages) => {
                lock(messages).on_request();
                Some(messages.clone())
            }
            MessagesInFlight::Http2(frames) => {
                lock(frames).on_request(&request);
                None
            }
        };
        let read = match &self.messages {
            // hyper knows whether there is a body.
            MessagesInFlight::Http1(_) if !request.body().is_end_stream() => Read::of(&request),
            _ => Read::All,
        };
        let response =
            DrainResponse::begin(&self.lifetime, request, read, in_flight, |request| self.service.call(request));
        Answer { messages, response }
    }
}

pin_project! {
    /// The future of [`HttpService`].
    pub(super) struct Answer<F, B> {
        // HTTP/2 has frames that show how far a response is.
        messages: Option<Arc<Mutex<Http1Messages>>>,
        #[pin]
        response: DrainResponse<F, B>,
    }
}

impl<F, B, E> Future for Answer<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body + 'static,
{
    type Output = Result<Response<ServedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (this, mut progress) = (self.project(), None);
        let response = this.response.poll_response(cx, |response, method, version, lifetime| {
            progress = this.messages.take().map(|messages| {
                if lock(&messages).is_last_request || lifetime.is_closing() {
                    announce_close(response, method);
                }
                ResponseInProgress::begin(messages, method, version, response)
            });
        });
        response.map_ok(|response| response.map(|body| ServedBody { body, progress }))
    }
}

pin_project! {
    /// The body of a response, whose end is noted.
    pub(super) struct ServedBody<B> {
        #[pin]
        body: DrainBody<B>,
        progress: Option<ResponseInProgress>,
    }
}

impl<B: Body + 'static> Body for ServedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        if let Some(progress) = this.progress {
            match &frame {
                Some(Ok(frame)) => {
                    progress.on_frame(frame);
                    if this.body.is_end_stream() {
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
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
