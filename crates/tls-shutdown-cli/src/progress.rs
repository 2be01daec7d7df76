//! Shows the progress of the server drain.

use std::{
    future::pending,
    io::{self, IsTerminal, Write},
    sync::Arc,
    time::Duration,
};

use tls_shutdown::server::{DrainHandle, DrainPhase};
use tokio::{
    task::JoinHandle,
    time::{Instant, interval},
};
use tracing_appender::non_blocking::NonBlocking;

use crate::events::{CLEAR_LINE, Events};

/// How often the line on a terminal is redrawn.
const REDRAW_INTERVAL: Duration = Duration::from_millis(100);

/// The task that shows the progress.
pub(crate) struct Progress {
    task: JoinHandle<()>,
    stderr: NonBlocking,
}

impl Progress {
    /// Stops the task, and clears its line on the terminal.
    pub(crate) async fn stop(mut self) {
        self.task.abort();
        // The task may be drawing right now.
        let _ = self.task.await;
        if io::stderr().is_terminal() {
            let _ = self.stderr.write_all(CLEAR_LINE.as_bytes());
        }
    }
}

/// Reports each phase as an event. If standard error is a terminal, also shows there what is left, in a line that is redrawn.
pub(crate) fn show(drain: DrainHandle, events: Arc<Events>, stderr: NonBlocking) -> Progress {
    let terminal = stderr.clone();
    let task = tokio::spawn(async move {
        tokio::join!(report_phases(&drain, &events), redraw(&drain, terminal));
    });
    Progress { task, stderr }
}

async fn report_phases(drain: &DrainHandle, events: &Events) {
    for phase in [DrainPhase::Notice, DrainPhase::LastRequest, DrainPhase::Deadline, DrainPhase::Exit] {
        drain.reached(phase).await;
        // The drain may have skipped this phase.
        if drain.phase() == phase {
            events.draining(drain);
        }
    }
}

/// Redraws the line until the task is stopped.
async fn redraw(drain: &DrainHandle, mut terminal: NonBlocking) {
    if !io::stderr().is_terminal() {
        return pending().await;
    }
    drain.reached(DrainPhase::Notice).await;
    let mut ticks = interval(REDRAW_INTERVAL);
    loop {
        ticks.tick().await;
        let left = drain.ends_at().map_or(Duration::ZERO, |end| end.saturating_duration_since(Instant::now()));
        let (phase, connections, requests) = (drain.phase(), drain.connections(), drain.in_flight());
        let left = left.as_secs_f64();
        let line =
            format!("{CLEAR_LINE}{phase}: {connections} open, {requests} in flight, exit in at most {left:.1} s");
        // A terminal that cannot be written to harms nobody.
        let _ = terminal.write_all(line.as_bytes());
    }
}
