//! The signals with which operators end a process: SIGTERM and Ctrl-C. Windows has Ctrl-C alone.

use std::{
    future::poll_fn,
    io, mem,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use super::Signal;
use crate::runtime::lock::lock;

/// Returns what begins a drain, and what forces its end. Signals are kept for them from now on.
pub(super) fn terminate_twice() -> io::Result<(Signal, Signal)> {
    #[cfg(unix)]
    let mut signals = {
        use tokio::signal::unix::{SignalKind, signal};
        [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?]
    };
    #[cfg(windows)]
    let mut signals = [tokio::signal::windows::ctrl_c()?];
    Ok(twice(move |cx| {
        let has_arrived = signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
        if has_arrived { Poll::Ready(()) } else { Poll::Pending }
    }))
}

/// The first signal of a drain begins it, and the second one forces its end. A drain that the program has begun still expects the first one,
/// from its supervisor. Both futures may be awaited again.
fn twice(poll_next: impl FnMut(&mut Context<'_>) -> Poll<()> + Send + 'static) -> (Signal, Signal) {
    let signals = Arc::new(Mutex::new(Signals { poll_next, has_come: false }));
    let begin = {
        let signals = signals.clone();
        poll_fn(move |cx| {
            let signals = &mut *lock(&signals);
            signals.has_come = false;
            ready!((signals.poll_next)(cx));
            signals.has_come = true;
            Poll::Ready(())
        })
    };
    let force = poll_fn(move |cx| {
        let signals = &mut *lock(&signals);
        loop {
            ready!((signals.poll_next)(cx));
            if mem::replace(&mut signals.has_come, true) {
                return Poll::Ready(());
            }
        }
    });
    (Box::pin(begin), Box::pin(force))
}

struct Signals<F> {
    poll_next: F,
    /// Whether the first signal of the current drain has come.
    has_come: bool,
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn the_second_signal_of_a_drain_forces_its_end() {
        let (send, mut signals) = mpsc::unbounded_channel();
        let (mut begin, mut force) = twice(move |cx| signals.poll_recv(cx).map(|signal| signal.expect("a sender")));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut poll = |signal: &mut Signal| signal.as_mut().poll(&mut cx).is_ready();
        let signal = || send.send(()).expect("a receiver");

        assert!(!poll(&mut begin));
        signal();
        assert!(poll(&mut begin) && !poll(&mut force));
        signal();
        assert!(poll(&mut force) && !poll(&mut force));

        // The drain was cancelled, and the program begins the next one by itself.
        assert!(!poll(&mut begin));
        signal();
        assert!(!poll(&mut force), "the supervisor's signal is the first one");
        signal();
        assert!(poll(&mut force));
    }
}
