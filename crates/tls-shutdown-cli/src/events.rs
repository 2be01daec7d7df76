//! Standard output: JSON objects or lines for people, one for each thing that happened.

use std::{
    collections::BTreeMap,
    fmt::Display,
    io::{self, Write},
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tls_shutdown::ShutdownReport;

/// How events are printed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Format {
    Json,
    Lines,
}

/// Prints what happens, and counts how connections end.
#[derive(Debug)]
pub(crate) struct Events {
    format: Format,
    endings: Mutex<BTreeMap<&'static str, u64>>,
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

/// How a server drain went, apart from the endings of its connections.
#[derive(Debug)]
pub(crate) struct Drained {
    pub(crate) elapsed: Duration,
    /// Connections that were in use, and cut, at the deadline.
    pub(crate) cut: u64,
    /// Connections that were closed, but still listened to, at the exit.
    pub(crate) lingering: usize,
}

impl Events {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, endings: Mutex::default() }
    }

    pub(crate) fn listening(&self, address: SocketAddr, certificate: &str) {
        self.print(&json!({ "event": "listening", "addr": address.to_string() }), || {
            format!("listening on https://{address} ({certificate}; try: curl -k https://{address}/)")
        });
    }

    /// One connection of `serve` has ended.
    pub(crate) fn closed(&self, peer: SocketAddr, report: &ShutdownReport) {
        let mut endings = self.endings.lock().unwrap_or_else(PoisonError::into_inner);
        *endings.entry(report.ending().name()).or_default() += 1;
        drop(endings);
        let mut event = json!({ "event": "closed", "peer": peer.to_string() });
        describe(&mut event, report);
        self.print(&event, || format!("{peer} {report}"));
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

    /// Counts endings anew, so that a server drain tells its own.
    pub(crate) fn forget_endings(&self) {
        self.endings.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The server has drained, with the endings since [`forget_endings`](Self::forget_endings).
    pub(crate) fn drained(&self, drained: &Drained) {
        let Drained { elapsed, cut, lingering } = drained;
        let endings = self.endings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let connections = endings.values().sum::<u64>();
        let event = json!({
            "event": "drained",
            "connections": connections,
            "endings": &endings,
            "cut": cut,
            "lingering": lingering,
            "elapsed_ms": milliseconds(*elapsed),
        });
        self.print(&event, || {
            let endings: Vec<_> = endings.iter().map(|(ending, count)| format!("{count} {ending}")).collect();
            let endings = if endings.is_empty() { "none".to_owned() } else { endings.join(", ") };
            format!(
                "drained in {:.1} ms; connections: {endings}; cut at the deadline: {cut}; lingering: {lingering}",
                milliseconds(*elapsed)
            )
        });
    }

    fn print(&self, event: &Value, line: impl FnOnce() -> String) {
        match self.format {
            Format::Json => print(event),
            Format::Lines => print(&line()),
        }
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

/// Prints a line at once. That nobody reads it any more is no reason to stop serving, or sending.
fn print(line: &impl Display) {
    let mut output = io::stdout().lock();
    let printed = writeln!(output, "{line}").and_then(|()| output.flush());
    if let Err(error) = printed {
        tracing::debug!(%error, "cannot write to standard output");
    }
}
