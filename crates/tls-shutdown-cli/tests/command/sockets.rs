//! `serve` with several sockets, with TLS and without.

use std::{io, net::SocketAddr, path::PathBuf, process::Stdio, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpStream, UnixStream},
    task::yield_now,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    client::{connect, read_to_end, request},
    process::{CERTIFICATE, Serve, command, run, within},
};

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("tls-shutdown-cli-{}-{name}", std::process::id()))
}

fn address(event: &Value) -> SocketAddr {
    event["addr"].as_str().and_then(|address| address.parse().ok()).expect("an address")
}

async fn ask(stream: &mut (impl AsyncWrite + Unpin), line: &str) {
    within(stream.write_all(format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())).await.expect("sent");
}

/// Reads up to the end of a text.
async fn read_until(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut received = Vec::new();
    while !received.ends_with(end.as_bytes()) {
        received.push(within(stream.read_u8()).await.expect("a response"));
    }
    String::from_utf8(received).expect("text")
}

async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut received = Vec::new();
    within(stream.read_to_end(&mut received)).await?;
    Ok(String::from_utf8(received).expect("text"))
}

/// What a drain does with the connections of each socket, in every state, is tested in `tests/interop/tests/states`.
#[tokio::test]
async fn one_signal_ends_every_socket() {
    let socket = path("drain.sock");
    let unix = socket.to_str().expect("UTF-8 path");
    let sockets = ["--unix", unix, "--plain", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--plain", "127.0.0.1:0"];
    let mut server = Serve::start(&[&sockets[..], &["--last-request", "3s", "--grace", "1h"]].concat()).await;
    let mut events = Vec::new();
    for transport in ["tls", "plain", "plain", "unix"] {
        let event = server.next_event().await;
        assert_eq!((&event["event"], &event["transport"]), (&json!("listening"), &json!(transport)), "{event}");
        events.push(event);
    }
    assert_eq!(events[3]["addr"], unix);
    let [second_tls, plain, second_plain] = [&events[0], &events[1], &events[2]].map(address);
    assert_ne!(second_tls, server.address);

    let (mut tls, mut plain_clients) = (connect(second_tls).await, Vec::new());
    for address in [plain, second_plain] {
        plain_clients.push(TcpStream::connect(address).await.unwrap());
    }
    let mut over_unix = UnixStream::connect(&socket).await.unwrap();
    // The server has accepted them.
    request(&mut tls, "GET /bytes/3").await;
    read_until(&mut tls, "...").await;
    for client in &mut plain_clients {
        ask(client, "GET /bytes/3").await;
        read_until(client, "...").await;
    }
    ask(&mut over_unix, "GET /bytes/3").await;
    read_until(&mut over_unix, "...").await;
    server.signal(Signal::TERM);

    // The server has stopped to listen.
    within(async {
        while socket.exists() {
            yield_now().await;
        }
    })
    .await;
    request(&mut tls, "GET /bytes/100").await;
    let (answer, end) = read_to_end(&mut tls).await;
    assert!(end.is_ok() && answer.ends_with(&[b'.'; 100]));
    tls.shutdown().await.unwrap();
    let is_last = |answer: String| answer.contains("connection: close") && answer.ends_with(&".".repeat(100));
    for mut client in plain_clients {
        ask(&mut client, "GET /bytes/100").await;
        assert!(is_last(rest(&mut client).await.unwrap()));
    }
    ask(&mut over_unix, "GET /bytes/100").await;
    assert!(is_last(rest(&mut over_unix).await.unwrap()));
    drop(over_unix);

    let (status, events) = server.wait_for_exit().await;
    assert!(status.success());
    let drained = events.last().unwrap();
    assert_eq!((&drained["connections"], &drained["endings"]), (&json!(4), &json!({ "complete": 4 })), "{drained}");
    assert!(TcpStream::connect(plain).await.is_err());
}

#[tokio::test]
async fn a_cut_response_that_ends_with_a_plain_connection_is_reset() {
    let mut server = Serve::start(&["--plain", "127.0.0.1:0"]).await;
    let plain = address(&server.next_event().await);
    let mut client = TcpStream::connect(plain).await.unwrap();
    ask(&mut client, "GET /abort/100").await;
    assert_eq!(rest(&mut client).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let closed = server.next_closed().await;
    assert_eq!(
        (&closed["transport"], &closed["ending"], &closed["responses_cut"]),
        (&json!("plain"), &json!("aborted"), &json!(1))
    );
}

#[tokio::test]
async fn plain_sockets_alone_need_no_tls() {
    let mut child = command(&["serve", "--json", "--plain", "127.0.0.1:0"]);
    let mut server = Serve::spawn(&mut child).await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    ask(&mut client, "GET /bytes/3").await;
    assert!(read_until(&mut client, "...").await.starts_with("HTTP/1.1 200"));
    drop(client);
    let closed = server.next_closed().await;
    assert_eq!((&closed["transport"], &closed["ending"]), (&json!("plain"), &json!("complete")));
    server.signal(Signal::TERM);
    let (status, events) = server.wait_for_exit().await;
    assert!(status.success() && events.iter().all(|event| event["event"] != "listening"), "{events:?}");
}

#[tokio::test]
async fn a_socket_in_use_is_said_to_be() {
    let socket = path("in-use.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let output = run(&["serve", "--unix", socket.to_str().expect("UTF-8 path")]).await;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("cannot listen on") && text.contains("--unix"), "{text}");
    drop(listener);
    std::fs::remove_file(&socket).unwrap();
}

/// A CA and a client whom it has signed.
struct Authority {
    pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).expect("parameters");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("a CA");
        let key = KeyPair::generate().expect("a key");
        let client = CertificateParams::new(vec!["client".to_owned()]).expect("parameters");
        let client = client.signed_by(&key, &authority).expect("a certificate");
        Self { pem: authority.pem(), chain: vec![client.der().clone()], key: key.serialize_pem() }
    }
}

/// Whom a client says to be.
enum Identity<'a> {
    None,
    Of(&'a Authority),
}

async fn ask_as(address: SocketAddr, identity: Identity<'_>) -> io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(CERTIFICATE.cert()).expect("a certificate")).expect("a root");
    let builder = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match identity {
        Identity::None => builder.with_no_client_auth(),
        Identity::Of(authority) => {
            let key = PrivateKeyDer::from_pem_slice(authority.key.as_bytes()).expect("a key");
            builder.with_client_auth_cert(authority.chain.clone(), key).expect("a certificate")
        }
    };
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    let mut stream: TlsStream<_> = within(TlsConnector::from(Arc::new(config)).connect(name, tcp)).await?;
    within(stream.write_all(b"GET /bytes/3 HTTP/1.0\r\n\r\n")).await?;
    rest(&mut stream).await
}

/// The files are read again at SIGHUP: a client of the old CA is a stranger then. A bad file keeps the old ones.
#[tokio::test]
async fn only_clients_of_the_client_ca_are_served() {
    let (first, second) = (Authority::new(), Authority::new());
    let file = path("client-ca.pem");
    std::fs::write(&file, &first.pem).unwrap();
    let mut server = Serve::start(&["--client-ca", file.to_str().expect("UTF-8 path")]).await;
    let address = server.address;
    let is_served = async |identity| ask_as(address, identity).await.is_ok_and(|answer| answer.ends_with("..."));
    assert!(is_served(Identity::Of(&first)).await);
    assert!(!is_served(Identity::None).await && !is_served(Identity::Of(&second)).await);

    std::fs::write(&file, &second.pem).unwrap();
    server.signal(Signal::HUP);
    let reloaded = async |server: &mut Serve| loop {
        let event = server.next_event().await;
        if event["event"] == "reloaded" {
            break event["error"].clone();
        }
    };
    assert_eq!(reloaded(&mut server).await, Value::Null);
    assert!(is_served(Identity::Of(&second)).await);
    assert!(!is_served(Identity::Of(&first)).await && !is_served(Identity::None).await);

    std::fs::write(&file, "no certificate").unwrap();
    server.signal(Signal::HUP);
    let error = reloaded(&mut server).await;
    assert!(error.as_str().is_some_and(|error| error.contains("contains no certificate")), "{error}");
    assert!(is_served(Identity::Of(&second)).await && !is_served(Identity::Of(&first)).await);
    std::fs::remove_file(&file).unwrap();
    server.signal(Signal::TERM);
    assert!(server.wait_for_exit().await.0.success());
}

/// Without TLS there is no certificate, so none stays in use.
#[tokio::test]
async fn a_hangup_without_files_is_answered_as_what_it_is() {
    for (socket, reason) in
        [("--plain", "no socket has TLS"), ("--listen", "the certificate is self-signed; start with --cert and --key")]
    {
        let mut serve = command(&["serve", socket, "127.0.0.1:0"]);
        let mut serve = serve.stdout(Stdio::piped()).spawn().expect("the command starts");
        let mut lines = BufReader::new(serve.stdout.take().expect("piped")).lines();
        let listening = within(lines.next_line()).await.expect("readable").expect("a line");
        assert!(listening.starts_with("listening on "), "{listening}");
        let id = serve.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw).expect("it runs");
        kill_process(id, Signal::HUP).expect("the signal is sent");
        let answer = within(lines.next_line()).await.expect("readable").expect("a line");
        assert_eq!(answer, format!("nothing was read again: {reason}"));
        kill_process(id, Signal::TERM).expect("the signal is sent");
        assert!(within(serve.wait()).await.expect("it exits").success());
    }
}
