//! Clients that end their half of the connection behind the request, and then receive slowly.

use std::str::from_utf8;

use tls_shutdown_interop::{Build, CERTIFICATE, LOOPBACK, Server, VERSIONS, python_with_packages, run_well};
use tokio::task::JoinSet;

/// Clients that run at once.
const CLIENTS: usize = 6;

/// ALPN, what is requested, and what arrives. Over HTTP/2 there are three requests, within the windows that are open.
const REQUESTS: [(&str, &str, &str); 3] = [
    ("http/1.1", "/bytes/300000", "300000 close_notify"),
    ("http/1.1", "/bytes/3000000", "3000000 close_notify"),
    ("h2", "/bytes/10000", "30000 3 close_notify"),
];
/// What follows the client's close_notify, and after how many milliseconds. The system of the server would reset the connection over it.
const LATE: [(&str, &str); 5] = [("", "0"), ("junk!", "0"), ("junk!", "10"), ("junk!", "50"), ("junk!", "200")];

/// Runs clients of all kinds. Returns for each which kind it was, what it received, and what it should have.
async fn receive(server: &Server) -> Vec<(String, String, &'static str)> {
    let (mut running, mut received) = (JoinSet::new(), Vec::new());
    for version in VERSIONS {
        for (protocol, path, expected) in REQUESTS {
            for (late, delay) in LATE {
                let mut client = python_with_packages("half_close.py");
                client.args([&server.address.port().to_string(), &CERTIFICATE.cert]);
                client.args([version, protocol, path, late, delay]);
                running.spawn(async move {
                    let output = run_well(&mut client, b"").await;
                    let kind = format!("TLS {version}, {protocol}, {path}, {late:?} after {delay} ms");
                    (kind, from_utf8(&output).expect("UTF-8").trim_end().to_owned(), expected)
                });
                if running.len() == CLIENTS {
                    received.push(running.join_next().await.expect("a client").expect("no panic"));
                }
            }
        }
    }
    received.extend(running.join_all().await);
    received
}

#[tokio::test]
async fn an_answer_arrives_whole_at_a_client_that_half_closes() {
    let server = Server::serve(&[]).await;
    for (kind, received, expected) in receive(&server).await {
        assert_eq!(received, expected, "{kind}");
    }
    let bare = Server::start(Build::Tests.bare_server(LOOPBACK)).await;
    let received = receive(&bare).await;
    let whole = received.iter().filter(|(_, received, expected)| received == expected).count();
    println!("the bare server: {whole} of {}", received.len());
    assert!(whole < received.len(), "the control proves nothing");
}
