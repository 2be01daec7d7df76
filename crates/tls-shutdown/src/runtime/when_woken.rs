//! [`WhenWoken`]: a future beside busy work that costs nothing while nothing happens.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use pin_project_lite::pin_project;

pin_project! {
    /// Polls a future once, and again each time after it has woken its task.
    ///
    /// The task of a connection is woken for each request. What else it waits for, timers and phases, has not changed by that.
    #[derive(Debug)]
    pub(crate) struct WhenWoken<F> {
        #[pin]
        future: F,
        // Made at the first poll, and anew if another task polls.
        signal: Option<(Arc<Signal>, Waker)>,
    }
}

#[derive(Debug)]
struct Signal {
    is_woken: AtomicBool,
    task: Waker,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl<F> WhenWoken<F> {
    pub(crate) fn new(future: F) -> Self {
        Self { future, signal: None }
    }
}

impl<F: Future> Future for WhenWoken<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let (signal, waker) = match this.signal {
            Some(both) if both.0.task.will_wake(cx.waker()) => both,
            signal => {
                let new = Arc::new(Signal { is_woken: AtomicBool::new(true), task: cx.waker().clone() });
                signal.insert((new.clone(), new.into()))
            }
        };
        // A wake during the poll is for the next one.
        if !signal.is_woken.load(Ordering::Relaxed) || !signal.is_woken.swap(false, Ordering::Acquire) {
            return Poll::Pending;
        }
        this.future.poll(&mut Context::from_waker(waker))
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::poll_fn, pin::pin, sync::atomic::AtomicUsize, time::Duration};

    use tokio::{task::coop, time::sleep};

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_future_is_polled_at_first_and_when_it_was_woken() {
        let (polls, kept) = (Cell::new(0), Cell::new(None));
        let mut future = pin!(WhenWoken::new(poll_fn(|cx| {
            polls.set(polls.get() + 1);
            kept.set(Some(cx.waker().clone()));
            if polls.get() == 4 { Poll::Ready(()) } else { Poll::Pending }
        })));
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let mut poll = |waker: &Waker| future.as_mut().poll(&mut Context::from_waker(waker));
        for expected in [1, 2] {
            assert!(poll(&waker).is_pending() && poll(&waker).is_pending());
            assert_eq!((polls.get(), wakes.0.load(Ordering::Relaxed)), (expected, expected - 1));
            kept.take().expect("a waker").wake();
            assert_eq!(wakes.0.load(Ordering::Relaxed), expected);
        }
        assert!(poll(&waker).is_pending());
        // The waker of one task wakes no other task: the future has to learn of the other one.
        assert!(poll(Waker::noop()).is_ready());
        assert_eq!(polls.get(), 4);
    }

    /// A future that wakes its task while it is polled wants to be polled again.
    #[test]
    fn a_wake_during_the_poll_is_not_lost() {
        let mut is_first = true;
        let mut future = pin!(WhenWoken::new(poll_fn(|cx| {
            cx.waker().wake_by_ref();
            if std::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) }
        })));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(future.as_mut().poll(&mut cx).is_pending());
        assert!(future.as_mut().poll(&mut cx).is_ready());
    }

    /// Tokio postpones a timer whose task has used up its budget, and wakes the task.
    #[tokio::test(start_paused = true)]
    async fn a_timer_fires_also_after_a_poll_without_budget() {
        let mut timer = pin!(WhenWoken::new(sleep(Duration::from_secs(1))));
        let mut is_first = true;
        poll_fn(|cx| {
            if std::mem::take(&mut is_first) {
                while let Poll::Ready(budget) = coop::poll_proceed(cx) {
                    budget.made_progress();
                }
            }
            timer.as_mut().poll(cx)
        })
        .await;
    }
}
