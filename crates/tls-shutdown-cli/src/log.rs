//! [`Log`]: standard error. A thread of its own writes it, so that a reader that does not read, a stopped terminal or a full disk stops
//! nothing else.

use std::{
    env,
    io::{self, IsTerminal, Write},
};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, filter::Directive};

/// What is logged without `RUST_LOG`. The warnings of other crates are left out: clients can make h2 warn as often as they like.
const DEFAULT_FILTER: &str = "error,tls_shutdown=warn";
/// How many lines wait for a slow reader. Further ones are dropped, and counted.
const MAX_LINES: usize = 1_000;

/// Writes the log to standard error. Its drop waits until everything is written, for about a second at most.
pub(crate) struct Log {
    stderr: NonBlocking,
    dropped_lines: ErrorCounter,
    _flush: WorkerGuard,
}

impl Log {
    pub(crate) fn start() -> Self {
        let (mut stderr, flush) = NonBlockingBuilder::default().buffered_lines_limit(MAX_LINES).finish(io::stderr());
        let filter = env::var(EnvFilter::DEFAULT_ENV).ok().filter(|filter| !filter.is_empty());
        let directives =
            filter.as_deref().unwrap_or(DEFAULT_FILTER).split(',').filter(|directive| !directive.is_empty());
        let (valid, ignored): (Vec<_>, Vec<_>) =
            directives.partition(|directive| directive.parse::<Directive>().is_ok());
        if !ignored.is_empty() {
            // The parser would say so, too, and panics if it cannot.
            let _ = writeln!(stderr, "tls-shutdown: ignored in {}: {}", EnvFilter::DEFAULT_ENV, ignored.join(","));
        }
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::builder().parse_lossy(valid.join(",")))
            .with_writer(stderr.clone())
            .with_ansi(io::stderr().is_terminal())
            .init();
        Self { dropped_lines: stderr.error_counter(), stderr, _flush: flush }
    }

    /// A writer to standard error. It never waits, and drops what does not fit.
    pub(crate) fn writer(&self) -> NonBlocking {
        self.stderr.clone()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let dropped = self.dropped_lines.dropped_lines();
        if dropped > 0 {
            // It is lost too if nobody reads now.
            let _ = writeln!(
                self.stderr,
                "tls-shutdown: {dropped} log lines were dropped, because they were not read in time"
            );
        }
    }
}
