//! Callbacks of users, of which one may panic. So may a log: `println!` does if it cannot write.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
};

/// Calls `first`, then each of the others, also if one panics. The first panic continues afterwards, unless the thread already unwinds for
/// another one: a second panic out of a destructor would abort the process (`Drop`, section "Panics").
pub(crate) fn call_each<F: FnOnce()>(first: impl FnOnce(), others: impl Iterator<Item = F>) {
    let mut panicked = catch_unwind(AssertUnwindSafe(first)).err();
    for call in others {
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
