//! HTTP/2 connections, which end with GOAWAY.

use tls_shutdown_interop::http2::{Http2, Pings, answer, last_streams};

use crate::{
    WINDOW, closes, exits,
    sockets::{Client, Socket},
    start, terminate,
};

states! {
    over EACH: [idle, with_streams, with_a_stream_and_never_answers_a_ping, idle_and_never_answers_a_ping]
    over TLS: [chosen_by_alpn_and_without_preface]
}

/// HTTP/2 by ALPN, or without TLS by prior knowledge.
async fn connect(socket: &Socket, pings: Pings) -> Http2<Client> {
    Http2::start(socket.connect().await.begin("h2").await, pings).await
}

/// Asserts that there are two GOAWAYs: the first stops new streams, the second names the last one.
fn says_goodbye(last: &[u32], last_stream: u32) {
    assert_eq!(last, [u32::MAX >> 1, last_stream]);
}

async fn idle() {
    let (server, mut connections) = start(async |socket: &Socket| {
        let mut http2 = connect(socket, Pings::Answered).await;
        http2.get(1, "/bytes/10").await;
        http2.receive_answer(1).await;
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

async fn with_streams() {
    let (server, mut connections) = start(async |socket: &Socket| {
        let mut http2 = connect(socket, Pings::Answered).await;
        http2.get(1, "/delay/2000").await;
        http2.get(3, "/drip/20/100").await;
        http2.get(5, "/bytes/10").await;
        // The server has received the others before.
        let frames = http2.receive_answer(5).await;
        (http2, frames)
    })
    .await;
    let signalled = terminate(&server).await;
    for (http2, frames) in &mut connections {
        frames.extend(http2.receive_all().await);
        assert_eq!(answer(frames, 1).as_deref(), Some(&b"after 2000 ms\n"[..]), "{frames:?}");
        assert_eq!(answer(frames, 3), Some(b"drip\n".repeat(20)), "{frames:?}");
        says_goodbye(&last_streams(frames), 5);
    }
    let drained = exits(server, signalled, "complete").await;
    assert_eq!(drained["in_flight"], 2 * connections.len(), "{drained}");
}

async fn with_a_stream_and_never_answers_a_ping() {
    let (server, mut connections) = start(async |socket: &Socket| {
        let mut http2 = connect(socket, Pings::Ignored).await;
        http2.get(1, "/delay/2000").await;
        http2.get(3, "/bytes/10").await;
        http2.receive_answer(3).await;
        http2
    })
    .await;
    let signalled = terminate(&server).await;
    for http2 in &mut connections {
        let frames = http2.receive_all().await;
        assert_eq!(answer(&frames, 1).as_deref(), Some(&b"after 2000 ms\n"[..]), "{frames:?}");
        assert!(!last_streams(&frames).is_empty(), "{frames:?}");
    }
    let drained = exits(server, signalled, "complete").await;
    assert_eq!(drained["in_flight"], connections.len(), "{drained}");
}

async fn idle_and_never_answers_a_ping() {
    let (server, mut connections) = start(async |socket: &Socket| connect(socket, Pings::Ignored).await).await;
    let signalled = terminate(&server).await;
    for http2 in &mut connections {
        let frames = http2.receive_all().await;
        assert!(!last_streams(&frames).is_empty(), "{frames:?}");
    }
    exits(server, signalled, "complete").await;
}

async fn chosen_by_alpn_and_without_preface() {
    let (server, mut connections) = start(async |socket: &Socket| socket.connect().await.begin("h2").await).await;
    let signalled = terminate(&server).await;
    for client in &mut connections {
        // First come SETTINGS and WINDOW_UPDATE, then a GOAWAY that has processed no stream.
        let frames = closes(client).await;
        assert!(frames.ends_with(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), "{frames:?}");
        assert!(WINDOW.contains(&signalled.elapsed()), "{:?}", signalled.elapsed());
    }
    exits(server, signalled, "complete").await;
}
