//! [`UpgradeDeadline`]: the end of an upgraded connection, which hyper no longer knows.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use crate::server::accepted_stream::AcceptedStream;
use crate::server::drain::DrainPhase;

/// Waits for the deadline of the server drain. Only an upgraded connection needs it, because hyper no longer knows that. Its reads and its
/// writes may belong to two tasks.
#[derive(Default)]
pub(super) struct UpgradeDeadline(Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>);

impl UpgradeDeadline {
    pub(super) fn poll(&mut self, stream: &AcceptedStream, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(drain) = stream.connection().drain() else { return Poll::Pending };
        let deadline = self.0.get_or_insert_with(|| Box::pin(drain.reached(DrainPhase::Deadline)));
        ready!(deadline.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(deadline_error(stream))
    }
}

/// Checks whether an upgraded connection still has time.
pub(super) fn check_deadline(stream: &AcceptedStream) -> io::Result<()> {
    match stream.connection().drain() {
        Some(drain) if drain.phase() >= DrainPhase::Deadline => Err(deadline_error(stream)),
        _ => Ok(()),
    }
}

/// Only the owner knows what is half-sent, and has no time to complete it, unless it has shut the stream down before.
fn deadline_error(stream: &AcceptedStream) -> io::Error {
    if stream.is_writable() {
        stream.connection().mark_upgrade_cut();
    }
    io::Error::new(io::ErrorKind::ConnectionAborted, "the server has no more time for this connection")
}
