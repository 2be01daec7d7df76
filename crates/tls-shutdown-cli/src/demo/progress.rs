//! Shows the progress of the demo in a line of standard error, if that is a terminal.

use std::io::{self, IsTerminal, Write};

use tracing_appender::non_blocking::NonBlocking;

use super::site::Side;
use crate::events::CLEAR_LINE;

/// The width of the bar.
const WIDTH: usize = 16;

pub(crate) struct Progress {
    /// `None` if nobody would see it.
    terminal: Option<NonBlocking>,
    steps: usize,
    begun: usize,
}

impl Progress {
    pub(crate) fn new(stderr: NonBlocking, steps: usize) -> Self {
        Self { terminal: io::stderr().is_terminal().then_some(stderr), steps, begun: 0 }
    }

    /// Shows that the next step begins.
    pub(crate) fn begin(&mut self, what: &str, side: Side) {
        let done = WIDTH * self.begun / self.steps;
        self.begun += 1;
        let (bar, side) = (
            "#".repeat(done),
            match side {
                Side::Bare => "bare",
                Side::Ours => "ours",
            },
        );
        self.write(&format!("{CLEAR_LINE}[{bar:.<WIDTH$}] {side}: {what}"));
    }

    /// Removes the line.
    pub(crate) fn clear(&mut self) {
        self.write(CLEAR_LINE);
    }

    fn write(&mut self, line: &str) {
        if let Some(terminal) = &mut self.terminal {
            // A terminal that cannot be written to harms nobody.
            let _ = terminal.write_all(line.as_bytes());
        }
    }
}
