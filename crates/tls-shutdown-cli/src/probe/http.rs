//! HTTP/1 as far as a probe needs it: requests, and whether a response is whole.

use std::{fmt, io};

use httparse::{EMPTY_HEADER, Status};
use tls_shutdown::{Alert, Ending, ShutdownReport};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::transport::is_reset;

/// How much of a response is read.
const MAX_RESPONSE_BYTES: usize = 4 << 20;
const MAX_HEADERS: usize = 128;

/// How reading has ended.
#[derive(Debug)]
pub(crate) enum ReadEnd {
    CloseNotify,
    /// FIN without close_notify.
    Fin,
    Reset,
    /// An alert, or a violation of TLS.
    Failed(io::Error),
}

/// What of the server has made TLS fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsFailure {
    Alert(Alert),
    NotTls,
    Violation,
    Limit,
}

impl TlsFailure {
    /// `None` if the transport has failed, and not TLS.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        match ShutdownReport::of_failed_handshake(error).ending() {
            Ending::PeerAlert(alert) => Some(Self::Alert(alert)),
            Ending::NotTls => Some(Self::NotTls),
            Ending::ProtocolError => Some(Self::Violation),
            Ending::TlsLimit => Some(Self::Limit),
            // After close_notify, an error that rustls has lost in a panic (rustls#959).
            _ if error.kind() == io::ErrorKind::InvalidData => Some(Self::Violation),
            _ => None,
        }
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alert(alert) => write!(f, "the alert {alert}"),
            Self::NotTls => f.write_str("bytes that are not TLS"),
            Self::Violation => f.write_str("a record that violates TLS"),
            Self::Limit => f.write_str("more than the TLS library accepts"),
        }
    }
}

impl ReadEnd {
    pub(crate) fn of(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Fin,
            _ if is_reset(&error) => Self::Reset,
            _ => Self::Failed(error),
        }
    }
}

/// What has come of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The bytes are no HTTP/1 response.
    NotHttp,
    Incomplete,
    /// The end of the connection ends it.
    UntilClose,
    Whole(AfterResponse),
}

/// What the server announces for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterResponse {
    KeepAlive,
    Close,
}

/// `GET /`, after which the connection stays open.
pub(crate) fn keep_alive_request(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tls-shutdown-probe\r\nAccept: */*\r\n\r\n")
}

/// `GET /` of HTTP/1.0, which knows no chunks: a response without a length ends with the connection.
pub(crate) fn closing_request(host: &str) -> String {
    format!("GET / HTTP/1.0\r\nHost: {host}\r\nUser-Agent: tls-shutdown-probe\r\nConnection: close\r\n\r\n")
}

/// The head of an upload of this length.
pub(crate) fn upload_head(host: &str, length: usize) -> String {
    format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tls-shutdown-probe\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// Reads until the response is whole, or is no response of HTTP/1, or is too long. Returns how the connection has ended if it ends before.
pub(crate) async fn read_response(
    stream: &mut (impl AsyncRead + Unpin),
    received: &mut Vec<u8>,
) -> Result<Progress, ReadEnd> {
    loop {
        let progress = progress(received);
        if !matches!(progress, Progress::Incomplete | Progress::UntilClose) || received.len() > MAX_RESPONSE_BYTES {
            return Ok(progress);
        }
        match stream.read_buf(received).await {
            Ok(0) => return Err(ReadEnd::CloseNotify),
            Ok(_) => {}
            Err(error) => return Err(ReadEnd::of(error)),
        }
    }
}

/// Reads and discards until the connection ends.
pub(crate) async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> ReadEnd {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => return ReadEnd::CloseNotify,
            Ok(_) => {}
            Err(error) => return ReadEnd::of(error),
        }
    }
}

/// How far the first final response is.
pub(crate) fn progress(mut received: &[u8]) -> Progress {
    loop {
        let mut headers = [EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let body = match response.parse(received) {
            Ok(Status::Complete(length)) => &received[length..],
            Ok(Status::Partial) => return Progress::Incomplete,
            Err(_) => return Progress::NotHttp,
        };
        let value = |name: &str| {
            let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            found.map(|header| String::from_utf8_lossy(header.value).to_ascii_lowercase())
        };
        let connection = value("connection").unwrap_or_default();
        let after = match response.version {
            Some(1) if !connection.contains("close") => AfterResponse::KeepAlive,
            Some(0) if connection.contains("keep-alive") => AfterResponse::KeepAlive,
            _ => AfterResponse::Close,
        };
        let is_whole = match (response.code, value("transfer-encoding"), value("content-length")) {
            (Some(100..=199), ..) => {
                received = body;
                continue;
            }
            (Some(204 | 304), ..) => true,
            (_, Some(coding), _) if coding.ends_with("chunked") => are_chunks_whole(body),
            (_, None, Some(length)) => match length.trim().parse() {
                Ok(length) => body.len() >= length,
                Err(_) => return Progress::NotHttp,
            },
            _ => return Progress::UntilClose,
        };
        return if is_whole { Progress::Whole(after) } else { Progress::Incomplete };
    }
}

fn are_chunks_whole(mut body: &[u8]) -> bool {
    while let Ok(Status::Complete((start, size))) = httparse::parse_chunk_size(body) {
        let rest = &body[start..];
        let Ok(size) = usize::try_from(size) else { return false };
        if size == 0 {
            // Trailers end with an empty line.
            return rest.starts_with(b"\r\n") || rest.windows(4).any(|end| end == b"\r\n\r\n");
        }
        match rest.get(size.saturating_add(2)..) {
            Some(next) => body = next,
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transport_that_fails_is_no_failure_of_tls() {
        let of_tls = |error: rustls::Error| TlsFailure::of(&io::Error::new(io::ErrorKind::InvalidData, error));
        let many = rustls::PeerMisbehaved::TooManyWarningAlertsReceived;
        assert_eq!(of_tls(many.into()), Some(TlsFailure::Limit));
        assert_eq!(of_tls(rustls::PeerMisbehaved::InvalidKeyShare.into()), Some(TlsFailure::Violation));
        assert_eq!(of_tls(rustls::InvalidMessage::InvalidContentType.into()), Some(TlsFailure::NotTls));
        for kind in [io::ErrorKind::TimedOut, io::ErrorKind::HostUnreachable] {
            assert_eq!(TlsFailure::of(&kind.into()), None, "{kind}");
        }
    }

    #[test]
    fn a_response_is_whole_with_its_last_byte() {
        let whole = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", AfterResponse::KeepAlive),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", AfterResponse::Close),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", AfterResponse::KeepAlive),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n", AfterResponse::KeepAlive),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", AfterResponse::Close),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", AfterResponse::KeepAlive),
        ];
        for (response, after) in whole {
            let bytes = response.as_bytes();
            assert_eq!(progress(bytes), Progress::Whole(after), "{response}");
            for length in 0..bytes.len() {
                assert_eq!(progress(&bytes[..length]), Progress::Incomplete, "{length} bytes of {response}");
            }
        }
        assert_eq!(progress(b"HTTP/1.0 200 OK\r\n\r\nbody"), Progress::UntilClose);
        assert_eq!(progress(b"220 mail.example.org ESMTP\r\n"), Progress::NotHttp);
    }
}
