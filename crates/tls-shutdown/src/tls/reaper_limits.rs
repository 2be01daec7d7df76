//! [`ReaperLimits`]: how many connections close at a time, and for how long they linger.

use std::time::Duration;

/// The limits of a [`Reaper`](crate::Reaper).
///
/// ```
/// use std::time::Duration;
/// use tls_shutdown::{Reaper, ReaperLimits};
///
/// let reaper = Reaper::with_limits(ReaperLimits::new().with_linger_timeout(Duration::from_secs(10)));
/// # let _ = reaper;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct ReaperLimits {
    max_closings: usize,
    linger_timeout: Duration,
    linger_idle_timeout: Duration,
}

impl ReaperLimits {
    /// Default [number of closings](Self::with_max_closings) at a time.
    pub const MAX_CLOSINGS: usize = 10_000;
    /// Default [time of a linger](Self::with_linger_timeout), as nginx's `lingering_time`.
    pub const LINGER_TIMEOUT: Duration = Duration::from_secs(30);
    /// Default [time of a linger without a byte](Self::with_linger_idle_timeout), as nginx's `lingering_timeout`.
    pub const LINGER_IDLE_TIMEOUT: Duration = Duration::from_secs(5);

    /// The defaults.
    pub const fn new() -> Self {
        Self {
            max_closings: Self::MAX_CLOSINGS,
            linger_timeout: Self::LINGER_TIMEOUT,
            linger_idle_timeout: Self::LINGER_IDLE_TIMEOUT,
        }
    }

    /// Limits the connections that close at a time. A further one sheds the oldest. With a limit of 0, each one ends at once. Connections
    /// on which nobody waits for an answer are shed first: handshakes that have failed, and clients of a `Server` that were idle.
    /// Default: [`MAX_CLOSINGS`](Self::MAX_CLOSINGS).
    pub const fn with_max_closings(mut self, max: usize) -> Self {
        self.max_closings = max;
        self
    }

    /// Limits the whole time of a linger. There is no limit in bytes: a client may send the rest of a large upload before it reads an
    /// early answer. Default: [`LINGER_TIMEOUT`](Self::LINGER_TIMEOUT).
    pub const fn with_linger_timeout(mut self, timeout: Duration) -> Self {
        self.linger_timeout = timeout;
        self
    }

    /// Limits the time of a linger without an arriving byte. Default: [`LINGER_IDLE_TIMEOUT`](Self::LINGER_IDLE_TIMEOUT).
    pub const fn with_linger_idle_timeout(mut self, timeout: Duration) -> Self {
        self.linger_idle_timeout = timeout;
        self
    }

    /// The number of connections that may close at a time.
    pub const fn max_closings(&self) -> usize {
        self.max_closings
    }

    /// The longest linger.
    pub const fn linger_timeout(&self) -> Duration {
        self.linger_timeout
    }

    /// The longest time of a linger without an arriving byte.
    pub const fn linger_idle_timeout(&self) -> Duration {
        self.linger_idle_timeout
    }
}

impl Default for ReaperLimits {
    fn default() -> Self {
        Self::new()
    }
}
