//! Standard output: one line for each event, as a JSON object or as text for people.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    mem,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::Duration,
};

use rustls::{HandshakeKind, ProtocolVersion};
use serde_json::{Value, json};
use tls_shutdown::{
    ShutdownReport,
    server::{
        Acknowledgement, ConnectionReport, DrainHandle, DrainPhase, DrainReport, HandshakeFailure, Protocol, Transport,
    },
};

use crate::{
    explain::{Explanations, explain},
    failure::Failure,
};

/// How long the process waits for a slow reader of its standard output before it exits.
const FINISH_TIMEOUT: Duration = Duration::from_millis(500);

/// How many events wait for a slow reader. Further ones are lost, and counted.
const MAX_LINES: usize = 10_000;

/// Clears the current line of a terminal.
pub(crate) const CLEAR_LINE: &str = "\r\x1b[K";

/// The format of standard output.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Format {
    Json,
    Text,
}

/// Prints events.
#[derive(Debug)]
pub(crate) struct Events {
    format: Format,
    explanations: Explanations,
    printer: Printer,
}

/// How one connection of `send` ended.
#[derive(Debug)]
pub(crate) struct SendReport {
    pub(crate) shutdown: ShutdownReport,
    pub(crate) handshake: Handshake,
    /// Application bytes that were written.
    pub(crate) bytes: u64,
}

/// The kind of a TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handshake {
    Full,
    Resumed,
}

impl Events {
    pub(crate) fn new(format: Format, explanations: Explanations) -> Self {
        Self { format, explanations, printer: Printer::start() }
    }

    /// Reports a socket that listens at `address`, which is a path for a Unix socket.
    pub(crate) fn listening(&self, transport: Transport, address: &str, certificate: &str) {
        let event = json!({ "event": "listening", "addr": address, "transport": transport.name() });
        self.print(&event, || match transport {
            Transport::Tls => {
                format!("listening on https://{address} ({certificate}; try: curl -k https://{address}/)")
            }
            Transport::Unix => {
                format!("listening on {address} (try: curl --unix-socket {address} http://localhost/)")
            }
            _ => format!("listening on http://{address} (try: curl http://{address}/)"),
        });
    }

    /// Reports that the certificates were read again, or why the old ones stay.
    pub(crate) fn reloaded(&self, result: Result<(), Failure>) {
        let error = result.err().map(|failure| failure.to_string());
        self.print(&json!({ "event": "reloaded", "error": error }), || match &error {
            None => "the certificate was read again".to_owned(),
            Some(error) => format!("the old certificate stays in use: {error}"),
        });
    }

    /// Reports that there was nothing to read again.
    pub(crate) fn nothing_to_reload(&self, reason: &str) {
        self.print(&json!({ "event": "reloaded", "error": reason }), || format!("nothing was read again: {reason}"));
    }

    /// Reports the end of a connection of `serve`.
    pub(crate) fn closed(&self, report: &ConnectionReport) {
        let mut event = json!({
            "event": "closed",
            "peer": report.peer().to_string(),
            "transport": report.transport().name(),
        });
        describe(&mut event, report.shutdown());
        event["requests"] = report.requests().into();
        event["responses_cut"] = report.responses_cut().into();
        event["delivery"] = report.delivery().name().into();
        event["protocol"] = report.protocol().map(Protocol::name).into();
        event["server_name"] = report.server_name().into();
        event["tls_version"] = report.tls_version().and_then(tls_version).into();
        event["resumed"] = report.handshake_kind().map(|kind| kind == HandshakeKind::Resumed).into();
        event["handshake_failure"] = report.handshake_failure().map(HandshakeFailure::name).into();
        event["handshake_error"] = report.handshake_error().map(ToString::to_string).into();
        event["alert_sent"] = report.alert_sent().map(|alert| alert.to_string()).into();
        match self.explanations {
            Explanations::None => self.print(&event, || report.to_string()),
            Explanations::Each => {
                let explanation = explain(report);
                event["explanation"] = explanation.as_str().into();
                self.print(&event, || format!("{report}\n  {explanation}"));
            }
        }
    }

    /// Reports the end of a connection of `send`. For people, with the page that explains an end that is not clean.
    pub(crate) fn sent(&self, report: &SendReport) {
        let SendReport { shutdown, handshake, bytes } = report;
        let mut event = json!({ "event": "closed" });
        describe(&mut event, shutdown);
        event["tickets"] = shutdown.tickets().into();
        event["resumed"] = (*handshake == Handshake::Resumed).into();
        event["bytes"] = (*bytes).into();
        let resumed = match handshake {
            Handshake::Full => "",
            Handshake::Resumed => ", session resumed",
        };
        self.print(&event, || match shutdown.ending() {
            ending if ending.is_clean() => format!("{shutdown}, {bytes} bytes written{resumed}"),
            ending => format!("{shutdown}, {bytes} bytes written{resumed}\n  see {}", ending.page()),
        });
    }

    /// Reports the phase that the server drain has entered, as text only. In JSON, the `drained` event has the time in each phase.
    pub(crate) fn draining(&self, drain: &DrainHandle) {
        self.note(&format!("draining: {}, open connections: {}", drain.phase(), drain.connections()));
    }

    /// Reports the end of the server drain.
    pub(crate) fn drained(&self, report: &DrainReport) {
        let event = json!({
            "event": "drained",
            "connections": report.connections(),
            "endings": report.endings().collect::<BTreeMap<_, _>>(),
            "requests": report.requests(),
            "in_flight": report.in_flight(),
            "responses_cut": report.responses_cut(),
            "left_after_response": report.left_after_response(),
            "calls_ended": report.calls_ended(),
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
            "notice": report.notice().name(),
            "phases_ms": {
                "notice": milliseconds(report.time_in(DrainPhase::Notice)),
                "last_request": milliseconds(report.time_in(DrainPhase::LastRequest)),
                "deadline": milliseconds(report.time_in(DrainPhase::Deadline)),
                "exit": milliseconds(report.time_in(DrainPhase::Exit)),
            },
            "elapsed_ms": milliseconds(report.elapsed()),
        });
        self.print(&event, || report.to_string());
    }

    /// Waits until everything is printed, for [`FINISH_TIMEOUT`] at most. Later events are not printed. Returns the first error, which was
    /// logged already. A lost event is an error, except behind a closed pipe.
    pub(crate) fn finish(&self) -> io::Result<()> {
        self.printer.finish(FINISH_TIMEOUT)
    }

    /// Prints a line that JSON does without.
    pub(crate) fn note(&self, line: &str) {
        if let Format::Text = self.format {
            self.printer.print(line.to_owned());
        }
    }

    pub(crate) fn print(&self, event: &Value, text: impl FnOnce() -> String) {
        self.printer.print(match self.format {
            Format::Json => event.to_string(),
            Format::Text => text(),
        });
    }
}

/// Adds the fields that the `closed` events of both commands share.
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

/// As `probe` writes it.
fn tls_version(version: ProtocolVersion) -> Option<&'static str> {
    match version {
        ProtocolVersion::TLSv1_2 => Some("1.2"),
        ProtocolVersion::TLSv1_3 => Some("1.3"),
        _ => None,
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// Writes lines to standard output in a thread of its own, so that a reader that does not read never blocks the connections.
#[derive(Debug)]
struct Printer {
    /// `None` after [`finish`](Self::finish).
    lines: Mutex<Option<SyncSender<String>>>,
    /// The lines for which there was no place.
    lost: AtomicU64,
    /// Receives the result when all lines are written.
    result: Mutex<Receiver<io::Result<()>>>,
}

impl Printer {
    fn start() -> Self {
        let (lines, to_print) = mpsc::sync_channel(MAX_LINES);
        let (finished, result) = mpsc::channel();
        thread::spawn(move || finished.send(print_all(to_print)));
        Self { lines: Mutex::new(Some(lines)), lost: AtomicU64::new(0), result: Mutex::new(result) }
    }

    fn print(&self, line: String) {
        if let Some(lines) = &*self.lines.lock().unwrap_or_else(PoisonError::into_inner)
            && lines.try_send(line).is_err()
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Accepts no more lines, and waits until all are written, for `timeout` at most. Returns the first error.
    fn finish(&self, timeout: Duration) -> io::Result<()> {
        *self.lines.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let result = self.result.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(timeout);
        let lost = self.lost.load(Ordering::Relaxed);
        let message = match result {
            Ok(result) if lost == 0 => return result,
            Ok(_) => format!("{lost} events are lost: standard output was not read in time"),
            Err(_) => "the last events are lost: standard output was not read in time".to_owned(),
        };
        tracing::warn!("{message}");
        Err(io::Error::other(message))
    }
}

/// Writes each line at once, also after an error: a full disk may have room again. Returns the first error. A closed pipe is no error: the
/// server goes on without a reader.
fn print_all(lines: Receiver<String>) -> io::Result<()> {
    // On a terminal, the line replaces the one that shows the progress of a drain.
    let start = if io::stdout().is_terminal() { CLEAR_LINE } else { "" };
    let mut result = Ok(());
    let mut lost = 0_u64;
    for line in lines {
        let mut output = io::stdout().lock();
        match writeln!(output, "{start}{line}").and_then(|()| output.flush()) {
            Ok(()) if lost > 0 => {
                // The first of them has waited in the buffer of standard output.
                tracing::warn!(
                    events = mem::take(&mut lost) - 1,
                    "standard output can be written again, events are lost"
                );
            }
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                if lost == 0 {
                    tracing::warn!(%error, "cannot write to standard output");
                }
                lost += 1;
                result = result.and(Err(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    if lost > 0 {
        tracing::warn!(events = lost, "the last events are lost: standard output cannot be written");
    }
    result
}
