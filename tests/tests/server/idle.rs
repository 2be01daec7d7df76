//! For how long a connection may be idle, and a head incomplete.

use std::time::Duration;

use tls_shutdown::server::Server;
use tls_shutdown_tests::{
    End,
    serving::{
        Client, Running,
        http2::{self, END_STREAM, GOAWAY, PING, get, hello, pong},
        listener,
    },
    time::{leap, turns},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    sync::mpsc::unbounded_channel,
    task::JoinSet,
    time::{Instant, sleep},
};
use tower::service_fn;

use crate::{routes::routes, unix_sockets::Pipes};

const SECOND: Duration = Duration::from_secs(1);

/// Balancers keep idle connections for 60 s, and send a POST on one that the server closes in this moment.
#[tokio::test]
async fn an_idle_connection_outlives_the_idle_timeout_of_balancers() {
    let mut running = Running::start(routes).await;
    let mut client = Client::connect(running.address).await;
    for _ in 0..2 {
        turns(50).await;
        leap(SECOND * 70).await;
        turns(50).await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").await;
        assert!(!client.read_message().await.0.contains("connection: close"));
    }
    // A response of which the service is sure takes as long as it takes.
    client.ask("/never").await;
    turns(50).await;
    leap(SECOND * 200).await;
    turns(50).await;
    assert_eq!(running.drain.in_flight(), 1);
    drop(client);
    running.end().await;

    let mut client = Client::connect(running.address).await;
    client.ask("/").await;
    client.read_message().await;
    turns(50).await;
    leap(Server::IDLE_TIMEOUT).await;
    assert_eq!(client.read_to_end().await, (vec![], End::CloseNotify));
    drop(client);
    let end = running.end().await;
    assert_eq!((end.requests(), end.responses_cut()), (1, 0));
}

/// Sends three POSTs over each of 10,000 connections, 60 s after each other, as a balancer does that keeps connections for 60 s. Returns
/// how many are lost.
async fn balance(idle_timeout: Duration) -> usize {
    const CONNECTIONS: u64 = 10_000;
    const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\norder";
    const IDLE: Duration = Duration::from_secs(60);
    let (connect, accept) = unbounded_channel();
    let server = tokio::spawn(Server::new(Pipes(accept)).idle_timeout(idle_timeout).serve(service_fn(routes)));
    let mut connections = JoinSet::new();
    for number in 0..CONNECTIONS {
        let (mut stream, theirs) = duplex(1000);
        assert!(connect.send(theirs).is_ok(), "a server");
        connections.spawn(async move {
            let mut answer = [0; 1000];
            sleep(IDLE / 10_000 * number as u32).await;
            let mut lost = 0;
            for _ in 0..3 {
                let answered = match stream.write_all(POST).await {
                    Ok(()) => stream.read(&mut answer).await.unwrap_or_default(),
                    Err(_) => 0,
                };
                lost += usize::from(!answer[..answered].starts_with(b"HTTP/1.1 200"));
                sleep(IDLE).await;
            }
            lost
        });
    }
    let lost = connections.join_all().await.into_iter().sum();
    server.abort();
    lost
}

/// The pattern of AWS's Application Load Balancer, which does not repeat a POST.
#[tokio::test(start_paused = true)]
async fn ten_thousand_connections_of_a_balancer_lose_nothing() {
    assert_eq!(balance(Server::IDLE_TIMEOUT).await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_idle_timeout_like_that_of_the_balancer_loses_requests() {
    assert!(balance(SECOND * 60).await > 0);
}

#[tokio::test]
async fn an_idle_http2_connection_ends_with_goaway() {
    let mut running = Running::start(routes).await;
    let mut client = Client::connect_http2(running.address).await;
    client.send(hello()).await;
    for stream in [1, 3] {
        turns(50).await;
        leap(SECOND * 70).await;
        turns(50).await;
        client.send(get(stream)).await;
        while client.frame_of(http2::DATA).await.flags & END_STREAM == 0 {}
    }
    turns(50).await;
    leap(Server::IDLE_TIMEOUT).await;
    // Its last request may be on its way, and is answered.
    client.frame_of(GOAWAY).await;
    client.send(get(5)).await;
    let ping = client.frame_of(PING).await;
    client.send(pong(&ping)).await;
    let (frames, end) = client.frames_to_end().await;
    assert!(http2::is_answered(&frames, 5), "{frames:?}");
    assert_eq!(end, End::CloseNotify);
    drop(client);
    let end = running.end().await;
    assert_eq!((end.requests(), end.responses_cut()), (3, 0));
}

/// The time for a head begins with its first byte, however long the client was idle before.
#[tokio::test]
async fn the_header_timeout_counts_from_the_first_byte() {
    let server = |server: Server| server.header_timeout(SECOND * 2).idle_timeout(SECOND * 10);
    let mut running = Running::start_with(listener().await, server, |drain| drain, routes);
    let mut client = Client::connect(running.address).await;
    for first in ["", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        if !first.is_empty() {
            client.send(first).await;
            client.read_message().await;
        }
        // It is looked at more often than the idle timeout needs.
        for _ in 0..4 {
            turns(50).await;
            leap(SECOND * 2).await;
        }
        turns(50).await;
        client.send("GET / HT").await;
        turns(50).await;
        leap(SECOND).await;
        turns(50).await;
        client.send("TP/1.1\r\nHost: a\r\n\r\n").await;
        client.read_message().await;
    }
    let began = Instant::now();
    client.send("GET / HT").await;
    turns(50).await;
    // What comes later does not move the end.
    leap(SECOND).await;
    client.send("TP/1.1\r\n").await;
    turns(50).await;
    leap(SECOND).await;
    assert_eq!(client.read_to_end().await, (vec![], End::CloseNotify));
    assert!(began.elapsed() < SECOND * 5, "{:?}", began.elapsed());
    drop(client);
    let end = running.end().await;
    assert_eq!((end.requests(), end.responses_cut()), (3, 0));
}
