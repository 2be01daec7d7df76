//! One accepted connection, from `accept(2)` to its report: what is known of it, and who is told.

use std::{
    mem,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rustls::ServerConnection;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{
    drain::{DrainHandle, InFlight},
    handshake_failure::{FailedHandshake, HandshakeFailure},
    negotiated::{Negotiated, Protocol},
    peer::{Peer, Transport},
    report::ConnectionReport,
    retirement::ConfigOfConnection,
};
use crate::{
    runtime::call_each::call_each,
    tls::{Ending, ShutdownReport},
};

pub(super) type OnConnectionEnd = Arc<dyn Fn(&ConnectionReport) + Send + Sync>;

/// Who receives the report of a connection.
#[derive(Clone, Default)]
pub(super) struct ConnectionObservers {
    pub(super) on_end: Vec<OnConnectionEnd>,
    pub(super) drain: Option<DrainHandle>,
}

impl ConnectionObservers {
    /// The drain first: a log and a callback of the user may panic.
    fn report(&self, report: &ConnectionReport, log: impl FnOnce()) {
        if let Some(drain) = &self.drain {
            drain.count(|tally| tally.add(report));
        }
        call_each(log, self.on_end.iter().map(|on_end| || on_end(report)));
    }
}

/// An accepted connection without a stream, which would report its end. Dropping it reports, also if its task is dropped with the
/// runtime.
pub(super) struct Accepted {
    observers: ConnectionObservers,
    pub(super) peer: Peer,
    accepted: Instant,
    /// Held until the end is reported. `None` without a drain.
    counted: Option<TaskTrackerToken>,
    negotiated: Negotiated,
    /// `None` once the stream reports.
    failed: Option<FailedHandshake>,
}

impl Accepted {
    pub(super) fn new(observers: &ConnectionObservers, peer: Peer) -> Self {
        Self {
            observers: observers.clone(),
            peer,
            accepted: Instant::now(),
            counted: observers.drain.as_ref().map(DrainHandle::count_connection),
            negotiated: Negotiated::default(),
            failed: Some(HandshakeFailure::Aborted.into()),
        }
    }

    /// Notes the server name of the ClientHello.
    pub(super) fn set_server_name(&mut self, name: Option<&str>) {
        self.negotiated.server_name = name.map(Arc::from);
    }

    /// Reports that the handshake has failed.
    pub(super) fn fail(mut self, failed: FailedHandshake) {
        self.failed = Some(failed);
    }

    /// The handshake is finished, and the TLS stream reports from now on.
    pub(super) fn finish(mut self, tls: &ServerConnection, config: ConfigOfConnection) -> Arc<ConnectionRecord> {
        if let Some(drain) = &self.observers.drain {
            drain.count(|tally| tally.handshakes_finished += 1);
        }
        self.negotiated.finish(tls);
        self.into_record(Transport::Tls, Some(config))
    }

    /// There is a stream without TLS over `transport`, which reports from now on.
    pub(super) fn without_tls(self, transport: Transport) -> Arc<ConnectionRecord> {
        self.into_record(transport, None)
    }

    fn into_record(mut self, transport: Transport, config: Option<ConfigOfConnection>) -> Arc<ConnectionRecord> {
        self.failed = None;
        Arc::new(ConnectionRecord {
            observers: mem::take(&mut self.observers),
            peer: self.peer,
            transport,
            config,
            negotiated: mem::take(&mut self.negotiated),
            spoken: OnceLock::new(),
            accepted: self.accepted,
            _counted: self.counted.take(),
            noted: Noted::default(),
        })
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        let Some(failed) = self.failed.take() else { return };
        let shutdown = match &failed.error {
            Some(error) => ShutdownReport::of_failed_handshake(error),
            None => ShutdownReport::new(Ending::NotStarted),
        };
        let report = ConnectionReport {
            peer: self.peer,
            transport: Transport::Tls,
            shutdown,
            age: self.accepted.elapsed(),
            requests: 0,
            responses_cut: 0,
            cut_before_drain: 0,
            failure: Some(failed),
            negotiated: mem::take(&mut self.negotiated),
            is_half_closed: false,
            is_upgraded: false,
        };
        self.observers.report(&report, || {
            let Some(FailedHandshake { failure, error, alert_sent }) = &report.failure else { return };
            tracing::debug!(
                peer = %self.peer,
                reason = failure.name(),
                server_name = report.negotiated.server_name.as_deref(),
                alert_sent = alert_sent.map(tracing::field::display),
                error = error.as_ref().map(tracing::field::display),
                "the TLS handshake failed"
            );
        });
    }
}

/// A connection that is ready to be used, after its handshake if it has TLS. Shared by its stream and by its server.
pub(super) struct ConnectionRecord {
    observers: ConnectionObservers,
    pub(super) peer: Peer,
    pub(super) transport: Transport,
    /// `None` without TLS.
    pub(super) config: Option<ConfigOfConnection>,
    negotiated: Negotiated,
    /// What a server has seen the client speak.
    spoken: OnceLock<Protocol>,
    accepted: Instant,
    _counted: Option<TaskTrackerToken>,
    noted: Noted,
}

/// What is known of a connection for its report. These are statistics: they order nothing.
#[derive(Default)]
struct Noted {
    requests: AtomicU64,
    responses_cut: AtomicU64,
    /// Those of them that the drain has nothing to do with.
    cut_before_drain: AtomicU64,
    unserved: AtomicU64,
    /// TLS holds the end of a response, and the transport has not accepted all of it.
    has_unsent: AtomicBool,
    is_upgraded: AtomicBool,
    /// The deadline of the drain has ended what it was upgraded to.
    is_upgrade_cut: AtomicBool,
    /// The client closed its half before its last response.
    is_half_closed: AtomicBool,
}

impl ConnectionRecord {
    pub(super) fn drain(&self) -> Option<&DrainHandle> {
        self.observers.drain.as_ref()
    }

    /// The name of the server that the client has asked for.
    pub(super) fn server_name(&self) -> Option<&Arc<str>> {
        self.negotiated.server_name.as_ref()
    }

    /// Notes which protocol the client speaks.
    pub(super) fn set_protocol(&self, protocol: Protocol) {
        self.spoken.get_or_init(|| protocol);
    }

    /// Counts a request. It is in flight until the returned value is dropped. Also returns its number, from 1 on.
    pub(super) fn begin_request(&self) -> (Option<InFlight>, u64) {
        let before = self.noted.requests.fetch_add(1, Ordering::Relaxed);
        (self.drain().map(DrainHandle::begin_request), before + 1)
    }

    pub(super) fn count_cut(&self, responses: u64) {
        self.noted.responses_cut.fetch_add(responses, Ordering::Relaxed);
        if self.drain().is_some_and(DrainHandle::is_ready) {
            self.noted.cut_before_drain.fetch_add(responses, Ordering::Relaxed);
        }
    }

    /// Counts requests that came whole, and that the service was never given.
    pub(super) fn count_unserved(&self, requests: u64) {
        self.noted.unserved.fetch_add(requests, Ordering::Relaxed);
    }

    /// Notes that a connection that is about to close still has to send a part of a response.
    pub(super) fn mark_unsent(&self) {
        self.noted.has_unsent.store(true, Ordering::Relaxed);
    }

    pub(super) fn mark_upgraded(&self) {
        self.noted.is_upgraded.store(true, Ordering::Relaxed);
    }

    pub(super) fn mark_upgrade_cut(&self) {
        self.noted.is_upgrade_cut.store(true, Ordering::Relaxed);
    }

    pub(super) fn mark_half_closed(&self) {
        self.noted.is_half_closed.store(true, Ordering::Relaxed);
    }

    /// Logs and reports the end of the connection.
    pub(super) fn report(&self, shutdown: &ShutdownReport) {
        let requests = self.noted.requests.load(Ordering::Relaxed);
        // close_notify and FIN are sent behind everything else.
        let is_unsent = self.noted.has_unsent.load(Ordering::Relaxed) && !shutdown.sent();
        let unsent = u64::from(is_unsent || self.noted.is_upgrade_cut.load(Ordering::Relaxed));
        // A client that has not said that it speaks HTTP/2 speaks HTTP/1, if it has sent a request.
        let protocol = self.spoken.get().copied().or(self.negotiated.protocol);
        let protocol = protocol.or((requests > 0).then_some(Protocol::Http1));
        let report = ConnectionReport {
            peer: self.peer,
            transport: self.transport,
            shutdown: *shutdown,
            age: self.accepted.elapsed(),
            requests,
            // Requests that h2 or hyper refused never reached the service.
            responses_cut: (self.noted.responses_cut.load(Ordering::Relaxed) + unsent).min(requests)
                + self.noted.unserved.load(Ordering::Relaxed),
            cut_before_drain: self.noted.cut_before_drain.load(Ordering::Relaxed),
            failure: None,
            negotiated: Negotiated { protocol, ..self.negotiated.clone() },
            is_half_closed: self.noted.is_half_closed.load(Ordering::Relaxed),
            is_upgraded: self.noted.is_upgraded.load(Ordering::Relaxed),
        };
        self.observers.report(&report, || {
            let (peer, ending, delivery) = (self.peer, report.ending(), report.delivery().name());
            let (sent, received) = (shutdown.sent(), shutdown.received());
            let (discarded, elapsed) = (shutdown.discarded(), shutdown.elapsed());
            if self.transport == Transport::Tls {
                tracing::debug!(%ending, sent, received, discarded, ?elapsed, %peer, requests, delivery, "TLS connection ended");
            } else {
                tracing::debug!(%ending, sent, received, discarded, ?elapsed, %peer, requests, delivery, "plain connection ended");
            }
        });
    }
}
