//! What only the kernel can do with a socket, and a portable stand-in where it cannot.

use std::{
    io,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

use crate::session::TlsSession;

/// Has the socket under `transport` send RST when it is closed. Nothing happens where there is none.
pub(crate) fn reset_on_drop<S: TlsSession>(transport: &S::Transport) {
    if let Some(socket) = S::socket(transport)
        && let Err(error) = socket.set_zero_linger()
    {
        // The peer sees FIN without close_notify then, which is no lie either.
        tracing::debug!(%error, "the connection is not reset, but closed");
    }
}

/// Where discarded bytes go, shared by all connections that are discarding.
pub(crate) struct Scratch(Mutex<Box<[u8]>>);

impl Scratch {
    /// At 64 KiB a discarding thread spends the least time for each byte; smaller and larger buffers cost more.
    const SIZE: usize = 64 * 1024;

    pub(crate) fn new() -> Self {
        Self(Mutex::new(vec![0; Self::SIZE].into_boxed_slice()))
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
        let mut scratch = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = ReadBuf::new(&mut scratch);
        ready!(Pin::new(transport).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// With `MSG_TRUNC`, `tcp(7)` drops the bytes without copying them; the scratch buffer gives only the length.
    #[cfg(target_os = "linux")]
    fn poll_discard_in_kernel(&self, socket: &tokio::net::TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        use rustix::net::{RecvFlags, recv};
        loop {
            ready!(socket.poll_read_ready(cx))?;
            let discarded = socket.try_io(tokio::io::Interest::READABLE, || {
                let mut scratch = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                let (_, length) = recv(socket, &mut scratch[..], RecvFlags::TRUNC)?;
                Ok(length)
            });
            match discarded {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}
