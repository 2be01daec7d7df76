//! The command as a child process, which is killed at the end of the test.

use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    path::PathBuf,
    process::{ExitStatus, Output, Stdio},
    sync::LazyLock,
    time::Duration,
};

use rustix::{
    fs::{Mode, OFlags, open},
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStderr, Command},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinHandle,
    time::timeout,
};

/// A step that takes longer hangs.
const HANG: Duration = Duration::from_secs(30);

/// The PEM files of a certificate for localhost and of its key.
pub(crate) struct Certificate {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

pub(crate) static CERTIFICATE: LazyLock<Certificate> = LazyLock::new(|| Certificate::write("shared"));

impl Certificate {
    /// Writes a new certificate into files of this name.
    pub(crate) fn write(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let file = |kind: &str| {
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}-{kind}.pem", std::process::id()))
        };
        let certificate = Self { cert: file("cert"), key: file("key") };
        std::fs::write(&certificate.cert, made.cert.pem()).expect("cert file");
        std::fs::write(&certificate.key, made.signing_key.serialize_pem()).expect("key file");
        certificate
    }

    pub(crate) fn cert(&self) -> &str {
        self.cert.to_str().expect("UTF-8 path")
    }

    pub(crate) fn key(&self) -> &str {
        self.key.to_str().expect("UTF-8 path")
    }
}

/// Awaits `step`, and fails the test if it hangs.
pub(crate) async fn within<T>(step: impl Future<Output = T>) -> T {
    timeout(HANG, step).await.expect("a step hangs")
}

pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tls-shutdown"));
    command.args(arguments).kill_on_drop(true).stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

/// Runs the command to its end.
pub(crate) async fn run(arguments: &[&str]) -> Output {
    within(command(arguments).output()).await.expect("the command runs")
}

/// A new terminal: the side for the command, and the side that shows what it writes.
pub(crate) fn open_terminal() -> (OwnedFd, OwnedFd) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&terminal).expect("access");
    unlockpt(&terminal).expect("access");
    let name = ptsname(&terminal, Vec::new()).expect("a name");
    (open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("its other side"), terminal)
}

/// A running `serve --json`.
pub(crate) struct Serve {
    child: Child,
    lines: UnboundedReceiver<String>,
    reading: JoinHandle<()>,
    pub(crate) address: SocketAddr,
}

impl Serve {
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        Self::start_with(&CERTIFICATE, arguments).await
    }

    pub(crate) async fn start_with(certificate: &Certificate, arguments: &[&str]) -> Self {
        Self::spawn(&mut Self::command(certificate, arguments)).await
    }

    /// The command that [`spawn`](Self::spawn) starts.
    pub(crate) fn command(certificate: &Certificate, arguments: &[&str]) -> Command {
        let (cert, key) = (certificate.cert(), certificate.key());
        let mut command = command(&["serve", "--json", "--listen", "127.0.0.1:0", "--cert", cert, "--key", key]);
        command.args(arguments);
        command
    }

    pub(crate) async fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the command starts");
        let output = child.stdout.take().expect("piped");
        // This task reads every line at once, so that the pipe is never full.
        let (sender, lines) = unbounded_channel();
        let reading = tokio::spawn(async move {
            let mut output = BufReader::new(output).lines();
            while let Some(line) = output.next_line().await.expect("readable") {
                let _ = sender.send(line);
            }
        });
        let mut serve = Self { child, lines, reading, address: ([0; 4], 0).into() };
        let listening = serve.next_event().await;
        assert_eq!(listening["event"], "listening");
        serve.address = listening["addr"].as_str().and_then(|address| address.parse().ok()).expect("an address");
        serve
    }

    /// Waits for the next event.
    pub(crate) async fn next_event(&mut self) -> Value {
        let line = within(self.lines.recv()).await.expect("an event");
        serde_json::from_str(&line).expect("one JSON object per line")
    }

    /// Waits for the next event, which must report a closed connection.
    pub(crate) async fn next_closed(&mut self) -> Value {
        let event = self.next_event().await;
        assert_eq!(event["event"], "closed", "{event}");
        event
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        kill_process(id.expect("the command runs"), signal).expect("the signal is sent");
    }

    /// Waits for the exit. Returns all events until then.
    pub(crate) async fn wait_for_exit(mut self) -> (ExitStatus, Vec<Value>) {
        let mut events = Vec::new();
        while let Some(line) = within(self.lines.recv()).await {
            events.push(serde_json::from_str(&line).expect("one JSON object per line"));
        }
        (self.wait_for_status().await, events)
    }

    /// The command's standard error, which must be a pipe.
    pub(crate) fn stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().expect("a pipe")
    }

    /// Closes the reading end of the pipe to which the command writes events.
    pub(crate) async fn stop_reading(&mut self) {
        self.reading.abort();
        assert!((&mut self.reading).await.is_err_and(|error| error.is_cancelled()));
    }

    pub(crate) async fn wait_for_status(&mut self) -> ExitStatus {
        within(self.child.wait()).await.expect("the command exits")
    }
}
