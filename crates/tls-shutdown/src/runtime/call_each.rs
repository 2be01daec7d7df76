//! Callbacks of users, of which one may panic.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
};

/// Calls all of them, also if one panics. The first panic continues afterwards, unless the thread already unwinds for another one: a second
/// panic out of a destructor would abort the process (`Drop`, section "Panics").
pub(crate) fn call_each<F: FnOnce()>(calls: impl Iterator<Item = F>) {
    let mut panicked = None;
    for call in calls {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(call)) {
            panicked.get_or_insert(panic);
        }
    }
    if let Some(panic) = panicked
        && !thread::panicking()
    {
        resume_unwind(panic);
    }
}
