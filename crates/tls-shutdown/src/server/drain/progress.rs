//! [`Progress`]: how far a drain is, and who may change that.

use tokio::sync::watch;

use super::DrainPhase;

/// The phase of a drain, and whether the next one was started. Both are one value, so that a start, a cancel and a new phase come one after
/// the other: a start is for the drain that begins next, and only for that one.
#[derive(Default)]
pub(super) struct Progress(watch::Sender<State>);

#[derive(Clone, Copy, Default)]
struct State {
    phase: DrainPhase,
    is_started: bool,
}

impl Progress {
    pub(super) fn phase(&self) -> DrainPhase {
        self.0.borrow().phase
    }

    /// Waits for a phase for which `is_due` is true.
    pub(super) async fn until(&self, is_due: impl Fn(DrainPhase) -> bool) {
        let mut states = self.0.subscribe();
        // Cannot fail: `self` owns the sender.
        let _ = states.wait_for(|state| is_due(state.phase)).await;
    }

    /// Starts the next drain. Does nothing once it has begun.
    pub(super) fn start(&self) {
        self.0.send_if_modified(|state| {
            let is_new = state.phase == DrainPhase::Serving && !state.is_started;
            state.is_started |= is_new;
            is_new
        });
    }

    /// Waits for [`start`](Self::start).
    pub(super) async fn started(&self) {
        let mut states = self.0.subscribe();
        let _ = states.wait_for(|state| state.is_started).await;
    }

    /// Changes the phase to `next`, if that may follow, and calls `on_change` before anybody sees it. Returns whether it may.
    pub(super) fn change(&self, next: DrainPhase, on_change: impl FnOnce()) -> bool {
        self.0.send_if_modified(|state| {
            let may_follow = match next {
                DrainPhase::Serving => state.phase == DrainPhase::Notice,
                DrainPhase::Notice => state.phase == DrainPhase::Serving,
                // A drain that is cancelled goes no further.
                _ => state.phase != DrainPhase::Serving,
            };
            if may_follow {
                *state = State { phase: next, is_started: false };
                on_change();
            }
            may_follow
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{Future, pending},
        pin::pin,
        sync::{Arc, Barrier},
        task::{Context, Wake, Waker},
        thread,
    };

    use tokio::time::Instant;

    use super::*;
    use crate::server::drain::{DrainHandle, ServerDrain};

    fn drain() -> DrainHandle {
        ServerDrain::on(pending()).handle()
    }

    /// Whether the next drain begins at once.
    fn is_started(drain: &DrainHandle) -> bool {
        pin!(drain.started()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Cancels the drain as soon as it has begun, and starts another one.
    struct Restart(DrainHandle);

    impl Wake for Restart {
        fn wake(self: Arc<Self>) {
            assert!(self.0.cancel());
            self.0.start();
        }
    }

    #[test]
    fn a_start_right_after_a_cancel_is_not_lost() {
        let drain = drain();
        let waker = Waker::from(Arc::new(Restart(drain.clone())));
        let mut reached = pin!(drain.reached(DrainPhase::Notice));
        assert!(reached.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drain.begin(Instant::now());
        assert_eq!(drain.phase(), DrainPhase::Serving);
        assert!(is_started(&drain));
    }

    /// Wherever the two threads meet.
    #[test]
    fn a_start_before_a_cancel_begins_no_other_drain() {
        for round in 0..5_000 {
            let (drain, both) = (drain(), Barrier::new(2));
            thread::scope(|scope| {
                scope.spawn(|| {
                    both.wait();
                    drain.start();
                });
                both.wait();
                drain.begin(Instant::now());
            });
            assert!(drain.cancel());
            assert!(!is_started(&drain), "in round {round}");
        }
    }
}
