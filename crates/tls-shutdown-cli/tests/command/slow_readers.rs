//! `send` with OpenSSL servers that read late or slowly and send session tickets. Without this library, they lose the upload.

use std::{net::SocketAddr, process::Stdio, sync::Arc, thread::JoinHandle, time::Duration};

use rustls::pki_types::ServerName;
use serde_json::Value;
use tls_shutdown_tests::{
    client_config,
    openssl_peer::{ClientCertificate, Saw, acceptor, be_silent, read_slowly, read_to_end, serve},
};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};
use tokio_rustls::TlsConnector;

use crate::process::command;

const UPLOAD: usize = 3_000_000;
const RUNS: usize = 50;
const TLS13: &rustls::SupportedProtocolVersion = &rustls::version::TLS13;

/// The bytes that a server has read, how the connection ended, and whether the handshake resumed a session.
type Seen = (usize, Saw, bool);

#[derive(Clone, Copy, Debug)]
enum Reader {
    /// Waits before it reads.
    Late,
    /// Reads 200 kB/s.
    Slow,
}

fn serve_reader(reader: Reader, connections: usize) -> (SocketAddr, JoinHandle<Vec<Seen>>) {
    serve(acceptor(TLS13, ClientCertificate::Ignored), connections, move |mut peer| {
        let (amount, saw) = match reader {
            Reader::Late => {
                be_silent(Duration::from_secs(2));
                read_to_end(&mut peer)
            }
            Reader::Slow => read_slowly(&mut peer, 10_000, Duration::from_millis(50)),
        };
        let _ = peer.shutdown();
        (amount, saw, peer.ssl().session_reused())
    })
}

async fn seen(server: JoinHandle<Vec<Seen>>) -> Vec<Seen> {
    tokio::task::spawn_blocking(|| server.join().expect("no panic")).await.expect("no panic")
}

/// `head -c 3000000 /dev/zero | tls-shutdown send ADDRESS --insecure --json`
async fn send(address: SocketAddr) {
    let mut child = command(&["send", &address.to_string(), "--insecure", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(&vec![0; UPLOAD]).await.expect("taken");
    drop(stdin);
    let output = child.wait_with_output().await.expect("run");
    let report: Value = serde_json::from_slice(&output.stdout).expect("one report");
    assert_eq!(
        (report["ending"].as_str(), report["bytes"].as_u64(), output.status.code()),
        (Some("complete"), Some(UPLOAD as u64), Some(0)),
        "{report}"
    );
}

#[tokio::test]
async fn every_upload_arrives_whole() {
    let mut runs = JoinSet::new();
    for reader in [Reader::Late, Reader::Slow] {
        for _ in 0..RUNS {
            runs.spawn(async move {
                let (address, server) = serve_reader(reader, 1);
                send(address).await;
                assert_eq!(seen(server).await, [(UPLOAD, Saw::ZeroReturn, false)], "{reader:?}");
            });
        }
    }
    while let Some(run) = runs.join_next().await {
        run.expect("no panic");
    }
}

/// The control: the bare stream of tokio-rustls reports no error.
#[tokio::test]
async fn the_bare_stream_loses_uploads() {
    for reader in [Reader::Late, Reader::Slow] {
        let (address, server) = serve_reader(reader, 1);
        let tcp = TcpStream::connect(address).await.expect("a server");
        let name = ServerName::try_from("localhost").expect("a name");
        let mut stream =
            TlsConnector::from(Arc::new(client_config(TLS13))).connect(name, tcp).await.expect("a handshake");
        stream.write_all(&vec![0; UPLOAD]).await.expect("written");
        stream.shutdown().await.expect("no error is reported");
        drop(stream);
        let seen = seen(server).await;
        assert!(seen[0].0 < UPLOAD && seen[0].1 != Saw::ZeroReturn, "{reader:?}: {seen:?}");
    }
}

#[tokio::test]
async fn the_server_sees_the_second_connection_resume() {
    let (address, server) = serve_reader(Reader::Late, 2);
    let bytes = UPLOAD.to_string();
    let arguments = ["send", &address.to_string(), "--insecure", "--json", "--bytes", &bytes, "--connections", "2"];
    let output = command(&arguments).output().await.expect("run");
    let text = String::from_utf8(output.stdout).expect("text");
    let resumed: Vec<Value> =
        text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a report")["resumed"].clone()).collect();
    assert_eq!(resumed, [Value::Bool(false), Value::Bool(true)], "{text}");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(seen(server).await, [(UPLOAD, Saw::ZeroReturn, false), (UPLOAD, Saw::ZeroReturn, true)]);
}
