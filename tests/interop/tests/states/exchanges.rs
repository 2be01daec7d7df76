//! A request is being answered.

use std::collections::BTreeMap;

use serde_json::json;
use tls_shutdown_interop::{
    Server,
    client::{Response, get, receive_until, send},
    within,
};
use tokio::io::AsyncReadExt;

use crate::{CONNECTIONS, UNCUT, answers, closes, closes_after_the_window, exit, exits, start, terminate, unused};

states![
    a_response_without_its_head,
    a_response_in_progress,
    an_upload_in_progress,
    server_sent_events,
    web_sockets,
    lingering_after_an_early_answer,
];

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
    let events = exit(server).await;
    let drained = events.last().expect("an event");
    assert_eq!(drained["endings"], json!({ "complete": CONNECTIONS + 1 }), "{drained}");
}

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
    let drained = exits(server, signalled, "complete").await;
    assert_eq!(drained["upgraded"], CONNECTIONS, "{drained}");
}

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
    // The end of a connection may have been reported before the signal, while its answer was on its way.
    let mut events = exit(server).await;
    assert!(signalled.elapsed() < UNCUT, "{:?}", signalled.elapsed());
    let drained = events.pop().expect("an event");
    let endings = events.iter().map(|event| event["ending"].as_str().expect("an ending"));
    let count = endings.fold(BTreeMap::new(), |mut count, ending| {
        *count.entry(ending).or_insert(0_u64) += 1;
        count
    });
    assert_eq!(count.values().sum::<u64>(), CONNECTIONS as u64, "{count:?}");
    assert!(count.keys().all(|ending| ["complete", "sent", "reset"].contains(ending)), "{count:?}");
    let sums = drained["endings"].as_object().expect("sums");
    assert!(sums.iter().all(|(ending, sum)| sum.as_u64() <= count.get(&**ending).copied()), "{drained} {count:?}");
    for nothing in ["responses_cut", "handshakes_cut", "shed", "left"] {
        assert_eq!(drained[nothing], 0, "{nothing}: {drained}");
    }
}
