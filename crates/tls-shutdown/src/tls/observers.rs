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

    /// Calls each once, in the order in which they were added.
    pub(crate) fn report(&mut self, report: &ShutdownReport) {
        call_each(self.on_end.drain(..).map(|on_end| move || on_end(report)));
    }
}
