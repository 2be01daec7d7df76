//! An HTTP/1 connection from its first request to its end.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Mutex,
};

use tokio::{task::yield_now, time::Instant};

use super::{
    http_stream::http1::Http1Messages,
    lifetime::{ClientWait, ConnectionLifetime, Flow, until, until_pending},
};
use crate::runtime::{lock::lock, when_woken::WhenWoken};

pub(super) async fn serve_http1<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    graceful_shutdown: fn(Pin<&mut C>),
    messages: &Mutex<Http1Messages>,
    lifetime: &ConnectionLifetime,
) -> Flow {
    let end = until(connection.as_mut(), pin!(lifetime.until_end(|| lock(messages).wait()))).await?;
    if matches!(end, ClientWait::Head { .. }) {
        // hyper would wait for the rest.
        return Flow::Continue(());
    }
    lock(messages).is_last_request = true;
    // The time of an idle client is over.
    let mut window = (end == ClientWait::None).then(Instant::now);
    loop {
        let answered = lock(messages).answered();
        if let Some(began) = window {
            until(connection.as_mut(), pin!(lifetime.until_window_over(began))).await?;
        }
        // A request may be in the system's buffer, and Tokio's sockets ask the system again only after a turn of the runtime.
        yield_now().await;
        let not_busy = until_pending(connection.as_mut(), || !lock(messages).is_busy());
        tokio::select! {
            biased;
            flow = lifetime.within_deadline(not_busy) => flow?,
            () = WhenWoken::new(lifetime.until_head_timeout(|| lock(messages).wait())) => return Flow::Continue(()),
        }
        // A client may send a request until a response has told it that the connection closes.
        window = lock(messages).answered_since(answered);
        if window.is_none() {
            break;
        }
    }
    graceful_shutdown(connection.as_mut());
    lifetime.within_deadline(until_pending(connection, || false)).await
}
