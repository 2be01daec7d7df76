//! Wakers that outlive a poll, and those of two tasks.

use std::{
    sync::Arc,
    task::{Wake, Waker},
};

/// Keeps `waker` in `slot`. Clones it only if it wakes another task than the one that is there.
#[inline]
pub(crate) fn remember(slot: &mut Option<Waker>, waker: &Waker) {
    if !slot.as_ref().is_some_and(|slot| slot.will_wake(waker)) {
        *slot = Some(waker.clone());
    }
}

/// Wakes the task whose waker is in `slot`, once.
pub(crate) fn wake(slot: &mut Option<Waker>) {
    if let Some(waker) = slot.take() {
        waker.wake();
    }
}

/// A waker of both tasks, or `None` if there is only one task.
pub(crate) fn wake_both(mine: &Waker, other: &Option<Waker>) -> Option<Waker> {
    struct Both([Waker; 2]);

    impl Wake for Both {
        fn wake(self: Arc<Self>) {
            self.0.iter().for_each(Waker::wake_by_ref);
        }
    }

    let other = other.as_ref().filter(|other| !other.will_wake(mine))?;
    Some(Arc::new(Both([mine.clone(), other.clone()])).into())
}
