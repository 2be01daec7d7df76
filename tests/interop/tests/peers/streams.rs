//! Responses without an end of their own, at clients that know nothing of this server: it ends them when it drains.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use rustix::process::Signal;
use tls_shutdown_interop::{Background, CERTIFICATE, Server, python_with_packages};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

fn client(kind: &str, port: u16) -> Background {
    let mut python = python_with_packages("streams.py");
    python.args([kind, &port.to_string(), &CERTIFICATE.cert]);
    Background::start(&mut python)
}

#[tokio::test]
async fn a_websocket_ends_with_going_away() {
    let server = Server::serve(&["--notice", "0s"]).await;
    let mut client = client("websocket", server.address.port());
    client.line_with("open").await.expect("an echo");
    server.signal(Signal::TERM);
    //= https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1
    //# 1001 indicates that an endpoint is "going away", such as a server
    //# going down
    client.line_with("code 1001, ours 1001").await.expect("a Close frame between two messages");
    let drained = server.exit().await.pop().expect("an event");
    assert_eq!((&drained["endings"]["complete"], &drained["responses_cut"]), (&1.into(), &0.into()), "{drained}");
}

/// Forwards connections to the server of this moment.
async fn forward(listener: TcpListener, server: Arc<Mutex<SocketAddr>>) {
    loop {
        let (mut client, _) = listener.accept().await.expect("a connection");
        let address = *server.lock().expect("no panic");
        tokio::spawn(async move {
            // It is refused between two servers, and the client tries again.
            if let Ok(mut server) = TcpStream::connect(address).await {
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
}

#[tokio::test]
async fn an_event_source_misses_no_event_across_restarts() {
    let mut server = Server::serve(&["--notice", "0s"]).await;
    let current = Arc::new(Mutex::new(server.address));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let mut client = client("events", listener.local_addr().expect("an address").port());
    let forwarding = tokio::spawn(forward(listener, current.clone()));
    let mut next = 0;
    for _ in 0..3 {
        for _ in 0..2 {
            let event = client.line_with("event ").await.expect("an event");
            assert_eq!(event.trim(), format!("event {next}"), "none is missing, and none comes twice");
            next += 1;
        }
        let successor = Server::serve(&["--notice", "0s"]).await;
        *current.lock().expect("no panic") = successor.address;
        let predecessor = std::mem::replace(&mut server, successor);
        predecessor.signal(Signal::TERM);
        let drained = predecessor.exit().await.pop().expect("an event");
        assert_eq!(drained["responses_cut"], 0, "{drained}");
    }
    forwarding.abort();
}
