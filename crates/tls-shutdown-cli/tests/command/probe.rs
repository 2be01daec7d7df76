//! `probe` at servers whose behaviour a script sets.

mod findings;
mod pictures;
mod scripted;
mod unreachable;

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::process::{CERTIFICATE, command};

/// The longest probe, and some time to start and to end on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// Probes a server at this address. Returns the exit code and the report.
async fn probe(address: &str, more: &[&str]) -> (Option<i32>, Value) {
    let begin = Instant::now();
    let arguments = ["probe", address, "--json", "--ca", CERTIFICATE.cert(), "--server-name", "localhost"];
    let mut command = command(&[&arguments, more].concat());
    let output = timeout(LIMIT * 2, command.output()).await.expect("it ends").expect("the command runs");
    assert!(begin.elapsed() < LIMIT + Duration::from_secs(2), "{:?}", begin.elapsed());
    let message = String::from_utf8_lossy(&output.stderr);
    // A rustls with debug assertions panics over an invalid record behind our close_notify (rustls#959). That is caught.
    assert!(message.is_empty() || message.contains("assertion failed: !self.sent_fatal_alert"), "{message}");
    (output.status.code(), serde_json::from_slice(&output.stdout).expect("one JSON object"))
}
