//! What a shutdown has come to: its ending, its report, and who receives it.

use std::time::Duration;

use tokio::time::Instant;

use super::{Arrival, CloseDriver, Reading};
use crate::tls::{
    close_state::{Local, Remote, Step},
    policy::ShutdownPolicy,
    report::{Ending, ShutdownError, ShutdownReport},
};

impl CloseDriver {
    /// The ending to report if the connection were dropped now. For a refused shutdown, that is the failure before it.
    pub(crate) fn ending(&self) -> Ending {
        match (self.state.step(), self.state.remote) {
            (Step::End(Ending::Refused), Remote::Failed(ending)) => ending,
            (Step::End(Ending::Sent), Remote::ForReader) if self.is_overdue() => Ending::TimedOut,
            (Step::End(ending), _) => ending,
            (Step::ReadPending, _) => match self.state.local {
                Local::Broken(_, ending) => ending,
                _ => Ending::Aborted,
            },
            _ if self.state.sent() => Ending::Sent,
            _ => Ending::Aborted,
        }
    }

    /// Whether the peer's close_notify did not come in time: the close timeout has ended the shutdown, or the last read still waits.
    fn is_overdue(&self) -> bool {
        let waits_until = if self.reading == Reading::Waiting { Some(Instant::now()) } else { self.times.ended };
        waits_until.zip(self.times.close).is_some_and(|(until, close)| close <= until)
    }

    pub(crate) fn report(&self, ending: Ending) -> ShutdownReport {
        let mut report = ShutdownReport::new(ending);
        report.sent = self.state.sent();
        report.received = self.state.received();
        if let Remote::Failed(Ending::PeerAlert(alert)) = self.state.remote {
            report.alert = Some(alert);
        }
        report.counts = self.counts;
        // Nobody will read what is kept when the report is made.
        match self.arrival {
            Arrival::Unread => report.counts.discarded_unread += self.kept.len() as u64,
            Arrival::Late => report.counts.discarded_late += self.kept.len() as u64,
        }
        let ended = || self.times.ended.unwrap_or_else(Instant::now);
        report.elapsed = self.times.began.map_or(Duration::ZERO, |began| ended() - began);
        report
    }

    /// The error of a shutdown that ended so.
    pub(crate) fn error(&self, ending: Ending) -> ShutdownError {
        ShutdownError::new(self.report(ending), self.source.clone())
    }

    /// `Ok` exactly if what `policy` asks for was reached.
    pub(crate) fn result(&self, ending: Ending, policy: &ShutdownPolicy) -> Result<ShutdownReport, ShutdownError> {
        let report = self.report(ending);
        let reached = match ending {
            // A quiet shutdown asks for nothing, and always succeeds.
            _ if policy.goal().is_none() => true,
            Ending::Complete | Ending::Sent => true,
            // The table sends close_notify after such an end only if the policy accepts it.
            Ending::Truncated => self.state.remote == Remote::Ended && report.sent,
            _ => false,
        };
        if reached { Ok(report) } else { Err(self.error(ending)) }
    }
}

impl Drop for CloseDriver {
    fn drop(&mut self) {
        let report = self.report(self.ending());
        self.observers.report(&report);
    }
}
