//! The signals with which operators end a process: SIGTERM and Ctrl-C. On systems without SIGTERM, Ctrl-C alone.

use std::{io, sync::Arc};

use tokio::sync::Mutex;

use super::Signal;

/// Returns two futures: the first signal and the second.
pub(super) fn terminate_twice() -> io::Result<(Signal, Signal)> {
    let signals = Arc::new(Mutex::new(TerminateSignals::listen()?));
    let next = || -> Signal {
        let signals = signals.clone();
        Box::pin(async move { signals.lock().await.next().await })
    };
    Ok((next(), next()))
}

struct TerminateSignals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl TerminateSignals {
    /// Keeps signals for [`next`](Self::next) from now on.
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
impl TerminateSignals {
    fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    async fn next(&mut self) {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!(%error, "cannot listen for Ctrl-C");
            std::future::pending().await
        }
    }
}
