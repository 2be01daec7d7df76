//! [`Connection`]: a TLS stream and the driver of its shutdown. The stream owns one, and hands it to a reaper when it is dropped.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::AsyncWrite;

use crate::{
    runtime::timer::BoxedTimer,
    tls::{
        close_state::Event,
        driver::CloseDriver,
        report::Ending,
        session::{NextRead, TlsSession},
        session_io,
        tls_error::{copy, failure_of_read_error_ref, failure_of_write_error_ref, tls_error},
    },
};

/// A TLS stream and the driver of its shutdown. Dropping it drops the socket, then calls `on_end`.
pub(crate) struct Connection<S> {
    pub(crate) session: S,
    pub(crate) driver: CloseDriver,
    pub(crate) timer: BoxedTimer,
    /// An error for the next read: one that came behind data, or one that no later read may hide.
    pub(crate) read_error: Option<io::Error>,
}

impl<S: TlsSession> Connection<S> {
    pub(crate) fn new(session: S, driver: CloseDriver) -> Self {
        Self { session, driver, timer: BoxedTimer::default(), read_error: None }
    }

    /// Returns the TLS stream, and calls `on_end`.
    pub(crate) fn into_session(self) -> S {
        let Self { mut session, mut driver, .. } = self;
        driver.count_tickets(&mut session);
        // `on_end` may panic. At the end of this function, the panic would leak the returned stream (rust#47949).
        drop(driver);
        session
    }

    /// Drives the shutdown to its end.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        let Self { session, driver, timer, .. } = self;
        let ending = driver.poll_to_end(session, cx, |end, cx| timer.poll_until(end, cx));
        if ending.is_ready() {
            timer.stop();
        }
        ending
    }

    /// Reads, and keeps track of the ends that the read meets.
    #[inline]
    pub(crate) fn poll_fill_buf(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        if self.driver.has_begun() || self.read_error.is_some() || self.driver.may_have_kept() {
            return self.poll_fill_buf_apart(cx);
        }
        let Self { session, driver, read_error, .. } = self;
        driver.begin_reading();
        let result = poll_fill_open(session, driver, read_error, cx);
        if result.is_pending() {
            driver.remember_reader(cx);
        }
        result
    }

    /// The same at the first read, during a shutdown, or after a failure.
    #[cold]
    fn poll_fill_buf_apart(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let Self { session, driver, read_error, .. } = self;
        let has_data = matches!(session.connection().next_read(), NextRead::Data(_));
        if let Some(error) = read_error.take_if(|_| !has_data) {
            *read_error = lasting(&error);
            return Poll::Ready(Err(error));
        }
        driver.keep_early_data(session);
        driver.begin_reading();
        if !driver.kept()?.is_empty() {
            return Poll::Ready(driver.kept());
        }
        let waker = driver.reader_waker(cx);
        let shared = &mut Context::from_waker(waker.as_ref().unwrap_or(cx.waker()));
        let result = if driver.state.writes_sealed() || driver.has_failed_reads() {
            driver.poll_fill_plaintext(session, shared)
        } else {
            poll_fill_open(session, driver, read_error, shared)
        };
        if result.is_pending() {
            driver.remember_reader(cx);
            driver.end_waiting_read()?;
        }
        result
    }

    pub(crate) fn consume(&mut self, amount: usize) {
        match self.driver.kept() {
            Ok(kept) if !kept.is_empty() => self.driver.consume_kept(amount),
            _ => Pin::new(&mut self.session).consume(amount),
        }
    }

    //= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
    //# It is not possible to call SSL_write() after calling SSL_shutdown().
    /// Writes with `write`, unless a shutdown has begun.
    #[inline]
    pub(crate) fn poll_write_with<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.driver.has_begun() {
            return Poll::Ready(Err(write_after_shutdown()));
        }
        let result = write(Pin::new(&mut self.session), cx);
        self.after_write(result, cx)
    }

    /// Flushes application data, and adds what the transport accepts to `written`. Once close_notify is sealed, flushes the transport.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>, written: Option<&mut u64>) -> Poll<io::Result<()>> {
        let result = match written {
            _ if self.driver.state.writes_sealed() => Pin::new(self.session.transport_mut()).poll_flush(cx),
            Some(written) => session_io::poll_flush_data(&mut self.session, cx, written),
            None => Pin::new(&mut self.session).poll_flush(cx),
        };
        self.after_write(session_io::retry_interrupted(result, cx), cx)
    }

    #[inline]
    fn after_write<T>(&mut self, result: Poll<io::Result<T>>, cx: &Context<'_>) -> Poll<io::Result<T>> {
        match &result {
            Poll::Ready(Err(error)) => self.apply_write_error(error),
            Poll::Pending => self.driver.remember_writer(cx),
            Poll::Ready(Ok(_)) => {}
        }
        result
    }

    #[cold]
    fn apply_write_error(&mut self, error: &io::Error) {
        let failure = failure_of_write_error_ref(&mut self.session, error);
        self.driver.on_failure(failure);
    }
}

#[cold]
fn write_after_shutdown() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the TLS connection is shut down for writing")
}

/// Reads application data while the application may still write.
#[inline]
fn poll_fill_open<'a, S: TlsSession>(
    session: &'a mut S,
    driver: &mut CloseDriver,
    read_error: &mut Option<io::Error>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<&'a [u8]>> {
    // tokio-rustls alone finishes a 0-RTT handshake: it keeps the early data that the server may reject.
    if session.connection().is_handshaking() {
        let result = Pin::new(session).poll_fill_buf(cx);
        apply_end(driver, read_error, &result);
        return result;
    }
    while session.connection().wants_read() {
        match ready!(driver.poll_read_records(session, cx)) {
            Ok(0) => break,
            Ok(_) => {}
            Err(mut failure) => {
                session_io::try_write_fatal_alert(session, cx);
                let error = failure.take_error();
                driver.on_read(failure);
                *read_error = lasting(&error);
                if session.connection().wants_read() {
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
    driver.next_plaintext(session)
}

/// Applies the end of reading, if tokio-rustls has met it.
fn apply_end(driver: &mut CloseDriver, read_error: &mut Option<io::Error>, read: &Poll<io::Result<&[u8]>>) {
    match read {
        //= https://www.rfc-editor.org/rfc/rfc8446#section-6
        //# Upon receiving such an alert, the TLS implementation SHOULD indicate
        //# end-of-data to the application.
        Poll::Ready(Ok([])) => driver.on_read(Event::ZeroReturn),
        // Whoever reads makes the call again.
        Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
        Poll::Ready(Err(error)) => {
            driver.on_read(failure_of_read_error_ref(error));
            *read_error = lasting(error);
        }
        _ => {}
    }
}

/// The error of all further reads: rustls never recovers from its own, and tokio-rustls returns a clean end after an aborted transport.
#[cold]
fn lasting(error: &io::Error) -> Option<io::Error> {
    (tls_error(error).is_some() || error.kind() == io::ErrorKind::ConnectionAborted).then(|| copy(error))
}
