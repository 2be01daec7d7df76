//! systemd: what a service of `Type=notify` tells it, and the sockets that it has opened. Feature `systemd`; on systems without it,
//! nothing happens, and there are no sockets.

use std::{io, net::TcpListener, time::Duration};

use sd_notify::NotifyState;
use tokio::time::{Instant, sleep};

use crate::server::{DrainHandle, DrainPhase};

/// How often systemd is told that the drain goes on.
const PACE: Duration = Duration::from_secs(2);
/// For how long it is told to wait for the next such message: more than the pace, so that a busy machine does not end the drain.
const EXTENSION: Duration = Duration::from_secs(10);

/// The TCP sockets that systemd has opened for this process (`sd_listen_fds(3)`), in the order of the unit, or that a predecessor
/// has handed over in the same way; for [`TlsListener::from_std`](crate::server::TlsListener::from_std). Sockets of other kinds are left out.
///
/// Where systemd holds the socket, connections are queued while the service restarts, and none is refused.
///
/// # Errors
///
/// When a descriptor cannot be used.
pub fn listening_sockets() -> io::Result<Vec<TcpListener>> {
    let mut descriptors = listenfd::ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..descriptors.len() {
        match descriptors.take_tcp_listener(index) {
            Ok(Some(socket)) => sockets.push(socket),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                tracing::warn!(index, %error, "a socket of another kind is not used");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

/// Tells systemd that the service is ready now, then how its drain goes: `STOPPING=1` once and for all, `STATUS=` with the phase and
/// the connections that are left, and `EXTEND_TIMEOUT_USEC=` every two seconds, so that `TimeoutStopSec` need not be longer than
/// the [grace](crate::server::ServerDrain::grace) (`sd_notify(3)`). Spawn it, or poll it beside the server.
///
/// ```no_run
/// # use tls_shutdown::{server::{ServerDrain, TlsListener}, integrations::systemd};
/// # async fn example(config: rustls::ServerConfig) -> std::io::Result<()> {
/// let socket = systemd::listening_sockets()?.pop().expect("a socket unit");
/// let listener = TlsListener::from_std(socket, config)?;
/// let drain = ServerDrain::on_terminate_signal()?;
/// tokio::spawn(systemd::notify(drain.handle()));
/// # let _ = listener;
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// Outside a Tokio runtime with time enabled.
///
/// # Cancel safety
///
/// Dropped, it tells nothing more; called again, it begins anew.
pub async fn notify(drain: DrainHandle) {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
    drain.reached(DrainPhase::Notice).await;
    tell(&[NotifyState::Stopping]);
    let mut phase = drain.phase();
    while phase != DrainPhase::Ended {
        let left = drain.ends_at().map_or(Duration::ZERO, |end| end.saturating_duration_since(Instant::now()));
        let status = format!("{phase}, {} connections left, {} s at most", drain.connections(), left.as_secs());
        // The grace is the limit: whoever has not ended then is to be ended.
        let extension = u32::try_from((left.min(EXTENSION) + PACE).as_micros()).unwrap_or(u32::MAX);
        tell(&[NotifyState::Status(&status), NotifyState::ExtendTimeoutUsec(extension)]);
        let next_phase = async {
            match phase {
                DrainPhase::Notice => drain.reached(DrainPhase::LastRequest).await,
                DrainPhase::LastRequest => drain.reached(DrainPhase::Deadline).await,
                DrainPhase::Deadline => drain.reached(DrainPhase::Exit).await,
                _ => drain.reached(DrainPhase::Ended).await,
            }
        };
        tokio::select! {
            // A drain that was dropped never ends.
            () = sleep(PACE) => if left.is_zero() { return },
            () = next_phase => {}
        }
        phase = drain.phase();
    }
    tell(&[NotifyState::Status("drained")]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot tell systemd");
    }
}
