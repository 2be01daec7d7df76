//! [`ConnectionReport`]: how one accepted connection ended.

use std::{fmt, io, time::Duration};

use rustls::{HandshakeKind, ProtocolVersion};

use super::{
    handshake_failure::{FailedHandshake, HandshakeFailure},
    negotiated::{Negotiated, Protocol},
    peer::{Peer, Transport},
};
use crate::tls::{Alert, Ending, ShutdownReport};

/// How an accepted connection ended. There is one for each connection, also if its handshake failed.
///
/// [`TlsListener::on_end`](crate::server::TlsListener::on_end) and [`Server::on_end`](crate::server::Server::on_end) are called with it.
/// Together with the [`DrainReport`](crate::server::DrainReport) it contains all that metrics need.
///
/// ```
/// # fn example(server: tls_shutdown::server::Server) -> tls_shutdown::server::Server {
/// server.on_end(|report| match report.handshake_failure() {
///     Some(failure) => eprintln!("{}, who asked for {:?}: {failure}", report.peer(), report.server_name()),
///     None => println!("{}: {} requests, {}", report.peer(), report.requests(), report.delivery().name()),
/// })
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ConnectionReport {
    pub(super) peer: Peer,
    pub(super) transport: Transport,
    pub(super) shutdown: ShutdownReport,
    pub(super) age: Duration,
    pub(super) requests: u64,
    pub(super) responses_cut: u64,
    /// Those of them before the signal of a drain.
    pub(super) cut_before_drain: u64,
    /// `None` if the handshake was finished, or if there is none.
    pub(super) failure: Option<FailedHandshake>,
    pub(super) negotiated: Negotiated,
    /// Whether the client closed its half before its last response. The end of that half confirms nothing then.
    pub(super) is_half_closed: bool,
    /// Whether it changed to another protocol, by an HTTP/1 upgrade or CONNECT.
    pub(super) is_upgraded: bool,
}

/// What the end of a connection means for its responses. [`ConnectionReport::delivery`] returns it.
///
/// A client that leaves without close_notify after its whole response, as curl does over HTTP/2, has lost nothing: its connection is
/// [`Ending::Truncated`] or [`Ending::Reset`], and its delivery `Sent`. Base an alarm on [`Cut`](Self::Cut).
///
/// ```
/// # fn example(report: &tls_shutdown::server::ConnectionReport) {
/// use tls_shutdown::server::ResponseDelivery;
///
/// if report.delivery() == ResponseDelivery::Cut {
///     eprintln!("{} lost {} responses", report.peer(), report.responses_cut());
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResponseDelivery {
    /// There was no request.
    NoRequest,
    /// Every response was sent to its end, and the client has closed in order.
    Delivered,
    /// Every response was sent to its end. The client has not confirmed that: by the way it left, because it had closed its half before
    /// the response, or because it reset the connection behind its close_notify.
    Sent,
    /// [Some responses](ConnectionReport::responses_cut) were not sent to their end.
    Cut,
}

impl ResponseDelivery {
    /// The snake-case name: `no_request`, `delivered`, `sent`, `cut`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoRequest => "no_request",
            Self::Delivered => "delivered",
            Self::Sent => "sent",
            Self::Cut => "cut",
        }
    }
}

impl ConnectionReport {
    /// Who was at the other end: over TLS, the address that the [hook before TLS](crate::server::TlsListener::before_tls) returned, if
    /// there is one.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// What carried the connection.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// How the connection ended. [`Ending::NotStarted`] also for a handshake that the server gave up.
    ///
    /// Without TLS, FIN takes the place of close_notify. A client that sends FIN between two messages has ended in order
    /// ([`Ending::Complete`]); within a message, FIN is a [truncation](Ending::Truncated).
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

    /// Requests whose response a [`Server`](crate::server::Server) did not send to its end. Also counts requests that came whole, and that
    /// it had no time to pass to its service. Over HTTP/2, hyper sends a body that is shorter or longer than its Content-Length as it is,
    /// and such a response does not count. An upgraded connection counts if the deadline of the drain has ended it while its owner could
    /// still write, or if a part of what the owner wrote was never sent.
    pub fn responses_cut(&self) -> u64 {
        self.responses_cut
    }

    /// What the end of the connection means for its responses. [`NoRequest`](ResponseDelivery::NoRequest) without a
    /// [`Server`](crate::server::Server), which counts them.
    pub fn delivery(&self) -> ResponseDelivery {
        match (self.responses_cut, self.requests, self.ending()) {
            (1.., _, _) => ResponseDelivery::Cut,
            (0, 0, _) => ResponseDelivery::NoRequest,
            // If our end could not be sent, the client had reset the connection behind its own, over unread data perhaps.
            (0, _, Ending::Complete) if !self.is_half_closed && self.shutdown.sent() => ResponseDelivery::Delivered,
            (0, _, _) => ResponseDelivery::Sent,
        }
    }

    /// Whether the TLS handshake was finished. `true` on a connection without TLS.
    pub fn handshake_finished(&self) -> bool {
        self.failure.is_none()
    }

    /// Why the TLS handshake has failed. `None` if it was finished, and on a connection without TLS.
    pub fn handshake_failure(&self) -> Option<HandshakeFailure> {
        self.failure.as_ref().map(|failed| failed.failure)
    }

    /// The error of rustls, of the system or of the [hook before TLS](crate::server::TlsListener::before_tls) that has ended the handshake.
    /// Its text says more than the [failure](Self::handshake_failure): what was wrong with a certificate for example. `None` if there was
    /// no error.
    pub fn handshake_error(&self) -> Option<&io::Error> {
        self.failure.as_ref()?.error.as_deref()
    }

    /// The alert that has told the client why its handshake failed. `None` if there was none, or if rustls does not tell which, as for most
    /// violations of the protocol. [`ShutdownReport::alert`] is the client's.
    pub fn alert_sent(&self) -> Option<Alert> {
        self.failure.as_ref()?.alert_sent
    }

    /// The application protocol. A [`Server`](crate::server::Server) sees what the client speaks. Elsewhere, it is what ALPN has chosen.
    /// `None` if that is not HTTP, and without ALPN until the first request.
    pub fn protocol(&self) -> Option<Protocol> {
        self.negotiated.protocol
    }

    /// The name of the server that the client has asked for (SNI, RFC 6066 section 3), also if the handshake has failed after the
    /// ClientHello. `None` if the client has asked for none, and without TLS.
    pub fn server_name(&self) -> Option<&str> {
        self.negotiated.server_name.as_deref()
    }

    /// The version of TLS. `None` without TLS, and if the handshake was not finished.
    pub fn tls_version(&self) -> Option<ProtocolVersion> {
        self.negotiated.version
    }

    /// Whether the handshake was full or resumed a session. `None` without TLS, and if the handshake was not finished.
    pub fn handshake_kind(&self) -> Option<HandshakeKind> {
        self.negotiated.handshake_kind
    }

    /// Whether the connection changed to another protocol, by an HTTP/1 upgrade or CONNECT.
    pub fn was_upgraded(&self) -> bool {
        self.is_upgraded
    }
}

/// One line, such as `192.0.2.7:4711 complete: close_notify sent, received, 0.4 ms, 2 requests over HTTP/2`. If it did not end in order,
/// what that means for its responses comes first: `192.0.2.7:4711 truncated: every response was sent, close_notify not sent, ..`.
impl fmt::Display for ConnectionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(failed) = &self.failure {
            return write!(f, "{} {}: {failed}", self.peer, self.ending().name());
        }
        write!(f, "{} {}: ", self.peer, self.ending().name())?;
        match (self.delivery(), self.responses_cut) {
            (ResponseDelivery::Cut, 1) => f.write_str("1 response cut, ")?,
            (ResponseDelivery::Cut, cut) => write!(f, "{cut} responses cut, ")?,
            (ResponseDelivery::Sent, _) if !self.ending().is_clean() => f.write_str("every response was sent, ")?,
            _ => {}
        }
        self.shutdown.write_details(f)?;
        match self.requests {
            0 => {}
            1 => f.write_str(", 1 request")?,
            requests => write!(f, ", {requests} requests")?,
        }
        if let Some(protocol) = self.protocol().filter(|_| self.requests > 0) {
            write!(f, " over {protocol}")?;
        }
        Ok(())
    }
}
