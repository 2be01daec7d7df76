//! The servers of this repository as child processes: `tls-shutdown serve`, and the bare server that it is compared with.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    sync::LazyLock,
};

use rustix::process::Signal;
use serde_json::Value;
use tokio::process::Command;

use crate::{Background, CERTIFICATE, glance};

/// Any port of the loopback interface.
pub const LOOPBACK: &str = "127.0.0.1:0";

/// How the programs of this repository are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// In the profile of the tests.
    Tests,
    /// For much load.
    Release,
}

type Executables = LazyLock<HashMap<String, PathBuf>>;

impl Build {
    /// Runs an executable of this build.
    pub fn command(self, executable: &str) -> Command {
        static TESTS: Executables = LazyLock::new(|| build(if cfg!(debug_assertions) { "dev" } else { "release" }));
        static RELEASE: Executables = LazyLock::new(|| build("release"));
        let executables = match self {
            Self::Tests => &TESTS,
            Self::Release => &RELEASE,
        };
        let mut command = Command::new(&executables[executable]);
        command.env_remove("RUST_LOG");
        command
    }

    /// `tls-shutdown serve` at an address, with more arguments.
    pub fn serve(self, listen: &str, arguments: &[&str]) -> Command {
        let mut command = self.command("tls-shutdown");
        command.args(["serve", "--json", "--listen", listen]);
        command.args(["--cert", &CERTIFICATE.cert, "--key", &CERTIFICATE.key]).args(arguments);
        command
    }

    /// `tls-shutdown serve` without TLS at an address, with more arguments.
    pub fn serve_plain(self, listen: &str, arguments: &[&str]) -> Command {
        let mut command = self.command("tls-shutdown");
        command.args(["serve", "--json", "--plain", listen]).args(arguments);
        command
    }

    /// A server of hyper and tokio-rustls with nothing of ours.
    pub fn bare_server(self, listen: &str) -> Command {
        let mut command = self.command("bare_server");
        command.args([listen, &CERTIFICATE.cert, &CERTIFICATE.key]);
        command
    }

    /// The same without TLS.
    pub fn plain_bare_server(self, listen: &str) -> Command {
        let mut command = self.command("bare_server");
        command.arg(listen);
        command
    }
}

/// Builds the executables that the tests run. Returns their paths by name.
fn build(profile: &str) -> HashMap<String, PathBuf> {
    let mut build = std::process::Command::new(env!("CARGO"));
    build.args(["build", "--bins", "--package", "tls-shutdown-cli", "--package", env!("CARGO_PKG_NAME")]);
    build.args(["--package", "tls-shutdown-examples"]);
    build.args(["--profile", profile, "--message-format", "json"]);
    // With cargo's variables for this package, other packages would be built again.
    for (name, _) in std::env::vars_os() {
        if ["CARGO_MANIFEST_", "CARGO_PKG_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            build.env_remove(name);
        }
    }
    let output = build.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit()).output().expect("cargo runs");
    assert!(output.status.success(), "the executables do not build");
    let messages = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    let executables = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).expect("one JSON object a line");
        let name = message["target"]["name"].as_str()?.to_owned();
        Some((name, message["executable"].as_str()?.into()))
    });
    executables.collect()
}

/// A running server that reports in JSON where it listens and what happens.
pub struct Server {
    process: Background,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts it, and waits until it listens.
    pub async fn start(mut command: Command) -> Self {
        let mut process = Background::start(&mut command);
        let line = process.line_with("listening").await.expect("an event");
        let event: Value = serde_json::from_str(&line).expect("a JSON object");
        let address = event["addr"].as_str().and_then(|address| address.parse().ok()).expect("an address");
        Self { process, address }
    }

    /// `tls-shutdown serve` on the loopback interface, with its own defaults but for these arguments.
    pub async fn serve(arguments: &[&str]) -> Self {
        Self::start(Build::Tests.serve(LOOPBACK, arguments)).await
    }

    /// The process, which is the server itself also inside a namespace.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Signals it.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Stops the process. Its system goes on accepting connections and data.
    pub async fn halt(&self) {
        self.signal(Signal::STOP);
        let status = format!("/proc/{}/stat", self.id());
        glance(|| fs::read_to_string(&status).expect("it runs").contains(") T ")).await;
    }

    /// Waits until it listens no more.
    pub async fn stops_listening(&self) {
        glance(|| !is_port_open(self.address.port())).await;
    }

    /// The next event.
    pub async fn event(&mut self) -> Option<Value> {
        let line = self.process.line_with("{\"event\":").await?;
        Some(serde_json::from_str(&line).expect("one JSON object a line"))
    }

    /// The next event, which is of a closed connection.
    pub async fn closed(&mut self) -> Value {
        let event = self.event().await.expect("an event");
        assert_eq!(event["event"], "closed", "{event}");
        event
    }

    /// Waits for its exit. Returns the events until then. The last one is that of the drain.
    pub async fn exit(mut self) -> Vec<Value> {
        let mut events = Vec::new();
        while let Some(event) = self.event().await {
            events.push(event);
        }
        self.process.output().await;
        events
    }

    /// The address of a route.
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }
}

/// Whether a program listens on a port of TCP.
pub fn is_port_open(port: u16) -> bool {
    let port = format!(":{port:04X}");
    let table = BufReader::new(File::open("/proc/net/tcp").expect("a table"));
    for line in table.lines().skip(1) {
        let line = line.expect("a line");
        // The number of the line, the near address, the far one, and the state.
        let mut words = line.split_whitespace().skip(1);
        let (near, state) = (words.next().expect("an address"), words.nth(1));
        // Listeners come first. The connections behind them may be many thousands.
        if state != Some("0A") {
            break;
        }
        if near.ends_with(&port) {
            return true;
        }
    }
    false
}

/// Whether a program listens on a Unix socket.
pub fn is_unix_socket_open(path: &str) -> bool {
    let table = fs::read_to_string("/proc/net/unix").expect("a table");
    table.lines().any(|line| {
        // The socket's address, its references, its protocol, and its flags, which are those of a listener. The path comes last.
        let mut words = line.split_whitespace();
        words.nth(3) == Some("00010000") && words.last() == Some(path)
    })
}
