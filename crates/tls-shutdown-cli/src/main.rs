//! The `tls-shutdown` command: a server, a client, a probe and a demo to try out, measure and explain how TLS connections end.

mod arguments;
mod certificate;
mod completions;
mod demo;
mod events;
mod explain;
mod failure;
mod log;
mod man;
mod output;
mod probe;
mod progress;
mod routes;
mod runtime;
mod send;
mod serve;
mod watchdog;

use std::{io::Write, process::ExitCode};

use arguments::{Arguments, Command};
use log::Log;

fn main() -> ExitCode {
    let arguments = Arguments::parse_or_exit();
    let log = Log::start();
    let result = match &arguments.command {
        Command::Serve(arguments) => serve::run(arguments, &log),
        Command::Send(arguments) => send::run(arguments),
        Command::Probe(arguments) => probe::run(arguments, &log),
        Command::Demo(arguments) => demo::run(arguments, &log),
        Command::Completions(arguments) => completions::run(arguments),
        Command::Man(arguments) => man::run(arguments),
    };
    match result {
        Ok(exit_code) => exit_code,
        Err(failure) => {
            // The exit code reports the failure even if standard error is closed.
            let _ = writeln!(log.writer(), "tls-shutdown: {failure}");
            ExitCode::FAILURE
        }
    }
}
