//! The application that every way to serve is tested with.

use std::{convert::Infallible, io};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::{StatusCode, Version, header},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use futures_util::stream;
use hyper_util::rt::TokioIo;
use tls_shutdown::server::{DrainHandle, DrainPhase, ServerStream};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    sync::watch,
};

/// The length of the answer of `/large`, which is more than a client's small buffer holds.
pub const LARGE: usize = 200_000;

/// Routes over HTTP. `/wait` goes on when `released` is set, `/endless` and `/upgrade` when the drain closes the listener. `/events`,
/// `/websocket` and `/call` know nothing of the drain, and never end by themselves.
pub(crate) fn app(drain: DrainHandle, released: watch::Receiver<bool>) -> Router {
    let upgrading = drain.clone();
    Router::new()
        .route("/", get("hello"))
        .route("/logged", get(logged))
        .route("/count", post(async |body: Bytes| body.len().to_string()))
        .route("/wait", get(async move || body([Piece::Text("begun,"), Piece::Released(released.clone())])))
        .route("/endless", get(async move || body([Piece::Text("begun,"), Piece::Draining(drain.clone())])))
        .route("/cut", get(async || body([Piece::Text("begun,"), Piece::Cut])))
        .route("/large", get(async || vec![b'.'; LARGE]))
        .route("/reject", post(async || (StatusCode::PAYLOAD_TOO_LARGE, "too large")))
        .route("/panic", get(async || -> Infallible { panic!("a handler that panics, on purpose") }))
        .route("/upgrade", get(async move |request: Request| upgrade(request, upgrading.clone())))
        .route("/events", get(async || endless("text/event-stream", "data: begun\n\n")))
        .route("/call", post(async || endless("application/grpc", "\0\0\0\0\x05begun")))
        .route("/websocket", any(websocket))
}

fn endless(media_type: &'static str, begin: &'static str) -> Response {
    ([(header::CONTENT_TYPE, media_type)], body([Piece::Text(begin), Piece::Never])).into_response()
}

/// Reads a WebSocket until a Close frame without a reason, and sends nothing.
async fn websocket(request: Request) -> Response {
    let version = request.version();
    tokio::spawn(async move {
        let mut stream = TokioIo::new(hyper::upgrade::on(request).await.expect("an upgrade"));
        stream.read_exact(&mut [0; 8]).await.expect("a Close frame");
        stream.shutdown().await.expect("sent");
    });
    if version == Version::HTTP_2 {
        return StatusCode::OK.into_response();
    }
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "websocket")];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// A piece of a body.
enum Piece {
    Text(&'static str),
    /// It comes when `/wait` may go on.
    Released(watch::Receiver<bool>),
    /// It comes when the drain closes the listener.
    Draining(DrainHandle),
    /// It never comes.
    Never,
    /// An error.
    Cut,
}

fn body(pieces: impl IntoIterator<Item = Piece>) -> Body {
    let pieces: Vec<_> = pieces.into_iter().collect();
    Body::from_stream(stream::unfold(pieces.into_iter(), |mut pieces| async {
        let piece = match pieces.next()? {
            Piece::Text(text) => Ok(text),
            Piece::Released(mut released) => {
                let _ = released.wait_for(|released| *released).await;
                Ok("released")
            }
            Piece::Draining(drain) => {
                drain.reached(DrainPhase::LastRequest).await;
                Ok("farewell")
            }
            Piece::Never => std::future::pending().await,
            Piece::Cut => Err(io::Error::other("cut")),
        };
        Some((piece, pieces))
    }))
}

async fn logged() -> Body {
    tracing::debug!("the service is called");
    Body::from_stream(stream::once(async {
        tracing::debug!("its body is polled");
        Ok::<_, io::Error>("hello")
    }))
}

/// Upgrades to another protocol, which ends when the server drains.
fn upgrade(request: Request, drain: DrainHandle) -> Response {
    tokio::spawn(async move {
        let mut stream = TokioIo::new(hyper::upgrade::on(request).await.expect("an upgrade"));
        drain.reached(DrainPhase::LastRequest).await;
        stream.write_all(b"farewell").await.expect("sent");
        stream.shutdown().await.expect("sent");
    });
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "farewells")];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// A protocol without HTTP: echoes lines until the idle window has expired. After `stay` it keeps the connection until the deadline, and
/// after `reject` it reads nothing more.
pub(crate) async fn echo(mut stream: ServerStream, drain: DrainHandle) -> io::Result<()> {
    let mut over = Box::pin(drain.clone().last_request_over());
    loop {
        let mut line = String::new();
        tokio::select! {
            read = stream.read_line(&mut line) => if read? == 0 { break },
            () = &mut over => break,
        }
        stream.write_all(line.as_bytes()).await?;
        stream.flush().await?;
        match line.trim() {
            "stay" => {
                drain.reached(DrainPhase::Deadline).await;
                break;
            }
            "reject" => break,
            _ => {}
        }
    }
    stream.shutdown().await
}
