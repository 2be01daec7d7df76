//! [`Retirement`]: when a pooled connection is too old, or was idle for too long.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use crate::runtime::timer::{BoxedTimer, from_now};

/// How long a connection may be kept.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PoolLimits {
    pub(super) max_age: Option<Duration>,
    pub(super) idle_timeout: Option<Duration>,
}

/// The limits of one connection.
pub(super) struct Retirement {
    ends_at: Option<Instant>,
    idle_timeout: Option<Duration>,
    last_used: Instant,
    timer: BoxedTimer,
}

impl Retirement {
    /// Begins to count. Returns `None` if there is no limit.
    pub(super) fn begin(limits: PoolLimits) -> Option<Box<Self>> {
        let PoolLimits { max_age, idle_timeout } = limits;
        if max_age.is_none() && idle_timeout.is_none() {
            return None;
        }
        let (ends_at, timer) = (max_age.map(from_now), BoxedTimer::default());
        Some(Box::new(Self { ends_at, idle_timeout, last_used: Instant::now(), timer }))
    }

    /// Notes that bytes have passed.
    pub(super) fn on_use(&mut self) {
        if self.idle_timeout.is_some() {
            self.last_used = Instant::now();
        }
    }

    /// Waits until the connection has to retire. Its age counts always, its idleness unless it is in use.
    pub(super) fn poll_due(&mut self, is_in_use: bool, cx: &mut Context<'_>) -> Poll<()> {
        let idle_timeout = self.idle_timeout.filter(|_| !is_in_use);
        let idle_until = idle_timeout.and_then(|timeout| self.last_used.checked_add(timeout));
        let Some(due) = self.ends_at.into_iter().chain(idle_until).min() else { return Poll::Pending };
        self.timer.poll_until(due, cx)
    }
}
