//! Standard output: JSON objects or lines for people, one for each thing that happened.

use std::{
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tls_shutdown::{
    ShutdownReport,
    server::{Acknowledgement, ConnectionReport, DrainHandle, DrainReport},
};

/// How long the process waits, at its exit, for a reader of its standard output.
const PRINT_LIMIT: Duration = Duration::from_millis(500);

/// Takes the line that is on a terminal away.
pub(crate) const CLEAR_LINE: &str = "\r\x1b[K";

/// How events are printed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Format {
    Json,
    Lines,
}

/// Prints what happens.
#[derive(Debug)]
pub(crate) struct Events {
    format: Format,
    printer: Printer,
}

/// What there is to tell of one connection of `send`.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) report: ShutdownReport,
    pub(crate) resumption: Resumption,
    /// Application bytes that were written.
    pub(crate) bytes: u64,
}

/// Whether a handshake resumed an earlier session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resumption {
    Resumed,
    Full,
}

impl Events {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, printer: Printer::start() }
    }

    pub(crate) fn listening(&self, address: SocketAddr, certificate: &str) {
        self.print(&json!({ "event": "listening", "addr": address.to_string() }), || {
            format!("listening on https://{address} ({certificate}; try: curl -k https://{address}/)")
        });
    }

    /// One connection of `serve` has ended.
    pub(crate) fn closed(&self, report: &ConnectionReport) {
        let mut event = json!({ "event": "closed", "peer": report.peer().to_string() });
        describe(&mut event, report.shutdown());
        event["requests"] = report.requests().into();
        event["responses_cut"] = report.responses_cut().into();
        self.print(&event, || report.to_string());
    }

    /// One connection of `send` has ended.
    pub(crate) fn sent(&self, sent: &Sent) {
        let Sent { report, resumption, bytes } = sent;
        let mut event = json!({ "event": "closed" });
        describe(&mut event, report);
        event["tickets"] = report.tickets().into();
        event["resumed"] = (*resumption == Resumption::Resumed).into();
        event["bytes"] = (*bytes).into();
        let handshake = match resumption {
            Resumption::Resumed => ", session resumed",
            Resumption::Full => "",
        };
        self.print(&event, || format!("{report}, {bytes} bytes written{handshake}"));
    }

    /// The server drain has come to its next phase. Only for people: programs find the phases in what is told of the whole.
    pub(crate) fn draining(&self, drain: &DrainHandle) {
        if let Format::Lines = self.format {
            self.printer.print(format!("draining: {}, open connections: {}", drain.phase(), drain.connections()));
        }
    }

    /// The server has drained.
    pub(crate) fn drained(&self, report: &DrainReport) {
        let event = json!({
            "event": "drained",
            "connections": report.connections(),
            "endings": report.endings(),
            "requests": report.requests(),
            "responses_cut": report.responses_cut(),
            "handshakes_finished": report.handshakes_finished(),
            "handshakes_cut": report.handshakes_cut(),
            "upgraded": report.upgraded(),
            "shed": report.shed(),
            "left": report.left(),
            "lingering": report.lingering(),
            "unacknowledged": match report.acknowledgement() {
                Acknowledgement::Everything => Some(0),
                Acknowledgement::Missing(bytes) => Some(bytes),
                _ => None,
            },
            "phases_ms": {
                "notice": milliseconds(report.notice()),
                "last_request": milliseconds(report.last_request()),
                "deadline": milliseconds(report.deadline()),
                "exit": milliseconds(report.exit()),
            },
            "elapsed_ms": milliseconds(report.elapsed()),
        });
        self.print(&event, || report.to_string());
    }

    /// Waits until everything is printed, if anybody reads it. Nothing is printed after that. The error, if there was one, was logged.
    pub(crate) fn finish(&self) -> io::Result<()> {
        self.printer.finish(PRINT_LIMIT)
    }

    fn print(&self, event: &Value, line: impl FnOnce() -> String) {
        self.printer.print(match self.format {
            Format::Json => event.to_string(),
            Format::Lines => line(),
        });
    }
}

/// What both commands tell of a closed connection.
fn describe(event: &mut Value, report: &ShutdownReport) {
    event["ending"] = report.ending().name().into();
    event["sent"] = report.sent().into();
    event["received"] = report.received().into();
    event["discarded"] = report.discarded().into();
    if let Some(alert) = report.alert() {
        event["alert"] = alert.to_string().into();
    }
    event["elapsed_ms"] = milliseconds(report.elapsed()).into();
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// Writes lines to standard output, in a thread of its own: a reader that keeps the pipe and does not read must not stop the
/// connections.
#[derive(Debug)]
struct Printer {
    lines: Mutex<Option<mpsc::Sender<String>>>,
    /// Disconnected when everything is written. What could not be, but for a reader that is gone, comes before.
    written: Mutex<mpsc::Receiver<io::Error>>,
}

impl Printer {
    fn start() -> Self {
        let (lines, to_print) = mpsc::channel::<String>();
        let (is_writing, written) = mpsc::channel();
        // On a terminal, a line takes the place of the one that shows how a drain goes.
        let start = if io::stdout().is_terminal() { CLEAR_LINE } else { "" };
        thread::spawn(move || {
            let is_writing: mpsc::Sender<io::Error> = is_writing;
            let mut first_error = None;
            for line in to_print {
                // Each line at once, for those who wait for it. That nobody reads any more is no reason to stop serving.
                let mut output = io::stdout().lock();
                let printed = writeln!(output, "{start}{line}").and_then(|()| output.flush());
                if let Err(error) = printed
                    && error.kind() != io::ErrorKind::BrokenPipe
                    && first_error.is_none()
                {
                    tracing::warn!(%error, "cannot write to standard output");
                    first_error = Some(error);
                }
            }
            // Whoever hears of it exits.
            let _ = first_error.map(|error| is_writing.send(error));
        });
        Self { lines: Mutex::new(Some(lines)), written: Mutex::new(written) }
    }

    fn print(&self, line: String) {
        if let Some(lines) = &*self.lines.lock().unwrap_or_else(PoisonError::into_inner) {
            // The thread ends with the channel alone.
            let _ = lines.send(line);
        }
    }

    /// Takes no more lines, and waits until all are written, or for `limit`.
    fn finish(&self, limit: Duration) -> io::Result<()> {
        *self.lines.lock().unwrap_or_else(PoisonError::into_inner) = None;
        match self.written.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(limit) {
            Ok(error) => Err(error),
            // Whether they are written, or nobody reads them: there is nothing more to do.
            Err(_) => Ok(()),
        }
    }
}
