//! Callbacks of users, of which one may panic.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Calls all of them, also if one panics. The first panic continues afterwards.
pub(crate) fn call_each<F: FnOnce()>(calls: impl Iterator<Item = F>) {
    let mut panicked = None;
    for call in calls {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(call)) {
            panicked.get_or_insert(panic);
        }
    }
    if let Some(panic) = panicked {
        resume_unwind(panic);
    }
}
