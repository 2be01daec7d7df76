//! One accepted connection, from `accept(2)` to the call of `on_end`: what is known of it, and [`ConnectionReport`].

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::{
    server::drain::{DrainHandle, InFlight},
    tls::report::{Ending, ShutdownReport},
};

/// How an accepted connection ended: told once for each, also where its handshake failed.
///
/// [`TlsListener::on_end`](crate::server::TlsListener::on_end) and [`Server::on_end`](crate::server::Server::on_end) give it; together with the
/// [`DrainReport`](crate::server::DrainReport) it is all that metrics need.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionReport {
    pub(crate) peer: SocketAddr,
    pub(crate) shutdown: ShutdownReport,
    pub(crate) age: Duration,
    pub(crate) requests: u64,
    pub(crate) cut: u64,
    pub(crate) handshake: Handshake,
    pub(crate) use_after: Use,
}

/// How far the TLS handshake of an accepted connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Handshake {
    /// It was completed.
    Finished,
    /// It was not: the peer failed or stayed silent, or a limit or a server drain ended it.
    Unfinished,
}

/// What a connection was used for in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Use {
    /// What the listener was made for.
    Served,
    /// Another protocol, after an HTTP/1 upgrade or CONNECT.
    Upgraded,
}

impl ConnectionReport {
    /// The peer's address; what the [hook before TLS](crate::server::TlsListener::before_tls) said, if there is one.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// How the TLS connection ended. [`Ending::NotStarted`] also for a handshake that was given up.
    pub fn ending(&self) -> Ending {
        self.shutdown.ending()
    }

    /// What the closing did.
    pub fn shutdown(&self) -> &ShutdownReport {
        &self.shutdown
    }

    /// Time from the accept to the end.
    pub fn age(&self) -> Duration {
        self.age
    }

    /// Requests that a [`Server`](crate::server::Server) has handed to its service; 0 without one.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Requests that a [`Server`](crate::server::Server) has begun to serve without getting the whole response out.
    pub fn responses_cut(&self) -> u64 {
        self.cut
    }

    /// How far the handshake came.
    pub fn handshake(&self) -> Handshake {
        self.handshake
    }

    /// What the connection was used for.
    pub fn used_as(&self) -> Use {
        self.use_after
    }
}

impl fmt::Display for ConnectionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.peer, self.shutdown)?;
        if self.cut > 0 {
            write!(f, ", {} responses cut", self.cut)?;
        }
        Ok(())
    }
}

/// The user's callback.
pub(crate) type OnEnd = Arc<dyn Fn(&ConnectionReport) + Send + Sync>;

/// Who is told of the end of a connection.
#[derive(Clone, Default)]
pub(crate) struct Observers {
    pub(crate) on_end: Option<OnEnd>,
    pub(crate) drain: Option<DrainHandle>,
}

/// An accepted connection without a TLS stream, which would tell how it ends. Dropping it tells.
pub(crate) struct Accepted {
    observers: Observers,
    pub(crate) peer: SocketAddr,
    accepted: Instant,
    /// Held until the end is told; `None` where no drain counts.
    counted: Option<TaskTrackerToken>,
    /// `None` once the TLS stream tells.
    end: Option<ShutdownReport>,
}

impl Accepted {
    pub(crate) fn new(observers: &Observers, peer: SocketAddr) -> Self {
        let nothing_known = io::ErrorKind::Interrupted.into();
        Self {
            observers: observers.clone(),
            peer,
            accepted: Instant::now(),
            counted: observers.drain.as_ref().map(DrainHandle::count),
            end: Some(ShutdownReport::of_failed_handshake(&nothing_known)),
        }
    }

    /// The handshake has failed.
    pub(crate) fn fail(mut self, error: &io::Error) {
        self.end = Some(ShutdownReport::of_failed_handshake(error));
    }

    /// The handshake is done.
    pub(crate) fn finish(mut self) -> Arc<Connection> {
        self.end = None;
        if let Some(drain) = &self.observers.drain {
            drain.handshake_finished();
        }
        Arc::new(Connection {
            observers: std::mem::take(&mut self.observers),
            peer: self.peer,
            accepted: self.accepted,
            _counted: self.counted.take(),
            requests: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            has_unsent: AtomicBool::new(false),
            is_upgraded: AtomicBool::new(false),
        })
    }
}

impl Drop for Accepted {
    /// Also where the task is dropped with the runtime.
    fn drop(&mut self) {
        if let Some(shutdown) = self.end {
            self.observers.tell(&ConnectionReport {
                peer: self.peer,
                shutdown,
                age: self.accepted.elapsed(),
                requests: 0,
                cut: 0,
                handshake: Handshake::Unfinished,
                use_after: Use::Served,
            });
        }
    }
}

impl Observers {
    fn tell(&self, report: &ConnectionReport) {
        if let Some(drain) = &self.drain {
            drain.ended(report);
        }
        if let Some(on_end) = &self.on_end {
            on_end(report);
        }
    }
}

/// A connection whose handshake is done, shared by its stream and by whoever serves it. The counters are statistics: they order
/// nothing.
pub(crate) struct Connection {
    observers: Observers,
    pub(crate) peer: SocketAddr,
    accepted: Instant,
    _counted: Option<TaskTrackerToken>,
    requests: AtomicU64,
    cut: AtomicU64,
    /// A response that is with TLS, and that the transport has not taken all of.
    has_unsent: AtomicBool,
    is_upgraded: AtomicBool,
}

impl Connection {
    pub(crate) fn drain(&self) -> Option<&DrainHandle> {
        self.observers.drain.as_ref()
    }

    pub(crate) fn has_request(&self) -> Option<InFlight> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.drain().map(DrainHandle::has_request)
    }

    pub(crate) fn has_cut(&self, responses: u64) {
        self.cut.fetch_add(responses, Ordering::Relaxed);
    }

    /// The connection is to be closed, and a part of a response is still to be sent before.
    pub(crate) fn has_unsent(&self) {
        self.has_unsent.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_upgraded(&self) {
        self.is_upgraded.store(true, Ordering::Relaxed);
    }

    /// The TLS connection has ended.
    pub(crate) fn end(&self, shutdown: &ShutdownReport) {
        let requests = self.requests.load(Ordering::Relaxed);
        // close_notify goes out behind all else.
        let unsent = u64::from(self.has_unsent.load(Ordering::Relaxed) && !shutdown.sent());
        self.observers.tell(&ConnectionReport {
            peer: self.peer,
            shutdown: *shutdown,
            age: self.accepted.elapsed(),
            requests,
            // Of what h2 or hyper has refused, nobody was asked.
            cut: (self.cut.load(Ordering::Relaxed) + unsent).min(requests),
            handshake: Handshake::Finished,
            use_after: if self.is_upgraded.load(Ordering::Relaxed) { Use::Upgraded } else { Use::Served },
        });
    }
}
