//! Standard output of the commands that print one text. Those that print events use [`events`](crate::events).

use std::{
    io::{self, ErrorKind, Write},
    process,
};

use crate::failure::Failure;

/// Prints everything at once. A closed pipe is no error.
pub(crate) fn print(text: &[u8]) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    match output.write_all(text).and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints the help, or what is wrong with the arguments, and exits. Help that cannot be printed is a failure, except behind a closed pipe.
pub(crate) fn print_usage_and_exit(usage: &clap::Error) -> ! {
    match usage.print() {
        Err(error) if !usage.use_stderr() && error.kind() != ErrorKind::BrokenPipe => {
            // The exit code reports the failure even if standard error is closed.
            let _ = writeln!(io::stderr(), "tls-shutdown: cannot write to standard output: {error}");
            process::exit(1)
        }
        _ => process::exit(usage.exit_code()),
    }
}
