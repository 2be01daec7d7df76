//! [`ShutdownStream`]: a TLS stream that ends by a policy.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    runtime::{debug::debug_struct, forward::forward_socket},
    tls::{
        close_state::Goal,
        connection::Connection,
        driver::{CloseDriver, Extent},
        observers::EndLog,
        policy::{Abort, ShutdownPolicy},
        reaper::Reaper,
        report::{Ending, ShutdownReport, ShutdownState},
        session::{TlsConnection, TlsSession},
        undelivered::Undelivered,
    },
};

/// A TLS stream that ends by its [policy](ShutdownPolicy).
///
/// It reads and writes as the stream in it does, and as fast. The end differs:
///
/// - [`poll_shutdown`](AsyncWrite::poll_shutdown) runs the policy. By default, a client's stream waits for the peer's close_notify, and
///   so keeps its session tickets and loses no data. A server's stream does not wait. hyper, h2, tonic and `AsyncWriteExt::shutdown`
///   need nothing else. It is a half-close: what the peer still sends can be read.
/// - [`shutdown_with`](Self::shutdown_with) runs a policy, ends the whole connection and returns a [`ShutdownReport`].
/// - [`close_notify`](Self::close_notify) closes the write half alone. The stream stays readable.
/// - [`abort`](Self::abort) ends the connection without close_notify.
/// - **A drop never sends close_notify on its own.** A stream that is dropped before its shutdown has begun is aborted, so that a cut
///   message cannot look complete (RFC 9112 section 9.8). A stream that is dropped during or after its shutdown leaves the rest to
///   its [`Reaper`], if it [has one](Self::with_reaper). So does a stream on which a write has failed, to find the reason.
/// - [`on_end`](Self::on_end) is called exactly once for the connection, whatever path it takes.
/// - **A server reads early data** (0-RTT) before what follows it, if its configuration accepts any. tokio-rustls never returns it.
///
/// ```
/// # use tls_shutdown::ShutdownStream;
/// use tokio::io::AsyncWriteExt;
///
/// # async fn upload(
/// #     tls: tokio_rustls::client::TlsStream<tokio::net::TcpStream>,
/// # ) -> std::io::Result<()> {
/// let mut stream = ShutdownStream::new(tls);
/// stream.write_all(b"all of it").await?;
/// stream.shutdown().await?; // The server has read all of it, and has answered.
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Once a shutdown has begun, writes fail with [`BrokenPipe`](io::ErrorKind::BrokenPipe): rustls would accept them, and the peer would
/// ignore them. If the transport ends without close_notify, reads fail with [`UnexpectedEof`](io::ErrorKind::UnexpectedEof).
///
/// # Cancel safety
///
/// The stream contains all state, the futures contain none.
#[must_use = "dropping the stream aborts the connection"]
pub struct ShutdownStream<S: TlsSession> {
    /// `None` only while the stream is taken apart. Boxed, so that moves of the stream are cheap, and a reaper needs no box of its own.
    connection: Option<Box<Connection<S>>>,
    adopter: Option<Adopter<S>>,
}

/// A reaper, and the function by which it takes a connection of this type. A function pointer, captured where `S: Send` holds, because
/// `Drop` cannot require it.
struct Adopter<S> {
    reaper: Reaper,
    undelivered: Undelivered,
    adopt: fn(&Reaper, Box<Connection<S>>, Undelivered),
}

const WHOLE: &str = "a stream is whole until it is consumed";

impl<S: TlsSession> ShutdownStream<S> {
    /// Wraps a stream. Its policy is [`bidirectional`](ShutdownPolicy::bidirectional) for a client and
    /// [`unidirectional`](ShutdownPolicy::unidirectional) for a server.
    pub fn new(mut session: S) -> Self {
        //= https://www.rfc-editor.org/rfc/rfc9112#section-9.8
        //# Clients MUST send a closure alert before closing the connection.
        //= https://www.rfc-editor.org/rfc/rfc9112#section-9.8
        //# Servers MUST attempt to initiate an exchange of closure alerts with
        //# the client before closing the connection.
        let policy = match session.connection() {
            TlsConnection::Server(_) => ShutdownPolicy::unidirectional(),
            TlsConnection::Client(_) => ShutdownPolicy::bidirectional(),
        };
        Self { connection: Some(Box::new(Connection::new(session, CloseDriver::new(policy)))), adopter: None }
    }

    /// Sets the policy for [`poll_shutdown`](AsyncWrite::poll_shutdown), [`AsyncShutdown::new`](crate::AsyncShutdown::new) and the
    /// reaper.
    pub fn with_policy(mut self, policy: ShutdownPolicy) -> Self {
        self.parts_mut().1.policy = policy;
        self
    }

    /// Attaches a reaper, which finishes the shutdown of a dropped stream.
    pub fn with_reaper(mut self, reaper: &Reaper) -> Self
    where
        S: TlsSession<Transport: Send> + Send + 'static,
    {
        self.adopter =
            Some(Adopter { reaper: reaper.clone(), undelivered: Undelivered::default(), adopt: Reaper::adopt });
        self
    }

    /// Calls `on_end` once when the TLS connection has ended, whatever path it takes: also when the stream is dropped, and when a reaper
    /// sheds its shutdown. Each call adds one; they are called in order, and a panic in one does not keep the others from being called.
    ///
    /// It runs where the last part of the connection is dropped, so it should be short and must not block. The report's ending is
    /// that of the connection: after a [refused](Ending::Refused) shutdown, it is the failure before it.
    pub fn on_end(mut self, on_end: impl FnOnce(&ShutdownReport) + Send + Sync + 'static) -> Self {
        self.parts_mut().1.observers.add(on_end);
        self
    }

    /// Calls `on_end` as [`on_end`](Self::on_end) does, and leaves it to `on_end` to log the end: the stream itself logs no event. For
    /// servers, which know more of a connection than its stream does, the peer for example.
    ///
    /// ```
    /// # use std::net::SocketAddr;
    /// # use tokio::net::TcpStream;
    /// use tls_shutdown::ShutdownStream;
    /// use tokio_rustls::server::TlsStream;
    ///
    /// fn accepted(tls: TlsStream<TcpStream>, peer: SocketAddr) -> ShutdownStream<TlsStream<TcpStream>> {
    ///     ShutdownStream::new(tls).on_end_logging(move |report| tracing::info!(%peer, "{report}"))
    /// }
    /// ```
    pub fn on_end_logging(mut self, on_end: impl FnOnce(&ShutdownReport) + Send + Sync + 'static) -> Self {
        let observers = &mut self.parts_mut().1.observers;
        observers.add(on_end);
        observers.log = EndLog::ByObserver;
        self
    }

    /// The stream's own policy.
    pub fn policy(&self) -> &ShutdownPolicy {
        &self.connection().driver.policy
    }

    /// The TLS stream, with ALPN, certificates and the peer's address.
    pub fn get_ref(&self) -> &S {
        &self.connection().session
    }

    /// The TLS stream. Do not read, write or shut down through it: the closing handshake would not know of that.
    pub fn get_mut(&mut self) -> &mut S {
        self.parts_mut().0
    }

    /// Returns the TLS stream, whatever its state. This library does nothing more for it. `on_end` is called with what is known now. Data that
    /// this stream has taken for a later read is lost, and the report counts it as discarded: a half-close keeps some, and the first read takes
    /// all early data.
    pub fn into_inner(mut self) -> S {
        self.connection.take().expect(WHOLE).into_session()
    }

    /// How far both halves are.
    pub fn state(&self) -> ShutdownState {
        let state = &self.connection().driver.state;
        match (state.sent(), state.received()) {
            (false, false) => ShutdownState::Open,
            (true, false) => ShutdownState::Sent,
            (false, true) => ShutdownState::Received,
            (true, true) => ShutdownState::Both,
        }
    }

    /// Whether a shutdown has begun. Writes fail from then on.
    pub fn has_begun_shutdown(&self) -> bool {
        self.connection().driver.has_begun()
    }

    //= https://www.rfc-editor.org/rfc/rfc8446#section-6.1
    //# This does not have any effect on its read side of the connection.
    //= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
    //# SSL_shutdown() only closes the write direction.
    /// Closes the write half: sends all application data and close_notify, sends no FIN, and does not wait for the peer. The stream
    /// stays readable until the peer's close_notify, and can be shut down later.
    ///
    /// This is one call of `SSL_shutdown(3)`: "SSL_shutdown() only closes the write direction."
    ///
    /// # Errors
    ///
    /// Those of [`AsyncShutdown`](crate::AsyncShutdown), as an [`io::Error`]. The policy's
    /// [stall timeout](ShutdownPolicy::with_stall_timeout) and [close timeout](ShutdownPolicy::with_close_timeout) bound the time.
    ///
    /// # Panics
    ///
    /// If it has to wait outside of a Tokio runtime with time enabled.
    ///
    /// # Cancel safety
    ///
    /// You can drop the future and call this again: close_notify is sent once.
    pub async fn close_notify(&mut self) -> io::Result<ShutdownReport> {
        std::future::poll_fn(|cx| {
            let connection = self.connection_mut();
            let policy = connection.driver.policy;
            connection.driver.begin_goal(&mut connection.session, Goal::Notify, policy);
            connection.poll_close(cx).map(|ending| Ok(connection.driver.result(ending, &policy)?))
        })
        .await
    }

    /// Ends the connection now, without close_notify, so that the peer can see that something is missing.
    ///
    /// A close_notify that was sent already stays sent. The reaper does nothing. `abort` overrides what
    /// [`set_abort_mode`](Self::set_abort_mode) has set.
    pub fn abort(mut self, abort: Abort) {
        self.adopter = None;
        let (session, driver) = self.parts_mut();
        driver.state.abort();
        // A complete connection has nothing that a reset could cut.
        if abort == Abort::Fin || driver.ending() != Ending::Complete {
            driver.set_abort_mode(abort, session);
        }
    }

    /// Begins a shutdown by the stream's own policy, as far as that needs no wait. Dropping the stream then leaves the rest to its
    /// [reaper](Self::with_reaper).
    ///
    /// For a `Drop` that has to end a connection well and cannot wait.
    ///
    /// ```
    /// # use tls_shutdown::ShutdownStream;
    /// # fn end(tls: tokio_rustls::server::TlsStream<tokio::net::TcpStream>, reaper: &tls_shutdown::Reaper) {
    /// let mut stream = ShutdownStream::new(tls).with_reaper(reaper);
    /// stream.begin_shutdown();
    /// drop(stream); // The reaper waits for the peer.
    /// # }
    /// ```
    pub fn begin_shutdown(&mut self) {
        let (session, driver) = self.parts_mut();
        let policy = driver.policy;
        driver.begin(session, &policy, Extent::Connection);
        let _ = driver.poll_steps(session, &mut Context::from_waker(Waker::noop()));
    }

    /// Sets what TCP does if the connection ends before close_notify was sent, also if the process is killed. Default: [`Abort::Fin`].
    ///
    /// [`Abort::Reset`] is for a message whose end is the end of the connection: FIN would make a cut one look complete to many peers.
    /// A shutdown restores FIN once close_notify is sent, a [quiet](ShutdownPolicy::quiet) one at once, and
    /// [`into_plaintext`](Self::into_plaintext) once TLS is off. After close_notify is sent, this has no effect.
    pub fn set_abort_mode(&mut self, abort: Abort) {
        let (session, driver) = self.parts_mut();
        if !driver.state.sent() {
            driver.set_abort_mode(abort, session);
        }
    }

    /// Tells the [reaper](Self::with_reaper) what the peer may not have received yet. Default: [`Undelivered::Answer`]. Without a reaper, it
    /// does nothing.
    pub fn set_undelivered(&mut self, undelivered: Undelivered) {
        if let Some(adopter) = &mut self.adopter {
            adopter.undelivered = undelivered;
        }
    }

    /// Replaces the [stall timeout](ShutdownPolicy::with_stall_timeout) of the stream's policy. For a server that has measured for how
    /// long the peer has read nothing: [`Duration::ZERO`] gives it no more time.
    pub fn set_stall_timeout(&mut self, timeout: Duration) {
        let (_, driver) = self.parts_mut();
        driver.policy = driver.policy.with_stall_timeout(timeout);
    }

    /// Flushes as [`poll_flush`](AsyncWrite::poll_flush) does, and adds the number of bytes of TLS records that the transport accepts to
    /// `written`: the progress of a peer that reads slowly.
    ///
    /// # Errors
    ///
    /// Those of the TLS stream.
    pub fn poll_flush_counted(&mut self, cx: &mut Context<'_>, written: &mut u64) -> Poll<io::Result<()>> {
        self.connection_mut().poll_flush(cx, Some(written))
    }

    pub(crate) fn parts_mut(&mut self) -> (&mut S, &mut CloseDriver) {
        let connection = self.connection_mut();
        (&mut connection.session, &mut connection.driver)
    }

    pub(crate) fn connection_mut(&mut self) -> &mut Connection<S> {
        self.connection.as_mut().expect(WHOLE)
    }

    fn connection(&self) -> &Connection<S> {
        self.connection.as_ref().expect(WHOLE)
    }
}

impl<S: TlsSession> From<S> for ShutdownStream<S> {
    fn from(session: S) -> Self {
        Self::new(session)
    }
}

impl<S: TlsSession> AsyncBufRead for ShutdownStream<S> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        self.get_mut().connection_mut().poll_fill_buf(cx)
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        self.get_mut().connection_mut().consume(amount);
    }
}

impl<S: TlsSession> AsyncRead for ShutdownStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let connection = self.get_mut().connection_mut();
        // Reads as many records as fit, as tokio-rustls does. Unlike its `poll_read`, this notes an error that comes behind data at once.
        let mut read = connection.poll_fill_buf(cx);
        let mut amount = 0;
        loop {
            match read {
                Poll::Ready(Ok(data)) => {
                    let piece = data.len().min(buffer.remaining());
                    buffer.put_slice(&data[..piece]);
                    connection.consume(piece);
                    amount += piece;
                    if piece == 0 || buffer.remaining() == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(Err(error)) if amount > 0 => {
                    connection.read_error = Some(error);
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending if amount > 0 => {
                    // Its task does not wait.
                    connection.driver.begin_reading();
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            read = connection.poll_fill_buf(cx);
        }
    }
}

impl<S: TlsSession> AsyncWrite for ShutdownStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().connection_mut().poll_write_with(cx, |session, cx| session.poll_write(cx, buffer))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().connection_mut().poll_write_with(cx, |session, cx| session.poll_write_vectored(cx, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        self.get_ref().is_write_vectored()
    }

    /// Flushes application data. Once close_notify is sealed, flushes only the transport.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().connection_mut().poll_flush(cx, None)
    }

    /// Ends the write half by the stream's own policy.
    ///
    /// Unlike [`AsyncShutdown`](crate::AsyncShutdown), this is the half-close of tokio's world, as `split`, `copy_bidirectional` and
    /// `shutdown()` before `read_to_end()` expect it:
    ///
    /// - If the application has ever read from the stream, a bidirectional shutdown does not discard data. It returns in the state
    ///   [`Sent`](ShutdownState::Sent) when data arrives, or at the close timeout: an answer may come later. Read on until the peer's
    ///   close_notify, or drop the stream and leave it to the [reaper](Self::with_reaper). A
    ///   [receive-first](ShutdownPolicy::receive_first) shutdown fails with [`PeerData`](Ending::PeerData): read, and call this again.
    /// - If the application has never read, as in an upload, a bidirectional shutdown waits for the peer's close_notify. It keeps up to
    ///   64 KiB of what arrives first for a later read, and discards the rest, unless the policy [rejects](crate::PeerData::Reject) it. It
    ///   keeps no more than the [drain limit](ShutdownPolicy::with_max_drain_bytes). At the close timeout it fails with
    ///   [`TimedOut`](Ending::TimedOut), and a later answer can still be read.
    /// - After data was discarded, reads fail with [`UnexpectedEof`](io::ErrorKind::UnexpectedEof), and the error states how much it was.
    ///   They never return a clean end.
    ///
    /// # Errors
    ///
    /// If the goal was not reached. The error can be downcast to [`ShutdownError`](crate::ShutdownError).
    ///
    /// # Panics
    ///
    /// If it has to wait outside of a Tokio runtime with time enabled.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let connection = self.get_mut().connection_mut();
        let policy = connection.driver.policy;
        connection.driver.begin(&mut connection.session, &policy, Extent::WriteHalf);
        let ending = ready!(connection.poll_close(cx));
        connection.driver.result(ending, &policy)?;
        Poll::Ready(Ok(()))
    }
}

forward_socket!({S: TlsSession} ShutdownStream<S>, S::Transport, |stream| stream.get_ref().transport());

impl<S: TlsSession> Drop for ShutdownStream<S> {
    //= https://www.rfc-editor.org/rfc/rfc9112#section-9.8
    //# A response that has neither chunked transfer coding nor Content-Length
    //# is complete only if a valid closure alert has been received.
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        connection.driver.count_tickets(&mut connection.session);
        if let Some(Adopter { reaper, undelivered, adopt }) = self.adopter.take()
            && connection.driver.needs_reaper()
        {
            adopt(&reaper, connection, undelivered);
        }
    }
}

debug_struct!({S: TlsSession + fmt::Debug} ShutdownStream<S>, |stream| {
    session: stream.get_ref(),
    policy: stream.policy(),
    state: stream.state(),
});
