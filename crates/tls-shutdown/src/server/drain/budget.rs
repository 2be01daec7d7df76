//! [`Budget`]: how a drain divides its grace period.

use std::time::Duration;

use tokio::time::Instant;

use super::ServerDrain;
use crate::runtime::timer::from_now;

/// The grace period that has begun. Its last part is the reserve: half of it is for the tasks that the deadline cuts, and half for the
/// peers' acknowledgements.
pub(super) struct Budget {
    ends: Instant,
    reserve: Duration,
}

impl Budget {
    /// Begins the grace period.
    pub(super) fn begin(grace_period: Duration) -> Self {
        Self { ends: from_now(grace_period), reserve: reserve(grace_period) }
    }

    /// The longest notice that leaves the time for a last request before the deadline, or a half of what is there.
    pub(super) fn longest_notice(grace_period: Duration, last_request: Duration) -> Duration {
        let until_deadline = grace_period - reserve(grace_period);
        until_deadline - last_request.min(until_deadline / 2)
    }

    /// When everything in progress is cut.
    pub(super) fn deadline(&self) -> Instant {
        self.ends - self.reserve
    }

    /// When tasks that were cut must have ended.
    pub(super) fn tasks_end(&self) -> Instant {
        self.ends - self.reserve / 2
    }

    /// When the grace period is over.
    pub(super) fn ends(&self) -> Instant {
        self.ends
    }

    /// Moves the deadline to this moment, if it is later: only the reserve is left.
    pub(super) fn shorten_to_reserve(&mut self) {
        self.ends = self.ends.min(from_now(self.reserve));
    }
}

fn reserve(grace_period: Duration) -> Duration {
    ServerDrain::RESERVE.min(grace_period / 10)
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn milliseconds(budget: &Budget, began: Instant) -> [u128; 3] {
        [budget.deadline(), budget.tasks_end(), budget.ends()].map(|instant| (instant - began).as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn the_reserve_is_a_second_or_a_tenth() {
        let began = Instant::now();
        for (seconds, expected) in [(25, [24_000, 24_500, 25_000]), (1, [900, 950, 1000]), (0, [0, 0, 0])] {
            assert_eq!(milliseconds(&Budget::begin(Duration::from_secs(seconds)), began), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_forced_drain_has_the_reserve_and_never_more_than_was_left() {
        let began = Instant::now();
        let mut budget = Budget::begin(Duration::from_secs(25));
        advance(Duration::from_secs(3)).await;
        budget.shorten_to_reserve();
        assert_eq!(milliseconds(&budget, began), [3000, 3500, 4000]);
        advance(Duration::from_millis(700)).await;
        budget.shorten_to_reserve();
        assert_eq!(milliseconds(&budget, began), [3000, 3500, 4000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_grace_period_may_be_endless() {
        let began = Instant::now();
        let mut budget = Budget::begin(Duration::MAX);
        assert!(budget.deadline() > began + Duration::from_secs(1_000_000));
        budget.shorten_to_reserve();
        assert_eq!(milliseconds(&budget, began), [0, 500, 1000]);
    }
}
