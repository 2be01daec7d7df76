//! [`ClientStream`]: a stream that its owner and the drain share.

use std::{
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use hyper::rt;
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::shared_stream::{Link, SharedStream};
use crate::{
    runtime::debug::debug_struct,
    tls::{Records, TlsSession},
};

/// The response of a [`ShutdownService`](super::ShutdownService): a [`ShutdownStream`](crate::ShutdownStream) that the
/// [`ClientDrain`](super::ClientDrain) can end, or the bare transport of a connection without TLS. It is a stream of tokio and of
/// `hyper::rt`.
///
/// Dropping it between messages closes cleanly; in mid-message it aborts. A connection is between messages before its first write, and
/// after the last byte of an HTTP/1 response, or the server's close_notify if that is the response's end. Clients drop such connections if
/// another one became free first.
///
/// # Errors
///
/// Those of a [`ShutdownStream`](crate::ShutdownStream). After the drain or a limit of the layer has closed the connection, reads return its
/// end, and writes fail with [`BrokenPipe`](io::ErrorKind::BrokenPipe). After the drain has cut a request in flight, reads, flushes and
/// shutdowns fail with [`ConnectionAborted`](io::ErrorKind::ConnectionAborted), so that nothing cut looks complete. The drain's errors
/// contain [`Draining`](super::Draining).
///
/// ```
/// # use tls_shutdown::client::ClientStream;
/// # use tokio::net::TcpStream;
/// # use tokio_rustls::client::TlsStream;
/// fn alpn(stream: &ClientStream<TlsStream<TcpStream>>) -> Option<Vec<u8>> {
///     stream.with_session(|tls| tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))?
/// }
/// ```
pub struct ClientStream<S: TlsSession> {
    inner: Inner<S>,
}

enum Inner<S: TlsSession> {
    Tls(Arc<SharedStream<S>>),
    Plain(S::Transport),
}

impl<S: TlsSession> ClientStream<S> {
    pub(super) fn tls(stream: Arc<SharedStream<S>>) -> Self {
        Self { inner: Inner::Tls(stream) }
    }

    pub(super) fn plain(transport: S::Transport) -> Self {
        Self { inner: Inner::Plain(transport) }
    }

    /// Calls `look` with the TLS stream, for ALPN, certificates and the peer's address. Returns `None` if the connection has no TLS, or
    /// the drain has closed it.
    ///
    /// The connection is locked meanwhile: `look` must neither wait nor use this stream, which would wait for itself.
    pub fn with_session<T>(&self, look: impl FnOnce(&S) -> T) -> Option<T> {
        match &self.inner {
            Inner::Tls(shared) => shared.with(|link| link.stream.as_ref().map(|stream| look(stream.get_ref()))),
            Inner::Plain(_) => None,
        }
    }
}

impl<S: TlsSession> AsyncRead for ClientStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Tls(shared) => {
                shared.with(|link| link.poll_read(cx, buffer.remaining(), |data| buffer.put_slice(data)))
            }
            Inner::Plain(transport) => Pin::new(transport).poll_read(cx, buffer),
        }
    }
}

impl<S: TlsSession> rt::Read for ClientStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: rt::ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        rt::Read::poll_read(pin!(TokioIo::new(self.get_mut())), cx, buffer)
    }
}

impl<S: TlsSession> AsyncWrite for ClientStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().inner {
            Inner::Tls(shared) => shared.with(|link| link.poll_write(cx, &[IoSlice::new(buffer)])),
            Inner::Plain(transport) => Pin::new(transport).poll_write(cx, buffer),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().inner {
            Inner::Tls(shared) => shared.with(|link| link.poll_write(cx, buffers)),
            Inner::Plain(transport) => Pin::new(transport).poll_write_vectored(cx, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.inner {
            Inner::Tls(_) => true,
            Inner::Plain(transport) => transport.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Tls(shared) => shared.with(|link| link.poll_with(cx, |stream, cx| stream.poll_flush(cx))),
            Inner::Plain(transport) => Pin::new(transport).poll_flush(cx),
        }
    }

    /// Runs the stream's policy, as [`ShutdownStream`](crate::ShutdownStream) does. If the drain has closed the connection, returns at once,
    /// with an error if it has cut a request.
    ///
    /// # Panics
    ///
    /// If it has to wait outside of a Tokio runtime with time enabled.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Tls(shared) => shared.with(|link| link.poll_shutdown(cx)),
            Inner::Plain(transport) => Pin::new(transport).poll_shutdown(cx),
        }
    }
}

impl<S: TlsSession> rt::Write for ClientStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(self, cx, buffer)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write_vectored(self, cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        AsyncWrite::is_write_vectored(self)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(self, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(self, cx)
    }
}

impl<S: TlsSession<Transport: Connection>> Connection for ClientStream<S> {
    /// The transport's information, and HTTP/2 if ALPN has chosen it.
    fn connected(&self) -> Connected {
        let shared = match &self.inner {
            Inner::Tls(shared) => shared,
            Inner::Plain(transport) => return transport.connected(),
        };
        shared.with(|link| {
            let Some(stream) = &mut link.stream else {
                return Connected::new();
            };
            let (transport, connection) = stream.get_mut().parts();
            let connected = transport.connected();
            if connection.common_state().alpn_protocol() == Some(b"h2") { connected.negotiated_h2() } else { connected }
        })
    }
}

impl<T: Connection> Connection for Records<T> {
    fn connected(&self) -> Connected {
        self.get_ref().connected()
    }
}

impl<S: TlsSession> Drop for ClientStream<S> {
    fn drop(&mut self) {
        if let Inner::Tls(shared) = &self.inner {
            shared.with(Link::close_if_idle);
        }
    }
}

debug_struct!({S: TlsSession} ClientStream<S>, |stream| { has_tls: matches!(stream.inner, Inner::Tls(_)) });
