//! A server drain with clients that do everything wrong, and what both sides know of it.

mod acknowledgements;
mod http2;
mod idle_clients;
mod last_requests;
mod notice;
mod phases;
mod sharing;
#[cfg(target_os = "linux")]
mod tcp_handshakes;

use std::time::Duration;

use hyper::{Request, Response, body::Incoming};
use tls_shutdown::server::{ConnectionInfo, DrainPhase, ServerDrain};
use tls_shutdown_tests::{
    serving::{
        Client, LONG, Running, ScriptedBody,
        Step::{Data, Stop},
        listener,
    },
    time::turns,
};

use crate::routes::Answer;

pub(crate) const SHORT: Duration = Duration::from_millis(200);

pub(crate) async fn routes(request: Request<Incoming>) -> Answer {
    let drain = request.extensions().get::<ConnectionInfo>().expect("known").drain().clone();
    let body = match request.uri().path() {
        "/never" => std::future::pending().await,
        "/stop" => ScriptedBody::new(&[Data(10), Stop]),
        "/told" => {
            drain.reached(DrainPhase::LastRequest).await;
            ScriptedBody::full(10)
        }
        "/upload" => {
            use http_body_util::BodyExt;
            let _ = request.into_body().collect().await;
            ScriptedBody::full(10)
        }
        "/large" => ScriptedBody::full(50_000_000),
        _ => ScriptedBody::full(10),
    };
    Ok(Response::new(body))
}

pub(crate) async fn start(drain: impl FnOnce(ServerDrain) -> ServerDrain) -> Running {
    Running::start_with(listener().await, |server| server, |plan| drain(plan.grace_period(LONG)), routes)
}

/// Connects, and gets an answer.
pub(crate) async fn idle(running: &Running) -> Client {
    let mut client = Client::connect(running.address).await;
    client.ask("/").await;
    client.read_message().await;
    client
}

/// Connects, and sends a request for `path` that the server has read.
pub(crate) async fn asking(running: &Running, path: &str) -> Client {
    let mut client = idle(running).await;
    client.ask(path).await;
    turns(50).await;
    client
}
