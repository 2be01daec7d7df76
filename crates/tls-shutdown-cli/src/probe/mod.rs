//! `probe`: how does this server close?

mod connection;
mod findings;
mod http;
mod picture;
mod report;
mod starttls;
mod steps;
mod svg;
mod timeline;
mod transport;

use std::{
    fs,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use rustls::ProtocolVersion;

use self::{
    connection::{Prober, Stream, Unreachable},
    findings::Observations,
    report::Report,
    steps::{Discovery, Protocol},
};
use crate::{arguments::ProbeArguments, failure::Failure, log::Log, output, runtime};

/// The exit code for a server that could not be probed.
const UNREACHABLE: u8 = 3;

pub(crate) fn run(arguments: &ProbeArguments, log: &Log) -> Result<ExitCode, Failure> {
    let runtime = runtime::start()?;
    let mut prober = Prober::new(arguments)?;
    if io::stderr().is_terminal() {
        // Nobody has to see it.
        let _ = writeln!(log.writer(), "probing {} for up to 30 s ..", arguments.server);
    }
    let result = runtime.block_on(probe(&mut prober));
    // A lookup of a name cannot be cancelled.
    runtime.shutdown_background();
    let exit_code = if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(UNREACHABLE) };
    let report = Report::new(&arguments.server, result, prober.timelines);
    let text = if arguments.json { report.to_json().to_string() } else { report.to_text() };
    output::print(format!("{text}\n").as_bytes())?;
    if let Some(file) = &arguments.svg {
        fs::write(file, report.to_svg()).map_err(|error| {
            Failure::new(format!("cannot write {}: {error}; choose another file with --svg", file.display()))
        })?;
    }
    Ok(exit_code)
}

/// Makes one connection after the other, because some servers serve one client at a time. The idle one comes last.
async fn probe(prober: &mut Prober) -> Result<Observations, Unreachable> {
    prober.resolve().await?;
    let first = prober.connect_first("first contact").await?;
    let mut seen = Observations::new(version(&first), alpn(&first));
    let Discovery { protocol, ends_unanswered } = steps::discover(prober, first).await?;
    seen.ends_unanswered = ends_unanswered;
    seen.closing = steps::close(prober, protocol).await;
    if let Protocol::Http(_) = protocol {
        seen.response = steps::end_of_response(prober).await;
        seen.early_answer = steps::early_answer(prober).await;
    }
    seen.resumes_after_write_only = steps::write_only(prober, protocol).await;
    seen.idle = steps::idle(prober, protocol).await;
    seen.resumes = prober.resumed;
    Ok(seen)
}

fn version(stream: &Stream) -> &'static str {
    match stream.get_ref().get_ref().1.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        _ => "1.3",
    }
}

fn alpn(stream: &Stream) -> Option<String> {
    let protocol = stream.get_ref().get_ref().1.alpn_protocol()?;
    Some(String::from_utf8_lossy(protocol).into_owned())
}
