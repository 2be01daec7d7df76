//! gRPC calls.

use std::convert::Infallible;

use axum::http::{Uri, uri::PathAndQuery};
use bytes::{Buf, BufMut, Bytes};
use http_body_util::{BodyExt, Empty};
use hyper::{
    HeaderMap, Request, Response,
    body::Incoming,
    client::conn::http2::{self, SendRequest},
    header::CONTENT_TYPE,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tls_shutdown::server::{DrainPhase, EndlessResponse, Server, ServerDrain};
use tls_shutdown_tests::{
    serving::{BodyDriver, Client, DrivenBody, LONG, Running, listener},
    soon,
};
use tokio::sync::mpsc;
use tonic::{
    Code, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use super::unchanged;

/// A message of three bytes.
const MESSAGE: &[u8] = &[0, 0, 0, 0, 3, b'a', b'b', b'c'];

/// A server of calls, and a client. A call to `/unanswered` is never answered.
struct Calls {
    running: Running,
    requests: SendRequest<Empty<Bytes>>,
    answers: mpsc::UnboundedReceiver<BodyDriver>,
}

impl Calls {
    async fn start(server: impl FnOnce(Server) -> Server) -> Self {
        Self::start_with_window(server, 65_535).await
    }

    async fn start_with_window(server: impl FnOnce(Server) -> Server, window: u32) -> Self {
        let (sender, answers) = mpsc::unbounded_channel();
        let answer = move |request: Request<Incoming>| {
            let sender = sender.clone();
            async move {
                if request.uri().path() == "/unanswered" {
                    return std::future::pending().await;
                }
                let (driver, body) = DrivenBody::new();
                sender.send(driver).expect("a test");
                let mut response = Response::new(body);
                let media_type = request.headers().get(CONTENT_TYPE).expect("a media type").clone();
                response.headers_mut().insert(CONTENT_TYPE, media_type);
                Ok::<_, Infallible>(response)
            }
        };
        let drain = |drain: ServerDrain| drain.grace_period(LONG);
        let running = Running::start_with(listener().await, server, drain, answer);
        let io = TokioIo::new(Client::connect_http2(running.address).await.stream);
        let mut client = http2::Builder::new(TokioExecutor::new());
        client.initial_stream_window_size(window);
        let (requests, connection) = soon(client.handshake(io)).await.expect("a connection");
        tokio::spawn(connection);
        Self { running, requests, answers }
    }

    /// Sends a request.
    fn call(
        &mut self,
        path: &str,
        media_type: &str,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + use<> {
        let request = Request::post(format!("https://localhost{path}")).header(CONTENT_TYPE, media_type);
        self.requests.send_request(request.body(Empty::new()).expect("a request"))
    }

    /// Sends a request that is answered. Returns both ends of the answer.
    async fn open(&mut self, media_type: &str) -> (BodyDriver, Incoming) {
        let response = soon(self.call("/", media_type)).await.expect("a response");
        (soon(self.answers.recv()).await.expect("a call"), response.into_body())
    }

    /// Begins the drain, and moves it to its deadline.
    async fn reach_deadline(&mut self) {
        self.running.signal();
        soon(self.running.drain.reached(DrainPhase::LastRequest)).await;
        self.running.force();
    }
}

/// The data, and the status in the trailers.
async fn outcome(body: Incoming) -> hyper::Result<(Bytes, Option<Status>)> {
    let body = soon(body.collect()).await?;
    let status = body.trailers().map(status);
    Ok((body.to_bytes(), status))
}

fn status(headers: &HeaderMap) -> Status {
    Status::from_header_map(headers).expect("a status")
}

#[tokio::test]
async fn a_call_that_is_open_at_the_deadline_is_unavailable() {
    let mut calls = Calls::start(unchanged).await;
    let mut open = Vec::new();
    for media_type in ["application/grpc", "application/grpc+proto", "Application/gRPC ; charset=utf-8"] {
        let (driver, body) = calls.open(media_type).await;
        driver.send(MESSAGE);
        open.push((driver, body));
    }
    let (unanswered, other) = (calls.call("/unanswered", "application/grpc"), calls.call("/", "text/plain"));
    let mut other = soon(other).await.expect("a response").into_body();
    calls.reach_deadline().await;
    for (driver, body) in open {
        let (data, status) = outcome(body).await.expect("no reset");
        assert_eq!((&data[..], status.map(|status| status.code())), (MESSAGE, Some(Code::Unavailable)));
        soon(driver.dropped()).await;
    }
    let response = soon(unanswered).await.expect("an answer");
    assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc");
    assert_eq!(status(response.headers()).code(), Code::Unavailable);
    assert_eq!(outcome(response.into_body()).await.expect("no reset").0, "");
    soon(other.frame()).await.expect("an end").expect_err("cut");
    let end = calls.running.end().await;
    assert_eq!((end.requests(), end.responses_cut()), (5, 1), "{end}");
    let report = calls.running.report().await;
    assert!(report.calls_ended() == 4 && report.to_string().contains("\n  calls ended          4\n"), "{report}");
}

#[tokio::test]
async fn a_call_that_ends_in_time_has_its_own_status() {
    let mut calls = Calls::start(unchanged).await;
    let (driver, body) = calls.open("application/grpc").await;
    driver.send(MESSAGE);
    calls.running.signal();
    soon(calls.running.drain.reached(DrainPhase::LastRequest)).await;
    driver.send(MESSAGE);
    drop(driver);
    let (data, status) = outcome(body).await.expect("no reset");
    assert!(data == MESSAGE.repeat(2) && status.is_none());
    assert_eq!(calls.running.end().await.responses_cut(), 0);
}

#[tokio::test]
async fn calls_may_be_left_to_the_application() {
    let left = |server: Server| server.leave_to_application(EndlessResponse::Grpc);
    let mut calls = Calls::start(left).await;
    let (_driver, body) = calls.open("application/grpc").await;
    let unanswered = calls.call("/unanswered", "application/grpc");
    let (_web, web_body) = calls.open("application/grpc-web").await;
    calls.reach_deadline().await;
    outcome(body).await.expect_err("cut");
    soon(unanswered).await.expect_err("cut");
    outcome(web_body).await.expect_err("cut");
    assert_eq!(calls.running.end().await.responses_cut(), 3);
}

/// The rest of a message that the client does not let through is lost, and no status may hide that.
#[tokio::test]
async fn a_call_whose_message_is_held_back_is_cut_at_the_deadline() {
    let mut calls = Calls::start_with_window(unchanged, 10).await;
    let (driver, body) = calls.open("application/grpc").await;
    driver.send([MESSAGE, MESSAGE].concat());
    calls.reach_deadline().await;
    soon(calls.running.drain.reached(DrainPhase::Exit)).await;
    outcome(body).await.expect_err("cut");
    assert_eq!(calls.running.end().await.responses_cut(), 1);
}

/// Messages are bytes.
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

#[tokio::test]
async fn a_tonic_client_learns_that_the_server_is_unavailable() {
    let mut calls = Calls::start(unchanged).await;
    let io = TokioIo::new(Client::connect_http2(calls.running.address).await.stream);
    let (requests, connection) = soon(http2::handshake(TokioExecutor::new(), io)).await.expect("a connection");
    tokio::spawn(connection);
    let service = tower::service_fn(move |request: Request<tonic::body::Body>| {
        let mut requests = requests.clone();
        async move { requests.send_request(request).await }
    });
    let mut client = Grpc::with_origin(service, Uri::from_static("https://localhost"));
    let unanswered = tokio::spawn({
        let mut client = client.clone();
        async move {
            client.ready().await.expect("a connection");
            client.unary(tonic::Request::new(Bytes::new()), PathAndQuery::from_static("/unanswered"), Plain).await
        }
    });
    soon(client.ready()).await.expect("a connection");
    let messages = client.server_streaming(tonic::Request::new(Bytes::new()), PathAndQuery::from_static("/"), Plain);
    let mut messages = soon(messages).await.expect("messages").into_inner();
    let driver = soon(calls.answers.recv()).await.expect("a call");
    driver.send(MESSAGE);
    assert_eq!(soon(messages.message()).await.expect("no error").as_deref(), Some(&b"abc"[..]));
    while calls.running.drain.in_flight() < 2 {
        tokio::task::yield_now().await;
    }
    calls.reach_deadline().await;
    assert_eq!(soon(messages.message()).await.expect_err("a status").code(), Code::Unavailable);
    let status = soon(unanswered).await.expect("no panic").expect_err("a status");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the server is shutting down"));
}

/// The deadline comes while messages pass, and some of them are in front of the status.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_messages_pass_at_the_deadline_is_unavailable() {
    const UNDER_WAY: usize = 20;
    for _ in 0..50 {
        let mut calls = Calls::start(unchanged).await;
        let (driver, mut body) = calls.open("application/grpc").await;
        (0..UNDER_WAY).for_each(|_| driver.send(MESSAGE));
        soon(body.frame()).await.expect("a message").expect("no error");
        let receiving = tokio::spawn(async move {
            while let Some(frame) = body.frame().await {
                match frame.expect("no reset").into_trailers() {
                    Ok(trailers) => return status(&trailers).code(),
                    Err(_) => driver.send(MESSAGE),
                }
            }
            panic!("no status");
        });
        calls.reach_deadline().await;
        assert_eq!(soon(receiving).await.expect("no panic"), Code::Unavailable);
    }
}
