//! Clients that keep their connections for further requests: an agent, a session, a pool.

use std::{str::from_utf8, time::Duration};

use rustix::process::Signal;
use tls_shutdown_interop::{
    Background, Build, CERTIFICATE, LOOPBACK, Server, peer_file, program, python_with_packages, run_well,
};
use tokio::{process::Command, time::Instant};

/// Half of them are large, and the server answers them unread.
const REQUESTS: usize = 80;

/// The client of this name, without arguments.
fn client(name: &str) -> Command {
    let script = |program: &str, package: &str, file: &str| {
        let mut command = self::program(program, package);
        command.arg(peer_file(file));
        command
    };
    match name {
        "node" => script("node", "nodejs", "pool.js"),
        "java" => script("java", "default-jdk-headless", "Pool.java"),
        library => {
            let mut python = python_with_packages("pool.py");
            python.arg(library);
            python
        }
    }
}

/// How many of the [`REQUESTS`] of a client are answered.
async fn answered(server: &Server, name: &str) -> usize {
    let mut client = client(name);
    client.args([&server.address.port().to_string(), &CERTIFICATE.cert, "pairs"]);
    let output = run_well(&mut client, b"").await;
    from_utf8(&output).ok().and_then(|count| count.trim().parse().ok()).expect("a count")
}

#[tokio::test]
async fn an_unread_upload_costs_no_pool_its_next_request() {
    let server = Server::serve(&[]).await;
    for name in ["node", "java", "aiohttp", "requests", "httpx", "httpx-http2"] {
        assert_eq!(answered(&server, name).await, REQUESTS, "{name}");
    }
    // What the others lose there depends on the moment in which they see the end of the connection.
    let bare = Server::start(Build::Tests.bare_server(LOOPBACK)).await;
    let answered = answered(&bare, "node").await;
    println!("the bare server: {answered} of {REQUESTS}");
    assert!(answered < REQUESTS, "the control proves nothing");
}

/// The window for a last request, in which the client stays idle, and half a second for its answer to close_notify. A busy machine needs
/// some time more. The server would wait for 10 s where an answer may be undelivered.
const EXIT: Duration = Duration::from_secs(5);

/// Such clients look at their connection when they have a request.
#[tokio::test]
async fn an_idle_client_that_does_not_look_at_its_connection_does_not_hold_the_exit() {
    for name in ["requests", "httpx", "httpx-http2", "java"] {
        let server = Server::serve(&["--last-request", "1s", "--grace", "30s"]).await;
        let mut client = client(name);
        client.args([&server.address.port().to_string(), &CERTIFICATE.cert, "idle"]);
        let mut client = Background::start(&mut client);
        client.line_with("idle").await.expect("a client that has its answer");
        let signalled = Instant::now();
        server.signal(Signal::TERM);
        let drained = server.exit().await.pop().expect("an event");
        println!("{name}: {:?}", signalled.elapsed());
        assert!(signalled.elapsed() < EXIT, "{name}: {drained}");
    }
}
