//! [`HandshakeFailure`]: why a TLS handshake has failed.

use std::{fmt, io, sync::Arc};

use rustls::{AlertDescription, Error, InvalidMessage, PeerIncompatible};

use crate::tls::{Alert, Ending, ShutdownReport, tls_error::tls_error};

/// Why the TLS handshake of an accepted connection has failed.
///
/// [`ConnectionReport::handshake_failure`](super::ConnectionReport::handshake_failure) returns it. [`Display`](fmt::Display) writes it in
/// plain words, [`name`](Self::name) returns the name that logs, metrics and the `tls-shutdown` command use.
///
/// ```
/// # fn example(report: &tls_shutdown::server::ConnectionReport) {
/// use tls_shutdown::server::HandshakeFailure;
///
/// match report.handshake_failure() {
///     // Nothing has failed, or a balancer has looked whether the port is open.
///     None | Some(HandshakeFailure::NothingSent) => {}
///     Some(failure) => eprintln!("{}: {failure}", report.peer()),
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HandshakeFailure {
    /// The client left before its first byte of TLS, as the TCP checks of load balancers do.
    NothingSent,
    /// The client closed the connection within the handshake.
    UnexpectedEof,
    /// The client reset the connection within the handshake.
    Reset,
    /// The transport failed in another way.
    Transport(io::ErrorKind),
    /// The handshake took longer than the [handshake timeout](super::TlsListener::handshake_timeout).
    TimedOut,
    /// There were too many handshakes: the [limit](super::TlsListener::max_handshakes) ended this one for a newer connection.
    Shed,
    /// A server drain ended it: the client sent no ClientHello in its [time for a last request](super::ServerDrain::last_request), or the
    /// drain came to its [deadline](super::DrainPhase::Deadline).
    Drained,
    /// The [hook before TLS](super::TlsListener::before_tls) returned an error.
    Refused,
    /// The client ended the handshake with this alert: `unknown_ca` for example, if it does not trust the server's certificate.
    AlertReceived(Alert),
    /// Client and server share no version of TLS.
    NoCommonVersion,
    /// Client and server share a version of TLS, but no cipher suite, key exchange or signature scheme.
    NoCommonParameters,
    /// The client offered protocols by ALPN, and the server speaks none of them (RFC 7301 section 3.2).
    NoCommonProtocol,
    /// The server requires a certificate, and the client sent none.
    NoClientCertificate,
    /// The server rejected the client's certificate, or the proof that the client has its key.
    ClientCertificateRejected,
    /// The client sent bytes that are not TLS.
    NotTls,
    /// The client sent more of what TLS allows than rustls accepts, a long chain of certificates for example: [`Ending::TlsLimit`].
    TlsLimit,
    /// The client violated the TLS protocol.
    ProtocolError,
    /// The server could not go on: it has no certificate for the [name](super::ConnectionReport::server_name) that the client asked for,
    /// or its verifier or its cryptography failed. [`ConnectionReport::handshake_error`](super::ConnectionReport::handshake_error) tells which.
    ServerFailed,
    /// The server gave the connection up: its listener or its runtime was dropped, or the [hook before
    /// TLS](super::TlsListener::before_tls) panicked.
    Aborted,
}

impl HandshakeFailure {
    /// Why a handshake of tokio-rustls has failed with `error`, for an accept loop that makes its handshakes itself.
    /// [`ShutdownReport::of_failed_handshake`] returns the ending.
    ///
    /// ```
    /// # use tokio::net::TcpStream;
    /// use tls_shutdown::server::HandshakeFailure;
    ///
    /// async fn accept(acceptor: &tokio_rustls::TlsAcceptor, tcp: TcpStream) {
    ///     if let Err(error) = acceptor.accept(tcp).await {
    ///         eprintln!("{}: {error}", HandshakeFailure::of_error(&error));
    ///     }
    /// }
    /// ```
    pub fn of_error(error: &io::Error) -> Self {
        match (ShutdownReport::of_failed_handshake(error).ending(), tls_error(error)) {
            (Ending::PeerAlert(alert), _) => Self::AlertReceived(alert),
            (Ending::NotTls, _) => Self::NotTls,
            (Ending::TlsLimit, _) => Self::TlsLimit,
            (Ending::ProtocolError, _) => Self::ProtocolError,
            (Ending::Reset, _) => Self::Reset,
            (_, Some(Error::PeerIncompatible(reason))) if is_about_version(reason) => Self::NoCommonVersion,
            (_, Some(Error::PeerIncompatible(_))) => Self::NoCommonParameters,
            (_, Some(Error::NoApplicationProtocol)) => Self::NoCommonProtocol,
            (_, Some(Error::NoCertificatesPresented)) => Self::NoClientCertificate,
            (_, Some(Error::InvalidCertificate(_))) => Self::ClientCertificateRejected,
            (_, Some(_)) => Self::ServerFailed,
            (_, None) if error.kind() == io::ErrorKind::UnexpectedEof => Self::UnexpectedEof,
            (_, None) => Self::Transport(error.kind()),
        }
    }

    /// The snake-case name, without the details of [`Transport`](Self::Transport) and [`AlertReceived`](Self::AlertReceived).
    ///
    /// ```
    /// use tls_shutdown::server::HandshakeFailure;
    ///
    /// assert_eq!(HandshakeFailure::NoCommonVersion.name(), "no_common_version");
    /// ```
    pub const fn name(self) -> &'static str {
        self.texts().0
    }

    /// The name, and the plain words.
    const fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::NothingSent => ("nothing_sent", "the client left before it sent anything"),
            Self::UnexpectedEof => ("unexpected_eof", "the client closed the connection within the handshake"),
            Self::Reset => ("reset", "the client reset the connection within the handshake"),
            Self::Transport(_) => ("transport", "the transport failed: "),
            Self::TimedOut => ("timed_out", "the handshake took too long"),
            Self::Shed => ("shed", "there were too many handshakes, and a newer connection took the place of this one"),
            Self::Drained => ("drained", "the server was ending, and the handshake was not finished in time"),
            Self::Refused => ("refused", "the server refused the connection before TLS"),
            Self::AlertReceived(_) => ("alert_received", "the client sent the alert "),
            Self::NoCommonVersion => ("no_common_version", "client and server share no version of TLS"),
            Self::NoCommonParameters => {
                ("no_common_parameters", "client and server share no cipher suite, key exchange or signature scheme")
            }
            Self::NoCommonProtocol => ("no_common_protocol", "client and server share no application protocol"),
            Self::NoClientCertificate => {
                ("no_client_certificate", "the client sent no certificate, and the server requires one")
            }
            Self::ClientCertificateRejected => {
                ("client_certificate_rejected", "the server rejected the client's certificate")
            }
            Self::NotTls => ("not_tls", "the client sent something that is not TLS"),
            Self::TlsLimit => ("tls_limit", "the client sent more than the TLS library accepts"),
            Self::ProtocolError => ("protocol_error", "the client violated the TLS protocol"),
            Self::ServerFailed => {
                ("server_failed", "the server could not go on, for example because it has no certificate for the name")
            }
            Self::Aborted => ("aborted", "the server gave the connection up"),
        }
    }
}

impl fmt::Display for HandshakeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.texts().1)?;
        match self {
            Self::Transport(kind) => kind.fmt(f),
            Self::AlertReceived(alert) => alert.fmt(f),
            _ => Ok(()),
        }
    }
}

/// Why a handshake has failed, and what is known of it beyond that.
#[derive(Clone, Debug)]
pub(super) struct FailedHandshake {
    pub(super) failure: HandshakeFailure,
    pub(super) error: Option<Arc<io::Error>>,
    pub(super) alert_sent: Option<Alert>,
}

impl FailedHandshake {
    /// The hook before TLS has refused the connection.
    pub(super) fn refused(error: io::Error) -> Self {
        Self { error: Some(Arc::new(error)), ..HandshakeFailure::Refused.into() }
    }
}

impl From<HandshakeFailure> for FailedHandshake {
    fn from(failure: HandshakeFailure) -> Self {
        Self { failure, error: None, alert_sent: None }
    }
}

/// The error of a handshake of tokio-rustls.
impl From<io::Error> for FailedHandshake {
    fn from(error: io::Error) -> Self {
        let (failure, alert_sent) = (HandshakeFailure::of_error(&error), alert_sent(&error));
        Self { failure, error: Some(Arc::new(error)), alert_sent }
    }
}

impl fmt::Display for FailedHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the TLS handshake failed: {}", self.failure)?;
        if let Some(alert) = self.alert_sent {
            write!(f, ", alert {alert} sent")?;
        }
        match &self.error {
            Some(error) => write!(f, " ({error})"),
            None => Ok(()),
        }
    }
}

/// The alert with which rustls has answered `error`. `None` if rustls sends no alert, or does not tell which one.
fn alert_sent(error: &io::Error) -> Option<Alert> {
    let alert = match tls_error(error)? {
        Error::NoApplicationProtocol => AlertDescription::NoApplicationProtocol,
        Error::NoCertificatesPresented => AlertDescription::CertificateRequired,
        Error::InvalidCertificate(error) => error.clone().into(),
        Error::PeerIncompatible(reason) if is_about_version(reason) => AlertDescription::ProtocolVersion,
        Error::PeerIncompatible(
            PeerIncompatible::NullCompressionRequired | PeerIncompatible::UncompressedEcPointsRequired,
        ) => AlertDescription::IllegalParameter,
        Error::PeerIncompatible(_) => AlertDescription::HandshakeFailure,
        // rustls answers this one with FIN alone.
        Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge) => return None,
        Error::InvalidMessage(error) => (*error).into(),
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            AlertDescription::UnexpectedMessage
        }
        _ => return None,
    };
    Some(Alert(alert.into()))
}

fn is_about_version(reason: &PeerIncompatible) -> bool {
    matches!(
        reason,
        PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
    )
}
