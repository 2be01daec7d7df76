//! [`Report`]: what the probe prints.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{
    connection::Unreachable,
    findings::{Fault, Finding, Observations, Verdict},
    picture, svg,
    timeline::Timeline,
};
use crate::arguments::Endpoint;

/// The page that explains who is at fault, and why.
const FAULT_PAGE: &str =
    "https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/probe/index.html#who-is-at-fault-for-an-unexpected-eof";

/// What to do about such a server.
const SERVER_AT_FAULT: &str = "
what to do: the server has to send close_notify before it ends TCP: SSL_shutdown() in OpenSSL, unwrap() in Python.
            Until then, a client may ignore the error only after a response whose length shows that it is whole.
";

#[derive(Debug)]
pub(crate) struct Report {
    target: String,
    result: Result<Observations, Unreachable>,
    findings: Vec<Finding>,
    timelines: Vec<Timeline>,
}

impl Report {
    pub(crate) fn new(target: &Endpoint, result: Result<Observations, Unreachable>, timelines: Vec<Timeline>) -> Self {
        let findings = result.as_ref().map(Observations::findings).unwrap_or_default();
        Self { target: target.to_string(), result, findings, timelines }
    }

    /// The worst verdict.
    fn verdict(&self) -> Verdict {
        self.findings.iter().map(|finding| finding.verdict).min().unwrap_or(Verdict::Unknown)
    }

    fn fault(&self) -> Fault {
        match &self.result {
            Ok(seen) => seen.fault(),
            Err(_) => Fault { at_fault: "unknown", meaning: "no TLS connection was made".to_owned() },
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        let (tls, error) = match &self.result {
            Ok(seen) => (json!({ "version": seen.version, "alpn": seen.alpn }), None),
            Err(error) => (Value::Null, Some(json!({ "kind": error.kind.name(), "message": error.message }))),
        };
        let findings = self.findings.iter().map(|finding| {
            json!({
                "id": finding.id,
                "verdict": finding.verdict.name(),
                "value": finding.value,
                "meaning": finding.meaning,
                "rule": finding.rule,
            })
        });
        let fault = self.fault();
        let mut report = json!({ "target": self.target, "reachable": self.result.is_ok(), "tls": tls });
        if let Some(error) = error {
            report["error"] = error;
        }
        report["findings"] = findings.collect();
        report["verdict"] = self.verdict().name().into();
        report["unexpected_eof"] = json!({ "at_fault": fault.at_fault, "meaning": fault.meaning });
        report
    }

    /// The same for people, with a picture of the exchange. The last lines tell who is at fault for an unexpected EOF, and what to do.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        let target = &self.target;
        match &self.result {
            Ok(seen) => {
                let alpn = seen.alpn.as_deref().unwrap_or("no ALPN");
                let _ = writeln!(text, "{target}: TLS {}, {alpn}: {}", seen.version, self.verdict().name());
            }
            Err(error) => {
                let _ = writeln!(text, "{target}: {}: {}", error.kind.name(), error.message);
            }
        }
        for Finding { id, verdict, value, meaning, rule } in &self.findings {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let _ = write!(text, "\n{:<10} {id}: {value}\n{:11}{meaning}\n{:11}{rule}\n", verdict.name(), "", "");
        }
        for timeline in &self.timelines {
            let _ = write!(text, "\n{}", picture::draw(timeline));
        }
        let Fault { at_fault, meaning } = self.fault();
        if at_fault == "server" {
            text.push_str(SERVER_AT_FAULT);
        }
        let verdict = match at_fault {
            "server" => "the server is at fault",
            "nobody" => "nobody is at fault",
            _ => "it is unknown who is at fault",
        };
        let _ = write!(text, "\nunexpected EOF: {verdict}: {meaning}; see {FAULT_PAGE}");
        text
    }

    pub(crate) fn to_svg(&self) -> String {
        svg::draw(&self.target, &self.timelines)
    }
}
