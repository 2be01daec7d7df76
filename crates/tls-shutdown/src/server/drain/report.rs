//! [`DrainReport`]: what happened in a server drain.

use std::{collections::BTreeMap, fmt, time::Duration};

use tokio::time::Instant;

use super::{Acknowledgement, DrainPhase, Notice};
use crate::{
    server::report::{ConnectionReport, ResponseDelivery},
    tls::Ending,
};

/// What happened in a server drain, to the connections that were open at the signal and to those that came later.
///
/// [`Display`](fmt::Display) writes a small table.
///
/// ```
/// # use tls_shutdown::{Ending, server::DrainReport};
/// # fn example(report: &DrainReport) {
/// if report.responses_cut() > 0 {
///     eprintln!("{} complete\n{report}", report.count(Ending::Complete));
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DrainReport {
    pub(super) tally: Tally,
    pub(super) requests: u64,
    pub(super) shed: u64,
    pub(super) left: usize,
    pub(super) jobs_left: usize,
    pub(super) lingering: usize,
    pub(super) acknowledgement: Acknowledgement,
}

/// What is counted from the signal on.
#[derive(Clone, Debug, Default)]
pub(in crate::server) struct Tally {
    /// When each phase began.
    pub(super) began: BTreeMap<DrainPhase, Instant>,
    pub(super) notice: Notice,
    /// The requests in flight at the signal.
    in_flight: usize,
    pub(in crate::server) handshakes_finished: u64,
    handshakes_cut: u64,
    endings: BTreeMap<&'static str, u64>,
    responses_cut: u64,
    /// Connections that did not end in order, and that cut no response.
    left_after_response: u64,
    upgraded: u64,
    /// gRPC calls that the deadline has ended.
    pub(in crate::server) calls_ended: u64,
}

impl Tally {
    pub(super) fn begin(in_flight: usize) -> Self {
        Self { in_flight, ..Self::default() }
    }

    pub(in crate::server) fn add(&mut self, report: &ConnectionReport) {
        *self.endings.entry(report.ending().name()).or_default() += 1;
        self.responses_cut += report.responses_cut.saturating_sub(report.cut_before_drain);
        self.left_after_response +=
            u64::from(report.delivery() == ResponseDelivery::Sent && !report.ending().is_clean());
        self.handshakes_cut += u64::from(!report.handshake_finished());
        self.upgraded += u64::from(report.was_upgraded());
    }
}

impl DrainReport {
    /// The connections that ended since the signal.
    pub fn connections(&self) -> u64 {
        self.tally.endings.values().sum()
    }

    /// The connections that ended since the signal, by the [name](Ending::name) of their ending, in alphabetical order.
    pub fn endings(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.tally.endings.iter().map(|(ending, count)| (*ending, *count))
    }

    /// The connections that ended with `ending` since the signal, whatever the details of [`Ending::Transport`] and [`Ending::PeerAlert`].
    pub fn count(&self, ending: Ending) -> u64 {
        self.tally.endings.get(ending.name()).copied().unwrap_or(0)
    }

    /// The connections that had not ended at the end of the grace period. A task still holds them.
    pub fn left(&self) -> usize {
        self.left
    }

    /// What [takes part](crate::server::DrainHandle::track) in the drain, and had not ended at the end of the grace period.
    pub fn jobs_left(&self) -> usize {
        self.jobs_left
    }

    /// What decided how long the notice was, and why it ended.
    pub fn notice(&self) -> Notice {
        self.tally.notice
    }

    /// The requests that reached the service since the signal. Counted by a [`Server`](crate::server::Server) and by a
    /// [`DrainLayer`](crate::server::DrainLayer).
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// The requests that were in flight at the signal. [`requests`](Self::requests) counts those that came later. Counted by a
    /// [`Server`](crate::server::Server) and by a [`DrainLayer`](crate::server::DrainLayer).
    pub fn in_flight(&self) -> usize {
        self.tally.in_flight
    }

    /// The responses that were cut since the signal, as in
    /// [`ConnectionReport::responses_cut`](crate::server::ConnectionReport::responses_cut). What a connection has lost before does not count.
    /// Counted by a [`Server`](crate::server::Server).
    pub fn responses_cut(&self) -> u64 {
        self.tally.responses_cut
    }

    /// The connections since the signal that did not end in order, truncated or reset for example, although every response was sent to its
    /// end: their clients have left without close_notify, and have lost nothing that is known. Counted by a
    /// [`Server`](crate::server::Server).
    pub fn left_after_response(&self) -> u64 {
        self.tally.left_after_response
    }

    /// The handshakes that were finished since the signal.
    pub fn handshakes_finished(&self) -> u64 {
        self.tally.handshakes_finished
    }

    /// The handshakes that failed or were given up since the signal.
    pub fn handshakes_cut(&self) -> u64 {
        self.tally.handshakes_cut
    }

    /// The upgraded connections that ended since the signal. Counted by a [`Server`](crate::server::Server).
    pub fn upgraded(&self) -> u64 {
        self.tally.upgraded
    }

    /// The gRPC calls that the [deadline](DrainPhase::Deadline) has ended with the status `UNAVAILABLE`. The drain has waited for them until
    /// then. If the client's windows hold back a message and the status behind it, [`responses_cut`](Self::responses_cut) counts the call,
    /// too.
    pub fn calls_ended(&self) -> u64 {
        self.tally.calls_ended
    }

    /// The connections that were given up because there were too many, or because the system accepted no more, in the whole life of the
    /// listeners: handshakes, and connections that were closing.
    pub fn shed(&self) -> u64 {
        self.shed
    }

    /// The connections that were shut down, and that the [reaper](crate::Reaper) still read from at the exit: their peer had not closed yet.
    pub fn lingering(&self) -> usize {
        self.lingering
    }

    /// Whether the peers' systems have acknowledged what the server sent.
    pub fn acknowledgement(&self) -> Acknowledgement {
        self.acknowledgement
    }

    /// Time from the signal to the end of the drain.
    pub fn elapsed(&self) -> Duration {
        self.tally.began.keys().map(|phase| self.time_in(*phase)).sum()
    }

    /// Time spent in `phase`. Zero for a phase that was skipped, for [`Serving`](DrainPhase::Serving) and for
    /// [`Ended`](DrainPhase::Ended).
    pub fn time_in(&self, phase: DrainPhase) -> Duration {
        let mut from_here = self.tally.began.range(phase..);
        match (from_here.next(), from_here.next()) {
            (Some((first, began)), Some((_, ended))) if *first == phase => *ended - *began,
            _ => Duration::ZERO,
        }
    }
}

impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [notice, last_request, deadline, exit] =
            [DrainPhase::Notice, DrainPhase::LastRequest, DrainPhase::Deadline, DrainPhase::Exit]
                .map(|phase| self.time_in(phase));
        let reason = self.notice();
        let deadline = if deadline.is_zero() { String::new() } else { format!(", deadline {deadline:.1?}") };
        let endings: Vec<_> = self.endings().map(|(ending, count)| format!("{count} {ending}")).collect();
        let acknowledged = match self.acknowledgement {
            Acknowledgement::Everything => "everything".to_owned(),
            Acknowledgement::Missing(bytes) => format!("all but {bytes} bytes"),
            Acknowledgement::Unknown => "unknown".to_owned(),
        };
        let requests = match self.in_flight() {
            0 => format!("{} since the signal", self.requests),
            in_flight => format!("{} since the signal, and {in_flight} in flight then", self.requests),
        };
        let optional = [
            ("responses cut", self.responses_cut()),
            ("left after response", self.left_after_response()),
            ("upgraded", self.upgraded()),
            ("calls ended", self.calls_ended()),
            ("shed", self.shed),
            ("left open", self.left as u64),
            ("jobs left", self.jobs_left as u64),
            ("lingering", self.lingering as u64),
        ];
        let mut rows = vec![
            (
                "phases",
                format!("notice {notice:.1?} ({reason}), last request {last_request:.1?}{deadline}, exit {exit:.1?}"),
            ),
            ("connections", if endings.is_empty() { "none ended".to_owned() } else { endings.join(", ") }),
            ("requests", requests),
            ("handshakes", format!("{} finished, {} cut", self.handshakes_finished(), self.handshakes_cut())),
        ];
        rows.extend(
            optional.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name, count.to_string())),
        );
        rows.push(("acknowledged", acknowledged));
        write!(f, "drained in {:.1?}", self.elapsed())?;
        rows.iter().try_for_each(|(name, value)| write!(f, "\n  {name:<20} {value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_that_was_skipped_took_no_time() {
        let began = Instant::now();
        let phases = [DrainPhase::Notice, DrainPhase::LastRequest, DrainPhase::Exit, DrainPhase::Ended];
        let at = [0, 20, 50, 60].map(|milliseconds| began + Duration::from_millis(milliseconds));
        let notice = Notice::Seen;
        let tally = Tally { notice, began: phases.into_iter().zip(at).collect(), ..Tally::default() };
        let acknowledgement = Acknowledgement::Missing(5);
        let report = DrainReport { tally, requests: 7, shed: 0, left: 0, jobs_left: 0, lingering: 1, acknowledgement };
        assert_eq!(phases.map(|phase| report.time_in(phase).as_millis()), [20, 30, 10, 0]);
        assert_eq!([DrainPhase::Serving, DrainPhase::Deadline].map(|phase| report.time_in(phase)), [Duration::ZERO; 2]);
        let lines = [
            "drained in 60.0ms",
            "  phases               notice 20.0ms (seen by the probes), last request 30.0ms, exit 10.0ms",
            "  connections          none ended",
            "  requests             7 since the signal",
            "  handshakes           0 finished, 0 cut",
            "  lingering            1",
            "  acknowledged         all but 5 bytes",
        ];
        assert_eq!(report.to_string(), lines.join("\n"));
    }
}
