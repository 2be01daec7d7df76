//! [`Wait`]: what a response waits for, beside its body.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use tokio::task::coop::unconstrained;

use crate::{
    runtime::debug::debug_struct,
    server::{drain::DrainPhase, lifetime::ConnectionLifetime},
};

/// What a response waits for, beside its body. It must not be polled after it has ended.
pub(super) struct Wait(Pin<Box<dyn Future<Output = ()> + Send + Sync>>);

impl Wait {
    pub(super) fn new(wait: impl Future<Output = ()> + Send + Sync + 'static) -> Self {
        Self(Box::pin(wait))
    }

    /// Waits for the last request of a connection. An endless response that begins now may be the last one already, by the number of requests
    /// or by the wish of its handler. Such a response is served, and only the drain ends it.
    pub(super) fn until_last_request(lifetime: &Arc<ConnectionLifetime>) -> Self {
        let lifetime = lifetime.clone();
        if lifetime.is_closing() {
            return Self::new(lifetime.drain().reached(DrainPhase::LastRequest));
        }
        Self::new(async move { lifetime.until_last_request().await })
    }

    /// Sees the end also in a task that has used up its budget, as a busy application does.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        pin!(unconstrained(self.0.as_mut())).poll(cx)
    }
}

debug_struct!({} Wait, |_| {});

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, poll_fn, ready},
        time::Duration,
    };

    use tokio::task::coop::poll_proceed;

    use super::*;
    use crate::server::drain::ServerDrain;

    #[tokio::test]
    async fn a_task_without_budget_sees_the_end() {
        let drain = ServerDrain::on(ready(())).grace_period(Duration::ZERO).ack_timeout(Duration::ZERO);
        let handle = drain.handle();
        drain.run(pending::<()>()).await;
        let mut wait = Wait::new(handle.reached(DrainPhase::Deadline));
        let seen = poll_fn(|cx| {
            while let Poll::Ready(step) = poll_proceed(cx) {
                step.made_progress();
            }
            Poll::Ready(wait.poll(cx))
        });
        assert!(seen.await.is_ready());
    }
}
