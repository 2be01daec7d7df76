//! What an error of rustls, of tokio-rustls, or of the transport under them means for the closing handshake.

use std::{io, sync::Arc};

use rustls::{Error, InvalidMessage, PeerMisbehaved};

use crate::tls::{
    close_state::Event,
    record_scanner::{NotTls, RecordScanner},
    report::{Alert, Ending, ShutdownReport},
    session::TlsSession,
};

/// A failed read or write: what it means, and the error that explains it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) event: Event,
    pub(crate) source: Option<Arc<io::Error>>,
}

impl Failure {
    fn new(event: Event, source: io::Error) -> Self {
        Self { event, source: Some(Arc::new(source)) }
    }

    /// Gives the error to the application. The failure keeps a copy.
    pub(crate) fn take_error(&mut self) -> io::Error {
        let error = self.source.take().and_then(Arc::into_inner).unwrap_or_else(|| io::ErrorKind::InvalidData.into());
        self.source = Some(Arc::new(copy(&error)));
        error
    }

    pub(crate) fn of_write_error(error: io::Error) -> Self {
        Self::new(Event::WriteFailed(Ending::of_transport_error(error.kind())), error)
    }
}

impl From<Event> for Failure {
    fn from(event: Event) -> Self {
        Self { event, source: None }
    }
}

/// A failed read of a TLS stream, or of the transport under it.
pub(crate) fn failure_of_read_error(error: io::Error) -> Failure {
    Failure::new(event_of_read_error(&error), error)
}

/// The same for an error that belongs to the application: the failure holds a copy.
pub(crate) fn failure_of_read_error_ref(error: &io::Error) -> Failure {
    Failure::new(event_of_read_error(error), copy(error))
}

/// A failed write or flush by the application. In a 0-RTT handshake, a write also reads.
pub(crate) fn failure_of_write_error_ref<S: TlsSession>(session: &mut S, error: &io::Error) -> Failure {
    let is_handshaking = session.connection().is_handshaking();
    let event = match event_of_read_error(error) {
        Event::TransportEnd if is_handshaking => Event::ReadFailed(Ending::NotStarted),
        event if is_handshaking || tls_error(error).is_some() => event,
        _ => Event::WriteFailed(Ending::of_transport_error(error.kind())),
    };
    Failure::new(event, copy(error))
}

/// An error of rustls while it processed records. `None` is one that a panic has lost.
pub(crate) fn failure_of_processing(error: Option<Error>, scanner: &RecordScanner) -> Failure {
    let ending = match ending_of_tls_error(error.as_ref()) {
        Ending::ProtocolError | Ending::NotTls if error.is_none() && scanner.has_lost_records() => Ending::NotTls,
        // rustls reports an unknown type *inside* an authentic record as an invalid content type, too.
        Ending::NotTls if !scanner.has_lost_records() => Ending::ProtocolError,
        ending => ending,
    };
    let source = error.map(|error| Arc::new(io::Error::new(io::ErrorKind::InvalidData, error)));
    Failure { event: Event::ReadFailed(ending), source }
}

fn event_of_read_error(error: &io::Error) -> Event {
    match tls_error(error) {
        Some(tls) => Event::ReadFailed(ending_of_tls_error(Some(tls))),
        None if error.get_ref().is_some_and(|error| error.is::<NotTls>()) => Event::ReadFailed(Ending::NotTls),
        None if error.kind() == io::ErrorKind::UnexpectedEof => Event::TransportEnd,
        None => Event::ReadFailed(Ending::of_transport_error(error.kind())),
    }
}

/// The error of rustls in an [`io::Error`].
pub(crate) fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

fn ending_of_tls_error(error: Option<&Error>) -> Ending {
    match error {
        Some(Error::AlertReceived(alert)) => Ending::PeerAlert(Alert(u8::from(*alert))),
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion)) => {
            Ending::NotTls
        }
        // TLS allows all of these in any number and size.
        Some(
            Error::InvalidMessage(
                InvalidMessage::HandshakePayloadTooLarge | InvalidMessage::CertificatePayloadTooLarge,
            )
            | Error::PeerMisbehaved(
                PeerMisbehaved::TooManyEmptyFragments
                | PeerMisbehaved::TooManyKeyUpdateRequests
                | PeerMisbehaved::TooManyRenegotiationRequests
                | PeerMisbehaved::TooManyWarningAlertsReceived,
            ),
        ) => Ending::TlsLimit,
        _ => Ending::ProtocolError,
    }
}

/// An [`io::Error`] cannot be cloned. The copy has the same kind and the same text.
pub(crate) fn copy(error: &io::Error) -> io::Error {
    match (error.raw_os_error(), tls_error(error)) {
        (Some(code), _) => io::Error::from_raw_os_error(code),
        (None, Some(tls)) => io::Error::new(error.kind(), tls.clone()),
        (None, None) => io::Error::new(error.kind(), error.to_string()),
    }
}

/// Whether the peer has broken the protocol. It has not if it offers nothing that we accept, if we reject its certificate, or if we fail
/// ourselves.
fn is_violation(error: &Error) -> bool {
    matches!(
        error,
        Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::InvalidEncryptedClientHello(_)
            | Error::InvalidMessage(_)
            | Error::DecryptError
            | Error::PeerMisbehaved(_)
            | Error::PeerSentOversizedRecord
    )
}

impl ShutdownReport {
    /// The report of a connection whose TLS handshake failed with `error`, for servers that count every accepted connection: such a
    /// connection has no stream that could report its end.
    ///
    /// The ending states what the peer did: an alert, a reset, bytes that are not TLS, a violation of the protocol, or more than rustls
    /// accepts, such as a chain of certificates of more than 64 KiB. It is
    /// [`Ending::NotStarted`] in all other cases: the peer left or stayed silent, we refused its certificate or missed one, both sides share
    /// no version or cipher suite, or we could not go on.
    pub fn of_failed_handshake(error: &io::Error) -> Self {
        let ending = match (tls_error(error), event_of_read_error(error)) {
            (Some(tls), Event::ReadFailed(Ending::ProtocolError)) if !is_violation(tls) => Ending::NotStarted,
            (_, Event::ReadFailed(ending)) if !matches!(ending, Ending::Transport(_)) => ending,
            _ => Ending::NotStarted,
        };
        let mut report = Self::new(ending);
        if let Ending::PeerAlert(alert) = ending {
            report.alert = Some(alert);
        }
        report
    }
}
