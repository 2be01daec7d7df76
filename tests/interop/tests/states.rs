//! A signal meets connections in every state there is. Each ends as `--last-request` and `--grace` say, its client sees that it
//! was meant to end, and the server tells the same.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use rustix::process::Signal;
use serde_json::json;
use tls_shutdown_interop::{
    Build, LOOPBACK, Server,
    client::{Client, Last, Response, connect, get, halting, handshake, receive_all, receive_until, send},
    http2::{Http2, Pings, answer, last_streams},
    within,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::Instant,
};

const CONNECTIONS: usize = 10;
/// What the servers here are started with.
const ARGUMENTS: [&str; 4] = ["--last-request", "1s", "--grace", "10s"];
/// When a window that nobody uses is over, on a busy machine too.
const WINDOW: RangeInclusive<Duration> = Duration::from_millis(900)..=Duration::from_secs(3);
/// The grace time, less a reserve: what ends in it was not cut.
const UNCUT: Duration = Duration::from_secs(8);

/// A server, and the connections to it when the signal comes.
async fn start<C>(open: impl AsyncFn(&Server) -> C) -> (Server, Vec<C>) {
    let server = Server::serve(&ARGUMENTS).await;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(open(&server).await);
    }
    (server, connections)
}

/// Signals the server, and waits until the drain is under way.
async fn terminate(server: &Server) -> Instant {
    let signalled = Instant::now();
    server.signal(Signal::TERM);
    server.stops_listening().await;
    signalled
}

/// The server exits before the deadline, tells each connection once, and sums them up correctly.
async fn exits(server: Server, signalled: Instant, ending: &str) {
    let mut events = server.exit().await;
    assert!(signalled.elapsed() < UNCUT, "{:?}", signalled.elapsed());
    let drained = events.pop().expect("an event");
    assert_eq!(drained["endings"], json!({ ending: CONNECTIONS }), "{drained}");
    let told = events.iter().filter(|event| event["ending"] == ending).count();
    assert_eq!((told, events.len()), (CONNECTIONS, CONNECTIONS), "{events:?}");
}

/// Receives up to the server's close_notify, and answers it.
async fn closes<T: AsyncRead + AsyncWrite + Unpin>(client: &mut Client<T>) -> Vec<u8> {
    let (received, last) = receive_all(client).await;
    assert_eq!(last, Last::CloseNotify, "{}", String::from_utf8_lossy(&received));
    within(client.shutdown()).await.expect("the server still listens");
    received
}

/// The answer, which is announced as the last, and close_notify.
async fn answers<T: AsyncRead + AsyncWrite + Unpin>(client: &mut Client<T>) -> Vec<u8> {
    let received = closes(client).await;
    let response = Response::parse(&received).expect("a head");
    assert!(response.head.starts_with("http/1.1 200") && response.is_last(), "{}", response.head);
    response.body
}

/// The answer to a last request.
async fn serves<T: AsyncRead + AsyncWrite + Unpin>(client: &mut Client<T>) {
    get(client, "/bytes/10").await;
    assert_eq!(answers(client).await, b"..........");
}

/// Nothing but a close_notify, when the window for a last request is over.
async fn closes_after_the_window(clients: &mut [Client], signalled: Instant) {
    for client in clients {
        assert_eq!(closes(client).await, b"");
        assert!(WINDOW.contains(&signalled.elapsed()), "{:?}", signalled.elapsed());
    }
}

/// Nothing but the end of TCP, when the window is over.
async fn ends_after_the_window(connections: &mut [TcpStream], signalled: Instant) {
    for tcp in connections {
        assert_eq!(within(tcp.read_to_end(&mut Vec::new())).await.expect("no reset"), 0);
        assert!(WINDOW.contains(&signalled.elapsed()), "{:?}", signalled.elapsed());
    }
}

async fn tcp(server: &Server) -> TcpStream {
    TcpStream::connect(server.address).await.expect("it listens")
}

async fn unused(server: &Server) -> Client {
    connect(server.address).await
}

/// A connection that has been of use.
async fn idle(server: &Server) -> Client {
    let mut client = connect(server.address).await;
    get(&mut client, "/bytes/10").await;
    receive_until(&mut client, "..........").await;
    client
}

/// Serves one more connection to its end, so that the server has accepted all before it.
async fn accepts(server: &mut Server) {
    let mut client = connect(server.address).await;
    within(client.shutdown()).await.expect("the server listens");
    assert_eq!(receive_all(&mut client).await.1, Last::CloseNotify);
    assert_eq!(server.closed().await["ending"], "complete");
}

#[tokio::test]
async fn connected_by_the_system_alone() {
    let server = Server::serve(&ARGUMENTS).await;
    server.halt().await;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(tcp(&server).await);
    }
    let signalled = Instant::now();
    server.signal(Signal::TERM);
    server.signal(Signal::CONT);
    server.stops_listening().await;
    for tcp in connections {
        serves(&mut handshake(tcp, "http/1.1").await.expect("it was accepted")).await;
    }
    exits(server, signalled, "complete").await;
}

#[tokio::test]
async fn tcp_only() {
    let (mut server, connections) = start(tcp).await;
    accepts(&mut server).await;
    let signalled = terminate(&server).await;
    for tcp in connections {
        serves(&mut handshake(tcp, "http/1.1").await.expect("it is served")).await;
    }
    exits(server, signalled, "complete").await;
}

#[tokio::test]
async fn tcp_only_and_silent() {
    let (mut server, mut connections) = start(tcp).await;
    accepts(&mut server).await;
    let signalled = terminate(&server).await;
    ends_after_the_window(&mut connections, signalled).await;
    exits(server, signalled, "not_started").await;
}

#[tokio::test]
async fn in_the_handshake() {
    let (go_on, told) = watch::channel(());
    let (mut server, connections) = start(tcp).await;
    // Less than any ClientHello.
    let transports = connections.into_iter().map(|tcp| halting(tcp, 100, told.clone()));
    let handshakes: Vec<_> = transports.map(|transport| tokio::spawn(handshake(transport, "http/1.1"))).collect();
    accepts(&mut server).await;
    let signalled = terminate(&server).await;
    go_on.send_replace(());
    for handshake in handshakes {
        serves(&mut handshake.await.expect("no panic").expect("it is served")).await;
    }
    exits(server, signalled, "complete").await;
}

#[tokio::test]
async fn in_the_handshake_and_silent() {
    // A record of 512 bytes, which begins with a ClientHello.
    const BEGINNING: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let (mut server, mut connections) = start(async |server: &Server| {
        let mut tcp = tcp(server).await;
        tcp.write_all(BEGINNING).await.expect("it is sent");
        tcp
    })
    .await;
    accepts(&mut server).await;
    let signalled = terminate(&server).await;
    ends_after_the_window(&mut connections, signalled).await;
    exits(server, signalled, "not_started").await;
}

#[tokio::test]
async fn handshake_done_and_no_byte_yet() {
    let (server, mut connections) = start(unused).await;
    let signalled = terminate(&server).await;
    for client in &mut connections {
        serves(client).await;
    }
    exits(server, signalled, "complete").await;
}

#[tokio::test]
async fn handshake_done_and_silent() {
    let (server, mut connections) = start(unused).await;
    let signalled = terminate(&server).await;
    closes_after_the_window(&mut connections, signalled).await;
    exits(server, signalled, "complete").await;
}

#[tokio::test]
async fn idle_with_a_last_request() {
    let (server, mut connections) = start(idle).await;
    let signalled = terminate(&server).await;
    for client in &mut connections {
        serves(client).await;
    }
    exits(server, signalled, "complete").await;
}

#[tokio::test]
async fn idle_and_silent() {
    let (server, mut connections) = start(idle).await;
    let signalled = terminate(&server).await;
    closes_after_the_window(&mut connections, signalled).await;
    exits(server, signalled, "complete").await;
}

/// The window is for connections without a request: half a head has the time that any head has.
#[tokio::test]
async fn half_a_request_head() {
    let (mut server, mut connections) = start(async |server: &Server| {
        let mut client = idle(server).await;
        send(&mut client, "GET /bytes/10 HTTP/1.1\r\nHost: local").await;
        client
    })
    .await;
    accepts(&mut server).await;
    let mut silent = [unused(&server).await];
    let signalled = terminate(&server).await;
    closes_after_the_window(&mut silent, signalled).await;
    assert_eq!(server.closed().await["ending"], "complete");
    for client in &mut connections {
        send(client, "host\r\n\r\n").await;
        assert_eq!(answers(client).await, b"..........");
    }
    let events = server.exit().await;
    let drained = events.last().expect("an event");
    assert_eq!(drained["endings"], json!({ "complete": CONNECTIONS + 1 }), "{drained}");
}

#[tokio::test]
async fn a_first_request_in_the_buffers_of_the_system() {
    served_from_the_buffers_of_the_system(unused).await;
}

#[tokio::test]
async fn a_request_in_the_buffers_of_the_system() {
    served_from_the_buffers_of_the_system(idle).await;
}

/// It is left to chance whether the server sees the signal or the request first, and so whether it announces the end.
async fn served_from_the_buffers_of_the_system(open: impl AsyncFn(&Server) -> Client) {
    let (server, mut connections) = start(open).await;
    server.halt().await;
    for client in &mut connections {
        get(client, "/bytes/10").await;
    }
    let signalled = Instant::now();
    server.signal(Signal::TERM);
    server.signal(Signal::CONT);
    for client in &mut connections {
        let response = closes(client).await;
        assert_eq!(Response::parse(&response).expect("a head").body, b"..........");
    }
    exits(server, signalled, "complete").await;
}

#[tokio::test]
async fn a_response_without_its_head() {
    let (server, mut connections) = start(async |server: &Server| {
        let mut client = unused(server).await;
        get(&mut client, "/delay/2000").await;
        client
    })
    .await;
    let signalled = terminate(&server).await;
    for client in &mut connections {
        assert_eq!(answers(client).await, b"after 2000 ms\n");
    }
    exits(server, signalled, "complete").await;
}

#[tokio::test]
async fn a_response_in_progress() {
    let (server, mut connections) = start(async |server: &Server| {
        let mut client = unused(server).await;
        get(&mut client, "/drip/20/100").await;
        receive_until(&mut client, "drip").await;
        client
    })
    .await;
    let signalled = terminate(&server).await;
    for client in &mut connections {
        let rest = closes(client).await;
        assert!(rest.ends_with(b"drip\n\r\n0\r\n\r\n"), "{}", String::from_utf8_lossy(&rest));
    }
    exits(server, signalled, "complete").await;
}

#[tokio::test]
async fn an_upload_in_progress() {
    let (server, mut connections) = start(async |server: &Server| {
        let mut client = unused(server).await;
        send(&mut client, "POST /count HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n").await;
        send(&mut client, vec![0; 100_000]).await;
        client
    })
    .await;
    let mut silent = [unused(&server).await];
    let signalled = terminate(&server).await;
    closes_after_the_window(&mut silent, signalled).await;
    for client in &mut connections {
        send(client, vec![0; 100_000]).await;
        assert_eq!(answers(client).await, b"200000\n");
    }
    let events = server.exit().await;
    let drained = events.last().expect("an event");
    assert_eq!(drained["endings"], json!({ "complete": CONNECTIONS + 1 }), "{drained}");
}

#[tokio::test]
async fn server_sent_events() {
    let (server, mut connections) = start(async |server: &Server| {
        let mut client = unused(server).await;
        get(&mut client, "/events").await;
        let head = receive_until(&mut client, "\r\n\r\n").await;
        let head = Response::parse(&head).expect("a head").head;
        assert!(head.starts_with("http/1.1 200") && head.contains("text/event-stream"), "{head}");
        client
    })
    .await;
    let signalled = terminate(&server).await;
    for client in &mut connections {
        let rest = closes(client).await;
        assert!(rest.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&rest));
    }
    exits(server, signalled, "complete").await;
}

#[tokio::test]
async fn web_sockets() {
    // Each frame of a client has a mask (RFC 6455), which is 0 here.
    const HELLO: &[u8] = b"\x81\x85\0\0\0\0hello";
    const ECHO: &[u8] = b"\x81\x05hello";
    const GOING_AWAY: &[u8] = &[0x88, 2, 0x03, 0xe9];
    const GOING_AWAY_TOO: &[u8] = &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];
    let (server, mut connections) = start(async |server: &Server| {
        let mut client = unused(server).await;
        let upgrade = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        send(&mut client, upgrade).await;
        let head = receive_until(&mut client, "\r\n\r\n").await;
        let head = String::from_utf8_lossy(&head);
        assert!(head.starts_with("HTTP/1.1 101") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        send(&mut client, HELLO).await;
        let mut echo = [0; ECHO.len()];
        within(client.read_exact(&mut echo)).await.expect("an echo");
        assert_eq!(echo, ECHO);
        client
    })
    .await;
    let signalled = terminate(&server).await;
    for client in &mut connections {
        let mut farewell = [0; 2];
        within(client.read_exact(&mut farewell)).await.expect("a farewell");
        let mut reason = vec![0; farewell[1].into()];
        within(client.read_exact(&mut reason)).await.expect("a farewell");
        assert_eq!((farewell[0], &reason[..2]), (GOING_AWAY[0], &GOING_AWAY[2..]));
        send(client, GOING_AWAY_TOO).await;
        assert_eq!(closes(client).await, b"");
    }
    exits(server, signalled, "complete").await;
}

/// Two GOAWAYs: the first stops new streams, the second tells which were the last.
fn says_goodbye(last: &[u32], last_stream: u32) {
    assert_eq!(last, [u32::MAX >> 1, last_stream]);
}

#[tokio::test]
async fn http2_idle() {
    let (server, mut connections) = start(async |server: &Server| {
        let mut http2 = Http2::connect(server.address, Pings::Answered).await;
        http2.get(1, "/bytes/10").await;
        assert_eq!(http2.answer(1).await, Some(b"..........".to_vec()));
        http2
    })
    .await;
    let signalled = terminate(&server).await;
    for http2 in &mut connections {
        let frames = http2.receive_all().await;
        says_goodbye(&last_streams(&frames), 1);
    }
    exits(server, signalled, "complete").await;
}

#[tokio::test]
async fn http2_with_streams() {
    let (server, mut connections) = start(async |server: &Server| {
        let mut http2 = Http2::connect(server.address, Pings::Answered).await;
        http2.get(1, "/delay/2000").await;
        http2.get(3, "/drip/20/100").await;
        http2
    })
    .await;
    let signalled = terminate(&server).await;
    for http2 in &mut connections {
        let frames = http2.receive_all().await;
        assert_eq!(answer(&frames, 1).as_deref(), Some(&b"after 2000 ms\n"[..]), "{frames:?}");
        assert_eq!(answer(&frames, 3), Some(b"drip\n".repeat(20)), "{frames:?}");
        says_goodbye(&last_streams(&frames), 3);
    }
    exits(server, signalled, "complete").await;
}

#[tokio::test]
async fn http2_that_never_answers_a_ping() {
    let (server, mut connections) = start(async |server: &Server| {
        let mut http2 = Http2::connect(server.address, Pings::Ignored).await;
        http2.get(1, "/delay/2000").await;
        http2
    })
    .await;
    let signalled = terminate(&server).await;
    for http2 in &mut connections {
        let frames = http2.receive_all().await;
        assert_eq!(answer(&frames, 1).as_deref(), Some(&b"after 2000 ms\n"[..]), "{frames:?}");
        assert!(!last_streams(&frames).is_empty(), "{frames:?}");
    }
    exits(server, signalled, "complete").await;
}

#[tokio::test]
async fn http2_without_preface() {
    let (server, mut connections) =
        start(async |server: &Server| handshake(tcp(server).await, "h2").await.expect("a handshake")).await;
    let signalled = terminate(&server).await;
    for client in &mut connections {
        // What the server said first, SETTINGS and WINDOW_UPDATE, then that it has processed nothing.
        let frames = closes(client).await;
        assert!(frames.ends_with(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), "{frames:?}");
        assert!(WINDOW.contains(&signalled.elapsed()), "{:?}", signalled.elapsed());
    }
    exits(server, signalled, "complete").await;
}

#[tokio::test]
async fn lingering_after_an_early_answer() {
    const UPLOAD: usize = 10_000_000;
    let (server, mut connections) = start(async |server: &Server| {
        let mut client = unused(server).await;
        let head = format!("POST /reject/300000 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {UPLOAD}\r\n\r\n");
        send(&mut client, head).await;
        send(&mut client, vec![0; UPLOAD / 10]).await;
        // The answer has begun.
        let mut first = [0];
        within(client.read_exact(&mut first)).await.expect("an answer");
        client
    })
    .await;
    let signalled = terminate(&server).await;
    for client in &mut connections {
        send(client, vec![0; UPLOAD - UPLOAD / 10]).await;
        let rest = closes(client).await;
        let response = Response::parse(&rest).expect("a head");
        assert!(response.head.starts_with("ttp/1.1 413") && response.is_last(), "{}", response.head);
        assert_eq!(response.body.len(), 300_000);
    }
    // A connection may have been told before the signal: its answer was on its way then.
    let mut events = server.exit().await;
    assert!(signalled.elapsed() < UNCUT, "{:?}", signalled.elapsed());
    events.pop().expect("an event");
    let endings = events.iter().map(|event| event["ending"].as_str().expect("an ending"));
    let count = endings.fold(BTreeMap::new(), |mut count, ending| {
        *count.entry(ending).or_insert(0) += 1;
        count
    });
    assert_eq!(count.values().sum::<usize>(), CONNECTIONS, "{count:?}");
    assert!(count.keys().all(|ending| ["complete", "sent", "reset"].contains(ending)), "{count:?}");
}

#[tokio::test]
async fn the_bare_server_leaves_no_time_for_a_last_request() {
    let server = Server::start(Build::Tests.bare_server(LOOPBACK)).await;
    let tcp = tcp(&server).await;
    let idle = idle(&server).await;
    let signalled = terminate(&server).await;
    for mut client in [idle, handshake(tcp, "http/1.1").await.expect("a handshake")] {
        assert_eq!(receive_all(&mut client).await.0, b"");
        assert!(signalled.elapsed() < *WINDOW.start(), "{:?}", signalled.elapsed());
    }
}
