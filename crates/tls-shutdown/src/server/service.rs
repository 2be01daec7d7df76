//! [`HttpService`]: the user's service as hyper calls it for one connection.

use std::sync::Arc;

use http_body::Body;
use hyper::{Request, Response, body::Incoming, http::Extensions, service::Service as HyperService};
use hyper_util::service::TowerToHyperService;
use tower_service::Service;

use super::{
    accepted_stream::AcceptedStream,
    connection::ConnectionRecord,
    connection_info::ConnectionInfo,
    drain::{DrainResponse, FirstRequest},
    endless::DrainBody,
    http_stream::MessagesInFlight,
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
    type Response = Response<DrainBody<B>>;
    type Error = S::Error;
    type Future = DrainResponse<<TowerToHyperService<S> as HyperService<Request<Incoming>>>::Future, B>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let (in_flight, number) = self.connection.begin_request();
        if number == 1 {
            request.extensions_mut().insert(FirstRequest(self.info.drain().clone()));
        }
        self.lifetime.on_request(number);
        request.extensions_mut().insert(self.info.clone());
        self.connect_info.iter().for_each(|insert| insert(request.extensions_mut()));
        let (messages, read) = match &self.messages {
            MessagesInFlight::Http1(messages) => {
                lock(messages).on_request();
                // hyper knows whether there is a body.
                let read = if request.body().is_end_stream() { Read::All } else { Read::of(&request) };
                (Some(messages.clone()), read)
            }
            MessagesInFlight::Http2(frames) => {
                let cut = lock(frames).on_request(&request);
                if cut > 0 {
                    self.connection.count_cut(cut);
                }
                (None, Read::All)
            }
        };
        DrainResponse::begin(&self.lifetime, request, read, messages, in_flight, |request| self.service.call(request))
    }
}
