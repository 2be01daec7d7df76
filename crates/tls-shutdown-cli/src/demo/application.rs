//! The application that both sides serve.

use std::{convert::Infallible, io, time::Duration};

use axum::{
    Router,
    body::Body,
    http::StatusCode,
    response::sse::{Event, Sse},
    routing::{get, post},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::time::sleep;

/// The time between two events.
const EVENT_INTERVAL: Duration = Duration::from_millis(20);
/// The time until a response fails. Its first part is long sent then.
const FAILURE_DELAY: Duration = Duration::from_millis(100);
/// What is sent of a response that fails.
const FIRST_PART: Bytes = Bytes::from_static(&[b'.'; 10_000]);

pub(crate) fn router() -> Router {
    Router::new()
        .route("/count", post(async |body: Bytes| body.len().to_string()))
        .route("/reject", post(async || (StatusCode::PAYLOAD_TOO_LARGE, "send less")))
        .route("/fail", get(fail))
        .route("/events", get(events))
}

/// A response of unknown length whose source fails.
async fn fail() -> Body {
    let failure = stream::once(async {
        sleep(FAILURE_DELAY).await;
        Err(io::Error::other("this response fails on purpose"))
    });
    Body::from_stream(stream::once(async { Ok(FIRST_PART) }).chain(failure))
}

/// Events without an end.
async fn events() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    Sse::new(stream::repeat(()).then(|()| async {
        sleep(EVENT_INTERVAL).await;
        Ok(Event::default().data("tick"))
    }))
}
