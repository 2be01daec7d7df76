//! The signals with which operators end a process: SIGTERM and Ctrl-C. Windows has Ctrl-C alone.

use std::{
    future::poll_fn,
    io,
    sync::{Arc, Mutex},
    task::Poll,
};

use super::Signal;
use crate::runtime::lock::lock;

/// Returns two futures, each of which resolves with the next signal, and may be awaited again. Signals are kept for them from now on.
pub(super) fn terminate_twice() -> io::Result<(Signal, Signal)> {
    #[cfg(unix)]
    let signals = {
        use tokio::signal::unix::{SignalKind, signal};
        [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?]
    };
    #[cfg(windows)]
    let signals = [tokio::signal::windows::ctrl_c()?];
    let signals = Arc::new(Mutex::new(signals));
    let next = || -> Signal {
        let signals = signals.clone();
        Box::pin(poll_fn(move |cx| {
            let mut signals = lock(&signals);
            let has_arrived = signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
            if has_arrived { Poll::Ready(()) } else { Poll::Pending }
        }))
    };
    Ok((next(), next()))
}
