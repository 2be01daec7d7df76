//! The examples under servers of other projects.

use rustix::process::Signal;

use crate::harness::{Connection, Example};

/// Asks who the client is, and reads the answer. Behind salvo's hoop it is chunked.
async fn is_answered(connection: &mut Connection) {
    connection.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut head = String::new();
    let mut line = String::new();
    while !line.starts_with("you are ") {
        line = connection.next_line().await;
        assert!(!line.is_empty(), "the connection ended after {head:?}");
        head += &line.to_lowercase();
    }
    let lines_of_last_chunk = if head.contains("transfer-encoding: chunked") { 3 } else { 0 };
    for _ in 0..lines_of_last_chunk {
        connection.next_line().await;
    }
}

/// Starts a server, lets it answer two clients, and drains it under them.
async fn answers_and_drains(program: &str, name: &str) {
    let server = Example::start(program, &format!("{name}.pem")).await;
    let client = server.client(None);
    let (mut first, mut second) = (client.connect().await, client.connect().await);
    is_answered(&mut first).await;
    is_answered(&mut second).await;
    server.signal(Signal::TERM);
    first.wait_for_close().await;
    second.wait_for_close().await;
    let printed = server.wait_for_exit().await;
    assert!(printed.contains("drained in ") && printed.contains("2 complete"), "{name}: {printed}");
}

#[tokio::test]
async fn axum_server_answers_and_drains() {
    answers_and_drains(env!("CARGO_BIN_EXE_axum_server"), "axum_server").await;
}

#[tokio::test]
async fn poem_answers_and_drains() {
    answers_and_drains(env!("CARGO_BIN_EXE_poem"), "poem").await;
}

#[tokio::test]
async fn salvo_answers_and_drains() {
    answers_and_drains(env!("CARGO_BIN_EXE_salvo"), "salvo").await;
}

#[tokio::test]
async fn tls_listener_answers_and_drains() {
    answers_and_drains(env!("CARGO_BIN_EXE_tls_listener"), "tls_listener").await;
}
