//! What only the kernel can do with a socket, and a portable stand-in where it cannot.

#[cfg(target_os = "linux")]
use std::sync::{Mutex, PoisonError};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

#[cfg(target_os = "linux")]
use tokio::io::Interest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
#[cfg(any(target_os = "linux", feature = "server"))]
use tokio::net::TcpStream;

use crate::tls::session::TlsSession;
#[cfg(target_os = "linux")]
use crate::tls::session::socket_of;

/// Has the socket under `transport` send RST when it is closed, also where the process is killed. Nothing happens where there is
/// none.
pub(crate) fn reset_on_drop<S: TlsSession>(transport: &S::Transport) {
    if let Some(socket) = S::socket(transport)
        && let Err(error) = socket.set_zero_linger()
    {
        // The peer sees FIN without close_notify then, which is no lie either.
        tracing::debug!(%error, "the connection is not reset, but closed");
    }
}

/// Writes what FIN follows at once. The kernel keeps it until FIN is there (`MSG_MORE`, `send(2)`; for 200 ms at most), so that both
/// go out in one segment: half of the packets that a close costs either side.
pub(crate) fn poll_write_before_fin<T: AsyncWrite + Unpin + 'static>(
    transport: &mut T,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    #[cfg(target_os = "linux")]
    if let Some(socket) = socket_of(transport) {
        use rustix::net::{SendFlags, send};
        loop {
            ready!(socket.poll_write_ready(cx))?;
            let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
            match socket.try_io(Interest::WRITABLE, || Ok(send(socket, bytes, flags)?)) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                result => return Poll::Ready(result),
            }
        }
    }
    Pin::new(transport).poll_write(cx, bytes)
}

/// Where the kernel is told to put what is to be discarded, shared by all connections that discard.
pub(crate) struct Scratch {
    #[cfg(target_os = "linux")]
    bytes: Mutex<Box<[u8]>>,
}

/// At 64 KiB a discarding thread spends the least time for each byte; smaller and larger lengths cost more.
#[cfg(target_os = "linux")]
const LENGTH: usize = 64 * 1024;
/// On the stack, where discarding is reading.
const READ_LENGTH: usize = 4 * 1024;

impl Scratch {
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            bytes: Mutex::new(vec![0; LENGTH].into_boxed_slice()),
        }
    }

    /// Discards what has arrived at `transport`. Gives the number of bytes, 0 at its end.
    pub(crate) fn poll_discard<S: TlsSession>(
        &self,
        transport: &mut S::Transport,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        #[cfg(target_os = "linux")]
        if let Some(socket) = S::socket(transport) {
            return self.poll_discard_in_kernel(socket, cx);
        }
        let mut bytes = [0; READ_LENGTH];
        let mut buffer = ReadBuf::new(&mut bytes);
        ready!(Pin::new(transport).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// With `MSG_TRUNC`, `tcp(7)` drops the bytes without copying them; the buffer gives only the length, and is not touched.
    #[cfg(target_os = "linux")]
    fn poll_discard_in_kernel(&self, socket: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        use rustix::net::{RecvFlags, recv};
        loop {
            ready!(socket.poll_read_ready(cx))?;
            let discarded = socket.try_io(Interest::READABLE, || {
                let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
                let (_, length) = recv(socket, &mut bytes[..], RecvFlags::TRUNC)?;
                Ok(length)
            });
            match discarded {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

/// Takes [`reset_on_drop`] back: what the kernel has, it will send.
#[cfg(feature = "server")]
pub(crate) fn deliver_on_drop<S: TlsSession>(transport: &S::Transport) {
    #[expect(deprecated, reason = "a linger of some seconds blocks the thread that closes, none at all does not")]
    if let Some(socket) = S::socket(transport)
        && let Err(error) = socket.set_linger(None)
    {
        tracing::debug!(%error, "the connection will be reset");
    }
}

/// How long the kernel goes on to send to a peer that acknowledges nothing (`TCP_USER_TIMEOUT`, `tcp(7)`), where there is such a
/// limit.
#[cfg(feature = "server")]
pub(crate) fn limit_retransmission(socket: &TcpStream, limit: std::time::Duration) {
    #[cfg(target_os = "linux")]
    {
        let milliseconds = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(socket, milliseconds) {
            tracing::debug!(%error, "retransmission is not limited");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (socket, limit);
}
