//! Plumbing that tokio does not offer and that every other folder needs: timers that fire under load, wakers of two tasks. Nothing in
//! here knows TLS.

pub(crate) mod call_each;
pub(crate) mod debug;
pub(crate) mod forward;
pub(crate) mod lock;
pub(crate) mod timer;
pub(crate) mod wakers;
#[cfg(feature = "server")]
pub(crate) mod when_woken;
pub(crate) mod yield_once;
