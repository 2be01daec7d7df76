//! [`AcceptErrors`]: what is logged of the errors of `accept(2)`. Without a file descriptor, the system refuses to accept also if no
//! connection waits.

use std::{
    io::{self, ErrorKind},
    mem,
    time::Duration,
};

use tokio::time::Instant;

/// How long a warning stands for all that follow it: a listener meets the same error many times a second.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Warns of the errors of one listening socket, and not too often.
#[derive(Debug, Default)]
pub(super) struct AcceptErrors {
    warned_at: Option<Instant>,
    /// The errors since the last warning.
    unreported: u64,
}

impl AcceptErrors {
    /// Warns that a connection waits and cannot be accepted.
    pub(super) fn report(&mut self, error: &io::Error) {
        if self.warned_at.is_some_and(|warned_at| warned_at.elapsed() < WARNING_INTERVAL) {
            self.unreported += 1;
            return;
        }
        self.warned_at = Some(Instant::now());
        let since_last_warning = mem::take(&mut self.unreported);
        tracing::warn!(%error, since_last_warning, "cannot accept a connection, will try again");
    }
}

impl Drop for AcceptErrors {
    fn drop(&mut self) {
        if self.unreported > 0 {
            tracing::warn!(since_last_warning = self.unreported, "could not accept a connection at once");
        }
    }
}

pub(super) fn warn_of_reset(error: &io::Error) {
    tracing::warn!(%error, "connections that were not accepted yet are reset");
}

/// Whether the connection ended before it was accepted, so that the next one can be accepted at once.
pub(super) fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused)
}

/// Whether a connection waits to be accepted, or bytes to be read. `true` if the system does not tell.
#[cfg(target_os = "linux")]
pub(super) fn has_waiting(socket: &impl std::os::fd::AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    let mut sockets = [PollFd::new(socket, PollFlags::IN)];
    poll(&mut sockets, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) != Ok(0)
}

/// Accepts a connection that waits already. Needs no second descriptor, because a process may have only one left.
#[cfg(target_os = "linux")]
pub(super) fn accept_now(socket: &impl std::os::fd::AsFd) -> io::Result<std::os::fd::OwnedFd> {
    use rustix::net::{SocketFlags, accept_with};

    Ok(accept_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?)
}
