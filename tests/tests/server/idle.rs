//! For how long a connection may be idle, and a head incomplete.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use tls_shutdown::{
    client::ShutdownLayer,
    server::{Server, TlsAcceptor},
};
use tls_shutdown_tests::{
    End,
    serving::{
        Client, Running,
        http2::{self, END_STREAM, GET, GOAWAY, HEADERS, PING, frame, get, hello, pong},
        listener, offering,
    },
    time::rest,
};

use tokio::time::Instant;

use crate::routes::routes;

const SECOND: Duration = Duration::from_secs(1);

/// Balancers keep idle connections for 60 s, and send a POST on one that the server closes in this moment.
#[tokio::test]
async fn an_idle_connection_outlives_the_idle_timeout_of_balancers() {
    let mut running = Running::start(routes).await;
    let mut client = Client::connect(running.address).await;
    for _ in 0..2 {
        rest(SECOND * 70).await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").await;
        assert!(!client.read_message().await.0.contains("connection: close"));
    }
    // A response of which the service is sure takes as long as it takes.
    client.ask("/never").await;
    rest(SECOND * 200).await;
    assert_eq!(running.drain.in_flight(), 1);
    drop(client);
    running.end().await;

    let mut client = Client::connect(running.address).await;
    client.ask("/").await;
    client.read_message().await;
    rest(Server::IDLE_TIMEOUT).await;
    assert_eq!(client.read_to_end().await, (vec![], End::CloseNotify));
    drop(client);
    let end = running.end().await;
    assert_eq!((end.requests(), end.responses_cut()), (1, 0));
}

#[tokio::test]
async fn an_idle_http2_connection_ends_with_goaway() {
    let mut running = Running::start(routes).await;
    let mut client = Client::connect_http2(running.address).await;
    client.send(hello()).await;
    for stream in [1, 3] {
        rest(SECOND * 70).await;
        client.send(get(stream)).await;
        while client.frame_of(http2::DATA).await.flags & END_STREAM == 0 {}
    }
    rest(Server::IDLE_TIMEOUT).await;
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
            rest(SECOND * 2).await;
        }
        client.send("GET / HT").await;
        rest(SECOND).await;
        client.send("TP/1.1\r\nHost: a\r\n\r\n").await;
        client.read_message().await;
    }
    let began = Instant::now();
    client.send("GET / HT").await;
    rest(SECOND).await;
    // What comes later does not move the end.
    client.send("TP/1.1\r\n").await;
    rest(SECOND).await;
    assert_eq!(client.read_to_end().await, (vec![], End::CloseNotify));
    assert!(began.elapsed() < SECOND * 5, "{:?}", began.elapsed());
    drop(client);
    let end = running.end().await;
    assert_eq!((end.requests(), end.responses_cut()), (3, 0));
}

/// h2 waits for CONTINUATION without limit, and the connection is not idle.
#[tokio::test]
async fn a_header_block_of_http2_has_no_more_time_than_a_head_of_http1() {
    let server = |server: Server| server.header_timeout(SECOND * 2);
    let mut running = Running::start_with(listener().await, server, |drain| drain, routes);
    let mut client = Client::connect_http2(running.address).await;
    client.send([hello(), get(1)].concat()).await;
    while client.frame_of(http2::DATA).await.flags & END_STREAM == 0 {}
    client.send(frame(HEADERS, END_STREAM, 3, GET)).await;
    for _ in 0..2 {
        rest(SECOND * 2).await;
    }
    let (frames, end) = client.frames_to_end().await;
    assert_eq!((http2::goaways(&frames), end), (vec![1], End::CloseNotify));
    drop(client);
    let end = running.end().await;
    assert_eq!((end.requests(), end.responses_cut()), (1, 0));
}

/// A connection that has reached its age may have one more request, and not for ever.
#[tokio::test]
async fn the_head_of_a_last_request_has_the_same_time() {
    let server = |server: Server| server.header_timeout(SECOND * 2).max_connection_age(SECOND * 20);
    let mut running = Running::start_with(listener().await, server, |drain| drain, routes);
    let mut client = Client::connect(running.address).await;
    client.ask("/").await;
    client.read_message().await;
    rest(SECOND * 25).await;
    client.send("GET / HT").await;
    for _ in 0..4 {
        rest(SECOND * 2).await;
    }
    assert_eq!(client.read_to_end().await, (vec![], End::CloseNotify));
    drop(client);
    let end = running.end().await;
    assert_eq!((end.requests(), end.responses_cut()), (1, 0));
}

/// Zero often means no limit. It would end each connection at once.
#[tokio::test]
async fn a_timeout_of_zero_is_refused() {
    let server = async || Server::new(listener().await);
    let (first, second, third, other) = (server().await, server().await, server().await, listener().await);
    let zero = Duration::ZERO;
    for panic in [
        catch_unwind(AssertUnwindSafe(|| drop(first.header_timeout(zero)))),
        catch_unwind(AssertUnwindSafe(|| drop(second.idle_timeout(zero)))),
        catch_unwind(AssertUnwindSafe(|| drop(third.stall_timeout(zero)))),
        catch_unwind(AssertUnwindSafe(|| drop(other.handshake_timeout(zero)))),
        catch_unwind(AssertUnwindSafe(|| drop(TlsAcceptor::new(offering(&[])).handshake_timeout(zero)))),
        catch_unwind(AssertUnwindSafe(|| drop(ShutdownLayer::new().idle_timeout(zero)))),
    ] {
        let text = *panic.expect_err("refused").downcast::<&str>().expect("a text");
        assert!(text.contains("Duration::MAX"), "{text}");
    }
}
