//! [`ConnectionReport`]: how one accepted connection ended.

use std::{fmt, net::SocketAddr, time::Duration};

use crate::tls::{Ending, ShutdownReport};

/// How an accepted connection ended. There is one for each connection, also if its handshake failed.
///
/// [`TlsListener::on_end`](crate::server::TlsListener::on_end) and [`Server::on_end`](crate::server::Server::on_end) are called with it.
/// Together with the [`DrainReport`](crate::server::DrainReport) it contains all that metrics need.
///
/// ```
/// # async fn example(listener: tls_shutdown::server::TlsListener) {
/// let listener = listener.on_end(|report| {
///     if !report.ending().is_clean() {
///         eprintln!("{report}");
///     }
/// });
/// # let _ = listener;
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ConnectionReport {
    pub(super) peer: SocketAddr,
    pub(super) shutdown: ShutdownReport,
    pub(super) age: Duration,
    pub(super) requests: u64,
    pub(super) responses_cut: u64,
    pub(super) handshake: Handshake,
    pub(super) protocol: Protocol,
}

/// How far the TLS handshake came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handshake {
    Finished,
    /// The peer failed or stayed silent, or a limit or a server drain ended it.
    Unfinished,
}

/// What the connection was used for in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Served,
    /// Another protocol, after an HTTP/1 upgrade or CONNECT.
    Upgraded,
}

impl ConnectionReport {
    /// The peer's address, or the address that the [hook before TLS](crate::server::TlsListener::before_tls) returned.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// How the TLS connection ended. [`Ending::NotStarted`] also for a handshake that the server gave up.
    pub fn ending(&self) -> Ending {
        self.shutdown.ending()
    }

    /// What the shutdown did.
    pub fn shutdown(&self) -> &ShutdownReport {
        &self.shutdown
    }

    /// Time from the accept to the end.
    pub fn age(&self) -> Duration {
        self.age
    }

    /// Requests that a [`Server`](crate::server::Server) passed to its service. 0 without a `Server`.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Requests that a [`Server`](crate::server::Server) passed to its service and whose response was not sent to its end.
    pub fn responses_cut(&self) -> u64 {
        self.responses_cut
    }

    /// Whether the TLS handshake was finished.
    pub fn handshake_finished(&self) -> bool {
        self.handshake == Handshake::Finished
    }

    /// Whether the connection changed to another protocol, by an HTTP/1 upgrade or CONNECT.
    pub fn was_upgraded(&self) -> bool {
        self.protocol == Protocol::Upgraded
    }
}

impl fmt::Display for ConnectionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.peer, self.shutdown)?;
        if self.responses_cut > 0 {
            write!(f, ", {} responses cut", self.responses_cut)?;
        }
        Ok(())
    }
}
