//! The first message of a connection, which must be a ClientHello.

use std::io::{self, ErrorKind, Read};

use rustls::{
    AlertDescription, Error, PeerIncompatible,
    server::{Accepted, Acceptor},
};
use tokio::net::TcpStream;

use crate::{
    server::handshake_failure::{FailedHandshake, HandshakeFailure},
    tls::Alert,
};

/// The content type of an alert, and the length of a record that contains one in plaintext: its header, its level and its description.
const ALERT: u8 = 21;
const ALERT_RECORD: usize = 7;
/// The content type of a handshake message, and the type of a ClientHello.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

//= https://www.rfc-editor.org/rfc/rfc8446#section-5
//# If a TLS implementation receives an unexpected record type, it MUST
//# terminate the connection with an "unexpected_message" alert.
const UNEXPECTED_MESSAGE: [u8; ALERT_RECORD] = [ALERT, 3, 3, 0, 2, 2, 10];

//= https://www.rfc-editor.org/rfc/rfc5246#appendix-E.1
//# If server supports (or is willing to use) only versions greater than
//# client_version, it MUST send a "protocol_version" alert message and
//# close the connection.
const PROTOCOL_VERSION: [u8; ALERT_RECORD] = [ALERT, 3, 3, 0, 2, 2, 70];

/// The first bytes of a connection that say what rustls does not: the headers of a record and of a ClientHello, and the client's version.
const HELLO_START: usize = 5 + 4 + 2;

/// Reads the client's first message. If it is no valid ClientHello, sends the alert that says so, and fails.
///
/// A `LazyConfigAcceptor` of tokio-rustls sends only the alerts of rustls's `Acceptor`, which has none for another message: in a whole
/// handshake, the code that calls the handshake's states adds it.
pub(super) async fn read_client_hello(tcp: &TcpStream) -> Result<Accepted, FailedHandshake> {
    let mut reader = HelloReader { tcp, bytes: [0; HELLO_START], filled: 0 };
    read(&mut reader).await.map_err(|failed| match failed.failure {
        HandshakeFailure::UnexpectedEof | HandshakeFailure::Reset if reader.filled == 0 => {
            FailedHandshake { failure: HandshakeFailure::NothingSent, ..failed }
        }
        _ => failed,
    })
}

async fn read(reader: &mut HelloReader<'_>) -> Result<Accepted, FailedHandshake> {
    let mut acceptor = Acceptor::default();
    let (mut error, mut alert) = loop {
        reader.tcp.readable().await?;
        match acceptor.read_tls(reader) {
            Ok(0) => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
            Ok(_) => match acceptor.accept() {
                Ok(Some(accepted)) => return Ok(accepted),
                Ok(None) => {}
                Err(failure) => break failure,
            },
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    };
    let mut record = Vec::new();
    alert.write_all(&mut record)?;
    if matches!(error, Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. }) {
        match reader.alert() {
            // A client that has nothing to say to this server, which no alert answers.
            Some(AlertDescription::CloseNotify) => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
            Some(description) => return Err(tls_error(Error::AlertReceived(description)).into()),
            None if record.is_empty() => record.extend(UNEXPECTED_MESSAGE),
            None => {}
        }
    }
    // rustls looks for an extension of TLS 1.2 before it looks at the version.
    if error == Error::PeerIncompatible(PeerIncompatible::SignatureAlgorithmsExtensionRequired)
        && reader.is_before_tls12()
    {
        error = PeerIncompatible::Tls12NotOfferedOrEnabled.into();
        record = PROTOCOL_VERSION.to_vec();
    }
    // The error tells more than a failure to send it. A record of this size is sent whole or not at all.
    if reader.tcp.writable().await.is_ok() {
        let _ = reader.tcp.try_write(&record);
    }
    let alert_sent = record.get(ALERT_RECORD - 1).map(|description| Alert(*description));
    Err(FailedHandshake { alert_sent, ..tls_error(error).into() })
}

fn tls_error(error: Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

/// Reads what has arrived, and remembers the first bytes: rustls keeps neither an alert that it does not expect nor the version of a
/// client that it refuses.
struct HelloReader<'a> {
    tcp: &'a TcpStream,
    bytes: [u8; HELLO_START],
    filled: usize,
}

impl HelloReader<'_> {
    /// The alert that the client has begun with.
    fn alert(&self) -> Option<AlertDescription> {
        match self.bytes[..self.filled] {
            [ALERT, _, _, _, _, _, description, ..] => Some(description.into()),
            _ => None,
        }
    }

    /// Whether the client's highest version is older than TLS 1.2. A ClientHello whose beginning is cut into several records does not tell.
    fn is_before_tls12(&self) -> bool {
        matches!(self.bytes, [HANDSHAKE, .., CLIENT_HELLO, _, _, _, 3, minor] if self.filled == HELLO_START && minor < 3)
    }
}

impl Read for HelloReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let amount = self.tcp.try_read(buffer)?;
        let missing = &mut self.bytes[self.filled..];
        let copied = missing.len().min(amount);
        missing[..copied].copy_from_slice(&buffer[..copied]);
        self.filled += copied;
        Ok(amount)
    }
}
