//! gRPC's health checks, asked by a client that is none of tonic's.

use rustix::process::Signal;
use tls_shutdown_interop::{Background, Build, directory, python_with_packages};

#[tokio::test]
async fn health_checks_hear_of_the_drain_while_calls_succeed() {
    let certificate = directory().join("grpc.pem");
    let mut server = Build::Tests.command("tonic_server");
    server.arg("127.0.0.1:0").arg(&certificate);
    let mut server = Background::start(&mut server);
    let port = server.port("listening on").await;
    let mut client = python_with_packages("grpc_health.py");
    client.arg(port.to_string()).arg(&certificate);
    let mut client = Background::start(&mut client);
    for line in ["watch SERVING", "check SERVING hello you", "check SERVING hello you"] {
        client.line_with(line).await.expect("a server that serves");
    }
    server.signal(Signal::TERM);
    for line in
        ["watch NOT_SERVING", "check NOT_SERVING hello you", "check NOT_SERVING hello you", "watch ends with OK"]
    {
        client.line_with(line).await.expect("a server that gives notice");
    }
    let report = String::from_utf8(server.output().await).expect("text");
    assert!(report.contains("(seen by the probes)") && !report.contains("responses cut"), "{report}");
}
