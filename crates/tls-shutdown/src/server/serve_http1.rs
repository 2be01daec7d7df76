//! An HTTP/1 connection from its first request to its end.

use std::{future::Future, pin::Pin, sync::Mutex};

use tokio::task::yield_now;

use super::{
    http_stream::http1::Http1Messages,
    lifetime::{ClientWait, ConnectionLifetime, Flow, until, until_pending},
};
use crate::runtime::lock::lock;

pub(super) async fn serve_http1<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    graceful_shutdown: fn(Pin<&mut C>),
    messages: &Mutex<Http1Messages>,
    lifetime: &ConnectionLifetime,
) -> Flow {
    let end = until(connection.as_mut(), lifetime.until_end(|| lock(messages).wait())).await?;
    if matches!(end, ClientWait::Head { .. }) {
        // hyper would wait for the rest.
        return Flow::Continue(());
    }
    lock(messages).is_last_request = true;
    // An idle client has had its time.
    let mut has_window = end == ClientWait::None;
    loop {
        let answered = lock(messages).answered();
        if has_window {
            until(connection.as_mut(), lifetime.until_window_over()).await?;
        }
        // A request may be in the system's buffer, and Tokio's sockets ask the system again only after a turn of the runtime.
        yield_now().await;
        let not_busy = until_pending(connection.as_mut(), || !lock(messages).is_busy());
        lifetime.within_deadline(not_busy).await?;
        // A client may send a request until a response has told it that the connection closes.
        has_window = lock(messages).answered() > answered;
        if !has_window {
            break;
        }
    }
    graceful_shutdown(connection.as_mut());
    lifetime.within_deadline(until_pending(connection, || false)).await
}
