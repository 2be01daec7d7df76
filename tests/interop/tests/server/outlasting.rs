//! A response outlasts the window for last requests. Its head was sent before the signal, so the client does not know that the server ends,
//! and sends another request behind it.

use std::{net::SocketAddr, time::Duration};

use rustix::process::Signal;
use tls_shutdown_interop::{
    Build, LOOPBACK, Server,
    client::{Client, Last, Response, connect, get, receive_all, receive_until, send},
    within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::timeout,
};

const CLIENTS: usize = 40;
/// More than all buffers hold.
const LENGTH: usize = 12_000_000;
const POST: &str = "POST /count HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";

/// When the client sends its second request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Second {
    /// Before the signal, behind the first.
    Pipelined,
    /// This long after the first response.
    After(Duration),
}

impl Second {
    const EVERY: [Self; 3] = [Self::Pipelined, Self::After(Duration::ZERO), Self::After(Duration::from_millis(20))];
}

/// Asks for a response, and receives its head. Returns what came of its body, too.
async fn ask(server: SocketAddr, second: Second) -> (Client, Vec<u8>) {
    let mut client = connect(server).await;
    get(&mut client, &format!("/bytes/{LENGTH}")).await;
    if second == Second::Pipelined {
        send(&mut client, POST).await;
    }
    let first = Response::parse(&receive_until(&mut client, "\r\n\r\n").await).expect("a head");
    assert!(!first.is_last(), "{}", first.head);
    (client, first.body)
}

/// Whether the second request is answered, as the last one.
async fn is_answered((mut client, mut received): (Client, Vec<u8>), second: Second) -> bool {
    while received.len() < LENGTH {
        assert_ne!(within(client.read_buf(&mut received)).await.expect("the first response"), 0);
    }
    if let Second::After(moment) = second {
        // The server does not end the connection in this moment.
        if timeout(moment, client.read_u8()).await.is_ok() || client.write_all(POST.as_bytes()).await.is_err() {
            return false;
        }
    }
    let mut answer = received.split_off(LENGTH);
    let (rest, last) = receive_all(&mut client).await;
    answer.extend(rest);
    let is_last = |response: Response| response.head.starts_with("http/1.1 200") && response.is_last();
    last == Last::CloseNotify && Response::parse(&answer).is_some_and(is_last)
}

/// Signals the server in the middle of the first responses, and goes on when the window is over. Returns how many second requests are
/// answered.
async fn answered(server: &Server, second: Second) -> usize {
    let mut idle = connect(server.address).await;
    get(&mut idle, "/bytes/10").await;
    receive_until(&mut idle, "..........").await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(ask(server.address, second).await);
    }
    server.signal(Signal::TERM);
    // The window of an idle connection ends with close_notify.
    assert_eq!(receive_all(&mut idle).await, (vec![], Last::CloseNotify));
    drop(idle);
    let mut tasks: JoinSet<_> = clients.into_iter().map(|client| is_answered(client, second)).collect();
    let mut answered = 0;
    while let Some(is_answered) = tasks.join_next().await {
        answered += usize::from(is_answered.expect("no panic"));
    }
    answered
}

#[tokio::test]
async fn a_request_behind_a_response_that_outlasts_the_window_is_answered() {
    for second in Second::EVERY {
        let server = Server::serve(&["--last-request", "1s", "--grace", "30s"]).await;
        assert_eq!(answered(&server, second).await, CLIENTS, "{second:?}");
        let drained = server.exit().await.pop().expect("an event");
        assert_eq!(drained["responses_cut"], 0, "{second:?}: {drained}");
    }
}

#[tokio::test]
async fn the_bare_server_loses_it() {
    for second in Second::EVERY {
        let answered = answered(&Server::start(Build::Tests.bare_server(LOOPBACK)).await, second).await;
        println!("the bare server: {answered} of {CLIENTS}, {second:?}");
        assert!(answered < CLIENTS, "{second:?}: the control proves nothing");
    }
}
