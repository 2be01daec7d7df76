//! [`Watchdog`]: ends the process after its grace period, also if every thread of the server is blocked.

use std::{
    io::{self, Write},
    process,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::Duration,
};

use tls_shutdown::server::ServerDrain;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep, sleep_until},
};
use tracing_appender::non_blocking::NonBlocking;

/// The exit code of a server that did not end in time.
const OVERRUN: u8 = 3;
/// How much longer than its time a drain may take, with everything that follows it.
const OVERRUN_TIMEOUT: Duration = Duration::from_millis(900);
/// How long standard error may take for the last line.
const LAST_LINE_TIMEOUT: Duration = Duration::from_millis(50);

/// A thread with a runtime of its own, so that it hears the signals although nobody else runs.
pub(crate) struct Watchdog {
    exit_code: Arc<AtomicU8>,
}

impl Watchdog {
    /// Ends the process if it still runs when `grace` and a little more have passed since the first SIGTERM or Ctrl-C. After a second one
    /// it has the [reserve](ServerDrain::RESERVE) of a drain.
    pub(crate) fn start(grace: Duration, mut stderr: NonBlocking) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut terminate, mut interrupt) = {
            let _guard = runtime.enter();
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
        };
        let exit_code = Arc::new(AtomicU8::new(OVERRUN));
        let code = exit_code.clone();
        let watch = async move {
            let mut signalled = async || {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                Instant::now()
            };
            let first = signalled().await;
            let end = first.checked_add(grace.saturating_add(OVERRUN_TIMEOUT));
            let forced_end = async { signalled().await + ServerDrain::RESERVE + OVERRUN_TIMEOUT };
            let passed = async |end: Option<Instant>| match end {
                Some(end) => sleep_until(end).await,
                None => std::future::pending().await,
            };
            tokio::select! {
                () = passed(end) => {}
                forced_end = forced_end => passed(Some(end.map_or(forced_end, |end| end.min(forced_end)))).await,
            }
            let code = code.load(Ordering::Relaxed);
            if code == OVERRUN {
                // It never waits.
                let _ = writeln!(stderr, "tls-shutdown: the server did not end in time, what was in progress is cut");
            }
            sleep(LAST_LINE_TIMEOUT).await;
            process::exit(code.into());
        };
        thread::Builder::new().name("watchdog".to_owned()).spawn(move || runtime.block_on(watch))?;
        Ok(Self { exit_code })
    }

    /// The drain has ended, so that the process is to exit with `code` from now on.
    pub(crate) fn set_exit_code(&self, code: u8) {
        self.exit_code.store(code, Ordering::Relaxed);
    }
}
