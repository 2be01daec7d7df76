//! The limit of connections: who waits, who makes room, and that a drain keeps nobody out.

use std::{net::SocketAddr, time::Duration};

use futures_util::FutureExt;
use tls_shutdown::server::Server;
use tls_shutdown_tests::{
    End,
    serving::{Client, ClientStream, Running, listener},
    soon,
    time::{pass_time, turns},
};
use tokio::net::TcpListener;

use crate::routes::routes;

const SECOND: Duration = Duration::from_secs(1);

/// A server of two connections, with TLS at the first address and without at the second.
async fn start() -> (Running, SocketAddr) {
    let plain = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = plain.local_addr().expect("an address");
    let limited = |server: Server| server.add_listener(plain).max_connections(2);
    (Running::start_with(listener().await, limited, |drain| drain, routes), address)
}

async fn ask<S: ClientStream>(client: &mut Client<S>) -> String {
    client.ask("/").await;
    soon(client.read_message()).await.0
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_until_one_ends() {
    let (mut running, plain) = start().await;
    let mut first = Client::connect(running.address).await;
    first.ask("/never").await;
    let mut second = Client::connect_plain(plain).await;
    second.ask("/never").await;
    soon(async {
        while running.drain.in_flight() < 2 {
            turns(1).await;
        }
    })
    .await;
    let mut third = Client::connect_plain(plain).await;
    third.ask("/").await;
    pass_time(SECOND * 5).await;
    assert!(third.read_message().now_or_never().is_none(), "both places are taken");
    drop(first);
    assert_eq!(running.end().await.requests(), 1);
    soon(third.read_message()).await;
    assert_eq!(running.drain.connections(), 2);
}

#[tokio::test]
async fn an_idle_connection_makes_room() {
    let (running, plain) = start().await;
    let mut first = Client::connect(running.address).await;
    ask(&mut first).await;
    let mut second = Client::connect_plain(plain).await;
    ask(&mut second).await;
    turns(50).await;
    let mut third = Client::connect_plain(plain).await;
    third.ask("/").await;
    pass_time(SECOND / 2).await;
    assert!(third.read_message().now_or_never().is_none(), "the others may be about to send a request");
    pass_time(SECOND).await;
    soon(third.read_message()).await;
    assert_eq!(first.read_to_end().await, (vec![], End::CloseNotify), "it was idle for longest");
    assert!(!ask(&mut second).await.contains("connection: close"));
}

#[tokio::test]
async fn a_drain_serves_those_who_wait() {
    let (mut running, plain) = start().await;
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect_plain(plain).await;
        ask(&mut client).await;
        client.send("GET / HTTP/1.1\r\n").await;
        busy.push(client);
    }
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect_plain(plain).await;
        client.ask("/").await;
        waiting.push(client);
    }
    pass_time(SECOND * 2).await;
    assert_eq!(running.drain.connections(), 2);
    running.signal();
    for mut client in waiting {
        assert!(soon(client.read_message()).await.0.contains("connection: close"));
    }
    for mut client in busy {
        client.send("Host: a\r\n\r\n").await;
        assert!(soon(client.read_message()).await.0.contains("connection: close"));
    }
    let report = running.report().await;
    assert_eq!((report.connections(), report.responses_cut()), (5, 0), "{report}");
}
