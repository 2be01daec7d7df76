//! Tells how the server drain goes while it goes.

use std::{
    io::{self, IsTerminal, Write},
    sync::Arc,
    time::Duration,
};

use tls_shutdown::server::{DrainHandle, DrainPhase};
use tokio::{
    task::JoinHandle,
    time::{Instant, interval},
};

use crate::events::{CLEAR_LINE, Events};

/// How often the line on a terminal is drawn anew.
const REDRAW: Duration = Duration::from_millis(100);

/// What tells.
pub(crate) struct Progress(JoinHandle<()>);

impl Progress {
    /// Tells nothing more, and leaves nothing on the terminal.
    pub(crate) async fn end(self) {
        self.0.abort();
        // It may be drawing.
        let _ = self.0.await;
        if io::stderr().is_terminal() {
            let _ = write!(io::stderr(), "{CLEAR_LINE}");
        }
    }
}

/// Tells of each phase as an event, and, where standard error is a terminal, what is left in a line that changes.
pub(crate) fn show(drain: DrainHandle, events: Arc<Events>) -> Progress {
    Progress(tokio::spawn(async move {
        let draw = async {
            drain.reached(DrainPhase::Notice).await;
            if !io::stderr().is_terminal() {
                std::future::pending::<()>().await;
            }
            let mut redraw = interval(REDRAW);
            loop {
                redraw.tick().await;
                draw(&drain);
            }
        };
        let tell = async {
            for phase in [DrainPhase::Notice, DrainPhase::LastRequest, DrainPhase::Deadline, DrainPhase::Exit] {
                drain.reached(phase).await;
                // A phase that was skipped is none.
                if drain.phase() == phase {
                    events.draining(&drain);
                }
            }
        };
        tokio::join!(draw, tell);
    }))
}

fn draw(drain: &DrainHandle) {
    let left = drain.ends_at().map_or(Duration::ZERO, |end| end.saturating_duration_since(Instant::now()));
    let (phase, connections, requests) = (drain.phase(), drain.connections(), drain.in_flight());
    let left = left.as_secs_f64();
    // Nobody is harmed if it cannot be seen.
    let _ = write!(io::stderr(), "{CLEAR_LINE}{phase}: {connections} open, {requests} in flight, {left:.1} s at most");
}
