//! Servers that cannot be probed: each kind of error.

use std::{path::PathBuf, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use super::{
    probe,
    scripted::{Script, Speaks},
};
use crate::process::{CERTIFICATE, Certificate, Serve, run};

/// A probe that fails: the kind of its error, a part of the message, the exit code.
async fn fails(address: &str, more: &[&str], kind: &str, message: &str) {
    let (code, report) = probe(address, more).await;
    let text = report["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(text.contains(message), "{kind}: {report}");
    let expected = json!({
        "target": address,
        "reachable": false,
        "tls": null,
        "error": { "kind": kind, "message": text },
        "findings": [],
        "verdict": "unknown",
        "unexpected_eof": { "at_fault": "unknown", "meaning": "no TLS connection was made" },
    });
    assert_eq!((code, report), (Some(3), expected));
}

/// A server without TLS, which does this with each connection.
async fn plain<F: Future<Output = ()> + Send + 'static>(behave: impl Fn(TcpStream) -> F + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(behave(tcp));
        }
    });
    address
}

/// Writes this, and reads until the client leaves.
async fn say(mut tcp: TcpStream, bytes: &[u8]) {
    tcp.write_all(bytes).await.unwrap();
    // The client may reset the connection.
    let _ = tcp.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn a_port_that_is_closed_or_a_name_that_does_not_exist() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap().to_string();
    drop(listener);
    fails(&closed, &[], "refused", "cannot connect").await;
    fails("host.invalid:443", &[], "resolve", "cannot find the host host.invalid").await;
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls() {
    let http = plain(|tcp| async { say(tcp, b"HTTP/1.1 400 Bad Request\r\n\r\n").await }).await;
    fails(&http, &[], "not_tls", "not TLS").await;
    let garbage = plain(|tcp| async { say(tcp, &[0xa5; 2000]).await }).await;
    fails(&garbage, &[], "not_tls", "not TLS").await;
    let leaves = plain(|mut tcp| async move {
        // What is read is not reset.
        let _ = tcp.read(&mut [0; 4096]).await;
        tcp.shutdown().await.unwrap();
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await;
    fails(&leaves, &[], "not_tls", "ends the connection instead").await;
}

#[tokio::test]
async fn a_server_that_violates_tls() {
    for kind in [21, 22, 23] {
        let empty = plain(move |tcp| async move { say(tcp, &[kind, 3, 3, 0, 0]).await }).await;
        fails(&empty, &[], "protocol_error", "violates the TLS protocol").await;
    }
    // A HelloRequest in the place of a ServerHello.
    let requests = plain(|tcp| async { say(tcp, &[22, 3, 3, 0, 4, 0, 0, 0, 0]).await }).await;
    fails(&requests, &[], "protocol_error", "violates the TLS protocol").await;
}

#[tokio::test]
async fn a_server_that_sends_more_than_is_accepted() {
    let chain = Certificate::write("probed-chain");
    let certificate = std::fs::read_to_string(&chain.cert).expect("a certificate");
    std::fs::write(&chain.cert, certificate.repeat(300)).expect("a file");
    let server = Serve::start_with(&chain, &[]).await;
    fails(&server.address.to_string(), &[], "tls_limit", "more than the TLS library accepts").await;
    let warns = plain(|tcp| async { say(tcp, &[21, 3, 3, 0, 2, 1, 112].repeat(100)).await }).await;
    fails(&warns, &[], "tls_limit", "more than the TLS library accepts").await;
}

#[tokio::test]
async fn a_server_that_is_silent_or_slow() {
    let silent = plain(|tcp| async { say(tcp, b"").await }).await;
    // The first bytes of a record of the handshake.
    let slow = plain(|tcp| async { say(tcp, &[22, 3, 3]).await }).await;
    let begin = Instant::now();
    tokio::join!(
        fails(&silent, &[], "silent", "has sent nothing for 5 s"),
        fails(&silent, &["--starttls", "smtp"], "silent", "has sent nothing for 5 s"),
        fails(&slow, &[], "timeout", "not finished within 10 s"),
    );
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_server_that_resets() {
    let resets = plain(|mut tcp| async move {
        let _ = tcp.read(&mut [0; 4096]).await;
        tcp.set_zero_linger().unwrap();
    })
    .await;
    fails(&resets, &[], "reset", "ends the connection before TLS is established").await;
}

#[tokio::test]
async fn a_certificate_that_has_expired_or_has_another_name() {
    let mut parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(2000, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let expired = parameters.self_signed(&key).unwrap();
    let file = |kind: &str| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("expired-{kind}.pem"));
    let certificate = Certificate { cert: file("cert"), key: file("key") };
    std::fs::write(&certificate.cert, expired.pem()).unwrap();
    std::fs::write(&certificate.key, key.serialize_pem()).unwrap();
    let server = Serve::start_with(&certificate, &[]).await;
    let output = run(&[
        "probe",
        &server.address.to_string(),
        "--json",
        "--ca",
        certificate.cert(),
        "--server-name",
        "localhost",
    ])
    .await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["error"]["kind"]), (Some(3), &"certificate".into()), "{report}");
    assert!(report["error"]["message"].as_str().unwrap().contains("expired"), "{report}");

    let server = Serve::start(&[]).await;
    let address = server.address.to_string();
    let output =
        run(&["probe", &address, "--json", "--ca", CERTIFICATE.cert(), "--server-name", "other.example"]).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["error"]["kind"]), (Some(3), &"certificate".into()), "{report}");
}

#[tokio::test]
async fn a_server_that_refuses_the_client_by_an_alert() {
    let script = Script { speaks: Speaks::Nobody, ..Script::default() };
    fails(&script.start().await, &[], "refused", "the alert certificate_required").await;
}

#[tokio::test]
async fn a_server_that_refuses_starttls() {
    let smtp = plain(|mut tcp| async move {
        tcp.write_all(b"220 mail\r\n").await.unwrap();
        let _ = tcp.read(&mut [0; 100]).await;
        tcp.write_all(b"250-mail\r\n250 SIZE\r\n").await.unwrap();
        let _ = tcp.read(&mut [0; 100]).await;
        say(tcp, b"454 no TLS\r\n").await;
    })
    .await;
    fails(&smtp, &["--starttls", "smtp"], "not_tls", "answers \"454 no TLS\"").await;
    let imap = plain(|mut tcp| async move {
        tcp.write_all(b"* OK ready\r\n").await.unwrap();
        let _ = tcp.read(&mut [0; 100]).await;
        say(tcp, b"* note\r\na BAD no TLS\r\n").await;
    })
    .await;
    fails(&imap, &["--starttls", "imap"], "not_tls", "answers \"a BAD no TLS\"").await;
    let postgres = plain(|tcp| async { say(tcp, b"N").await }).await;
    fails(&postgres, &["--starttls", "postgres"], "not_tls", "answers \"N\"").await;
    // Another protocol, and no line.
    fails(&imap, &["--starttls", "smtp"], "not_tls", "answers \"* OK ready\"").await;
}
