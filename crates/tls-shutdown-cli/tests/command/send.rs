//! `send` with `serve`, and with servers that misbehave.

use std::{fs::File, process::Stdio, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::process::{CERTIFICATE, Serve, command, run, within};

#[tokio::test]
async fn the_second_connection_resumes_the_session_of_the_first() {
    let server = Serve::start(&[]).await;
    let address = server.address.to_string();
    let output = run(&["send", &address, "--insecure", "--bytes", "3000000", "--connections", "2", "--json"]).await;
    let reports = reports(&output.stdout);
    assert!(output.status.success(), "{reports:?}");
    let resumed: Vec<_> = reports.iter().map(|report| report["resumed"].as_bool().unwrap()).collect();
    assert_eq!(resumed, [false, true]);
    for report in &reports {
        assert_eq!((&report["event"], &report["ending"]), (&"closed".into(), &"complete".into()));
        assert_eq!(
            (&report["bytes"], &report["sent"], &report["received"]),
            (&3_000_000.into(), &true.into(), &true.into())
        );
        assert!(report["tickets"].as_u64() >= Some(1), "{report}");
    }
}

#[tokio::test]
async fn a_self_signed_server_can_be_sent_to() {
    let mut serve = command(&["serve", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = [0; 200];
    let amount = within(serve.stdout.take().unwrap().read(&mut line)).await.unwrap();
    let line = String::from_utf8_lossy(&line[..amount]);
    assert!(line.contains("self-signed certificate; try: curl -k"), "{line}");
    let address = line.split("https://").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let output = run(&["send", address, "--insecure", "--bytes", "1"]).await;
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("complete: "));
    let untrusted = run(&["send", address, "--ca", CERTIFICATE.cert(), "--bytes", "1"]).await;
    assert_eq!(untrusted.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&untrusted.stderr).contains("is not trusted"));
}

#[tokio::test]
async fn standard_input_is_sent_to_its_end() {
    let (listener, address) = listen().await;
    let mut child = command(&["send", &address, "--ca", CERTIFICATE.cert(), "--server-name", "localhost", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let feed = tokio::spawn(async move { input.write_all(&[b'x'; 300_000]).await });
    let mut stream = accept(&listener).await;
    let mut received = Vec::new();
    within(stream.read_to_end(&mut received)).await.expect("close_notify");
    assert!(received == [b'x'; 300_000], "{} bytes", received.len());
    stream.shutdown().await.unwrap();
    feed.await.unwrap().unwrap();
    let output = within(child.wait_with_output()).await.unwrap();
    assert!(output.status.success());
    let report = &reports(&output.stdout)[0];
    assert_eq!((&report["ending"], &report["bytes"]), (&"complete".into(), &300_000.into()));
}

#[tokio::test]
async fn a_server_that_truncates_or_resets_is_a_failure() {
    for (ending, linger) in [("truncated", None), ("reset", Some(()))] {
        let (listener, address) = listen().await;
        let sending =
            tokio::spawn(async move { run(&["send", &address, "--insecure", "--bytes", "100000", "--json"]).await });
        let mut stream = accept(&listener).await;
        within(stream.read_to_end(&mut Vec::new())).await.unwrap();
        if linger.is_some() {
            stream.get_ref().0.set_zero_linger().unwrap();
        }
        drop(stream);
        let output = within(sending).await.unwrap();
        assert_eq!(output.status.code(), Some(1));
        let report = &reports(&output.stdout)[0];
        assert_eq!((&report["ending"], &report["sent"]), (&ending.into(), &true.into()));
    }
}

/// The reports are the purpose of `send`.
#[tokio::test]
async fn a_report_that_cannot_be_written_is_a_failure() {
    let (listener, address) = listen().await;
    let mut command = command(&["send", &address, "--insecure", "--bytes", "1"]);
    command.stdout(File::options().write(true).open("/dev/full").unwrap()).stderr(Stdio::piped());
    let sending = tokio::spawn(command.spawn().unwrap().wait_with_output());
    let mut stream = accept(&listener).await;
    within(stream.read_to_end(&mut Vec::new())).await.unwrap();
    stream.shutdown().await.unwrap();
    let output = within(sending).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to standard output"));
}

/// With every policy.
#[tokio::test]
async fn what_could_not_be_written_is_a_failure() {
    for policy in ["quiet", "unidirectional", "bidirectional"] {
        let (listener, address) = listen().await;
        let sending = tokio::spawn(async move {
            run(&["send", &address, "--insecure", "--bytes", "50MB", "--policy", policy, "--json"]).await
        });
        let mut stream = accept(&listener).await;
        within(stream.read_exact(&mut [0; 10_000])).await.unwrap();
        stream.get_ref().0.set_zero_linger().unwrap();
        drop(stream);
        let output = within(sending).await.unwrap();
        assert_eq!(output.status.code(), Some(1), "{policy}");
        assert!(reports(&output.stdout)[0]["bytes"].as_u64().unwrap() < 50_000_000, "{policy}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("not all data was written"), "{policy}");
    }
}

#[tokio::test]
async fn a_server_that_never_closes_is_timed_out() {
    let (listener, address) = listen().await;
    let sending = tokio::spawn(async move {
        run(&["send", &address, "--insecure", "--bytes", "1", "--close-timeout", "500ms", "--json"]).await
    });
    let stream = accept(&listener).await;
    let output = within(sending).await.unwrap();
    drop(stream);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(reports(&output.stdout)[0]["ending"], "timed_out");
}

#[tokio::test]
async fn a_failure_names_the_page_that_explains_it() {
    let (listener, address) = listen().await;
    let sending = tokio::spawn(async move { run(&["send", &address, "--insecure", "--bytes", "1"]).await });
    let mut stream = accept(&listener).await;
    within(stream.read_to_end(&mut Vec::new())).await.unwrap();
    drop(stream);
    let output = within(sending).await.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.starts_with("truncated: "), "{printed}");
    assert!(
        printed
            .ends_with("\n  see https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/endings/index.html#truncated\n"),
        "{printed}"
    );
}

#[tokio::test]
async fn the_close_timeout_limits_the_handshake() {
    let (listener, address) = listen().await;
    let output = run(&["send", &address, "--insecure", "--bytes", "1", "--close-timeout", "200ms", "--json"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(reports(&output.stdout)[0]["ending"], "not_started");
    assert!(String::from_utf8_lossy(&output.stderr).contains("within 200ms"));
    drop(listener);
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_reported() {
    let (listener, address) = listen().await;
    let sending = tokio::spawn(async move { run(&["send", &address, "--insecure", "--bytes", "1", "--json"]).await });
    let (mut tcp, _) = within(listener.accept()).await.unwrap();
    tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let output = within(sending).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(reports(&output.stdout)[0]["ending"], "not_tls");
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not speak TLS"));
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

async fn accept(listener: &TcpListener) -> TlsStream<TcpStream> {
    let chain = vec![CertificateDer::from_pem_file(CERTIFICATE.cert()).unwrap()];
    let key = PrivateKeyDer::from_pem_file(CERTIFICATE.key()).unwrap();
    let config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let (tcp, _) = within(listener.accept()).await.unwrap();
    within(TlsAcceptor::from(Arc::new(config)).accept(tcp)).await.unwrap()
}

fn reports(output: &[u8]) -> Vec<Value> {
    String::from_utf8_lossy(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
