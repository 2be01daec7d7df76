//! An HTTP/1 connection from its first request to its end.

use std::{future::Future, pin::Pin, sync::Mutex};

use tokio::task::yield_now;

use super::{
    http_stream::http1::Http1Messages,
    lifetime::{ConnectionLifetime, Flow, until, until_pending},
};
use crate::runtime::lock::lock;

pub(super) async fn serve_http1<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    graceful_shutdown: fn(Pin<&mut C>),
    messages: &Mutex<Http1Messages>,
    lifetime: &ConnectionLifetime,
) -> Flow {
    until(connection.as_mut(), lifetime.until_last_request()).await?;
    lock(messages).is_last_request = true;
    until(connection.as_mut(), lifetime.until_window_over()).await?;
    // A request may be in the system's buffer, and Tokio's sockets ask the system again only after a turn of the runtime.
    yield_now().await;
    // hyper would discard the part of a head that it has. Its header timeout bounds the wait for the rest.
    let no_partial_head = until_pending(connection.as_mut(), || !lock(messages).has_partial_head());
    lifetime.within_deadline(no_partial_head).await?;
    graceful_shutdown(connection.as_mut());
    lifetime.within_deadline(until_pending(connection, || false)).await
}
