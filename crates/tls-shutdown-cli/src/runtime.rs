//! The runtime of a command.

use tokio::runtime::Runtime;

use crate::failure::Failure;

pub(crate) fn start() -> Result<Runtime, Failure> {
    Runtime::new().map_err(|error| {
        Failure::new(format!(
            "cannot start: {error}; raise the limits of open files and of processes (ulimit -n, ulimit -u)"
        ))
    })
}
