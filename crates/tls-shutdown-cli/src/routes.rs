//! What `serve` answers.

use std::{convert::Infallible, io, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderValue, StatusCode, Version, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tokio::{sync::watch, task::yield_now, time::sleep};

use crate::serve::Phase;

const HELP: &str = "\
GET  /               this text
GET  /health         200 ready, 503 draining
GET  /bytes/{n}      n bytes, with Content-Length
GET  /delay/{ms}     an answer after ms milliseconds
GET  /drip/{n}/{ms}  n chunks, one each ms milliseconds
GET  /close/{n}      n bytes that end with the connection
GET  /abort/{n}      the same, but it fails after n bytes
POST /echo           the request's body
POST /count          the length of the request's body
POST /reject/{n}     413 with n bytes at once, the request's body unread
";

/// One chunk of made-up content.
const CHUNK: &[u8] = &[b'.'; 16 * 1024];

pub(crate) fn router(phase: watch::Receiver<Phase>) -> Router {
    Router::new()
        .route("/", get(HELP))
        .route("/health", get(health))
        .route("/bytes/{n}", get(bytes))
        .route("/delay/{ms}", get(delay))
        .route("/drip/{n}/{ms}", get(drip))
        .route("/close/{n}", get(close))
        .route("/abort/{n}", get(abort))
        .route("/echo", post(echo))
        .route("/count", post(count))
        .route("/reject/{n}", post(reject))
        .layer(middleware::from_fn_with_state(phase.clone(), announce_close))
        .with_state(phase)
}

/// Tells HTTP/1 clients of a draining server not to send another request on this connection. HTTP/2 has GOAWAY for that.
async fn announce_close(State(phase): State<watch::Receiver<Phase>>, request: Request, next: Next) -> Response {
    let version = request.version();
    let mut response = next.run(request).await;
    if *phase.borrow() >= Phase::LastRequest && version < Version::HTTP_2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn health(State(phase): State<watch::Receiver<Phase>>) -> (StatusCode, &'static str) {
    match *phase.borrow() {
        Phase::Serving => (StatusCode::OK, "ready\n"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

async fn bytes(Path(length): Path<u64>) -> Response {
    ([(header::CONTENT_LENGTH, length)], Body::from_stream(content(length))).into_response()
}

async fn delay(Path(milliseconds): Path<u64>) -> String {
    sleep(Duration::from_millis(milliseconds)).await;
    format!("after {milliseconds} ms\n")
}

async fn drip(Path((chunks, milliseconds)): Path<(u64, u64)>) -> Body {
    Body::from_stream(stream::unfold(chunks, move |left| async move {
        let left = left.checked_sub(1)?;
        sleep(Duration::from_millis(milliseconds)).await;
        Some((Ok::<_, Infallible>("drip\n"), left))
    }))
}

async fn close(Path(length): Path<u64>, version: Version) -> Response {
    close_delimited(version, content(length))
}

async fn abort(Path(length): Path<u64>, version: Version) -> Response {
    let failure = stream::once(async {
        // One turn for hyper to write out what it has.
        yield_now().await;
        Err(io::Error::other("this response fails on purpose"))
    });
    close_delimited(version, content(length).map_err(|never| match never {}).chain(failure))
}

async fn echo(body: Body) -> Body {
    body
}

async fn count(body: Body) -> Result<String, (StatusCode, String)> {
    let count = |length, chunk: Bytes| async move { Ok(length + chunk.len() as u64) };
    match body.into_data_stream().try_fold(0, count).await {
        Ok(length) => Ok(format!("{length}\n")),
        Err(error) => Err((StatusCode::BAD_REQUEST, format!("the request's body broke off: {error}\n"))),
    }
}

async fn reject(Path(length): Path<u64>, version: Version) -> Response {
    let mut response = (StatusCode::PAYLOAD_TOO_LARGE, bytes(Path(length)).await).into_response();
    if version < Version::HTTP_2 {
        // The rest of the body is not read, so there can be no next request.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// In HTTP/1, a response without length or chunks: its end is the connection's end. HTTP/2 frames it like any other.
fn close_delimited<E>(version: Version, content: impl Stream<Item = Result<Bytes, E>> + Send + 'static) -> Response
where
    E: Into<axum::BoxError> + 'static,
{
    let mut response = Body::from_stream(content).into_response();
    if version < Version::HTTP_2 {
        // hyper would use chunks in HTTP/1.1, which an answer in HTTP/1.0 cannot have.
        *response.version_mut() = Version::HTTP_10;
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn content(length: u64) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(length, |left| async move {
        let amount = left.min(CHUNK.len() as u64);
        (amount > 0).then(|| (Ok(Bytes::from_static(&CHUNK[..amount as usize])), left - amount))
    })
}
