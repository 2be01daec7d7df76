//! Standard output of the commands that print one text. Those that print events use [`events`](crate::events).

use std::io::{self, ErrorKind, Write};

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
