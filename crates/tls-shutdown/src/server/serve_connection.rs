//! One connection: which protocol it speaks, and hyper's connection over it.

use std::{error::Error, future::Future, ops::ControlFlow, pin::Pin, sync::Arc, time::Duration};

use http_body::Body;
use hyper::{
    Request, Response,
    body::Incoming,
    server::conn::{http1, http2},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::sync::oneshot;
use tower_service::Service;
use tracing::Span;

use super::{
    accepted_stream::AcceptedStream,
    connection_info::ConnectionInfo,
    drain::DrainHandle,
    endless::kind::LeftToApplication,
    http_stream::{HttpStream, MessagesInFlight},
    lifetime::{ConnectionLifetime, Flow, Limits},
    negotiated::Protocol,
    serve_http1::serve_http1,
    serve_http2::{HyperExecutor, serve_http2, speaks_http1},
    service::{HttpService, MakeInsert},
};
use crate::http::BoxError;

/// How connections are served.
pub(super) struct ConnectionOptions {
    pub(super) http1: http1::Builder,
    pub(super) http2: http2::Builder<HyperExecutor>,
    pub(super) connect_info: Vec<MakeInsert>,
    pub(super) limits: Limits,
    pub(super) stall_timeout: Duration,
    pub(super) left_to_application: LeftToApplication,
}

/// What drives a connection. Boxed, so that a connection takes no memory for what it does not speak.
type Serving = Pin<Box<dyn Future<Output = Flow> + Send>>;

/// Serves a connection. The drop of its [`HttpStream`] ends it truthfully on every path.
pub(super) fn serve_connection<S, B>(
    stream: AcceptedStream,
    service: S,
    options: Arc<ConnectionOptions>,
    drain: DrainHandle,
) -> impl Future<Output = ()> + Send
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let peer = stream.peer();
    // Boxed, since a connection keeps the memory of its task until it ends, and this only for its beginning.
    let begin = Box::pin(begin(stream, service, options, drain));
    async move {
        // A closing that fails is an ending of the connection, and is logged and reported as such: a client may have left without
        // close_notify.
        if let Flow::Break(Err(error)) = begin.await.await
            && !error.is_shutdown()
        {
            tracing::debug!(%peer, error = &error as &dyn Error, "the HTTP connection failed");
        }
    }
}

/// Finds out which protocol a connection speaks.
async fn begin<S, B>(stream: AcceptedStream, service: S, options: Arc<ConnectionOptions>, drain: DrainHandle) -> Serving
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let lifetime = ConnectionLifetime::new(options.limits, drain, stream.connection().config.clone());
    let lifetime = Arc::new(lifetime.leaving(options.left_to_application));
    let info = ConnectionInfo::new(&stream, lifetime.clone());
    let connection = stream.connection().clone();
    let connect_info = options.connect_info.iter().filter_map(|make| make(&stream, &info)).collect();
    let facts = info.clone();
    let messages = match facts.protocol() {
        Some(b"h2") => MessagesInFlight::Http2(Arc::default()),
        _ => MessagesInFlight::Http1(Arc::default()),
    };
    let mut stream = HttpStream::new(stream, &messages, options.stall_timeout);
    let service = TowerToHyperService::new(service);
    let mut service = HttpService { service, connection, info, connect_info, messages, lifetime: lifetime.clone() };
    match facts.protocol() {
        Some(protocol) => {
            record_protocol(&String::from_utf8_lossy(protocol));
            if protocol == b"h2" && speaks_http1(&mut stream, &lifetime).await {
                service.connection.set_protocol(Protocol::Http1);
                service.messages = MessagesInFlight::Http1(Arc::default());
                stream.change_protocol(&service.messages, options.stall_timeout);
            }
            options.serve(stream, service)
        }
        // Most clients without ALPN speak HTTP/1, so that its timeouts are those of the first bytes, too.
        None => {
            let (stream, http2) = stream.unless_http2();
            let http1 = options.serve(stream, service.clone());
            Box::pin(async move {
                match unless_ready(http2, http1).await {
                    ControlFlow::Break(flow) => flow,
                    ControlFlow::Continue(stream) => {
                        record_protocol("h2");
                        service.connection.set_protocol(Protocol::Http2);
                        service.messages = MessagesInFlight::Http2(Arc::default());
                        let stream = HttpStream::new(stream, &service.messages, options.stall_timeout);
                        options.serve(stream, service).await
                    }
                }
            })
        }
    }
}

impl ConnectionOptions {
    /// Serves a connection whose protocol is known.
    fn serve<S, B>(&self, stream: HttpStream, service: HttpService<S>) -> Serving
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let (io, lifetime) = (TokioIo::new(stream), service.lifetime.clone());
        match service.messages.clone() {
            MessagesInFlight::Http1(messages) => {
                let mut connection = Box::pin(self.http1.serve_connection(io, service).with_upgrades());
                let graceful_shutdown = http1::UpgradeableConnection::graceful_shutdown;
                Box::pin(async move { serve_http1(connection.as_mut(), graceful_shutdown, &messages, &lifetime).await })
            }
            MessagesInFlight::Http2(frames) => {
                let mut connection = Box::pin(self.http2.serve_connection(io, service));
                let graceful_shutdown = http2::Connection::graceful_shutdown;
                Box::pin(async move { serve_http2(connection.as_mut(), graceful_shutdown, &frames, &lifetime).await })
            }
        }
    }
}

/// Serves HTTP/1, until the client turns out to speak HTTP/2.
async fn unless_ready<T>(http2: oneshot::Receiver<T>, http1: impl Future<Output = Flow>) -> ControlFlow<Flow, T> {
    tokio::select! {
        biased;
        // The sender is dropped if the client speaks HTTP/1.
        Ok(stream) = http2 => ControlFlow::Continue(stream),
        flow = http1 => ControlFlow::Break(flow),
    }
}

fn record_protocol(protocol: &str) {
    Span::current().record("protocol", protocol);
}
