//! The `tls-shutdown` command: a server and a client to try out and measure how TLS connections end.

mod arguments;
mod certificate;
mod events;
mod failure;
mod progress;
mod routes;
mod send;
mod serve;

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use arguments::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = Arguments::parse_or_exit();
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).from_env_lossy();
    let colours = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours).init();
    let result = match &arguments.command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::Send(arguments) => send::run(arguments),
    };
    match result {
        Ok(exit_code) => exit_code,
        Err(failure) => {
            // The exit code reports the failure even if standard error is closed.
            let _ = writeln!(io::stderr(), "tls-shutdown: {failure}");
            ExitCode::FAILURE
        }
    }
}
