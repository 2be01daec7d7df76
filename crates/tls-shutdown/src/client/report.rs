//! [`ClientDrainReport`]: what happened in a client drain.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::tls::Ending;

/// What happened in a [`ClientDrain`](super::ClientDrain), from its beginning on. [`Display`](fmt::Display) writes one line.
///
/// ```
/// use tls_shutdown::{Ending, client::ClientDrainReport};
///
/// fn is_clean(report: &ClientDrainReport) -> bool {
///     report.left() == 0 && report.count(Ending::Complete) == report.connections()
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientDrainReport {
    pub(super) endings: BTreeMap<&'static str, u64>,
    pub(super) tickets: u64,
    pub(super) left: usize,
    pub(super) elapsed: Duration,
}

impl ClientDrainReport {
    /// The connections that ended.
    pub fn connections(&self) -> u64 {
        self.endings.values().sum()
    }

    /// The connections that ended, by the [name](Ending::name) of their ending, in alphabetical order.
    pub fn endings(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.endings.iter().map(|(ending, count)| (*ending, *count))
    }

    /// The connections that ended with `ending`, whatever the details of [`Ending::Transport`] and [`Ending::PeerAlert`].
    pub fn count(&self, ending: Ending) -> u64 {
        self.endings.get(ending.name()).copied().unwrap_or(0)
    }

    /// The TLS 1.3 session tickets that these connections received in their whole life.
    pub fn tickets(&self) -> u64 {
        self.tickets
    }

    /// The connections that have not ended: those that were still in their handshake, or closing, at the timeout.
    pub fn left(&self) -> usize {
        self.left
    }

    /// The time that [`run`](super::ClientDrain::run) took.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

impl fmt::Display for ClientDrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ended", self.connections())?;
        for (number, (ending, count)) in self.endings().enumerate() {
            write!(f, "{} {count} {ending}", if number == 0 { ":" } else { "," })?;
        }
        let milliseconds = self.elapsed.as_secs_f64() * 1000.0;
        let tickets = if self.tickets == 1 { "ticket" } else { "tickets" };
        write!(f, "; {} {tickets}, {} left, {milliseconds:.1} ms", self.tickets, self.left)
    }
}
