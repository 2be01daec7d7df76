//! Connections that the system has made, and the server not accepted, when the signal comes: closing the listener would reset them.

use rustix::process::Signal;
use tls_shutdown_interop::{
    Build, LOOPBACK, Server,
    client::{Last, Response, handshake, receive_all},
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

const CONNECTIONS: usize = 50;
/// A server sees the signal or its connections first, by chance.
const ROUNDS: usize = 5;

/// Signals a server that has not accepted its connections yet. Returns how many are served.
async fn served(server: &Server) -> usize {
    server.halt().await;
    let mut waiting = Vec::new();
    for _ in 0..CONNECTIONS {
        waiting.push(TcpStream::connect(server.address).await.expect("it listens"));
    }
    server.signal(Signal::TERM);
    server.signal(Signal::CONT);
    server.stops_listening().await;
    let mut served = 0;
    for tcp in waiting {
        served += usize::from(is_served(tcp).await);
    }
    served
}

/// Whether an answer arrives, and close_notify after it.
async fn is_served(tcp: TcpStream) -> bool {
    let Ok(mut client) = handshake(tcp, "http/1.1").await else { return false };
    if client.write_all(b"GET /bytes/10 HTTP/1.1\r\nHost: localhost\r\n\r\n").await.is_err() {
        return false;
    }
    let (received, last) = receive_all(&mut client).await;
    Response::parse(&received).is_some_and(|response| response.body == b"..........") && last == Last::CloseNotify
}

#[tokio::test]
async fn what_the_system_has_accepted_is_served() {
    for _ in 0..ROUNDS {
        let server = Server::serve(&["--last-request", "10s", "--grace", "20s"]).await;
        assert_eq!(served(&server).await, CONNECTIONS);
        let events = server.exit().await;
        assert_eq!(events.last().expect("an event")["connections"], CONNECTIONS);
    }
}

#[tokio::test]
async fn the_bare_server_does_not_serve_it() {
    let mut all = 0;
    for _ in 0..ROUNDS {
        all += served(&Server::start(Build::Tests.bare_server(LOOPBACK)).await).await;
    }
    println!("the bare server: {all} of {}", ROUNDS * CONNECTIONS);
    assert!(all < ROUNDS * CONNECTIONS);
}
