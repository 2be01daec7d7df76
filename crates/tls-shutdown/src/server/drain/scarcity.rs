//! [`Scarcity`]: which connection ends if the system refuses to accept a new one, because file descriptors are used up for example.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Asks idle connections to end, one for each connection that cannot be accepted.
#[derive(Default)]
pub(crate) struct Scarcity {
    /// Wakes those first that have waited for longest.
    asked: Notify,
    /// How many may still pass the question on.
    passes: AtomicUsize,
}

impl Scarcity {
    /// Asks one of about so many connections.
    pub(super) fn ask(&self, connections: usize) {
        self.passes.store(connections, Ordering::Relaxed);
        self.asked.notify_one();
    }

    /// Waits until a connection is asked while it is idle. If it is not, another one is asked.
    pub(crate) async fn until_asked(&self, is_idle: impl Fn() -> bool) {
        loop {
            self.asked.notified().await;
            if is_idle() {
                return;
            }
            let pass = self.passes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if pass.is_ok() {
                self.asked.notify_one();
            }
        }
    }
}
