//! [`Negotiated`]: what client and server have agreed on.

use std::{fmt, sync::Arc};

use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};

/// What TLS has agreed on. Empty on a connection without TLS.
#[derive(Clone, Debug, Default)]
pub(super) struct Negotiated {
    /// Known from the ClientHello on.
    pub(super) server_name: Option<Arc<str>>,
    pub(super) version: Option<ProtocolVersion>,
    pub(super) handshake_kind: Option<HandshakeKind>,
    pub(super) protocol: Option<Protocol>,
}

impl Negotiated {
    /// The handshake is finished.
    pub(super) fn finish(&mut self, tls: &ServerConnection) {
        self.version = tls.protocol_version();
        self.handshake_kind = tls.handshake_kind();
        self.protocol = tls.alpn_protocol().and_then(Protocol::of_alpn);
    }
}

/// An application protocol that this library knows. [`ConnectionReport::protocol`](super::ConnectionReport::protocol) returns it.
///
/// [`Display`](fmt::Display) writes `HTTP/1` or `HTTP/2`.
///
/// ```
/// use tls_shutdown::server::Protocol;
///
/// assert_eq!(Protocol::Http2.name(), "http2");
/// assert_eq!(Protocol::Http2.to_string(), "HTTP/2");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// HTTP/1.1 or HTTP/1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Protocol {
    /// The snake-case name: `http1`, `http2`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
        }
    }

    fn of_alpn(name: &[u8]) -> Option<Self> {
        match name {
            b"h2" => Some(Self::Http2),
            b"http/1.1" | b"http/1.0" => Some(Self::Http1),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http1 => "HTTP/1",
            Self::Http2 => "HTTP/2",
        })
    }
}
