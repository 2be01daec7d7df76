//! [`StallTimeout`]: for how long a client may keep one direction of its connection waiting.

use std::{
    io,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use crate::runtime::timer::{BoxedTimer, from_now};

/// The timeout of one direction. It costs next to nothing while there is progress.
pub(super) struct StallTimeout {
    timeout: Duration,
    stall: Stall,
    timer: BoxedTimer,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stall {
    /// There is progress.
    None,
    /// It waits, and the client's progress was not looked at yet.
    Begun {
        end: Instant,
        first_look: Instant,
    },
    /// It waits, and the client's progress at the last look was `seen`.
    Observed {
        end: Instant,
        seen: Option<u64>,
    },
    TimedOut,
}

/// The client's progress is looked at after this part of the timeout: most waits are shorter.
const FIRST_LOOK: u32 = 4;

impl StallTimeout {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, stall: Stall::None, timer: BoxedTimer::default() }
    }

    /// Notes progress: the time starts anew.
    pub(super) fn on_progress(&mut self) {
        self.stall = Stall::None;
    }

    /// Whether it waits for the client.
    pub(super) fn is_waiting(&self) -> bool {
        self.stall != Stall::None
    }

    pub(super) fn has_timed_out(&self) -> bool {
        self.stall == Stall::TimedOut
    }

    /// Waits until `progress`, which measures how far the client is, has not changed for the timeout, then returns the error. Detection
    /// takes a quarter longer, or up to twice as long if something changed before.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, progress: impl Fn() -> Option<u64>) -> Poll<io::Error> {
        loop {
            let next = match self.stall {
                Stall::None => {
                    let first_look = from_now(self.timeout / FIRST_LOOK);
                    self.stall = Stall::Begun { end: from_now(self.timeout), first_look };
                    first_look
                }
                Stall::Begun { first_look, .. } => first_look,
                Stall::Observed { end, .. } => end,
                Stall::TimedOut => {
                    let timeout = self.timeout;
                    let text =
                        format!("the client has kept the server waiting for {timeout:?} (Server::stall_timeout)");
                    return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, text));
                }
            };
            ready!(self.timer.poll_until(next, cx));
            let now = progress();
            self.stall = match self.stall {
                // There may have been progress right before.
                Stall::Begun { end, .. } if now.is_none() => Stall::Observed { end, seen: None },
                Stall::Observed { seen, .. } if now == seen => Stall::TimedOut,
                _ => Stall::Observed { end: from_now(self.timeout), seen: now },
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::poll_fn, task::Waker};

    use tokio::task::coop;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn each_move_starts_the_time_anew() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut stall = StallTimeout::new(SECOND * 3);
        for _ in 0..10 {
            assert!(stall.poll(&mut cx, || None).is_pending());
            tokio::time::advance(SECOND * 2).await;
            assert!(stall.poll(&mut cx, || None).is_pending());
            stall.on_progress();
        }
        assert!(stall.poll(&mut cx, || None).is_pending());
        tokio::time::advance(SECOND * 2).await;
        assert!(stall.poll(&mut cx, || None).is_pending() && !stall.has_timed_out());
        tokio::time::advance(SECOND).await;
        let over = stall.poll(&mut cx, || None);
        assert!(matches!(over, Poll::Ready(error) if error.kind() == io::ErrorKind::TimedOut) && stall.has_timed_out());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_something_is_waited_for() {
        let mut cx = Context::from_waker(Waker::noop());
        let taken = Cell::new(7);
        let mut stall = StallTimeout::new(SECOND * 4);
        for _ in 0..20 {
            assert!(stall.poll(&mut cx, || Some(taken.get())).is_pending());
            tokio::time::advance(SECOND).await;
            taken.set(taken.get() + 1);
        }
        // Nothing from here on. The time counts from the last look that has found something.
        for _ in 0..4 {
            assert!(stall.poll(&mut cx, || Some(taken.get())).is_pending());
            tokio::time::advance(SECOND).await;
        }
        let mut seconds = 4;
        while stall.poll(&mut cx, || Some(taken.get())).is_pending() {
            tokio::time::advance(SECOND).await;
            seconds += 1;
        }
        assert!((4..=8).contains(&seconds), "{seconds}");
    }

    /// What it takes before the first look is nothing that anybody has seen, and counts all the same.
    #[tokio::test(start_paused = true)]
    async fn no_wait_is_shorter_than_the_limit() {
        let mut cx = Context::from_waker(Waker::noop());
        for first in [0, 1, 9, 10, 11, 38] {
            let mut stall = StallTimeout::new(SECOND * 40);
            let mut taken = 0;
            for second in 0..400 {
                // The last second before it would be too long.
                taken += u64::from(second % 39 == first);
                assert!(stall.poll(&mut cx, || Some(taken)).is_pending(), "{first}, then {second}");
                tokio::time::advance(SECOND).await;
            }
        }
    }

    /// A client that floods the connection uses up the budget of each poll.
    #[tokio::test(start_paused = true)]
    async fn a_timeout_ends_in_a_task_without_budget() {
        let mut stall = StallTimeout::new(SECOND);
        for seconds in 0..=1 {
            poll_fn(|cx| {
                while let Poll::Ready(budget) = coop::poll_proceed(cx) {
                    budget.made_progress();
                }
                assert_eq!(stall.poll(cx, || None).is_ready(), seconds == 1);
                Poll::Ready(())
            })
            .await;
            tokio::time::advance(SECOND).await;
        }
    }
}
