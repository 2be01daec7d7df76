//! [`Wait`]: what a response waits for, beside its body.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use crate::server::drain::DrainPhase;
use crate::server::lifetime::ConnectionLifetime;

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
            return Self::new(async move { lifetime.drain().reached(DrainPhase::LastRequest).await });
        }
        Self::new(async move { lifetime.until_last_request().await })
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait").finish_non_exhaustive()
    }
}
