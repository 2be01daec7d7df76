//! The routes of `serve`.

use std::{convert::Infallible, io, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{
        Path, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::{HeaderMap, HeaderValue, StatusCode, Version, header},
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
    routing::{any, get, post},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tls_shutdown::server::DrainHandle;
use tokio::{task::yield_now, time::sleep};

/// The time between two events of `/events`.
const EVENT_INTERVAL: Duration = Duration::from_secs(1);

const HELP: &str = "\
GET  /               this text
GET  /ready          200 if ready, 503 if draining; /health is the same
GET  /bytes/{n}      n bytes, with Content-Length
GET  /delay/{ms}     a response after ms milliseconds
GET  /drip/{n}/{ms}  n chunks, one every ms milliseconds
GET  /events         server-sent events, one per second, until the server drains
GET  /ws             a WebSocket that echoes messages until the server drains
GET  /close/{n}      n bytes without Content-Length; in HTTP/1, the end of the connection ends them
GET  /abort/{n}      as /close/{n}, but the response fails after n bytes
POST /echo           the request body
POST /count          the length of the request body
POST /reject/{n}     413 with n bytes; the request body is not read
";

/// A chunk of the content of `/bytes` and similar routes.
const CHUNK: &[u8] = &[b'.'; 16 * 1024];

pub(crate) fn router(drain: DrainHandle) -> Router {
    Router::new()
        .route("/", get(HELP))
        .route_service("/ready", drain.readiness())
        .route_service("/health", drain.readiness())
        .route("/bytes/{n}", get(bytes))
        .route("/delay/{ms}", get(delay))
        .route("/drip/{n}/{ms}", get(drip))
        .route("/events", get(events))
        .route("/ws", any(websocket))
        .route("/close/{n}", get(close))
        .route("/abort/{n}", get(abort))
        .route("/echo", post(echo))
        .route("/count", post(count))
        .route("/reject/{n}", post(reject))
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

/// Counts, and continues where a client's last stream has ended. The server ends the stream when it drains.
async fn events(headers: HeaderMap) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse::<u64>().ok());
    let counted = stream::unfold(last.map_or(0, |last| last.wrapping_add(1)), |count| async move {
        sleep(EVENT_INTERVAL).await;
        let event = Event::default().id(count.to_string()).data(count.to_string());
        Some((Ok(event), count.wrapping_add(1)))
    });
    // It sends the head of the response, so that the client knows that the stream is open.
    let first = stream::once(async { Ok(Event::default().comment("listening")) });
    Sse::new(first.chain(counted))
}

async fn websocket(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(echo_messages)
}

/// Echoes until the client closes, which it also does when the server drains and has sent a Close frame.
async fn echo_messages(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        match message {
            // After the server's Close frame, this fails.
            Message::Text(_) | Message::Binary(_) => drop(socket.send(message).await),
            // The socket answers these itself.
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => {}
        }
    }
}

async fn close(Path(length): Path<u64>, version: Version) -> Response {
    close_delimited(version, content(length))
}

async fn abort(Path(length): Path<u64>, version: Version) -> Response {
    let failure = stream::once(async {
        // Lets hyper write the content before the failure.
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
        Err(error) => Err((StatusCode::BAD_REQUEST, format!("the request body ended early: {error}\n"))),
    }
}

async fn reject(Path(length): Path<u64>, version: Version) -> Response {
    let mut response = (StatusCode::PAYLOAD_TOO_LARGE, bytes(Path(length)).await).into_response();
    if version < Version::HTTP_2 {
        // The unread body stands before the next request, so there cannot be one.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Returns a response that the end of the connection ends, without Content-Length or chunks. In HTTP/2, it is a response like any other.
fn close_delimited<E>(version: Version, content: impl Stream<Item = Result<Bytes, E>> + Send + 'static) -> Response
where
    E: Into<axum::BoxError> + 'static,
{
    let mut response = Body::from_stream(content).into_response();
    if version < Version::HTTP_2 {
        // For a response in HTTP/1.1, hyper would use chunks. HTTP/1.0 has none.
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
