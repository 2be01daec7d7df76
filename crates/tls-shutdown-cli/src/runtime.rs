//! The runtime of a command.

use std::{io, iter::repeat_with, os::unix::net::UnixStream};

use tokio::runtime::Runtime;

use crate::failure::Failure;

/// Pairs of sockets. A server with one client has as many descriptors open as these.
const PAIRS: usize = 6;

pub(crate) fn start() -> Result<Runtime, Failure> {
    have_descriptors().and_then(|()| Runtime::new()).map_err(|error| {
        Failure::new(format!(
            "cannot start: {error}; raise the limits of open files and of processes (ulimit -n, ulimit -u)"
        ))
    })
}

/// Fails if the process may open too few files. Tokio panics if there are some for a runtime, and none for signals.
fn have_descriptors() -> io::Result<()> {
    repeat_with(UnixStream::pair).take(PAIRS).collect::<io::Result<Vec<_>>>().map(drop)
}
