//! [`Notice`]: how long a draining server goes on as before, so that a balancer notices.

use std::{
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::runtime::{lock::lock, timer::from_now};

/// What has decided how long the notice of a drain was, and why it ended. [`DrainReport::notice`](super::DrainReport::notice) returns it.
///
/// ```
/// use tls_shutdown::server::Notice;
///
/// assert_eq!(Notice::Seen.to_string(), "seen by the probes");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Notice {
    /// [`ServerDrain::notice`](super::ServerDrain::notice) had set its length.
    Fixed,
    /// [`ServerDrain::notice`](super::ServerDrain::notice) had set a length for which the grace period has no room. It was shortened to
    /// [`ServerDrain::longest_notice`](super::ServerDrain::longest_notice).
    Shortened,
    /// Nobody had asked for the server's readiness within the last minute: no balancer watched, and there was no notice.
    Unwatched,
    /// The probes have seen that the server is not ready, and nobody connected any more.
    Seen,
    /// The longest notice was over before that: [`MAX_NOTICE`](super::ServerDrain::MAX_NOTICE), or 40 % of a grace period that is short.
    TimedOut,
    /// The drain was forced, or the server ended, during the notice.
    #[default]
    Interrupted,
}

impl Notice {
    /// A short name, for metrics and JSON: `fixed`, `shortened`, `unwatched`, `seen`, `timed_out`, `interrupted`.
    pub fn name(self) -> &'static str {
        self.texts().0
    }

    /// The name, and the words of the report.
    fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::Fixed => ("fixed", "fixed"),
            Self::Shortened => ("shortened", "fixed, and shortened"),
            Self::Unwatched => ("unwatched", "nobody watched"),
            Self::Seen => ("seen", "seen by the probes"),
            Self::TimedOut => ("timed_out", "timed out"),
            Self::Interrupted => ("interrupted", "interrupted"),
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.texts().1)
    }
}

/// Whoever asked within this time asks regularly: the usual intervals of probes are 1 to 30 s.
const WATCHED: Duration = Duration::from_secs(60);
/// How often the probes must see that the server is not ready. Some balancers believe only the second one.
const REFUSALS: u32 = 2;
/// For how long nobody may have connected, except for probes.
const QUIET: Duration = Duration::from_secs(1);
/// For how long a new connection may be one of a probe that has not asked yet.
const HANDSHAKE: Duration = Duration::from_millis(250);
/// How often the server looks whether the notice is over.
const LOOK: Duration = Duration::from_millis(50);

/// What is known of those who watch the server's readiness.
#[derive(Default)]
pub(super) struct Probes {
    state: Mutex<ProbeState>,
    /// The connections that were not opened for a probe, as far as is known.
    others: AtomicI64,
}

#[derive(Default)]
struct ProbeState {
    last: Option<Instant>,
    /// How many answers in a row were that the server is not ready.
    refusals: u32,
}

impl Probes {
    /// Counts a new connection.
    pub(super) fn on_connection(&self) {
        self.others.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody asks for the server's readiness.
    pub(super) fn on_probe(&self, is_ready: bool) {
        let mut state = lock(&self.state);
        state.last = Some(Instant::now());
        state.refusals = if is_ready { 0 } else { state.refusals.saturating_add(1) };
    }

    /// A connection was opened for a probe.
    pub(super) fn on_connection_of_probe(&self) {
        self.others.fetch_sub(1, Ordering::Relaxed);
    }

    fn is_watched(&self) -> bool {
        lock(&self.state).last.is_some_and(|last| last.elapsed() < WATCHED)
    }

    fn have_seen(&self) -> bool {
        lock(&self.state).refusals >= REFUSALS
    }

    /// Waits until the balancer has noticed that the server is not ready, for `max` at most. Does not wait if nobody watches.
    pub(super) async fn until_noticed(&self, max: Duration) -> Notice {
        if !self.is_watched() {
            return Notice::Unwatched;
        }
        let end = from_now(max);
        let (mut known, mut quiet_since) = (self.others.load(Ordering::Relaxed), Instant::now());
        let mut unknown_since = None;
        while Instant::now() < end {
            sleep(LOOK).await;
            let others = self.others.load(Ordering::Relaxed);
            if others <= known {
                (known, unknown_since) = (others, None);
            } else if unknown_since.get_or_insert_with(Instant::now).elapsed() >= HANDSHAKE {
                (known, unknown_since, quiet_since) = (others, None, Instant::now());
            }
            if self.have_seen() && unknown_since.is_none() && quiet_since.elapsed() >= QUIET {
                return Notice::Seen;
            }
        }
        Notice::TimedOut
    }
}
