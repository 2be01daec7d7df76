//! [`Wait`]: a wait that is part of a response.

use std::{fmt, future::Future, pin::Pin};

/// What a response waits for, beside its body.
pub(super) struct Wait(pub(super) Pin<Box<dyn Future<Output = ()> + Send + Sync>>);

impl Wait {
    pub(super) fn new(wait: impl Future<Output = ()> + Send + Sync + 'static) -> Self {
        Self(Box::pin(wait))
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait").finish_non_exhaustive()
    }
}
