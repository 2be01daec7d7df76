//! How a shutdown ended: [`Ending`], [`ShutdownReport`] and [`ShutdownError`].

use std::{error, fmt, io, sync::Arc, time::Duration};

/// How a TLS connection, or an attempt to shut it down, ended.
///
/// [`Display`](fmt::Display) writes the snake-case name that logs and the `tls-shutdown` command use.
///
/// ```
/// use tls_shutdown::Ending;
///
/// assert!(Ending::Complete.is_clean());
/// assert!(!Ending::Truncated.is_clean());
/// assert_eq!(Ending::TimedOut.name(), "timed_out");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ending {
    /// The peer's close_notify was read, no application byte of ours is unsent, and our close_notify was accepted by the
    /// transport, or failed only after theirs had come (then [`ShutdownReport::sent`] is false).
    /// [Handbook](https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/endings/index.html#complete).
    Complete,
    /// Our close_notify was sent. The shutdown did not wait for the peer's, or did not need it.
    /// [Handbook](https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/endings/index.html#sent).
    Sent,
    /// Nothing was sent and nothing was read, as [`ShutdownPolicy::quiet`](crate::ShutdownPolicy::quiet) demands.
    /// [Handbook](https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/endings/index.html#quiet).
    Quiet,
    /// The transport ended before the peer's close_notify. The received data may be incomplete (RFC 9846 section 6.1).
    /// [Handbook](https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/endings/index.html#truncated).
    Truncated,
    /// The peer reset the transport (`ECONNRESET`, `ECONNABORTED`, or, at a write, `EPIPE`).
    /// [Handbook](https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/endings/index.html#reset).
    Reset,
    /// The transport failed in another way.
    /// [Handbook](https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/endings/index.html#transport).
    Transport(io::ErrorKind),
    /// The stall timeout or the close timeout passed.
    /// [Handbook](https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/endings/index.html#timed_out).
    TimedOut,
    /// The peer sent more than the [drain limit](crate::ShutdownPolicy::with_max_drain_bytes) allows.
    /// [Handbook](https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/endings/index.html#drain_limit).
    DrainLimit,
    /// Application data arrived, and the policy [rejects](crate::PeerData::Reject) it.
    /// [Handbook](https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/endings/index.html#peer_data).
    PeerData,
    /// The peer sent an alert that ends the connection.
    /// [Handbook](https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/endings/index.html#peer_alert).
    PeerAlert(Alert),
    /// The peer violated the TLS protocol: it sent a record that cannot be decrypted, or a forbidden message.
    /// [Handbook](https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/endings/index.html#protocol_error).
    ProtocolError,
    /// The peer sent more than rustls accepts of what TLS allows: a second request to renegotiate TLS 1.2, a handshake message of more
    /// than 64 KiB, or many warnings, empty records or requests for new keys.
    /// [Handbook](https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/endings/index.html#tls_limit).
    TlsLimit,
    /// The TLS handshake did not finish.
    /// [Handbook](https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/endings/index.html#not_started).
    NotStarted,
    /// The connection had failed before the shutdown began, and close_notify must not follow a fatal error.
    /// [Handbook](https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/endings/index.html#refused).
    Refused,
    /// The peer sent bytes that are not TLS where a record must begin.
    /// [Handbook](https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/endings/index.html#not_tls).
    NotTls,
    /// This side gave the connection up: it was aborted, or its stream was dropped before close_notify was sent, and no reaper has finished
    /// that. If it was aborted after close_notify, [`ShutdownReport::sent`] is true.
    /// [Handbook](https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/endings/index.html#aborted).
    Aborted,
}

impl Ending {
    /// Whether the connection ended in order: [`Complete`](Self::Complete) or [`Sent`](Self::Sent). For a server that is the usual end of
    /// a connection, and no reason for an alarm.
    pub const fn is_clean(self) -> bool {
        matches!(self, Self::Complete | Self::Sent)
    }

    /// The snake-case name, without the details of [`Ending::Transport`] and [`Ending::PeerAlert`].
    pub const fn name(self) -> &'static str {
        self.about().name
    }

    /// The ending of a transport whose read or write failed so.
    pub(crate) fn of_transport_error(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
                Self::Reset
            }
            kind => Self::Transport(kind),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(kind) => write!(f, "transport ({kind})"),
            Self::PeerAlert(alert) => write!(f, "peer_alert ({alert})"),
            other => f.write_str(other.name()),
        }
    }
}

/// The code of a TLS alert. [`Display`](fmt::Display) writes its name in the RFCs, RFC 9846 section 6 for example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Alert(
    /// The code on the wire.
    pub u8,
);

impl Alert {
    /// The name in the RFCs, or `None` for an unassigned code.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "close_notify",
            10 => "unexpected_message",
            20 => "bad_record_mac",
            21 => "decryption_failed",
            22 => "record_overflow",
            30 => "decompression_failure",
            40 => "handshake_failure",
            41 => "no_certificate",
            42 => "bad_certificate",
            43 => "unsupported_certificate",
            44 => "certificate_revoked",
            45 => "certificate_expired",
            46 => "certificate_unknown",
            47 => "illegal_parameter",
            48 => "unknown_ca",
            49 => "access_denied",
            50 => "decode_error",
            51 => "decrypt_error",
            52 => "too_many_cids_requested",
            60 => "export_restriction",
            70 => "protocol_version",
            71 => "insufficient_security",
            80 => "internal_error",
            86 => "inappropriate_fallback",
            90 => "user_canceled",
            100 => "no_renegotiation",
            109 => "missing_extension",
            110 => "unsupported_extension",
            111 => "certificate_unobtainable",
            112 => "unrecognized_name",
            113 => "bad_certificate_status_response",
            114 => "bad_certificate_hash_value",
            115 => "unknown_psk_identity",
            116 => "certificate_required",
            117 => "general_error",
            120 => "no_application_protocol",
            121 => "ech_required",
            _ => return None,
        })
    }
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "alert {}", self.0),
        }
    }
}

/// What a shutdown did and how it ended.
///
/// [`AsyncShutdown`](crate::AsyncShutdown) returns one, and [`ShutdownStream::on_end`](crate::ShutdownStream::on_end) is called with one
/// for every connection, whatever path it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownReport {
    pub(crate) ending: Ending,
    pub(crate) alert: Option<Alert>,
    pub(crate) sent: bool,
    pub(crate) received: bool,
    pub(crate) counts: Counts,
    pub(crate) elapsed: Duration,
    has_tls: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) discarded_unread: u64,
    pub(crate) discarded_late: u64,
    pub(crate) tickets: u32,
    pub(crate) wire_written: u64,
    pub(crate) wire_read: u64,
}

impl Counts {
    pub(crate) const ZERO: Self =
        Self { discarded_unread: 0, discarded_late: 0, tickets: 0, wire_written: 0, wire_read: 0 };
}

/// How far both halves of a connection are, as in `SSL_get_shutdown(3)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShutdownState {
    /// Neither side has closed.
    Open,
    /// The transport has accepted our close_notify (`SSL_SENT_SHUTDOWN`).
    Sent,
    /// The peer's close_notify was read (`SSL_RECEIVED_SHUTDOWN`).
    Received,
    /// Both.
    Both,
}

impl ShutdownReport {
    pub(crate) const fn new(ending: Ending) -> Self {
        Self {
            ending,
            alert: None,
            sent: false,
            received: false,
            counts: Counts::ZERO,
            elapsed: Duration::ZERO,
            has_tls: true,
        }
    }

    /// The report of a connection without TLS, for servers that count every accepted connection. FIN takes the place of close_notify.
    /// `state` is what was sent and received. `elapsed` is the time of the shutdown.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tls_shutdown::{Ending, ShutdownReport, ShutdownState};
    ///
    /// let report = ShutdownReport::of_plain_connection(Ending::Complete, ShutdownState::Both, Duration::ZERO);
    /// assert!(report.to_string().starts_with("complete: FIN sent, received"));
    /// ```
    pub const fn of_plain_connection(ending: Ending, state: ShutdownState, elapsed: Duration) -> Self {
        let sent = matches!(state, ShutdownState::Sent | ShutdownState::Both);
        let received = matches!(state, ShutdownState::Received | ShutdownState::Both);
        Self { sent, received, elapsed, has_tls: false, ..Self::new(ending) }
    }

    /// How it ended.
    pub const fn ending(&self) -> Ending {
        self.ending
    }

    /// Whether the transport accepted our close_notify, to its last byte. On a connection without TLS: our FIN.
    pub const fn sent(&self) -> bool {
        self.sent
    }

    /// Whether the peer's close_notify was read (`SSL_RECEIVED_SHUTDOWN` of `SSL_get_shutdown(3)`). On a connection without TLS: its FIN,
    /// between two messages.
    pub const fn received(&self) -> bool {
        self.received
    }

    /// The peer's fatal alert, also if the ending is [`Ending::Refused`].
    pub const fn alert(&self) -> Option<Alert> {
        self.alert
    }

    /// Application bytes that the shutdown discarded: [unread](Self::discarded_unread) and [late](Self::discarded_late) ones.
    pub const fn discarded(&self) -> u64 {
        self.counts.discarded_unread + self.counts.discarded_late
    }

    /// Discarded application bytes that were already decrypted, and unread, when the shutdown began.
    pub const fn discarded_unread(&self) -> u64 {
        self.counts.discarded_unread
    }

    /// Discarded application bytes that arrived during the shutdown.
    pub const fn discarded_late(&self) -> u64 {
        self.counts.discarded_late
    }

    /// TLS 1.3 session tickets that the connection has received in its whole life. 0 for a server and in TLS 1.2.
    pub const fn tickets(&self) -> u32 {
        self.counts.tickets
    }

    /// Bytes of TLS records that the transport accepted during the shutdown: the application data that was unsent when it began, and our
    /// close_notify.
    pub const fn wire_written(&self) -> u64 {
        self.counts.wire_written
    }

    /// Bytes of TLS records that the shutdown itself read from the transport. The application's reads do not count.
    pub const fn wire_read(&self) -> u64 {
        self.counts.wire_read
    }

    /// Time from the first poll of the shutdown to its end. Zero if there was no shutdown.
    pub const fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

impl ShutdownReport {
    /// Writes everything but the ending's name.
    pub(crate) fn write_details(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not_unless = |done: bool| if done { "" } else { "not " };
        let signal = if self.has_tls { "close_notify" } else { "FIN" };
        write!(f, "{signal} {}sent, {}received", not_unless(self.sent), not_unless(self.received))?;
        if let Ending::Transport(kind) = self.ending {
            write!(f, ", transport error: {kind}")?;
        }
        if let Some(alert) = self.alert {
            write!(f, ", peer's alert {alert}")?;
        }
        let Counts { discarded_unread, discarded_late, tickets, .. } = self.counts;
        if self.discarded() > 0 {
            let discarded = self.discarded();
            write!(f, ", {discarded} bytes discarded ({discarded_unread} unread, {discarded_late} late)")?;
        }
        match tickets {
            0 => {}
            1 => f.write_str(", 1 ticket")?,
            tickets => write!(f, ", {tickets} tickets")?,
        }
        // If nothing was closed or waited for, the time means nothing.
        if self.sent || self.ending == Ending::TimedOut {
            write!(f, ", {:.1} ms", self.elapsed.as_secs_f64() * 1000.0)?;
        }
        Ok(())
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.ending.name())?;
        self.write_details(f)
    }
}

/// A shutdown did not reach its goal.
///
/// It converts to an [`io::Error`], which [`poll_shutdown`](tokio::io::AsyncWrite::poll_shutdown) returns. Use `error.get_ref()` and
/// `downcast_ref::<ShutdownError>()` to get it back. [`source`](error::Error::source) is the error of the system or of rustls, if one
/// caused the failure.
///
/// ```
/// use tls_shutdown::{Ending, ShutdownError};
///
/// fn is_timeout(error: &std::io::Error) -> bool {
///     let shutdown = error.get_ref().and_then(|error| error.downcast_ref::<ShutdownError>());
///     shutdown.is_some_and(|error| error.ending() == Ending::TimedOut)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct ShutdownError {
    report: ShutdownReport,
    source: Option<Arc<io::Error>>,
}

impl ShutdownError {
    pub(crate) const fn new(report: ShutdownReport, source: Option<Arc<io::Error>>) -> Self {
        Self { report, source }
    }

    /// The reason: [`ShutdownReport::ending`].
    pub const fn ending(&self) -> Ending {
        self.report.ending
    }

    /// Everything that is known about the shutdown.
    pub const fn report(&self) -> &ShutdownReport {
        &self.report
    }
}

impl fmt::Display for ShutdownError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ending = self.report.ending;
        write!(f, "TLS shutdown failed: {} [{}]; see {}", ending.about().reason, self.report, ending.page())
    }
}

impl error::Error for ShutdownError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<ShutdownError> for io::Error {
    fn from(error: ShutdownError) -> Self {
        Self::new(error.ending().about().kind, error)
    }
}
