//! [`FirstBytes`]: which protocol a client speaks that has not said so by ALPN.

use std::{
    io,
    task::{Context, Poll, ready},
};

use tokio::sync::oneshot;
use tracing::Span;

use super::http2::PREFACE;
use crate::server::accepted_stream::AcceptedStream;

/// What the first bytes of a client show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum FirstBytes {
    /// There are too few.
    Missing,
    /// The preface of HTTP/2 has begun (RFC 9113 section 3.4). Its first word is no method of HTTP/1.
    Http2,
    Other,
}

impl FirstBytes {
    pub(in crate::server) fn of(bytes: &[u8]) -> Self {
        let method = &PREFACE[..3];
        match &bytes[..bytes.len().min(method.len())] {
            bytes if bytes == method => Self::Http2,
            bytes if method.starts_with(bytes) => Self::Missing,
            _ => Self::Other,
        }
    }
}

/// Takes the stream of a client that turns out to speak HTTP/2, by prior knowledge (RFC 9113 section 3.3).
pub(super) type Http2Taker = oneshot::Sender<AcceptedStream>;

/// Waits for the first bytes in `stream`. `taker` is `None` once they show HTTP/1, and `stream` is `None` once they show HTTP/2.
pub(super) fn poll_decided(
    taker: &mut Option<Http2Taker>,
    stream: &mut Option<AcceptedStream>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while let (Some(_), Some(bytes)) = (&taker, stream.as_mut()) {
        match FirstBytes::of(bytes.ahead()) {
            FirstBytes::Missing if ready!(bytes.poll_read_ahead(cx))? > 0 => {}
            FirstBytes::Http2 => {
                if let (Some(taker), Some(bytes)) = (taker.take(), stream.take()) {
                    *stream = taker.send(bytes).err();
                }
            }
            FirstBytes::Missing | FirstBytes::Other => {
                Span::current().record("protocol", "http/1.1");
                *taker = None;
            }
        }
    }
    Poll::Ready(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_shows_the_protocol() {
        for (bytes, expected) in [
            (&b""[..], FirstBytes::Missing),
            (b"P", FirstBytes::Missing),
            (b"PR", FirstBytes::Missing),
            (b"PRI", FirstBytes::Http2),
            (PREFACE, FirstBytes::Http2),
            (b"PRO", FirstBytes::Other),
            (b"PUT / HTTP/1.1", FirstBytes::Other),
            (b"GET", FirstBytes::Other),
            (b"\x16\x03\x01", FirstBytes::Other),
        ] {
            assert_eq!(FirstBytes::of(bytes), expected, "{bytes:?}");
        }
    }
}
