//! What the system has still to send when a server exits is lost with the network of its container. So a server exits when its
//! clients have everything.

use std::time::Duration;

use rustix::process::Signal;
use tls_shutdown_interop::{
    Build, Namespace, Server,
    client::{Client, Last, Response, connect, get, receive_all, receive_until},
};
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

/// Some seconds of the slow wire.
const LENGTH: usize = 3_000_000;
/// What is not there by now never comes.
const SILENCE: Duration = Duration::from_secs(3);

/// When a client says that it has nothing more to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    /// Right after its request. The server has nothing to wait for then but acknowledgements.
    Early,
    /// When it has the whole answer.
    Late,
}

fn serve(listen: &str) -> Command {
    Build::Tests.serve(listen, &["--last-request", "1s", "--grace", "30s"])
}

fn bare_server(listen: &str) -> Command {
    Build::Tests.bare_server(listen)
}

/// Stops a server that is answering over a slow wire, and takes the wire away when it exits. Gives the length of the answer that
/// the client has, if it sees an end.
async fn stop(server: impl Fn(&str) -> Command, farewell: Farewell) -> Option<(usize, Last)> {
    let namespace = Namespace::new();
    namespace.slow_down();
    let server = Server::start(namespace.inside(&server(&format!("{}:8443", namespace.far)))).await;
    let mut client = connect(server.address).await;
    get(&mut client, &format!("/bytes/{LENGTH}")).await;
    if farewell == Farewell::Early {
        client.shutdown().await.expect("the server listens");
    }
    let head = receive_until(&mut client, "\r\n\r\n").await;
    server.signal(Signal::TERM);
    let receiving = tokio::spawn(receive_rest(client, head));
    server.exit().await;
    namespace.unplug();
    timeout(SILENCE, receiving).await.ok().map(|received| received.expect("no panic"))
}

async fn receive_rest(mut client: Client, mut received: Vec<u8>) -> (usize, Last) {
    let (rest, last) = receive_all(&mut client).await;
    received.extend(rest);
    (Response::parse(&received).expect("a head").body.len(), last)
}

#[tokio::test]
async fn a_client_that_listens_to_the_end_has_everything() {
    assert_eq!(stop(serve, Farewell::Late).await, Some((LENGTH, Last::CloseNotify)));
}

#[tokio::test]
async fn a_client_that_has_said_goodbye_has_everything() {
    assert_eq!(stop(serve, Farewell::Early).await, Some((LENGTH, Last::CloseNotify)));
}

#[tokio::test]
async fn the_bare_server_exits_too_soon() {
    assert_eq!(stop(bare_server, Farewell::Late).await, None);
}
