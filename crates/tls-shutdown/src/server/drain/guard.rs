//! [`DrainGuard`]: a part of the program that a drain waits for.

use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::runtime::debug::debug_struct;

/// Takes part in a server drain until it is dropped. [`DrainHandle::track`](super::DrainHandle::track) returns it, and has an example.
#[must_use = "the drain waits only while the guard lives"]
pub struct DrainGuard {
    pub(super) _token: TaskTrackerToken,
}

debug_struct!({} DrainGuard, |_| {});
