//! What the tests with programs of others share: these programs, the `tls-shutdown` command, networks, and clients by hand.
//!
//! In `tests/peers` they are clients of `tls-shutdown serve` and servers of `tls-shutdown send`. The other tests prove what the server and
//! the client drain promise, each with a control for which the proof fails. Every process ends with its test.

pub mod client;
pub mod http2;
mod namespace;
mod server;

use std::{
    env,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::LazyLock,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{sleep, timeout},
};

pub use namespace::Namespace;
pub use server::{Build, LOOPBACK, Server, is_port_open, is_unix_socket_open};

/// The versions of TLS, in the way that most programs spell them.
pub const VERSIONS: [&str; 2] = ["1.2", "1.3"];

/// No step of a test takes longer than this, unless it hangs.
const HANG: Duration = Duration::from_secs(60);

/// How a connection ended, as its event reports it: `ending`, `sent`, `received`.
pub type End<'a> = (&'a str, bool, bool);

/// Both close_notify alerts were sent and received.
pub const COMPLETE: End = ("complete", true, true);

/// The end of a connection that an event reports.
pub fn end(event: &Value) -> End<'_> {
    let field = |name: &str| event[name].as_bool().expect("a boolean");
    (event["ending"].as_str().expect("an ending"), field("sent"), field("received"))
}

/// Awaits `step`. Fails the test if it hangs.
pub async fn within<T>(step: impl Future<Output = T>) -> T {
    timeout(HANG, step).await.expect("a step hangs")
}

/// Polls until something is so. For what nothing reports, as the state of another process in `/proc`.
pub async fn glance(mut is_so: impl FnMut() -> bool) {
    within(async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A program of a Debian package. Fails the test if it is not installed.
pub fn program(name: &str, package: &str) -> Command {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_there = env::split_paths(&path).any(|directory| directory.join(name).is_file());
    assert!(is_there, "{name} is needed here: apt-get install --no-install-recommends {package}");
    Command::new(name)
}

/// curl, which speaks this version of TLS.
pub fn curl(version: &str) -> Command {
    let mut command = program("curl", "curl");
    command.args(["-sS", "--noproxy", "*", "--cacert", &CERTIFICATE.cert]);
    command.args([&format!("--tlsv{version}"), "--tls-max", version]);
    command
}

/// A script for Python among `peers`.
pub fn python(script: &str) -> Command {
    let mut command = program("python3", "python3");
    command.arg(peer_file(script));
    command
}

/// A script for Python among `peers` that needs packages of others.
pub fn python_with_packages(script: &str) -> Command {
    let mut command = python_program("python");
    command.arg(peer_file(script));
    command
}

/// A program of the packages in `peers/requirements.txt`. Fails the test if they are not installed.
pub fn python_program(name: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers/bin").join(name);
    assert!(path.is_file(), "{name} of peers/requirements.txt is needed here: STEPS=peers bash .ci/run");
    Command::new(path)
}

/// A script or source file among `peers`.
pub fn peer_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name)
}

/// A directory for files of this process, beside the executable of the test.
pub fn directory() -> PathBuf {
    let test = env::current_exe().expect("the path of this test");
    let directory = test.with_file_name(format!("interop-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory beside the test");
    directory
}

/// A certificate for localhost and its address, and the key, in PEM files.
pub struct Certificate {
    /// The certificate, which is also what clients trust.
    pub cert: String,
    /// Its key.
    pub key: String,
}

/// The certificate of all servers here.
pub static CERTIFICATE: LazyLock<Certificate> = LazyLock::new(|| {
    let file = |name: &str| directory().join(name).to_str().expect("a UTF-8 path").to_owned();
    let certificate = Certificate { cert: file("cert.pem"), key: file("key.pem") };
    let mut openssl = program("openssl", "openssl").into_std();
    openssl
        .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -days 30".split(' '))
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-out", &certificate.cert, "-keyout", &certificate.key]);
    let made = openssl.output().expect("openssl runs");
    assert!(made.status.success(), "{made:?}");
    certificate
});

/// Runs a program to its end.
pub async fn run(command: &mut Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("piped");
    let feed = async move {
        // It may end before it has read everything. Its output and status show whether it should.
        let _ = stdin.write_all(input).await;
    };
    let ((), output) = within(async { tokio::join!(feed, child.wait_with_output()) }).await;
    output.expect("the program can be waited for")
}

/// Runs a program, which must succeed. Returns its standard output.
pub async fn run_well(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let output = run(command, input).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {error}", output.status);
    output.stdout
}

/// Runs `tls-shutdown send`. Returns whether every goal was reached, and the events.
pub async fn send(port: u16, arguments: &[&str], input: &[u8]) -> (bool, Vec<Value>) {
    let server = format!("127.0.0.1:{port}");
    let mut command = Build::Tests.command("tls-shutdown");
    command.args(["send", &server, "--json", "--ca", &CERTIFICATE.cert]).args(arguments);
    let output = run(&mut command, input).await;
    let events = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    let events = events.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect();
    (output.status.success(), events)
}

/// A program in the background, which ends with this value.
pub struct Background {
    child: Child,
    _stdin: ChildStdin,
    lines: UnboundedReceiver<Vec<u8>>,
}

impl Background {
    /// Starts a program. Its input stays open and empty.
    pub fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the program starts");
        // At once, so that it never waits for room in a pipe.
        let (sender, lines) = unbounded_channel();
        tokio::spawn(forward(child.stdout.take().expect("piped"), sender.clone()));
        tokio::spawn(forward(child.stderr.take().expect("piped"), sender));
        Self { _stdin: child.stdin.take().expect("piped"), child, lines }
    }

    /// Starts a server that cannot take port 0, on a port that was free a moment ago. Its output contains `ready` when it listens.
    pub async fn start_on_free_port(mut command: impl FnMut(u16) -> Command, ready: &str) -> (Self, u16) {
        for _ in 0..10 {
            let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
            let port = free.expect("a free port").port();
            let mut server = Self::start(&mut command(port));
            if server.line_with(ready).await.is_some() {
                return (server, port);
            }
        }
        panic!("the server never listens: {:?}", command(0));
    }

    /// Waits for the next line of its output that contains `text`. Returns `None` if the output ends before.
    pub async fn line_with(&mut self, text: &str) -> Option<String> {
        while let Some(line) = within(self.lines.recv()).await {
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.contains(text) {
                return Some(line);
            }
            // Shown if the test fails.
            eprint!("{line}");
        }
        None
    }

    /// What it has printed and nobody has asked for yet.
    pub fn lines_so_far(&mut self) -> String {
        let mut lines = Vec::new();
        while let Ok(line) = self.lines.try_recv() {
            lines.extend(line);
        }
        String::from_utf8_lossy(&lines).into_owned()
    }

    /// The port at the end of the first line that contains `text`.
    pub async fn port(&mut self, text: &str) -> u16 {
        let line = self.line_with(text).await.expect("a line with the port");
        let port = line.trim_end().rsplit(|character: char| !character.is_ascii_digit()).next();
        port.and_then(|port| port.parse().ok()).expect("a port")
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Signals it.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        kill_process(id.expect("a process"), signal).expect("it can be signalled");
    }

    /// Waits for its end, which must be a success. Returns the rest of its output.
    pub async fn output(mut self) -> Vec<u8> {
        let mut output = Vec::new();
        while let Some(line) = within(self.lines.recv()).await {
            output.extend(line);
        }
        let status = within(self.child.wait()).await.expect("the program can be waited for");
        assert!(status.success(), "{status}: {}", String::from_utf8_lossy(&output));
        output
    }
}

async fn forward(output: impl AsyncRead + Unpin, lines: UnboundedSender<Vec<u8>>) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line).await.expect("readable") > 0 {
        let _ = lines.send(std::mem::take(&mut line));
    }
}

/// Who closes a connection first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// The client, once it has the whole response.
    Client,
    /// The server, whose close_notify is the end of the response.
    Server,
}

/// What each client asks for: who closes first, the path, and the length of the body.
pub const REQUESTS: [(First, &str, usize); 2] =
    [(First::Client, "/bytes/1000000", 1_000_000), (First::Server, "/close/100000", 100_000)];

/// Makes a request through a program that copies its input to the server. Its input ends when the body is whole, or after the server has
/// closed. Returns the length of the body.
pub async fn talk(command: &mut Command, first: First, path: &str, length: usize) -> usize {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().expect("the program starts");
    let (mut input, mut output) = (child.stdin.take(), child.stdout.take().expect("piped"));
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    input.as_mut().expect("piped").write_all(request.as_bytes()).await.expect("the program reads");
    let mut received = Vec::new();
    let body = |received: &[u8]| {
        let head = received.windows(4).position(|window| window == b"\r\n\r\n");
        head.map(|head| received.len() - head - 4)
    };
    while within(output.read_buf(&mut received)).await.expect("readable") > 0 {
        if first == First::Client && body(&received) >= Some(length) {
            input = None;
        }
    }
    within(child.wait()).await.expect("the program can be waited for");
    drop(input);
    body(&received).expect("a response")
}
