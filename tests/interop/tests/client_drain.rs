//! A client that has drained its pooled connections may exit: each server has seen close_notify on all of them, and the client's system,
//! which is a namespace of its own, has reset none.
//!
//! These tests have a process of their own: a hundred handshakes have to be done within half a second.

use tls_shutdown_interop::{
    Background, Build, CERTIFICATE, COMPLETE, Namespace, Server, end, python, run_well, within,
};
use tokio::process::Command;

const REQUESTS: &str = "100";
const CONNECTIONS: usize = 100;
/// The delay is long enough that all requests wait at the same time, each on a connection of its own.
const ROUTE: &str = "delay/500";

/// Runs the example `hyper_client` inside. Returns the number of connections that it reports. All have ended completely.
async fn hyper_client(namespace: &Namespace, url: &str, flags: &[&str]) -> usize {
    let mut client = Build::Tests.command("hyper_client");
    client.args([url, "--insecure", "--requests", REQUESTS]).args(flags);
    let output = run_well(&mut namespace.inside(&client), b"").await;
    let output = String::from_utf8(output).expect("UTF-8");
    let (drain, connections) =
        output.lines().collect::<Vec<_>>().split_last().map(|(last, rest)| (*last, rest.len())).expect("lines");
    assert!(drain.starts_with(&format!("{connections} ended: {connections} complete; ")), "{output}");
    assert!(drain.contains(", 0 left, "), "{drain}");
    connections
}

fn serve(namespace: &Namespace) -> Command {
    Build::Tests.serve(&format!("{}:0", namespace.near), &[])
}

/// How many of the next connections of `serve` end with close_notify from both sides.
async fn complete(server: &mut Server, connections: usize) -> usize {
    let mut complete = 0;
    for _ in 0..connections {
        complete += usize::from(end(&server.closed().await) == COMPLETE);
    }
    complete
}

fn assert_no_aborts(namespace: &Namespace) {
    let aborts = namespace.aborts();
    assert!(aborts.iter().all(|(_, count)| *count == 0), "{aborts:?}");
}

#[tokio::test]
async fn pooled_connections_to_our_server_end_complete() {
    let namespace = Namespace::new();
    let mut server = Server::start(serve(&namespace)).await;
    for (flags, at_least) in [(&[][..], CONNECTIONS), (&["--http2"], 1)] {
        let connections = hyper_client(&namespace, &server.url(&format!("/{ROUTE}")), flags).await;
        assert!(connections >= at_least, "{connections}");
        assert_eq!(complete(&mut server, connections).await, connections, "{flags:?}");
    }
    assert_no_aborts(&namespace);
}

#[tokio::test]
async fn pooled_connections_to_cpython_end_with_close_notify() {
    let namespace = Namespace::new();
    let mut command = python("http_server.py");
    command.args([&CERTIFICATE.cert, &CERTIFICATE.key, &namespace.near.to_string()]);
    let mut server = Background::start(&mut command);
    let port = server.port("port").await;
    let connections = hyper_client(&namespace, &format!("https://{}:{port}/", namespace.near), &[]).await;
    assert!(connections >= CONNECTIONS, "{connections}");
    for _ in 0..connections {
        let line = within(server.line_with("ended")).await.expect("a line");
        assert_eq!(line.trim_end(), "ended close_notify");
    }
    assert_no_aborts(&namespace);
}

/// The control.
#[tokio::test]
async fn the_bare_client_truncates_or_resets() {
    let namespace = Namespace::new();
    let mut server = Server::start(serve(&namespace)).await;
    let mut client = Build::Tests.command("bare_client");
    client.args([&server.url(&format!("/{ROUTE}")), &CERTIFICATE.cert, REQUESTS]);
    run_well(&mut namespace.inside(&client), b"").await;
    let complete = complete(&mut server, CONNECTIONS).await;
    println!("the bare client: {complete} of {CONNECTIONS}");
    assert!(complete < CONNECTIONS / 2, "the control proves nothing");
}
