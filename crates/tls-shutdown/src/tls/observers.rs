//! [`Observers`]: who learns how a connection ended, and who logs that.

use crate::{runtime::call_each::call_each, tls::report::ShutdownReport};

type OnEnd = Box<dyn FnOnce(&ShutdownReport) + Send + Sync>;

/// The functions that a connection calls at its end.
#[derive(Default)]
pub(crate) struct Observers {
    on_end: Vec<OnEnd>,
    pub(crate) log: EndLog,
}

/// Who logs the end of a connection.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum EndLog {
    #[default]
    ByDriver,
    ByObserver,
}

impl Observers {
    pub(crate) fn add(&mut self, on_end: impl FnOnce(&ShutdownReport) + Send + Sync + 'static) {
        self.on_end.push(Box::new(on_end));
    }

    /// Logs the end, and calls each once, in the order in which they were added.
    pub(crate) fn report(&mut self, report: &ShutdownReport) {
        let Self { on_end, log } = self;
        let log = || {
            if *log == EndLog::ByDriver {
                tracing::debug!(
                    ending = %report.ending(),
                    sent = report.sent(),
                    received = report.received(),
                    discarded = report.discarded(),
                    elapsed = ?report.elapsed(),
                    "TLS connection ended"
                );
            }
        };
        call_each(log, on_end.drain(..).map(|on_end| move || on_end(report)));
    }
}
