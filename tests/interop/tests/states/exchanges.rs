//! A request is being answered.

use std::{collections::BTreeMap, time::Duration};

use tls_shutdown_interop::{
    client::{Last, Response, get, receive_all, receive_until, send},
    within,
};
use tokio::io::AsyncReadExt;

use crate::{
    CONNECTIONS, UNCUT, WINDOW, answers, closes, count_ends, exit, exits, outlast, report_ends,
    sockets::{Client, EACH, Server, Socket},
    start, terminate, unused,
};

states! {
    over EACH: [
        a_response_without_its_head,
        a_response_in_progress,
        a_response_in_progress_that_ends_with_the_connection,
        an_upload_in_progress,
        server_sent_events,
        web_sockets,
        lingering_after_an_early_answer,
    ]
    over WITH_RESET: [a_response_that_ends_with_the_connection_and_outlasts_the_grace]
}

async fn a_response_without_its_head() {
    let (mut server, mut connections) = start(async |socket: &Socket| {
        let mut client = unused(socket).await;
        get(&mut client, "/delay/2000").await;
        client
    })
    .await;
    server.accepts().await;
    let signalled = terminate(&server).await;
    for client in &mut connections {
        assert_eq!(answers(client).await, b"after 2000 ms\n");
    }
    let drained = exits(server, signalled, "complete").await;
    assert_eq!(drained["in_flight"], connections.len(), "{drained}");
}

async fn a_response_in_progress() {
    let (server, mut connections) = start(async |socket: &Socket| {
        let mut client = unused(socket).await;
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
    let drained = exits(server, signalled, "complete").await;
    assert_eq!(drained["in_flight"], connections.len(), "{drained}");
}

/// HTTP/1.0 has no chunks.
async fn drip_without_chunks(socket: &Socket, count: usize) -> (Client, Vec<u8>) {
    let mut client = unused(socket).await;
    send(&mut client, format!("GET /drip/{count}/100 HTTP/1.0\r\nHost: localhost\r\n\r\n")).await;
    let received = receive_until(&mut client, "drip").await;
    (client, received)
}

async fn a_response_in_progress_that_ends_with_the_connection() {
    let (server, mut connections) = start(async |socket: &Socket| drip_without_chunks(socket, 20).await).await;
    let signalled = terminate(&server).await;
    for (client, received) in &mut connections {
        received.extend(closes(client).await);
        assert_eq!(Response::parse(received).expect("a head").body, b"drip\n".repeat(20));
    }
    let drained = exits(server, signalled, "complete").await;
    assert_eq!(drained["in_flight"], connections.len(), "{drained}");
}

/// It is cut at the deadline, so that its end must not look like that of a whole one. A killed server resets it too, but at once.
async fn a_response_that_ends_with_the_connection_and_outlasts_the_grace() {
    // The grace, less the tenth that is kept for what follows.
    const DEADLINE: Duration = Duration::from_millis(1800);
    let mut server = Server::start(&["--last-request", "1s", "--grace", "2s"]).await;
    let connections = server.open(CONNECTIONS, async |socket: &Socket| drip_without_chunks(socket, 1000).await).await;
    let signalled = terminate(&server).await;
    for (mut client, _) in connections {
        assert_eq!(receive_all(&mut client).await.1, Last::Reset);
        assert!((DEADLINE..UNCUT).contains(&signalled.elapsed()), "{:?}", signalled.elapsed());
    }
    let (events, drained) = exit(server).await;
    let sum = report_ends(&events, CONNECTIONS, "aborted");
    assert_eq!((&drained["connections"], &drained["responses_cut"]), (&sum.into(), &sum.into()), "{drained}");
}

async fn an_upload_in_progress() {
    let (mut server, mut connections) = start(async |socket: &Socket| {
        let mut client = unused(socket).await;
        let head = "POST /count HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\nExpect: 100-continue\r\n\r\n";
        send(&mut client, head).await;
        receive_until(&mut client, "100 Continue\r\n\r\n").await;
        send(&mut client, vec![0; 100_000]).await;
        client
    })
    .await;
    let mut silent = server.open(1, unused).await;
    let signalled = terminate(&server).await;
    outlast(&mut silent).await;
    let window = signalled.elapsed();
    for client in &mut connections {
        send(client, vec![0; 100_000]).await;
        assert_eq!(answers(client).await, b"200000\n");
    }
    let drained = exits(server, signalled, "complete").await;
    assert_eq!(drained["in_flight"], connections.len(), "{drained}");
    assert!(WINDOW.contains(&window), "{window:?}");
}

async fn server_sent_events() {
    let (server, mut connections) = start(async |socket: &Socket| {
        let mut client = unused(socket).await;
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
    let drained = exits(server, signalled, "complete").await;
    assert_eq!(drained["in_flight"], connections.len(), "{drained}");
}

async fn web_sockets() {
    // Each frame of a client has a mask (RFC 6455), which is 0 here.
    const HELLO: &[u8] = b"\x81\x85\0\0\0\0hello";
    const ECHO: &[u8] = b"\x81\x05hello";
    const GOING_AWAY: &[u8] = &[0x88, 2, 0x03, 0xe9];
    const GOING_AWAY_TOO: &[u8] = &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];
    let (server, mut connections) = start(async |socket: &Socket| {
        let mut client = unused(socket).await;
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
    let drained = exits(server, signalled, "complete").await;
    assert_eq!(drained["upgraded"], connections.len(), "{drained}");
}

async fn lingering_after_an_early_answer() {
    const UPLOAD: usize = 10_000_000;
    // It fits into the buffers of a Unix socket, because the client reads only after it has sent everything.
    const ANSWER: usize = 100_000;
    let (server, mut connections) = start(async |socket: &Socket| {
        let mut client = unused(socket).await;
        let head = format!("POST /reject/{ANSWER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {UPLOAD}\r\n\r\n");
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
        assert_eq!(response.body.len(), ANSWER);
    }
    // The end of a connection may have been reported before the signal, while its answer was on its way.
    let (events, drained) = exit(server).await;
    assert!(signalled.elapsed() < UNCUT, "{:?}", signalled.elapsed());
    let (mut by_transport, mut by_ending) = (BTreeMap::new(), BTreeMap::new());
    for ((transport, ending), count) in count_ends(&events) {
        assert!(["complete", "sent", "reset"].contains(&ending), "{events:?}");
        *by_transport.entry(transport).or_insert(0) += count;
        *by_ending.entry(ending).or_insert(0) += count as u64;
    }
    assert!(by_transport.len() == EACH.len() && by_transport.values().all(|count| *count == CONNECTIONS), "{events:?}");
    let sums = drained["endings"].as_object().expect("sums");
    assert!(sums.iter().all(|(ending, sum)| sum.as_u64() <= by_ending.get(&**ending).copied()), "{drained} {events:?}");
    for nothing in ["responses_cut", "handshakes_cut", "shed", "left"] {
        assert_eq!(drained[nothing], 0, "{nothing}: {drained}");
    }
}
