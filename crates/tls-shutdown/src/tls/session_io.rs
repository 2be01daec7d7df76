//! Reading and writing TLS records on the transport and the rustls connection themselves.
//!
//! From the moment close_notify is sealed, tokio-rustls is not used any more: it would write what rustls queues behind close_notify. Its
//! reads are used for a 0-RTT handshake alone: they return the error of a broken record before the data in front of it.

use std::{
    io::{self, Read, Write},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::tls::{record_scanner::RecordScanner, session::TlsSession};

/// Finishes a 0-RTT handshake, writes all application data, and flushes the transport. Adds the number of bytes that the transport
/// accepts to `written`.
pub(crate) fn poll_flush_data<S: TlsSession>(
    session: &mut S,
    cx: &mut Context<'_>,
    written: &mut u64,
) -> Poll<io::Result<()>> {
    let (transport, mut connection) = session.parts();
    while connection.wants_write() {
        let mut adapter = SyncTransport { transport, cx };
        match connection.write_tls(&mut adapter) {
            Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Ok(amount) => *written += amount as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
    // The stream alone knows of early data that the server has rejected and that must be written again.
    let flushed = Pin::new(session).poll_flush(cx);
    retry_interrupted(flushed, cx)
}

/// Takes an interrupted call, which has done nothing (`std::io::ErrorKind::Interrupted`), for one that waits. The task makes it again at its
/// next turn, so that timeouts hold. The application's `poll_write` alone fails: tokio-rustls does not say how much rustls has taken by then.
#[inline]
pub(crate) fn retry_interrupted<T>(result: Poll<io::Result<T>>, cx: &Context<'_>) -> Poll<io::Result<T>> {
    match result {
        Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        result => result,
    }
}

/// Tries once to write the fatal alert that rustls has queued because of the peer's error. Only for a connection without close_notify.
pub(crate) fn try_write_fatal_alert<S: TlsSession>(session: &mut S, cx: &mut Context<'_>) {
    let (transport, mut connection) = session.parts();
    // The peer's error is reported. A failure to send the alert adds nothing.
    let _ = connection.write_tls(&mut SyncTransport { transport, cx });
}

/// Reads once from the transport. Returns the number of bytes, 0 at the transport's end.
#[inline]
pub(crate) fn poll_read_tls<S: TlsSession>(
    session: &mut S,
    cx: &mut Context<'_>,
    scanner: &mut RecordScanner,
) -> Poll<io::Result<usize>> {
    let (transport, mut connection) = session.parts();
    let mut adapter = Scanned { transport: SyncTransport { transport, cx }, scanner };
    match connection.read_tls(&mut adapter) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

/// An asynchronous transport as rustls needs it: synchronous, with `WouldBlock` for `Pending`.
struct SyncTransport<'a, 'b, T> {
    transport: &'a mut T,
    cx: &'a mut Context<'b>,
}

/// `WouldBlock` for a call that waits.
#[inline]
fn at_once<T>(result: Poll<io::Result<T>>, cx: &Context<'_>) -> io::Result<T> {
    match retry_interrupted(result, cx) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl<T: AsyncRead + Unpin> Read for SyncTransport<'_, '_, T> {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(buffer);
        let read = Pin::new(&mut *self.transport).poll_read(self.cx, &mut buffer);
        at_once(read, self.cx)?;
        Ok(buffer.filled().len())
    }
}

impl<T: AsyncWrite + Unpin> Write for SyncTransport<'_, '_, T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = Pin::new(&mut *self.transport).poll_write(self.cx, buffer);
        at_once(written, self.cx)
    }

    fn write_vectored(&mut self, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let written = Pin::new(&mut *self.transport).poll_write_vectored(self.cx, buffers);
        at_once(written, self.cx)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Passes what is read through a [`RecordScanner`].
struct Scanned<'a, 'b, T> {
    transport: SyncTransport<'a, 'b, T>,
    scanner: &'a mut RecordScanner,
}

impl<T: AsyncRead + Unpin> Read for Scanned<'_, '_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let amount = self.transport.read(buffer)?;
        self.scanner.scan(&buffer[..amount]);
        Ok(amount)
    }
}
