//! Nothing, or not all of a request, has reached the server.

use rustix::process::Signal;
use serde_json::json;
use tls_shutdown_interop::{
    Server,
    client::{Client, Response, get, halting, handshake, send},
    within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::Instant,
};

use crate::{
    ARGUMENTS, CONNECTIONS, SIGNAL, WINDOW, accepts, answers, closes, closes_after_the_window, exit, exits, idle,
    serves, start, tcp, terminate, unused,
};

states![
    connected_by_the_system_alone,
    tcp_only,
    tcp_only_and_silent,
    in_the_handshake,
    in_the_handshake_and_silent,
    handshake_done_and_no_byte_yet,
    handshake_done_and_silent,
    idle_with_a_last_request,
    idle_and_silent,
    half_a_request_head,
    a_first_request_in_the_buffers_of_the_system,
    a_request_in_the_buffers_of_the_system,
];

/// Nothing but the end of TCP, when the window is over.
async fn ends_after_the_window(connections: &mut [TcpStream], signalled: Instant) {
    for tcp in connections {
        assert_eq!(within(tcp.read_to_end(&mut Vec::new())).await.expect("no reset"), 0);
        assert!(WINDOW.contains(&signalled.elapsed()), "{:?}", signalled.elapsed());
    }
}

async fn connected_by_the_system_alone() {
    let server = Server::serve(&ARGUMENTS).await;
    server.halt().await;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(tcp(&server).await);
    }
    let signalled = Instant::now();
    server.signal(SIGNAL.get());
    server.signal(Signal::CONT);
    server.stops_listening().await;
    for tcp in connections {
        serves(&mut handshake(tcp, "http/1.1").await.expect("it was accepted")).await;
    }
    let drained = exits(server, signalled, "complete").await;
    assert_eq!((&drained["handshakes_finished"], &drained["requests"]), (&CONNECTIONS.into(), &CONNECTIONS.into()));
}

async fn tcp_only() {
    let (mut server, connections) = start(tcp).await;
    accepts(&mut server).await;
    let signalled = terminate(&server).await;
    for tcp in connections {
        serves(&mut handshake(tcp, "http/1.1").await.expect("it is served")).await;
    }
    let drained = exits(server, signalled, "complete").await;
    assert_eq!((&drained["handshakes_finished"], &drained["requests"]), (&CONNECTIONS.into(), &CONNECTIONS.into()));
}

async fn tcp_only_and_silent() {
    let (mut server, mut connections) = start(tcp).await;
    accepts(&mut server).await;
    let signalled = terminate(&server).await;
    ends_after_the_window(&mut connections, signalled).await;
    let drained = exits(server, signalled, "not_started").await;
    assert_eq!(drained["handshakes_cut"], CONNECTIONS, "{drained}");
}

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
    let drained = exits(server, signalled, "complete").await;
    assert_eq!((&drained["handshakes_finished"], &drained["requests"]), (&CONNECTIONS.into(), &CONNECTIONS.into()));
}

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
    let drained = exits(server, signalled, "not_started").await;
    assert_eq!(drained["handshakes_cut"], CONNECTIONS, "{drained}");
}

async fn handshake_done_and_no_byte_yet() {
    let (server, mut connections) = start(unused).await;
    let signalled = terminate(&server).await;
    for client in &mut connections {
        serves(client).await;
    }
    let drained = exits(server, signalled, "complete").await;
    assert_eq!(drained["requests"], CONNECTIONS, "{drained}");
}

async fn handshake_done_and_silent() {
    let (server, mut connections) = start(unused).await;
    let signalled = terminate(&server).await;
    closes_after_the_window(&mut connections, signalled).await;
    let drained = exits(server, signalled, "complete").await;
    assert_eq!(drained["requests"], 0, "{drained}");
}

async fn idle_with_a_last_request() {
    let (server, mut connections) = start(idle).await;
    let signalled = terminate(&server).await;
    for client in &mut connections {
        serves(client).await;
    }
    let drained = exits(server, signalled, "complete").await;
    assert_eq!(drained["requests"], CONNECTIONS, "{drained}");
}

async fn idle_and_silent() {
    let (server, mut connections) = start(idle).await;
    let signalled = terminate(&server).await;
    closes_after_the_window(&mut connections, signalled).await;
    let drained = exits(server, signalled, "complete").await;
    assert_eq!(drained["requests"], 0, "{drained}");
}

/// The window is for connections without a request: half a head has the time that any head has.
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
    let events = exit(server).await;
    let drained = events.last().expect("an event");
    assert_eq!(drained["endings"], json!({ "complete": CONNECTIONS + 1 }), "{drained}");
}

async fn a_first_request_in_the_buffers_of_the_system() {
    served_from_the_buffers_of_the_system(unused).await;
}

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
    server.signal(SIGNAL.get());
    server.signal(Signal::CONT);
    for client in &mut connections {
        let response = closes(client).await;
        assert_eq!(Response::parse(&response).expect("a head").body, b"..........");
    }
    exits(server, signalled, "complete").await;
}
