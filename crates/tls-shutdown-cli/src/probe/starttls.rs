//! The plaintext dialogues that come before TLS.

use std::io::{self, ErrorKind};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::transport::Observed;
use crate::arguments::StartTls;

/// The longest line of a server that is read.
const MAX_LINE_BYTES: usize = 8 * 1024;
/// PostgreSQL's `SSLRequest`: its length, and the number of the request.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Why TLS cannot begin.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The server has no TLS, or speaks another protocol. Contains its answer.
    Answer(String),
    Transport(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Transport(error)
    }
}

/// Asks the server for TLS. Reads no byte beyond its consent.
pub(crate) async fn start(protocol: StartTls, transport: &mut Observed) -> Result<(), Refusal> {
    match protocol {
        // RFC 3207 section 4
        StartTls::Smtp => {
            expect(reply(transport).await?, "220")?;
            transport.write_all(b"EHLO tls-shutdown.invalid\r\n").await?;
            expect(reply(transport).await?, "250")?;
            transport.write_all(b"STARTTLS\r\n").await?;
            expect(reply(transport).await?, "220")
        }
        // RFC 9051 section 6.2.1
        StartTls::Imap => {
            expect(line(transport).await?, "* ")?;
            transport.write_all(b"a STARTTLS\r\n").await?;
            loop {
                let line = line(transport).await?;
                if !line.starts_with("* ") {
                    return expect(line, "a OK");
                }
            }
        }
        // https://www.postgresql.org/docs/current/protocol-flow.html, "SSL Session Encryption"
        StartTls::Postgres => {
            transport.write_all(&SSL_REQUEST).await?;
            expect(char::from(transport.read_u8().await?).to_string(), "S")
        }
    }
}

fn expect(answer: String, beginning: &str) -> Result<(), Refusal> {
    match answer.starts_with(beginning) {
        true => Ok(()),
        false => Err(Refusal::Answer(answer)),
    }
}

/// Reads a reply of SMTP, which may have several lines. Returns the last one.
async fn reply(transport: &mut Observed) -> io::Result<String> {
    loop {
        let line = line(transport).await?;
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(line);
        }
    }
}

/// Reads a line byte by byte, because the bytes behind it may be TLS.
async fn line(transport: &mut Observed) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        match transport.read_u8().await? {
            b'\n' => return Ok(String::from_utf8_lossy(&line).trim_end().to_owned()),
            _ if line.len() == MAX_LINE_BYTES => return Err(ErrorKind::InvalidData.into()),
            byte => line.push(byte),
        }
    }
}
