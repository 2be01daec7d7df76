//! Timers that fire on time even in a task that never runs out of work.
//!
//! A [`Sleep`] takes part in tokio's cooperative scheduling: in a task whose budget is used up it stays pending, also after its
//! deadline. A peer that floods a connection uses up the budget of each poll, so it could postpone a raw `Sleep` for ever.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{
    task::coop::unconstrained,
    time::{Instant, Sleep, sleep_until},
};

/// A timeout that no process lives to see, and that an [`Instant`] can still add.
const FOREVER: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);

/// The instant at which `timeout` has passed. A timeout that an [`Instant`] cannot add never passes.
pub(crate) fn from_now(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or_else(|| now + FOREVER)
}

/// Returns a timeout that a peer can keep.
///
/// # Panics
///
/// If it is 0. Elsewhere, 0 often means no limit.
#[cfg(any(feature = "server", feature = "tower"))]
#[track_caller]
pub(crate) fn not_zero(timeout: Duration) -> Duration {
    assert!(timeout > Duration::ZERO, "a timeout of 0 ends every connection; for no limit, use Duration::MAX");
    timeout
}

pin_project! {
    /// A timer inside a future. It allocates nothing.
    #[derive(Debug, Default)]
    pub(crate) struct Timer {
        // Made at the first wait.
        #[pin]
        sleep: Option<Sleep>,
    }
}

impl Timer {
    /// Waits until `instant`, which may differ at each poll.
    pub(crate) fn poll_until(self: Pin<&mut Self>, instant: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let mut sleep = self.project().sleep;
        if Instant::now() >= instant {
            return Poll::Ready(());
        }
        if sleep.is_none() {
            sleep.set(Some(sleep_until(instant)));
        }
        sleep.as_pin_mut().map_or(Poll::Ready(()), |sleep| poll_sleep(sleep, instant, cx))
    }
}

/// The same for a struct that is `Unpin`, or small. It allocates at the first wait.
#[derive(Debug, Default)]
pub(crate) struct BoxedTimer(Option<Pin<Box<Sleep>>>);

impl BoxedTimer {
    /// Waits until `instant`, which may differ at each poll.
    pub(crate) fn poll_until(&mut self, instant: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= instant {
            return Poll::Ready(());
        }
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(instant)));
        poll_sleep(sleep.as_mut(), instant, cx)
    }

    /// Frees the timer.
    pub(crate) fn stop(&mut self) {
        self.0 = None;
    }
}

/// Waits until `instant`, which is in the future. A sleep that ends earlier is only set anew when it ends, so that a timeout that is
/// pushed back at each poll costs nothing.
fn poll_sleep(mut sleep: Pin<&mut Sleep>, instant: Instant, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        if sleep.deadline() > instant {
            sleep.as_mut().reset(instant);
        }
        ready!(pin!(unconstrained(sleep.as_mut())).poll(cx));
        if sleep.deadline() >= instant {
            return Poll::Ready(());
        }
        sleep.as_mut().reset(instant);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, task::Waker};

    use tokio::{
        task::coop,
        time::{advance, sleep},
    };

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// What a peer that floods the connection makes of each poll.
    fn use_up_budget(cx: &mut Context<'_>) {
        while let Poll::Ready(budget) = coop::poll_proceed(cx) {
            budget.made_progress();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_fires_in_a_task_without_budget_where_a_sleep_does_not() {
        let end = Instant::now() + SECOND;
        let (mut boxed, mut inline) = (BoxedTimer::default(), pin!(Timer::default()));
        let mut raw = pin!(sleep(SECOND));
        poll_fn(|cx| {
            use_up_budget(cx);
            assert!(boxed.poll_until(end, cx).is_pending());
            assert!(inline.as_mut().poll_until(end, cx).is_pending());
            Poll::Ready(())
        })
        .await;
        advance(SECOND).await;
        poll_fn(|cx| {
            use_up_budget(cx);
            assert!(raw.as_mut().poll(cx).is_pending(), "tokio's own timers do not need ours any more");
            assert!(boxed.poll_until(end, cx).is_ready());
            assert!(inline.as_mut().poll_until(end, cx).is_ready());
            Poll::Ready(())
        })
        .await;
    }

    /// The waker is registered though the budget is used up: nothing else may wake the task.
    #[tokio::test(start_paused = true)]
    async fn a_timer_wakes_a_task_that_had_no_budget() {
        let (mut timer, end) = (BoxedTimer::default(), Instant::now() + SECOND);
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            use_up_budget(&mut Context::from_waker(Waker::noop()));
            timer.poll_until(end, cx)
        })
        .await;
        assert_eq!((polls, Instant::now()), (2, end));
    }

    #[tokio::test(start_paused = true)]
    async fn an_instant_may_move_either_way() {
        let (mut timer, began) = (BoxedTimer::default(), Instant::now());
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            if polls == 1 {
                assert!(timer.poll_until(began + SECOND * 5, cx).is_pending());
                return timer.poll_until(began + SECOND * 2, cx);
            }
            timer.poll_until(began + SECOND * 7, cx)
        })
        .await;
        assert_eq!((polls, began.elapsed()), (3, SECOND * 7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_that_no_clock_can_add_never_passes() {
        assert!(from_now(Duration::MAX) > Instant::now() + SECOND * 1_000_000);
    }
}
