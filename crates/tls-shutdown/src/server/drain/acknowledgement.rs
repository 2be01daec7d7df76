//! [`Acknowledgement`]: whether the peers' systems have received what was sent, and the wait for it.

use std::time::Duration;

use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep_until, timeout_at},
};

use super::{DrainHandle, listener::Delivery};
use crate::{
    runtime::timer::from_now,
    server::unacknowledged::{OpenSockets, unacknowledged},
};

/// Whether the peers' systems have acknowledged what the server sent.
///
/// ```
/// use tls_shutdown::server::{Acknowledgement, DrainReport};
///
/// fn is_known_to_be_lost(report: &DrainReport) -> bool {
///     matches!(report.acknowledgement(), Acknowledgement::Missing(_))
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Acknowledgement {
    /// All of it.
    Everything,
    /// All but this number of bytes. The system goes on to send them, if its network outlives the process.
    Missing(u64),
    /// The system does not report it, or was not asked.
    Unknown,
}

/// How often the kernel is asked. It has no event for acknowledgements.
const INTERVAL: Duration = Duration::from_millis(20);
/// The pause after a question takes at least this many times as long as the question: large tables keep the kernel busy.
const PAUSE_FACTOR: u32 = 10;
/// How long a question may take after the end of the grace period.
const QUESTION_TIMEOUT: Duration = Duration::from_millis(200);

//= https://www.rfc-editor.org/rfc/rfc9112#section-9.6
//# The server then continues to read from the connection until it
//# receives a corresponding close by the client, or until the server is
//# reasonably certain that its own TCP stack has received the client's
//# acknowledgement of the packet(s) containing the server's last
//# response.
/// Waits until everything is acknowledged, until `timeout` passes without an acknowledgement, or until `ends`. It asks at least once, and
/// keeps `known` up to date: the future may be dropped.
pub(super) async fn wait_acknowledged(
    drain: &DrainHandle,
    known: &mut Acknowledgement,
    timeout: Duration,
    ends: Instant,
) {
    let mut fewest = u64::MAX;
    let mut give_up_at = ends;
    loop {
        let asked_at = Instant::now();
        let question_end = ends.max(from_now(QUESTION_TIMEOUT));
        let Ok(answer) = timeout_at(question_end, ask(drain)).await else { return };
        *known = answer;
        let Acknowledgement::Missing(bytes) = answer else { return };
        if bytes < fewest {
            fewest = bytes;
            give_up_at = ends.min(from_now(timeout));
        }
        if Instant::now() >= give_up_at {
            return;
        }
        let pause = INTERVAL.max(asked_at.elapsed() * PAUSE_FACTOR);
        sleep_until(give_up_at.min(from_now(pause))).await;
    }
}

/// Asks the kernel, on a thread for blocking calls: a large table takes it a while.
async fn ask(drain: &DrainHandle) -> Acknowledgement {
    let deliveries = drain.deliveries();
    let addresses: Vec<_> = deliveries
        .iter()
        .filter_map(|delivery| if let Delivery::Acknowledged(address) = delivery { Some(*address) } else { None })
        .collect();
    if addresses.is_empty() {
        let is_known = !deliveries.is_empty() && !deliveries.contains(&Delivery::Unknown);
        return if is_known { Acknowledgement::Everything } else { Acknowledgement::Unknown };
    }
    let has_open = drain.connections() > 0 || drain.reapers().iter().any(|reaper| reaper.closings() > 0);
    let open = if has_open { OpenSockets::Some } else { OpenSockets::None };
    match spawn_blocking(move || unacknowledged(&addresses, open)).await {
        Ok(Some(0)) if deliveries.contains(&Delivery::Unknown) => Acknowledgement::Unknown,
        Ok(Some(0)) => Acknowledgement::Everything,
        Ok(Some(bytes)) => Acknowledgement::Missing(bytes),
        Ok(None) | Err(_) => Acknowledgement::Unknown,
    }
}
