//! The examples as a user runs them, and what they promise.

use std::{
    collections::BTreeSet,
    net::TcpListener,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use command_fds::{CommandFdExt, FdMapping};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpStream, UnixDatagram},
    process::{Child, ChildStdout, Command},
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// No step takes so long, unless it hangs.
const HANG: Duration = Duration::from_secs(30);

async fn within<F: Future>(future: F) -> F::Output {
    timeout(HANG, future).await.expect("nothing hangs")
}

/// A file of this test, which is not there yet.
fn file(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

/// A running example, and whatever it starts.
struct Example {
    process: Child,
    group: Pid,
    output: BufReader<ChildStdout>,
    /// What it has printed beside its addresses.
    told: String,
    address: String,
    cert: PathBuf,
}

impl Example {
    async fn start(program: &str, cert: &str) -> Self {
        let cert = file(cert);
        let mut command = Command::new(program);
        command.arg("127.0.0.1:0").arg(&cert);
        Self::run(command, cert).await
    }

    async fn run(mut command: Command, cert: PathBuf) -> Self {
        let mut process = command.stdout(Stdio::piped()).process_group(0).spawn().unwrap();
        let group = Pid::from_raw(process.id().unwrap().try_into().unwrap()).unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut example = Self { process, group, output, told: String::new(), address: String::new(), cert };
        example.address = example.listening().await;
        example
    }

    /// Where the next process listens.
    async fn listening(&mut self) -> String {
        loop {
            let mut line = String::new();
            within(self.output.read_line(&mut line)).await.unwrap();
            if let Some(address) = line.trim().strip_prefix("listening on https://") {
                return address.to_owned();
            }
            assert!(!line.is_empty(), "no other process listens: {}", self.told);
            self.told += &line;
        }
    }

    /// What a client needs: it trusts the example's certificate, and remembers sessions.
    fn client(&self, protocol: Option<&str>) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.cert).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocol.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Client { address: self.address.clone(), config: Arc::new(config) }
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.group, signal).unwrap();
    }

    /// Waits for its end, and that of all it has started. Gives what they have printed.
    async fn ended(mut self) -> String {
        within(self.output.read_to_string(&mut self.told)).await.unwrap();
        assert!(within(self.process.wait()).await.unwrap().success(), "{}", self.told);
        std::mem::take(&mut self.told)
    }
}

impl Drop for Example {
    /// A test that fails leaves nothing behind.
    fn drop(&mut self) {
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

#[derive(Clone)]
struct Client {
    address: String,
    config: Arc<ClientConfig>,
}

impl Client {
    async fn connect(&self) -> Connection {
        let tcp = within(TcpStream::connect(&self.address)).await.expect("not refused");
        let connector = TlsConnector::from(self.config.clone());
        let tls = within(connector.connect("localhost".try_into().unwrap(), tcp)).await.expect("a handshake");
        Connection(BufReader::new(tls))
    }
}

/// A client's connection.
struct Connection(BufReader<TlsStream<TcpStream>>);

/// An answer of HTTP/1.
struct Answer {
    head: String,
    body: String,
}

impl Answer {
    fn is_last(&self) -> bool {
        self.head.contains("connection: close")
    }
}

impl Connection {
    async fn send(&mut self, text: &str) {
        within(self.0.write_all(text.as_bytes())).await.unwrap();
        within(self.0.flush()).await.unwrap();
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        within(self.0.read_line(&mut line)).await.unwrap();
        line
    }

    async fn answer(&mut self) -> Answer {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let line = self.line().await;
            assert!(!line.is_empty(), "an end after {head:?}");
            head += &line.to_lowercase();
        }
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        let mut body = vec![0; length];
        within(self.0.read_exact(&mut body)).await.unwrap();
        Answer { head, body: String::from_utf8(body).unwrap() }
    }

    async fn ask(&mut self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        self.answer().await
    }

    /// Nothing more comes but close_notify, which is answered.
    async fn ends(mut self) {
        let mut rest = String::new();
        within(self.0.read_to_string(&mut rest)).await.expect("close_notify");
        assert_eq!(rest, "");
        within(self.0.shutdown()).await.unwrap();
    }
}

#[tokio::test]
async fn the_client_is_served_and_both_sides_end_completely() {
    let server = Example::start(env!("CARGO_BIN_EXE_server"), "server.pem").await;
    for _ in 0..2 {
        let mut client = Command::new(env!("CARGO_BIN_EXE_client"));
        let output = within(client.arg(&server.address).arg(&server.cert).output()).await.unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
        assert!(told.contains("200 OK") && told.contains("1000000 bytes"), "{told}");
        assert!(told.contains("complete: close_notify sent, received"), "{told}");
    }
    let mut idle = server.client(None).connect().await;
    assert_eq!(idle.ask("/ready").await.body, "ready\n");
    server.signal(Signal::TERM);
    idle.ends().await;
    let told = server.ended().await;
    assert_eq!(told.matches(" complete: close_notify sent, received").count(), 3, "{told}");
    assert!(told.contains("drained in ") && told.contains("1 complete"), "{told}");
}

#[tokio::test]
async fn axum_serve_announces_the_close_and_closes() {
    let server = Example::start(env!("CARGO_BIN_EXE_axum_serve"), "axum.pem").await;
    let client = server.client(None);
    let (mut first, mut second) = (client.connect().await, client.connect().await);
    let answer = first.ask("/").await;
    assert!(answer.body.starts_with("you are 127.0.0.1:") && !answer.is_last(), "{}", answer.head);
    second.ask("/").await;
    server.signal(Signal::TERM);
    first.ends().await;
    second.ends().await;
    let told = server.ended().await;
    assert!(told.contains("drained in ") && told.contains("2 complete"), "{told}");
}

#[tokio::test]
async fn the_tonic_server_answers_and_says_goodbye() {
    let server = Example::start(env!("CARGO_BIN_EXE_tonic_server"), "tonic.pem").await;
    let tls = server.client(Some("h2")).connect().await.0.into_inner();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls));
    let (mut calls, connection) = within(handshake).await.unwrap();
    let connection = tokio::spawn(connection);
    // A gRPC message, which is not compressed: StringValue { value: "you" }.
    let message = Bytes::from_static(b"\0\0\0\0\x05\x0a\x03you");
    let request = hyper::Request::post("https://localhost/example.Greeter/Greet")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(message))
        .unwrap();
    let answer = within(calls.send_request(request)).await.unwrap();
    let answer = within(answer.into_body().collect()).await.unwrap();
    assert_eq!(answer.trailers().and_then(|trailers| trailers.get("grpc-status")).unwrap(), "0");
    assert!(String::from_utf8_lossy(&answer.to_bytes()).contains("hello you at 127.0.0.1:"));
    server.signal(Signal::TERM);
    within(connection).await.unwrap().unwrap();
    let told = server.ended().await;
    assert!(told.contains("drained in ") && told.contains("1 complete"), "{told}");
}

#[tokio::test]
async fn the_accept_loop_says_farewell() {
    let server = Example::start(env!("CARGO_BIN_EXE_accept_loop"), "loop.pem").await;
    let mut client = server.client(None).connect().await;
    client.send("hello\n").await;
    assert_eq!(client.line().await, "hello\n");
    server.signal(Signal::TERM);
    assert_eq!(client.line().await, "farewell\n");
    client.ends().await;
    let told = server.ended().await;
    assert!(told.contains("drained in ") && told.contains("1 complete"), "{told}");
}

#[tokio::test]
async fn the_metrics_count_connections_by_their_ending() {
    let server = Example::start(env!("CARGO_BIN_EXE_metrics"), "metrics.pem").await;
    let client = server.client(None);
    let mut first = client.connect().await;
    first.ask("/metrics").await;
    within(first.0.shutdown()).await.unwrap();
    first.ends().await;
    let mut second = client.connect().await;
    let metrics = second.ask("/metrics").await.body;
    assert!(metrics.contains(r#"tls_connections_ended_total{ending="complete"} 1"#), "{metrics}");
    server.signal(Signal::TERM);
    second.ends().await;
    let told = server.ended().await;
    assert!(told.contains(r#"tls_connections_ended_total{ending="complete"} 2"#), "{told}");
    assert!(told.contains("tls_connection_age_seconds_count 2"), "{told}");
}

/// Clients of a server that is handed over.
#[derive(Clone)]
struct Crowd {
    client: Client,
    goes_on: watch::Receiver<bool>,
    answers: Arc<AtomicU64>,
    seen: Arc<Mutex<BTreeSet<String>>>,
}

impl Crowd {
    /// Connects and asks, a few times on each connection, until it is told to stop. Each failure is a panic.
    async fn ask_on(self) {
        while *self.goes_on.borrow() {
            let mut connection = self.client.connect().await;
            for _ in 0..5 {
                let answer = connection.ask("/").await;
                self.answers.fetch_add(1, Ordering::Relaxed);
                self.seen.lock().unwrap().insert(answer.body.clone());
                if answer.is_last() {
                    break;
                }
            }
            within(connection.0.shutdown()).await.unwrap();
            connection.ends().await;
        }
    }

    /// So many more requests are answered.
    async fn go_on(&self, requests: u64) {
        let target = self.answers.load(Ordering::Relaxed) + requests;
        while self.answers.load(Ordering::Relaxed) < target {
            self.client.connect().await.ask("/").await;
        }
    }
}

fn process_of(answer: &Answer) -> Pid {
    Pid::from_raw(answer.body.trim().strip_prefix("process ").unwrap().parse().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_handovers_lose_no_request_and_keep_sessions() {
    let (cert, key) = (file("handover.pem"), file("ticket.key"));
    std::fs::write(&key, [7; 32]).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_handover"));
    command.arg("127.0.0.1:0").arg(&cert).arg(&key);
    let mut server = Example::run(command, cert).await;

    let (stop, goes_on) = watch::channel(true);
    let crowd = Crowd { client: server.client(None), goes_on, answers: Arc::default(), seen: Arc::default() };
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        clients.spawn(crowd.clone().ask_on());
    }
    let returning = server.client(None);
    let mut current = server.group;
    for _ in 0..2 {
        crowd.go_on(100).await;
        let mut before = returning.connect().await;
        assert_eq!(process_of(&before.ask("/").await), current);
        kill_process(current, Signal::HUP).unwrap();
        assert_eq!(server.listening().await, server.address);
        // Its predecessor goes at about the same time, and tells this client so.
        while !before.ask("/").await.is_last() {}
        before.ends().await;
        current = loop {
            let mut after = returning.connect().await;
            assert_eq!(after.0.get_ref().get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
            let answers = process_of(&after.ask("/").await);
            // It may still find this connection in the queue of the system.
            if answers != current {
                break answers;
            }
        };
        crowd.go_on(100).await;
    }
    stop.send_replace(false);
    while let Some(client) = clients.join_next().await {
        client.expect("no connection is refused, no request fails");
    }
    assert_eq!(crowd.seen.lock().unwrap().len(), 3, "processes");
    kill_process(current, Signal::TERM).unwrap();
    let told = server.ended().await;
    assert_eq!(told.matches(" drained in ").count(), 3, "{told}");
    assert!(!told.contains("responses cut") && !told.contains("left open"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_that_cannot_serve_takes_nothing_over() {
    let (cert, key) = (file("failing-handover.pem"), file("failing-ticket.key"));
    std::fs::write(&key, [7; 32]).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_handover"));
    command.arg("127.0.0.1:0").arg(&cert).arg(&key).stderr(Stdio::piped());
    let mut server = Example::run(command, cert).await;
    let mut errors = BufReader::new(server.process.stderr.take().unwrap()).lines();
    let client = server.client(None);
    let mut connection = client.connect().await;
    // It may be tried again.
    for _ in 0..2 {
        std::fs::write(&key, "no key").unwrap();
        kill_process(server.group, Signal::HUP).unwrap();
        let told = |line: &str| line.starts_with("no successor: ");
        while !told(&within(errors.next_line()).await.unwrap().unwrap()) {}
        let answer = connection.ask("/").await;
        assert_eq!((process_of(&answer), answer.is_last()), (server.group, false));
    }
    std::fs::write(&key, [7; 32]).unwrap();
    kill_process(server.group, Signal::HUP).unwrap();
    assert_eq!(server.listening().await, server.address);
    while !connection.ask("/").await.is_last() {}
    connection.ends().await;
    let successor = process_of(&client.connect().await.ask("/").await);
    kill_process(successor, Signal::TERM).unwrap();
    assert_eq!(server.ended().await.matches(" drained in ").count(), 2);
}

/// What systemd does: it opens the socket, and gives it as descriptor 3 to the process that is named.
#[tokio::test]
async fn a_service_takes_its_socket_and_tells_systemd_how_it_goes() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let (cert, notifications) = (file("systemd.pem"), file("notify"));
    let systemd = UnixDatagram::bind(&notifications).unwrap();
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", r#"LISTEN_PID=$$ exec "$0" "$1""#, env!("CARGO_BIN_EXE_systemd_service")])
        .arg(&cert)
        .env("LISTEN_FDS", "1")
        .env("NOTIFY_SOCKET", &notifications)
        .fd_mappings(vec![FdMapping { parent_fd: socket.into(), child_fd: 3 }])
        .unwrap();
    // It is queued before the service is there.
    let early = TcpStream::connect(address);
    let (service, early) = tokio::join!(Example::run(command.into(), cert), early);
    assert_eq!(service.address, address.to_string());
    drop(early.unwrap());

    let told = async || {
        let mut message = [0; 1000];
        let length = within(systemd.recv(&mut message)).await.unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    assert!(told().await.contains("READY=1\n"));
    let mut upload = service.client(None).connect().await;
    upload.send("POST /count HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf.").await;
    service.signal(Signal::TERM);
    assert_eq!(told().await.trim(), "STOPPING=1");
    // Each extension has to last to the next one.
    let (mut status, mut ends) = (Vec::new(), None);
    while status.len() < 4 {
        let message = told().await;
        let now = Instant::now();
        assert!(ends.is_none_or(|ends| now < ends), "{status:?}");
        let extension = message.lines().find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC=")).unwrap();
        ends = Some(now + Duration::from_micros(extension.parse().unwrap()));
        status.push(message.lines().find_map(|line| line.strip_prefix("STATUS=")).unwrap().to_owned());
    }
    assert!(status.iter().all(|status| status.contains(", 1 connections left, ")), "{status:?}");
    upload.send("half.").await;
    assert_eq!(upload.answer().await.body, "10 bytes\n");
    upload.ends().await;
    assert!(service.ended().await.contains("drained in "));
    let mut last = told().await;
    while last.contains("EXTEND_TIMEOUT_USEC=") {
        last = told().await;
    }
    assert_eq!(last.trim(), "STATUS=drained");
}
