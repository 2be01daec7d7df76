//! The first message of a connection, which must be a ClientHello.

use std::io::{self, ErrorKind, Read};

use rustls::{
    AlertDescription, Error,
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

//= https://www.rfc-editor.org/rfc/rfc8446#section-5
//# If a TLS implementation receives an unexpected record type, it MUST
//# terminate the connection with an "unexpected_message" alert.
const UNEXPECTED_MESSAGE: [u8; ALERT_RECORD] = [ALERT, 3, 3, 0, 2, 2, 10];

/// Reads the client's first message. If it is no valid ClientHello, sends the alert that says so, and fails.
///
/// A `LazyConfigAcceptor` of tokio-rustls sends only the alerts of rustls's `Acceptor`, which has none for another message: in a whole
/// handshake, the code that calls the handshake's states adds it.
pub(super) async fn read_client_hello(tcp: &TcpStream) -> Result<Accepted, FailedHandshake> {
    let mut reader = HelloReader { tcp, bytes: [0; ALERT_RECORD], filled: 0 };
    read(&mut reader).await.map_err(|failed| match failed.failure {
        HandshakeFailure::UnexpectedEof | HandshakeFailure::Reset if reader.filled == 0 => {
            FailedHandshake { failure: HandshakeFailure::NothingSent, ..failed }
        }
        _ => failed,
    })
}

async fn read(reader: &mut HelloReader<'_>) -> Result<Accepted, FailedHandshake> {
    let mut acceptor = Acceptor::default();
    let (error, mut alert) = loop {
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

/// Reads what has arrived, and remembers the first bytes: rustls does not keep an alert that it does not expect.
struct HelloReader<'a> {
    tcp: &'a TcpStream,
    bytes: [u8; ALERT_RECORD],
    filled: usize,
}

impl HelloReader<'_> {
    /// The alert that the client has begun with.
    fn alert(&self) -> Option<AlertDescription> {
        match self.bytes[..self.filled] {
            [ALERT, _, _, _, _, _, description] => Some(description.into()),
            _ => None,
        }
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
