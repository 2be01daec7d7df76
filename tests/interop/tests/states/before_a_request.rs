//! Nothing, or not all of a request, has reached the server.

use rustix::process::Signal;
use tls_shutdown_interop::client::{Response, get, send};

use crate::{
    ARGUMENTS, CONNECTIONS, WINDOW, answers, closes, closes_after_the_window, exits, idle, outlast, serves, signal,
    sockets::{Client, Server, Socket},
    start, terminate, unused,
};

states! {
    over EACH: [
        connected_by_the_system_alone,
        accepted_and_no_byte_yet,
        accepted_and_silent,
        idle_with_a_last_request,
        idle_and_silent,
        half_a_request_head,
        a_first_request_in_the_buffers_of_the_system,
        a_request_in_the_buffers_of_the_system,
    ]
}

async fn connected_by_the_system_alone() {
    let mut server = Server::start(&ARGUMENTS).await;
    server.halt().await;
    let connections = server.open(CONNECTIONS, Socket::connect).await;
    let signalled = signal(&server);
    server.signal(Signal::CONT);
    server.stops_listening().await;
    for connection in connections {
        serves(&mut connection.begin("http/1.1").await).await;
    }
    let drained = exits(server, signalled, "complete").await;
    assert_eq!((&drained["handshakes_finished"], &drained["requests"]), (&CONNECTIONS.into(), &drained["connections"]));
}

async fn accepted_and_no_byte_yet() {
    let (mut server, mut connections) = start(unused).await;
    server.accepts().await;
    let signalled = terminate(&server).await;
    for client in &mut connections {
        serves(client).await;
    }
    let drained = exits(server, signalled, "complete").await;
    assert_eq!(drained["requests"], connections.len(), "{drained}");
}

async fn accepted_and_silent() {
    let (mut server, mut connections) = start(unused).await;
    server.accepts().await;
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
    assert_eq!(drained["requests"], connections.len(), "{drained}");
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
    let (mut server, mut connections) = start(async |socket: &Socket| {
        let mut client = idle(socket).await;
        send(&mut client, "GET /bytes/10 HTTP/1.1\r\nHost: local").await;
        client
    })
    .await;
    server.accepts().await;
    let mut silent = server.open(1, unused).await;
    let signalled = terminate(&server).await;
    outlast(&mut silent).await;
    let window = signalled.elapsed();
    for client in &mut connections {
        send(client, "host\r\n\r\n").await;
        assert_eq!(answers(client).await, b"..........");
    }
    exits(server, signalled, "complete").await;
    assert!(WINDOW.contains(&window), "{window:?}");
}

async fn a_first_request_in_the_buffers_of_the_system() {
    served_from_the_buffers_of_the_system(unused).await;
}

async fn a_request_in_the_buffers_of_the_system() {
    served_from_the_buffers_of_the_system(idle).await;
}

/// It is left to chance whether the server sees the signal or the request first, and so whether it announces the end.
async fn served_from_the_buffers_of_the_system(open: impl AsyncFn(&Socket) -> Client) {
    let (mut server, mut connections) = start(open).await;
    server.accepts().await;
    server.halt().await;
    for client in &mut connections {
        get(client, "/bytes/10").await;
    }
    let signalled = signal(&server);
    server.signal(Signal::CONT);
    for client in &mut connections {
        let response = closes(client).await;
        assert_eq!(Response::parse(&response).expect("a head").body, b"..........");
    }
    exits(server, signalled, "complete").await;
}
