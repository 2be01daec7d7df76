//! One turn of the runtime. Before it, a socket may report no bytes although some have arrived.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// Yields to the runtime once.
///
/// Tokio's sockets ask the system again only after the runtime has polled it, and a task whose budget is used up receives nothing,
/// although the peer's data may have arrived.
#[derive(Default)]
pub(crate) enum YieldOnce {
    #[default]
    Due,
    Yielding(Pin<Box<dyn Future<Output = ()> + Send + Sync>>),
    Done,
}

impl YieldOnce {
    /// Is ready at the poll after the yield, not at the one in which it ends.
    pub(crate) fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self {
                Self::Due => *self = Self::Yielding(Box::pin(tokio::task::yield_now())),
                Self::Yielding(turn) => {
                    ready!(turn.as_mut().poll(cx));
                    *self = Self::Done;
                    // What the caller knows of its socket is from before the yield.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Self::Done => return Poll::Ready(()),
            }
        }
    }
}
