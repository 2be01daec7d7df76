//! WebSockets.

mod slow_sides;

use std::{convert::Infallible, io, time::Duration};

use http_body_util::Empty;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    ext::Protocol as ExtendedConnect,
    header::{CONNECTION, UPGRADE},
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use tls_shutdown::server::{DrainPhase, EndlessResponse, Server};
use tls_shutdown_tests::{
    serving::{Running, ScriptedBody, listener},
    soon,
    time::{pass_time, turns},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
};

use super::{Http1, Once, Protocol, patient, send, unchanged};

/// A Close frame of the server with code 1001.
const GOING_AWAY: &[u8] = &[0x88, 2, 0x03, 0xe9];
/// The client's answer, masked with zeros.
const CLIENT_CLOSE: &[u8] = &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];
/// A Ping of the client, masked with zeros.
const CLIENT_PING: [u8; 6] = [0x89, 0x80, 0, 0, 0, 0];

const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A frame of the server.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = match payload.len() {
        length @ ..126 => vec![length as u8],
        length @ ..0x1_0000 => [&[126][..], &(length as u16).to_be_bytes()].concat(),
        length => [&[127][..], &(length as u64).to_be_bytes()].concat(),
    };
    [&[first], &length[..], payload].concat()
}

type Stream = TokioIo<Upgraded>;

/// A WebSocket, and the server that it belongs to.
struct WebSocket {
    running: Running,
    /// The application's side.
    application: Stream,
    client: Stream,
}

/// The request of a handshake.
fn handshake(protocol: Protocol) -> Request<Empty<bytes::Bytes>> {
    let request = match protocol {
        Http1 => Request::get("/").header(CONNECTION, "upgrade").header(UPGRADE, "WebSocket"),
        _ => Request::builder()
            .method(Method::CONNECT)
            .uri("https://localhost/")
            .extension(ExtendedConnect::from_static("websocket")),
    };
    request.body(Empty::new()).expect("a request")
}

/// A handshake that offers protocols in these lines.
fn offering(lines: &[&str]) -> Request<Empty<bytes::Bytes>> {
    let request = Request::get("/").header(CONNECTION, "upgrade");
    let request = lines.iter().fold(request, |request, line| request.header(UPGRADE, *line));
    request.body(Empty::new()).expect("a request")
}

/// The response that accepts one.
fn accepted(protocol: Protocol, chosen: &str) -> Response<ScriptedBody> {
    let mut response = Response::new(ScriptedBody::new(&[]));
    if protocol == Http1 {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(CONNECTION, "upgrade".parse().expect("a value"));
        response.headers_mut().insert(UPGRADE, chosen.parse().expect("a value"));
    }
    response
}

fn extended_connect(server: Server) -> Server {
    server.http2(|http2| http2.enable_connect_protocol())
}

impl WebSocket {
    async fn open(protocol: Protocol) -> Self {
        Self::open_with(protocol, unchanged).await
    }

    async fn open_with(protocol: Protocol, server: impl FnOnce(Server) -> Server) -> Self {
        Self::open_by(protocol, handshake(protocol), "websocket", server).await
    }

    /// Sends `request`. Over HTTP/1, the application chooses `chosen`.
    async fn open_by(
        protocol: Protocol,
        request: Request<Empty<bytes::Bytes>>,
        chosen: &'static str,
        server: impl FnOnce(Server) -> Server,
    ) -> Self {
        Self::open_sending(protocol, chosen, server, async |running| send(running, protocol, request).await).await
    }

    /// Sends the request with `send`.
    async fn open_sending(
        protocol: Protocol,
        chosen: &'static str,
        server: impl FnOnce(Server) -> Server,
        send: impl AsyncFnOnce(&Running) -> Response<Incoming>,
    ) -> Self {
        let (sender, upgraded) = oneshot::channel();
        let sender = Once::new(sender);
        let answer = move |request: Request<Incoming>| {
            let sender = sender.take();
            tokio::spawn(async move {
                let upgraded = hyper::upgrade::on(request).await.expect("an upgrade");
                sender.send(TokioIo::new(upgraded)).expect("a test");
            });
            std::future::ready(Ok::<_, Infallible>(accepted(protocol, chosen)))
        };
        let server = |default| server(extended_connect(default));
        let running = Running::start_with(listener().await, server, patient, answer);
        let response = send(&running).await;
        let client = TokioIo::new(soon(hyper::upgrade::on(response)).await.expect("an upgrade"));
        Self { running, application: soon(upgraded).await.expect("an application"), client }
    }

    /// Begins the drain, and waits until everybody has seen that.
    async fn drain(&mut self) {
        self.running.signal();
        soon(self.running.drain.reached(DrainPhase::LastRequest)).await;
        turns(200).await;
    }

    /// The application sends `bytes`.
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.application.write_all(bytes.as_ref())).await.expect("sent");
        soon(self.application.flush()).await.expect("sent");
    }

    /// The client receives `expected`.
    async fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let mut received = vec![0; expected.as_ref().len()];
        soon(self.client.read_exact(&mut received)).await.expect("more");
        assert_eq!(received, expected.as_ref());
    }

    /// The application sends data, and cannot.
    async fn cannot_send(&mut self, data: impl AsRef<[u8]>) {
        let error = soon(self.application.write_all(data.as_ref())).await.expect_err("closed");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    /// The client answers the Close frame, the application reads that, and both end.
    async fn end(mut self) {
        self.client.write_all(CLIENT_CLOSE).await.expect("sent");
        self.client.flush().await.expect("sent");
        let mut received = vec![0; CLIENT_CLOSE.len()];
        soon(self.application.read_exact(&mut received)).await.expect("more");
        assert_eq!(received, CLIENT_CLOSE);
        self.only_the_end_is_left().await;
    }

    /// The application leaves, the client has received everything before, and the connection ends well.
    async fn only_the_end_is_left(self) {
        let Self { mut running, application, mut client } = self;
        drop(application);
        let mut rest = Vec::new();
        soon(client.read_to_end(&mut rest)).await.expect("a clean end");
        assert_eq!(rest, b"");
        drop(client);
        assert_eq!(running.end().await.responses_cut(), 0);
        assert_eq!(running.report().await.left(), 0);
    }
}

#[tokio::test]
async fn a_websocket_is_closed_with_1001() {
    for protocol in Protocol::BOTH {
        let mut socket = WebSocket::open(protocol).await;
        let hello = frame(FIN | TEXT, b"hello");
        socket.send(&hello).await;
        socket.expect(&hello).await;
        // The application does nothing now, not even read.
        socket.drain().await;
        socket.expect(GOING_AWAY).await;
        socket.cannot_send(&hello).await;
        socket.end().await;
    }
}

/// A client may offer other protocols before it, in the same line or in another one.
#[tokio::test]
async fn a_websocket_may_be_one_of_several_protocols() {
    for lines in [&["other/1.0, WebSocket"][..], &["other", "websocket"]] {
        let mut socket = WebSocket::open_by(Http1, offering(lines), "websocket", unchanged).await;
        socket.drain().await;
        socket.expect(GOING_AWAY).await;
        socket.end().await;
    }
}

/// The server writes nothing into it, and takes nothing in it for a frame.
#[tokio::test]
async fn another_protocol_is_left_to_the_application_also_if_the_client_has_offered_both() {
    let mut socket = WebSocket::open_by(Http1, offering(&["websocket, other"]), "other", unchanged).await;
    socket.drain().await;
    for said in [&b"hello"[..], &frame(FIN | CLOSE, &[]), b"goodbye"] {
        socket.send(said).await;
        socket.expect(said).await;
    }
    soon(socket.application.shutdown()).await.expect("sent");
    socket.only_the_end_is_left().await;
}

/// Libraries answer a Ping and a Close by themselves, while the application reads.
#[tokio::test]
async fn control_frames_of_the_application_are_no_error_after_the_close_frame() {
    for protocol in Protocol::BOTH {
        let mut socket = WebSocket::open(protocol).await;
        socket.drain().await;
        socket.expect(GOING_AWAY).await;
        let pong = frame(FIN | PONG, b"are you there?");
        socket.send(&pong).await;
        // In two pieces, the second together with data.
        socket.send(&pong[..3]).await;
        let rest = [&pong[3..], &frame(FIN | TEXT, b"hello")].concat();
        assert_eq!(soon(socket.application.write(&rest)).await.expect("sent"), pong.len() - 3);
        socket.cannot_send(frame(FIN | TEXT, b"hello")).await;
        socket.send(frame(FIN | CLOSE, &[0x03, 0xe9])).await;
        socket.end().await;
    }
}

//= https://www.rfc-editor.org/rfc/rfc6455#section-5.5.1
//# The application MUST NOT send any more data frames after sending a
//# Close frame.
#[tokio::test]
async fn a_message_that_is_half_sent_is_completed() {
    let (begin, ping) = (frame(TEXT, &[b'a'; 70_000]), frame(FIN | PING, b"?"));
    let (middle, end) = (frame(CONTINUATION, &[b'b'; 200]), frame(FIN | CONTINUATION, b"c"));
    let message = [&begin[..], &ping, &middle, &ping, &end].concat();
    let next = frame(FIN | TEXT, b"the next message");
    // In the head of the first frame, in its payload, and in each of the others.
    let pieces = [begin.len(), ping.len(), middle.len(), ping.len(), end.len()];
    let starts = pieces.iter().scan(0, |sum, length| Some(std::mem::replace(sum, *sum + length)));
    let cuts: Vec<usize> = starts.flat_map(|start| [start + 1, start + 3]).filter(|cut| *cut < message.len()).collect();
    for protocol in Protocol::BOTH {
        for cut in &cuts {
            let mut socket = WebSocket::open(protocol).await;
            socket.send(&message[..*cut]).await;
            socket.expect(&message[..*cut]).await;
            socket.drain().await;
            // The rest comes together with the beginning of another message.
            let rest = [&message[*cut..], &next].concat();
            let (reader, mut writer) = tokio::io::split(socket.application);
            let writer = tokio::spawn(async move {
                let error = writer.write_all(&rest).await.expect_err("closed");
                (writer, error.kind())
            });
            let mut received = vec![0; message.len() - cut + GOING_AWAY.len()];
            soon(socket.client.read_exact(&mut received)).await.expect("more");
            assert!(received == [&message[*cut..], GOING_AWAY].concat(), "{protocol:?}, cut after {cut}");
            let (writer, error) = soon(writer).await.expect("no panic");
            assert_eq!(error, io::ErrorKind::BrokenPipe);
            socket.application = reader.unsplit(writer);
            socket.end().await;
        }
    }
}

#[tokio::test]
async fn an_application_that_closes_first_is_left_alone() {
    for protocol in Protocol::BOTH {
        let mut socket = WebSocket::open(protocol).await;
        let close = frame(FIN | CLOSE, &[0x03, 0xe8]);
        socket.send(&close).await;
        socket.drain().await;
        socket.expect(&close).await;
        socket.only_the_end_is_left().await;
    }
}

/// It closes after the message that was half-sent at the last request.
#[tokio::test]
async fn an_application_that_closes_in_time_is_left_alone() {
    for protocol in Protocol::BOTH {
        let mut socket = WebSocket::open(protocol).await;
        let (begin, close) = (frame(TEXT, b"a"), frame(FIN | CLOSE, &[0x03, 0xe8]));
        socket.send(&begin).await;
        socket.drain().await;
        socket.send(&close).await;
        socket.expect([begin, close].concat()).await;
        socket.only_the_end_is_left().await;
    }
}

#[tokio::test]
async fn a_websocket_may_be_left_to_the_application() {
    for protocol in Protocol::BOTH {
        let left = |server: Server| server.leave_to_application(EndlessResponse::WebSocket);
        let mut socket = WebSocket::open_with(protocol, left).await;
        socket.drain().await;
        let hello = frame(FIN | TEXT, b"hello");
        socket.send(&hello).await;
        socket.expect(&hello).await;
        socket.only_the_end_is_left().await;
    }
}

#[tokio::test]
async fn a_websocket_ends_with_an_old_connection() {
    for protocol in Protocol::BOTH {
        let aged = |server: Server| server.max_connection_age(Duration::from_secs(10));
        let mut socket = WebSocket::open_with(protocol, aged).await;
        pass_time(Duration::from_secs(12)).await;
        socket.expect(GOING_AWAY).await;
        let hello = frame(FIN | TEXT, b"hello");
        socket.cannot_send(&hello).await;
        let WebSocket { mut running, application, client } = socket;
        drop((application, client));
        assert_eq!(running.end().await.responses_cut(), 0, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_refused_websocket_is_no_websocket() {
    for protocol in Protocol::BOTH {
        let (sender, refused) = oneshot::channel();
        let sender = Once::new(sender);
        let answer = move |request: Request<Incoming>| {
            let sender = sender.take();
            tokio::spawn(async move { sender.send(hyper::upgrade::on(request).await.is_err()) });
            let mut response = Response::new(ScriptedBody::full(10));
            *response.status_mut() = StatusCode::FORBIDDEN;
            std::future::ready(Ok::<_, Infallible>(response))
        };
        let mut running = Running::start_with(listener().await, extended_connect, patient, answer);
        let response = send(&running, protocol, handshake(protocol)).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{protocol:?}");
        drop(response);
        running.signal();
        assert!(soon(refused).await.expect("an answer"), "{protocol:?}");
        assert_eq!(running.report().await.upgraded(), 0, "{protocol:?}");
    }
}

/// It is the last exchange of its connection, and has its time.
#[tokio::test]
async fn a_websocket_may_be_the_last_exchange_of_its_connection() {
    for protocol in Protocol::BOTH {
        let mut socket = WebSocket::open_with(protocol, |server| server.max_requests(1)).await;
        turns(200).await;
        let hello = frame(FIN | TEXT, b"hello");
        socket.send(&hello).await;
        socket.expect(&hello).await;
        socket.drain().await;
        socket.expect(GOING_AWAY).await;
        socket.end().await;
    }
}
