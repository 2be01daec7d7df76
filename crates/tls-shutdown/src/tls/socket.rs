//! TCP socket operations that only the kernel offers, and a portable substitute for each.

#[cfg(target_os = "linux")]
use std::sync::Mutex;
use std::{
    any::Any,
    io,
    task::{Context, Poll, ready},
};

#[cfg(target_os = "linux")]
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::{
    runtime::lock::lock,
    tls::{plaintext::Plaintext, records::Records},
};

/// The socket under a transport that passes on written bytes unchanged: a [`TcpStream`], also under this library's own wrappers.
pub(crate) fn socket_of(transport: &dyn Any) -> Option<&TcpStream> {
    transport
        .downcast_ref()
        .or_else(|| transport.downcast_ref().map(Records::get_ref))
        .or_else(|| transport.downcast_ref().map(Plaintext::get_ref))
        .or_else(|| transport.downcast_ref().map(Records::get_ref).map(Plaintext::get_ref))
}

/// Makes the kernel send RST when the socket is closed, also if the process is killed.
pub(crate) fn reset_on_close(socket: &TcpStream) {
    if let Err(error) = socket.set_zero_linger() {
        // The peer receives FIN without close_notify, and can see the truncation.
        tracing::debug!(%error, "cannot reset the connection");
    }
}

/// Undoes [`reset_on_close`]: the kernel sends what it has.
pub(crate) fn deliver_on_close(socket: &TcpStream) {
    #[expect(deprecated, reason = "a linger of some seconds blocks the thread that closes, none at all does not")]
    if let Err(error) = socket.set_linger(None) {
        tracing::debug!(%error, "the connection will be reset");
    }
}

/// Writes bytes that FIN follows immediately. Linux keeps them until FIN (`MSG_MORE`, `send(2)`; 200 ms at most), so that both leave
/// in one segment. That halves the packets of a close on either side.
pub(crate) fn poll_write_before_fin(socket: &TcpStream, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(socket.poll_write_ready(cx))?;
        #[cfg(target_os = "linux")]
        let written = socket.try_io(Interest::WRITABLE, || {
            use rustix::net::{SendFlags, send};
            Ok(send(socket, bytes, SendFlags::MORE | SendFlags::NOSIGNAL)?)
        });
        #[cfg(not(target_os = "linux"))]
        let written = socket.try_write(bytes);
        match written {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            written => return Poll::Ready(written),
        }
    }
}

/// Discards what sockets receive. One buffer serves all connections of a reaper.
pub(crate) struct Discard {
    #[cfg(target_os = "linux")]
    buffer: Mutex<Box<[u8]>>,
}

impl Discard {
    /// A discarding thread spends the least time for each byte at 64 KiB. Smaller and larger buffers cost more.
    #[cfg(target_os = "linux")]
    const BUFFER_BYTES: usize = 64 * 1024;
    /// The buffer on the stack of systems that cannot discard without a copy.
    pub(crate) const STACK_BYTES: usize = 4 * 1024;

    pub(crate) fn new() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            buffer: Mutex::new(vec![0; Self::BUFFER_BYTES].into_boxed_slice()),
        }
    }

    /// Discards what has arrived. Returns the number of bytes, 0 at the end of the stream.
    ///
    /// With `MSG_TRUNC`, Linux drops the bytes without copying them (`tcp(7)`). The buffer only determines their number, so the
    /// lock is held for a moment and protects nothing.
    pub(crate) fn poll_discard(&self, socket: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(socket.poll_read_ready(cx))?;
            #[cfg(target_os = "linux")]
            let discarded = socket.try_io(Interest::READABLE, || {
                use rustix::net::{RecvFlags, recv};
                let mut buffer = lock(&self.buffer);
                let (_, length) = recv(socket, &mut buffer[..], RecvFlags::TRUNC)?;
                Ok(length)
            });
            #[cfg(not(target_os = "linux"))]
            let discarded = socket.try_read(&mut [0; Self::STACK_BYTES]);
            match discarded {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                discarded => return Poll::Ready(discarded),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncRead, AsyncWrite};
    use tokio_rustls::client::TlsStream;

    use super::*;
    use crate::tls::TlsSession;

    fn has_socket<T>(transport: &T) -> bool
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        TlsStream::<T>::socket(transport).is_some()
    }

    #[tokio::test]
    async fn the_socket_is_found_under_the_wrappers_of_this_library() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let connect = || async move { TcpStream::connect(address).await.expect("a connection") };
        assert!(has_socket(&connect().await));
        assert!(has_socket(&Records::new(connect().await)));
        assert!(has_socket(&Plaintext::new(connect().await)));
        assert!(has_socket(&Records::new(Plaintext::new(connect().await))));
        assert!(!has_socket(&tokio::io::duplex(1).0));
    }
}
