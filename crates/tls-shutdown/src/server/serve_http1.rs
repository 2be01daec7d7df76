//! An HTTP/1 connection from its first request to its end.

use std::{pin::Pin, sync::Mutex};

use http_body::Body;
use hyper::{Request, Response, body::Incoming, server::conn::http1::UpgradeableConnection};
use hyper_util::rt::TokioIo;
use tokio::task::yield_now;
use tower_service::Service;

use super::{
    BoxError,
    http_stream::{HttpStream, http1::Http1Messages, lock},
    lifetime::{ConnectionLifetime, Flow, until, until_pending},
    service::HttpService,
};

pub(super) async fn serve_http1<S, B>(
    mut connection: Pin<&mut UpgradeableConnection<TokioIo<HttpStream>, HttpService<S>>>,
    messages: &Mutex<Http1Messages>,
    lifetime: &ConnectionLifetime,
) -> Flow
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    until(connection.as_mut(), lifetime.until_last_request()).await?;
    lock(messages).announce_last_request();
    until(connection.as_mut(), lifetime.until_window_over()).await?;
    // A request may be in the system's buffer, and Tokio's sockets ask the system again only after a turn of the runtime.
    yield_now().await;
    // hyper would discard the part of a head that it has. Its header timeout bounds the wait for the rest.
    let no_partial_head = until_pending(connection.as_mut(), || !lock(messages).has_partial_head());
    lifetime.within_deadline(no_partial_head).await?;
    connection.as_mut().graceful_shutdown();
    lifetime.within_deadline(until_pending(connection, || false)).await
}
