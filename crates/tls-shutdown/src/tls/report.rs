//! How a closing ended: [`Ending`], [`ShutdownReport`], [`ShutdownError`].

use std::{error, fmt, io, time::Duration};

/// How a TLS connection, or an attempt to close it, ended.
///
/// [`Display`](fmt::Display) gives the snake-case name that logs and the `tls-shutdown` command use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ending {
    /// The peer's close_notify was read, no application byte of ours is unsent, and our close_notify was accepted by the
    /// transport, or failed only after theirs had come (then [`ShutdownReport::sent`] is false).
    Complete,
    /// Our close_notify is out; the peer's was not waited for, or not needed.
    Sent,
    /// Nothing was sent and nothing was read, by [`ShutdownPolicy::quiet`](crate::ShutdownPolicy::quiet).
    Quiet,
    /// The transport ended before the peer's close_notify: what was received may be incomplete (RFC 9846 section 6.1).
    Truncated,
    /// The peer reset the transport (`ECONNRESET`, `ECONNABORTED`, or `EPIPE`, which is how a write learns of it).
    Reset,
    /// The transport failed in another way.
    Transport(io::ErrorKind),
    /// The stall limit or the deadline passed.
    TimedOut,
    /// The peer sent more than the [drain limit](crate::ShutdownPolicy::with_max_drain_bytes) allows.
    DrainLimit,
    /// Application data was found, and the policy [rejects](crate::PeerData::Reject) it.
    PeerData,
    /// The peer sent an alert that ends the connection.
    PeerAlert(Alert),
    /// The peer broke the TLS protocol: a record that does not decrypt, or a message that must not come.
    ProtocolError,
    /// The TLS handshake was not done.
    NotStarted,
    /// The connection had failed before the shutdown was asked for, and close_notify must not follow a fatal error.
    Refused,
    /// Bytes that are no TLS record came where a record was due.
    NotTls,
    /// The connection was given up without close_notify, on purpose or because the stream was dropped.
    Aborted,
}

impl Ending {
    /// The snake-case name, without the details that [`Ending::Transport`] and [`Ending::PeerAlert`] carry.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Sent => "sent",
            Self::Quiet => "quiet",
            Self::Truncated => "truncated",
            Self::Reset => "reset",
            Self::Transport(_) => "transport",
            Self::TimedOut => "timed_out",
            Self::DrainLimit => "drain_limit",
            Self::PeerData => "peer_data",
            Self::PeerAlert(_) => "peer_alert",
            Self::ProtocolError => "protocol_error",
            Self::NotStarted => "not_started",
            Self::Refused => "refused",
            Self::NotTls => "not_tls",
            Self::Aborted => "aborted",
        }
    }

    /// The ending that a failed read or write of the transport means.
    pub(crate) fn of_transport_error(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
                Self::Reset
            }
            kind => Self::Transport(kind),
        }
    }

    pub(crate) fn error_kind(self) -> io::ErrorKind {
        match self {
            Self::Truncated => io::ErrorKind::UnexpectedEof,
            Self::Reset => io::ErrorKind::ConnectionReset,
            Self::Transport(kind) => kind,
            Self::TimedOut => io::ErrorKind::TimedOut,
            Self::NotStarted => io::ErrorKind::NotConnected,
            Self::Refused | Self::Aborted => io::ErrorKind::ConnectionAborted,
            Self::DrainLimit | Self::PeerData | Self::PeerAlert(_) | Self::ProtocolError | Self::NotTls => {
                io::ErrorKind::InvalidData
            }
            Self::Complete | Self::Sent | Self::Quiet => io::ErrorKind::Other,
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

/// A TLS alert's code; [`Display`](fmt::Display) gives its name in RFC 9846 section 6 (or RFC 5246 section 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Alert(
    /// The code on the wire.
    pub u8,
);

impl Alert {
    /// The name in the RFCs, or `None` for a code that they do not assign.
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

/// What a closing did and how it ended.
///
/// [`AsyncShutdown`](crate::AsyncShutdown) gives one to its caller, and
/// [`ShutdownStream::on_end`](crate::ShutdownStream::on_end) one for every connection, whatever path it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    pub(crate) ending: Ending,
    pub(crate) alert: Option<Alert>,
    pub(crate) sent: bool,
    pub(crate) received: bool,
    pub(crate) discarded_unread: u64,
    pub(crate) discarded_late: u64,
    pub(crate) tickets: u32,
    pub(crate) wire_written: u64,
    pub(crate) wire_read: u64,
    pub(crate) elapsed: Duration,
}

impl ShutdownReport {
    pub(crate) const fn new(ending: Ending) -> Self {
        Self {
            ending,
            alert: None,
            sent: false,
            received: false,
            discarded_unread: 0,
            discarded_late: 0,
            tickets: 0,
            wire_written: 0,
            wire_read: 0,
            elapsed: Duration::ZERO,
        }
    }

    /// How it ended.
    pub const fn ending(&self) -> Ending {
        self.ending
    }

    /// Whether our close_notify was accepted by the transport, to its last byte.
    pub const fn sent(&self) -> bool {
        self.sent
    }

    /// Whether the peer's close_notify was read (`SSL_RECEIVED_SHUTDOWN` of `SSL_get_shutdown(3)`).
    pub const fn received(&self) -> bool {
        self.received
    }

    /// The alert that the peer sent and that failed the connection, also where the ending is [`Ending::Refused`].
    pub const fn alert(&self) -> Option<Alert> {
        self.alert
    }

    /// Application bytes that the closing discarded: [unread](Self::discarded_unread) and [late](Self::discarded_late) ones.
    pub const fn discarded(&self) -> u64 {
        self.discarded_unread + self.discarded_late
    }

    /// Discarded application bytes that had been decrypted, but not been read, when the closing began.
    pub const fn discarded_unread(&self) -> u64 {
        self.discarded_unread
    }

    /// Discarded application bytes that were received while the closing went on.
    pub const fn discarded_late(&self) -> u64 {
        self.discarded_late
    }

    /// TLS 1.3 session tickets that the connection has received in its whole life; 0 on a server and in TLS 1.2.
    pub const fn tickets(&self) -> u32 {
        self.tickets
    }

    /// Bytes of TLS records that the transport accepted during the closing: application data still unsent when it began, and
    /// our close_notify.
    pub const fn wire_written(&self) -> u64 {
        self.wire_written
    }

    /// Bytes of TLS records that the closing itself has read from the transport, apart from the application's reads.
    pub const fn wire_read(&self) -> u64 {
        self.wire_read
    }

    /// Time from the first poll of the closing to its end; zero where none was asked for.
    pub const fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let no_if = |done: bool| if done { "" } else { "not " };
        write!(f, "{}: close_notify {}sent, {}received", self.ending.name(), no_if(self.sent), no_if(self.received))?;
        if let Ending::Transport(kind) = self.ending {
            write!(f, ", transport error: {kind}")?;
        }
        if let Some(alert) = self.alert {
            write!(f, ", peer's alert {alert}")?;
        }
        if self.discarded() > 0 {
            write!(
                f,
                ", {} bytes discarded ({} unread, {} late)",
                self.discarded(),
                self.discarded_unread,
                self.discarded_late
            )?;
        }
        match self.tickets {
            0 => {}
            1 => f.write_str(", 1 ticket")?,
            tickets => write!(f, ", {tickets} tickets")?,
        }
        write!(f, ", {:.1} ms", self.elapsed.as_secs_f64() * 1000.0)
    }
}

/// The goal of a closing was not reached.
///
/// Converts to an [`io::Error`], as [`poll_shutdown`](tokio::io::AsyncWrite::poll_shutdown) returns it, and can be got back
/// from there by `error.get_ref()` and `downcast_ref::<ShutdownError>()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownError {
    report: ShutdownReport,
}

impl ShutdownError {
    pub(crate) const fn new(report: ShutdownReport) -> Self {
        Self { report }
    }

    /// What went wrong: [`ShutdownReport::ending`].
    pub const fn ending(&self) -> Ending {
        self.report.ending
    }

    /// Everything that is known about the closing.
    pub const fn report(&self) -> &ShutdownReport {
        &self.report
    }
}

impl fmt::Display for ShutdownError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.report.ending {
            Ending::Truncated => "the transport ended before the peer's close_notify",
            Ending::Reset => "the peer reset the connection",
            Ending::Transport(_) => "the transport failed",
            Ending::TimedOut => "the peer did not answer or take our data in time",
            Ending::DrainLimit => "the peer went on sending beyond the drain limit",
            Ending::PeerData => "application data of the peer was still to be read",
            Ending::PeerAlert(_) => "the peer ended the connection with an alert",
            Ending::ProtocolError => "the peer broke the TLS protocol",
            Ending::NotStarted => "the TLS handshake is not done",
            Ending::Refused => "the connection had failed before, close_notify must not follow",
            Ending::NotTls => "the peer sent bytes that are not TLS",
            Ending::Aborted => "the connection was aborted",
            Ending::Complete | Ending::Sent | Ending::Quiet => "the close is less than was asked",
        };
        write!(f, "TLS shutdown failed: {what} [{}]", self.report)
    }
}

impl error::Error for ShutdownError {}

impl From<ShutdownError> for io::Error {
    fn from(error: ShutdownError) -> Self {
        Self::new(error.report.ending.error_kind(), error)
    }
}
