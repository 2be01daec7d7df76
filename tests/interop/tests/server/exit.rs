//! A container loses what its system still has to send when the server exits. So a server exits when its clients have everything. It closes
//! each connection with one segment.

use std::time::Duration;

use rustix::process::Signal;
use tls_shutdown_interop::{
    Build, Namespace, Server,
    client::{Client, Last, Response, connect, get, receive_all, receive_until},
    within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

/// Some seconds of the slow wire.
const LENGTH: usize = 3_000_000;
/// What has not come in this time never comes.
const SILENCE: Duration = Duration::from_secs(3);

/// When a client sends its close_notify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    /// Right after its request. Then the server waits only for acknowledgements.
    Early,
    /// The same. When the server drains, the client sends bytes over which a system resets a connection that has ended.
    EarlyThenJunk,
    /// When it has the whole answer.
    Late,
}

fn serve(listen: &str) -> Command {
    Build::Tests.serve(listen, &["--last-request", "1s", "--grace", "30s"])
}

fn bare_server(listen: &str) -> Command {
    Build::Tests.bare_server(listen)
}

/// Stops a server that sends an answer over a slow wire, and takes the wire away when the server exits. Returns the length of the answer
/// and its end, if the client sees an end.
async fn stop(server: impl Fn(&str) -> Command, farewell: Farewell) -> Option<(usize, Last)> {
    let namespace = Namespace::new();
    namespace.slow_down();
    let server = Server::start(namespace.inside(&server(&format!("{}:8443", namespace.far)))).await;
    let mut client = connect(server.address).await;
    get(&mut client, &format!("/bytes/{LENGTH}")).await;
    match farewell {
        Farewell::Early => client.shutdown().await.expect("the server listens"),
        Farewell::EarlyThenJunk => {
            // Without FIN, so that more can be sent.
            client.get_mut().1.send_close_notify();
            client.flush().await.expect("the server listens");
        }
        Farewell::Late => {}
    }
    let head = receive_until(&mut client, "\r\n\r\n").await;
    server.signal(Signal::TERM);
    if farewell == Farewell::EarlyThenJunk {
        within(client.get_mut().0.write_all(b"junk!")).await.expect("sent");
    }
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
async fn a_client_that_sends_junk_after_its_goodbye_has_everything() {
    assert_eq!(stop(serve, Farewell::EarlyThenJunk).await, Some((LENGTH, Last::CloseNotify)));
}

#[tokio::test]
async fn the_bare_server_exits_too_soon() {
    assert_eq!(stop(bare_server, Farewell::Late).await, None);
}

const CONNECTIONS: usize = 50;

/// How many segments a server sends to close its idle connections, before its clients answer.
async fn segments_of_closing(server: impl Fn(&str) -> Command) -> u64 {
    let namespace = Namespace::new();
    let server = Server::start(namespace.inside(&server(&format!("{}:8443", namespace.far)))).await;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = connect(server.address).await;
        get(&mut client, "/bytes/10").await;
        receive_until(&mut client, "..........").await;
        clients.push(client);
    }
    let before = namespace.segments_sent();
    server.signal(Signal::TERM);
    for client in &mut clients {
        assert_eq!(receive_all(client).await, (vec![], Last::CloseNotify));
        // FIN, too.
        assert_eq!(within(client.get_mut().0.read(&mut [0; 1])).await.expect("no reset"), 0);
    }
    let sent = namespace.segments_sent() - before;
    drop(clients);
    server.exit().await;
    sent
}

#[tokio::test]
async fn close_notify_and_fin_are_one_segment() {
    let connections = CONNECTIONS as u64;
    let (ours, bare) = (segments_of_closing(serve).await, segments_of_closing(bare_server).await);
    println!("{ours} segments, and of the bare server {bare}");
    // A late acknowledgement of something before may be among them.
    assert!((connections..connections + connections / 5).contains(&ours), "{ours}");
    assert!(bare >= 2 * connections, "{bare}");
}
