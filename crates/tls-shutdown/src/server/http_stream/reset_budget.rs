//! [`ResetBudget`]: how many requests a client may cancel (HTTP/2 rapid reset, CVE-2023-44487).
//!
//! h2 limits the requests that are cancelled before the service has them. It cannot count those with a body, because they pass to it one by
//! one, see [`EarlyEnds`](super::early_end::EarlyEnds). So they are counted here, with all the others.

use std::time::Duration;

use tokio::time::Instant;

/// How many requests a client may cancel at once: more than a page has images.
const BURST: u32 = 200;
/// The time that allows one more. A server easily bears so many, and a proxy that cancels streams for many users needs them.
const TIME_FOR_RESET: Duration = Duration::from_millis(10);
/// The complete responses that allow one more.
const RESPONSES_FOR_RESET: u32 = 4;

pub(super) struct ResetBudget {
    /// In responses, [`RESPONSES_FOR_RESET`] of which allow one reset.
    left: u32,
    /// Until when time is counted.
    counted_until: Instant,
    is_exceeded: bool,
}

impl ResetBudget {
    const MAX: u32 = BURST * RESPONSES_FOR_RESET;

    pub(super) fn on_response(&mut self) {
        self.left = Self::MAX.min(self.left + 1);
    }

    /// The client has cancelled a request that was not answered.
    pub(super) fn on_reset(&mut self) {
        let time = self.counted_until.elapsed();
        let resets = u32::try_from(time.as_millis() / TIME_FOR_RESET.as_millis()).unwrap_or(BURST).min(BURST);
        if resets > 0 {
            self.counted_until = Instant::now();
            self.left = Self::MAX.min(self.left + resets * RESPONSES_FOR_RESET);
        }
        match self.left.checked_sub(RESPONSES_FOR_RESET) {
            Some(left) => self.left = left,
            None => self.is_exceeded = true,
        }
    }

    /// Whether the connection has to end.
    pub(super) fn is_exceeded(&self) -> bool {
        self.is_exceeded
    }
}

impl Default for ResetBudget {
    fn default() -> Self {
        Self { left: Self::MAX, counted_until: Instant::now(), is_exceeded: false }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_may_cancel_one_request_in_fifteen_for_ever() {
        let mut budget = ResetBudget::default();
        for _ in 0..100_000 {
            (0..14).for_each(|_| budget.on_response());
            budget.on_reset();
        }
        assert!(!budget.is_exceeded());
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_allowed_and_time_allows_another_one() {
        let mut budget = ResetBudget::default();
        for _ in 0..3 {
            (0..BURST).for_each(|_| budget.on_reset());
            assert!(!budget.is_exceeded());
            advance(TIME_FOR_RESET * BURST).await;
        }
        (0..=BURST).for_each(|_| budget.on_reset());
        assert!(budget.is_exceeded());
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_for_each_reset_is_not_enough() {
        let mut budget = ResetBudget::default();
        for _ in 0..2 * BURST {
            budget.on_response();
            budget.on_reset();
        }
        assert!(budget.is_exceeded());
    }
}
