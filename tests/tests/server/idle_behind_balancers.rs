//! Many connections of a balancer that keeps them for as long as AWS's does, on a paused clock.

use std::time::Duration;

use tls_shutdown::server::Server;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    sync::mpsc::unbounded_channel,
    task::JoinSet,
    time::sleep,
};
use tower::service_fn;

use crate::{routes::routes, unix_sockets::Pipes};

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
    assert!(balance(Duration::from_secs(60)).await > 0);
}
