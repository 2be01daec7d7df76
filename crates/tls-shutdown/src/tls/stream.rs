//! [`ShutdownStream`]: a TLS stream that knows how to end.

#[cfg(unix)]
use std::os::fd::{AsRawFd, RawFd};
use std::{
    error, fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use crate::{
    tls::close_state::Event,
    tls::driver::{Close, poll_until},
    tls::policy::{ShutdownPolicy, Unwrap},
    tls::reaper::Reaper,
    tls::records::{Plaintext, Records},
    tls::report::{Ending, ShutdownError, ShutdownReport},
    tls::session::{self, TlsSession},
    tls::shutdown::AsyncShutdown,
    tls::socket,
};

/// A TLS stream that ends as its [policy](ShutdownPolicy) says.
///
/// It reads and writes as the stream in it does, and as fast. What differs is the end:
///
/// - [`poll_shutdown`](AsyncWrite::poll_shutdown) runs the policy: a client's stream by default waits for the peer's
///   close_notify, and so keeps its session tickets and loses no data; a server's does not wait. hyper, h2, tonic and
///   `AsyncWriteExt::shutdown` need nothing else.
/// - [`shutdown_with`](Self::shutdown_with) runs a policy and gives a [`ShutdownReport`].
/// - [`close_notify`](Self::close_notify) closes the write half alone; the stream stays readable.
/// - [`abort`](Self::abort) ends without close_notify.
/// - **Dropping never tells a lie.** A stream that is dropped before its shutdown was asked for is aborted, so that a message
///   that was cut cannot look complete (RFC 9112 section 9.8). A stream that is dropped while or after it is shut down leaves
///   what is owed to its [`Reaper`], if it [has one](Self::with_reaper); so does one on which a write has failed, to find out why.
/// - [`on_end`](Self::on_end) is called exactly once for the connection, whatever path it took.
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
/// stream.shutdown().await?; // the server has read all of it, and has answered
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Once a shutdown was asked for, writes fail with [`BrokenPipe`](io::ErrorKind::BrokenPipe): rustls would accept them, and the
/// peer would ignore them. A transport that ends without close_notify fails reads with
/// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof).
///
/// # Cancel safety
///
/// All state is kept here, none in the futures.
pub struct ShutdownStream<S: TlsSession> {
    /// `None` only while the stream is taken apart.
    connection: Option<Connection<S>>,
}

/// A TLS stream and what there is to know about its end. `on_end` is called when this is dropped, after the socket was.
pub(crate) struct Connection<S> {
    pub(crate) session: S,
    pub(crate) close: Box<Close>,
    timer: Option<Pin<Box<Sleep>>>,
    read_error: Option<io::Error>,
    adopter: Option<Adopter<S>>,
    /// Who the peer is, as far as whoever accepted it was told. Boxed, since the stream is to be small.
    #[cfg(feature = "tonic")]
    peer: Option<Box<std::net::SocketAddr>>,
}

/// A reaper, and the way into it for this type of stream; known where the stream is known to be `Send`, used in `Drop`, which
/// knows no such thing.
struct Adopter<S> {
    reaper: Reaper,
    adopt: fn(&Reaper, Box<Connection<S>>),
}

/// How far both halves of a connection are, as `SSL_get_shutdown(3)` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShutdownState {
    /// Neither side has closed.
    Open,
    /// The transport has accepted our close_notify (`SSL_SENT_SHUTDOWN`).
    Sent,
    /// The peer's close_notify was read (`SSL_RECEIVED_SHUTDOWN`).
    Received,
    /// Both.
    Both,
}

/// What [`ShutdownStream::abort`] does to TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Abort {
    /// FIN, or RST if the kernel holds bytes that were not read. For a peer that can tell a cut message by its framing (Content-Length, chunks, HTTP/2).
    Fin,
    /// RST, so that no peer takes the end of the connection for the end of the message: many take FIN without close_notify for
    /// complete. It also discards what the kernel has not sent yet. FIN on a transport that is no TCP socket.
    Reset,
}

impl<S: TlsSession> ShutdownStream<S> {
    /// Wraps a stream. Its policy is [`bidirectional`](ShutdownPolicy::bidirectional) for a client and
    /// [`unidirectional`](ShutdownPolicy::unidirectional) for a server.
    pub fn new(mut session: S) -> Self {
        //= https://www.rfc-editor.org/rfc/rfc9112#section-9.8
        //# Clients MUST send a closure alert before closing the connection.
        //= https://www.rfc-editor.org/rfc/rfc9112#section-9.8
        //# Servers MUST attempt to initiate an exchange of closure alerts with
        //# the client before closing the connection.
        let policy = match session.parts().1.is_server() {
            true => ShutdownPolicy::unidirectional(),
            false => ShutdownPolicy::bidirectional(),
        };
        let close = Box::new(Close::new(policy));
        let connection = Connection {
            session,
            close,
            timer: None,
            read_error: None,
            adopter: None,
            #[cfg(feature = "tonic")]
            peer: None,
        };
        Self { connection: Some(connection) }
    }

    /// Sets the policy by which [`poll_shutdown`](AsyncWrite::poll_shutdown), [`AsyncShutdown::new`] and the reaper close.
    pub fn with_policy(mut self, policy: ShutdownPolicy) -> Self {
        self.parts().1.policy = policy;
        self
    }

    /// Attaches a reaper, which takes over what a dropped stream still owes.
    pub fn with_reaper(mut self, reaper: &Reaper) -> Self
    where
        S: TlsSession<Transport: Send> + Send + 'static,
    {
        self.connection().adopter = Some(Adopter { reaper: reaper.clone(), adopt: Reaper::adopt });
        self
    }

    /// Has `on_end` called when the TLS connection is over: exactly once, whatever the path, also when the stream is dropped or
    /// its closing is shed by a reaper. A later one replaces an earlier one.
    ///
    /// It is called by whoever drops the last of the connection, so it should be short, and must not block. The report's ending
    /// is that of the connection: after a shutdown that was [refused](Ending::Refused), it is what had gone wrong before.
    pub fn on_end(mut self, on_end: impl FnOnce(&ShutdownReport) + Send + Sync + 'static) -> Self {
        self.parts().1.on_end = Some(Box::new(on_end));
        self
    }

    /// The stream's own policy.
    pub fn policy(&self) -> &ShutdownPolicy {
        &self.connection_ref().close.policy
    }

    /// The TLS stream, for what it knows about the connection: ALPN, certificates, the peer's address.
    pub fn session(&self) -> &S {
        &self.connection_ref().session
    }

    /// How far both halves are.
    pub fn state(&self) -> ShutdownState {
        let closing = &self.connection_ref().close.closing;
        match (closing.sent(), closing.received()) {
            (false, false) => ShutdownState::Open,
            (true, false) => ShutdownState::Sent,
            (false, true) => ShutdownState::Received,
            (true, true) => ShutdownState::Both,
        }
    }

    /// Closes the connection as `policy` says, and tells how it went. [`AsyncShutdown`] tells the rest.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again; see [`AsyncShutdown`].
    pub fn shutdown_with(&mut self, policy: ShutdownPolicy) -> AsyncShutdown<&mut Self> {
        AsyncShutdown::with_policy(self, policy)
    }

    //= https://www.rfc-editor.org/rfc/rfc8446#section-6.1
    //# This does not have any effect on its read side of the connection.
    //= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
    //# SSL_shutdown() only closes the write direction.
    /// Closes the write half: sends all application data and close_notify, and neither FIN nor waits for the peer. The stream
    /// stays readable to the peer's close_notify, and can be shut down later.
    ///
    /// This is `SSL_shutdown(3)` called once: "SSL_shutdown() only closes the write direction."
    ///
    /// # Errors
    ///
    /// As [`AsyncShutdown`], as an [`io::Error`]. The time is bounded by the policy's
    /// [stall timeout](ShutdownPolicy::with_stall_timeout) and [deadline](ShutdownPolicy::with_close_timeout).
    ///
    /// # Panics
    ///
    /// When it has to wait outside a Tokio runtime with time enabled.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again: close_notify is sent once.
    pub async fn close_notify(&mut self) -> io::Result<ShutdownReport> {
        std::future::poll_fn(|cx| {
            let connection = self.connection();
            connection.close.begin_close_notify(&mut connection.session);
            let policy = connection.close.policy;
            connection.poll_close(cx).map(|ending| Ok(connection.close.result(ending, &policy)?))
        })
        .await
    }

    /// Ends the connection now and without close_notify, so that the peer knows that something is missing.
    ///
    /// A close_notify that is out already cannot be taken back. No reaper takes over.
    pub fn abort(mut self, abort: Abort) {
        let connection = self.connection();
        connection.adopter = None;
        connection.close.closing.abort();
        // Where all is said and heard there is nothing to reset.
        if abort == Abort::Reset && connection.close.ending() != Ending::Complete {
            socket::reset_on_drop::<S>(connection.session.parts().0);
        }
    }

    /// Takes the TLS stream out, whatever its state: from then on this crate does nothing for it. `on_end` is called, with what is
    /// known now.
    pub fn into_session(mut self) -> S {
        self.connection.take().expect(WHOLE).into_session()
    }

    /// Begins to close by the stream's own policy, as far as that needs no wait; its reaper does the rest, if there is one, and if
    /// it and the runtime still take something.
    #[cfg(feature = "server")]
    pub(crate) fn begin_shutdown(&mut self) {
        let (session, close) = self.parts();
        let policy = close.policy;
        close.begin(session, &policy);
        let _ = close.poll(session, &mut Context::from_waker(std::task::Waker::noop()));
    }

    /// Flushes. Adds to `written` what the transport accepts.
    #[cfg(feature = "server")]
    pub(crate) fn poll_flush_counted(&mut self, cx: &mut Context<'_>, written: &mut u64) -> Poll<io::Result<()>> {
        let connection = self.connection();
        if connection.close.closing.is_muted() {
            return Pin::new(self).poll_flush(cx);
        }
        let result = session::poll_flush_data(&mut connection.session, cx, written);
        if let Poll::Ready(Err(error)) = &result {
            connection.note_write_error(error);
        }
        result
    }

    /// Says who the peer is, for [`peer`](Self::peer).
    #[cfg(feature = "tonic")]
    pub(crate) fn of_peer(mut self, peer: std::net::SocketAddr) -> Self {
        self.connection().peer = Some(Box::new(peer));
        self
    }

    /// Who the peer is, as far as whoever accepted it was told.
    #[cfg(feature = "tonic")]
    pub(crate) fn peer(&self) -> Option<std::net::SocketAddr> {
        self.connection_ref().peer.as_deref().copied()
    }

    /// Replaces the policy's stall limit.
    #[cfg(feature = "server")]
    pub(crate) fn limit_stall(&mut self, limit: std::time::Duration) {
        let (_, close) = self.parts();
        close.policy = close.policy.with_stall_timeout(limit);
    }

    /// Sets what TCP does if the connection ends, in whatever way, before close_notify is out.
    #[cfg(feature = "server")]
    pub(crate) fn finish_by(&mut self, abort: Abort) {
        let (session, close) = self.parts();
        close.finish_by(abort, session);
    }

    pub(crate) fn parts(&mut self) -> (&mut S, &mut Close) {
        let connection = self.connection();
        (&mut connection.session, &mut connection.close)
    }

    fn connection(&mut self) -> &mut Connection<S> {
        self.connection.as_mut().expect(WHOLE)
    }

    fn connection_ref(&self) -> &Connection<S> {
        self.connection.as_ref().expect(WHOLE)
    }
}

impl<S, T> ShutdownStream<S>
where
    S: TlsSession<Transport = Records<T>>,
{
    /// Takes TLS off the connection: sends and receives close_notify as `unwrap` says, no FIN, and gives the transport back, with
    /// every byte that has come behind the peer's close_notify.
    ///
    /// The time is bounded by the policy's [stall timeout](ShutdownPolicy::with_stall_timeout) and
    /// [deadline](ShutdownPolicy::with_close_timeout). `on_end` is called when TLS is off.
    ///
    /// # Errors
    ///
    /// The stream comes back with the error. After [`Ending::PeerData`] it can be read on and be asked again; after the others the
    /// closing is over, and there is the connection to be dropped, or taken apart:
    ///
    /// - [`Ending::PeerData`]: the peer has sent application data, which is not discarded. Read it, and call again.
    /// - [`Ending::NotTls`]: the peer goes on in plaintext without close_notify. Nothing of that is lost:
    ///   [`UnwrapError::into_plaintext`].
    /// - [`Ending::Truncated`], [`Ending::TimedOut`] and the others, as for [`AsyncShutdown`].
    /// - [`Ending::Refused`]: FIN was sent already, by another shutdown.
    ///
    /// # Panics
    ///
    /// When it has to wait outside a Tokio runtime with time enabled.
    ///
    /// # Cancel safety
    ///
    /// The future owns the stream: dropping it drops the connection. A reaper finishes the closing only if our close_notify is out.
    ///
    /// # Examples
    ///
    /// It is there over [`Records`] alone:
    ///
    /// ```
    /// # use tls_shutdown::{Plaintext, Records, ShutdownStream, Unwrap};
    /// # use tokio::net::TcpStream;
    /// # use tokio_rustls::client::TlsStream;
    /// async fn clear(stream: ShutdownStream<TlsStream<Records<TcpStream>>>) -> std::io::Result<Plaintext<TcpStream>> {
    ///     Ok(stream.into_plaintext(Unwrap::Initiate).await?)
    /// }
    /// ```
    ///
    /// ```compile_fail,E0599
    /// # use tls_shutdown::{Plaintext, ShutdownStream, Unwrap};
    /// # use tokio::net::TcpStream;
    /// # use tokio_rustls::client::TlsStream;
    /// async fn clear(stream: ShutdownStream<TlsStream<TcpStream>>) -> std::io::Result<Plaintext<TcpStream>> {
    ///     Ok(stream.into_plaintext(Unwrap::Initiate).await?)
    /// }
    /// ```
    pub async fn into_plaintext(mut self, unwrap: Unwrap) -> Result<Plaintext<T>, UnwrapError<S>> {
        let ending = std::future::poll_fn(|cx| {
            let connection = self.connection();
            connection.close.begin_unwrap(&mut connection.session, unwrap);
            connection.poll_close(cx)
        })
        .await;
        let close = &self.connection().close;
        let ending = match ending {
            Ending::Complete | Ending::Sent if !close.closing.goal.keeps_transport() => Ending::Refused,
            ending => ending,
        };
        if ending == Ending::Complete {
            return Ok(Plaintext::without_tls(self.into_session().into_transport()));
        }
        let error = ShutdownError::new(close.report(ending));
        Err(UnwrapError { error, stream: Box::new(self) })
    }
}

/// TLS could not be taken off. The stream is still there.
///
/// Converts to an [`io::Error`] where only the error matters; the connection is dropped then.
#[derive(Debug)]
pub struct UnwrapError<S: TlsSession> {
    error: ShutdownError,
    /// Boxed, so that the good case is not made to carry its size.
    stream: Box<ShutdownStream<S>>,
}

impl<S: TlsSession> UnwrapError<S> {
    /// What went wrong.
    pub fn error(&self) -> &ShutdownError {
        &self.error
    }

    /// The stream, to go on with.
    pub fn into_stream(self) -> ShutdownStream<S> {
        *self.stream
    }
}

impl<S, T> UnwrapError<S>
where
    S: TlsSession<Transport = Records<T>>,
{
    /// The connection in plaintext, where the peer has gone on so without close_notify: after [`Ending::NotTls`]. What it has said is
    /// read first.
    ///
    /// Nothing authentic says then that its TLS data was whole: only a protocol that knows that from its own last message under TLS
    /// may go on.
    ///
    /// # Errors
    ///
    /// After every other ending, itself: nobody knows where TLS ends.
    ///
    /// ```
    /// # use tls_shutdown::{Plaintext, Records, ShutdownStream, Unwrap};
    /// # use tokio::net::TcpStream;
    /// # use tokio_rustls::server::TlsStream;
    /// async fn clear(stream: ShutdownStream<TlsStream<Records<TcpStream>>>) -> std::io::Result<Plaintext<TcpStream>> {
    ///     match stream.into_plaintext(Unwrap::Initiate).await {
    ///         Ok(plain) => Ok(plain),
    ///         Err(error) => Ok(error.into_plaintext()?),
    ///     }
    /// }
    /// ```
    pub fn into_plaintext(self) -> Result<Plaintext<T>, Self> {
        match self.error.ending() {
            Ending::NotTls => Ok(Plaintext::without_tls(self.stream.into_session().into_transport())),
            _ => Err(self),
        }
    }
}

impl<S: TlsSession> fmt::Display for UnwrapError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<S: TlsSession + fmt::Debug> error::Error for UnwrapError<S> {}

impl<S: TlsSession> From<UnwrapError<S>> for io::Error {
    fn from(error: UnwrapError<S>) -> Self {
        error.error.into()
    }
}

const WHOLE: &str = "a stream is whole until it is consumed";

impl<S: TlsSession> Connection<S> {
    /// Takes the TLS stream out, and tells the end.
    pub(crate) fn into_session(self) -> S {
        let Self { mut session, mut close, .. } = self;
        close.note_tickets(&mut session);
        // `on_end` may panic: by the end of a function the compiler would have forgotten what that returns (rust#47949).
        drop(close);
        session
    }

    /// Carries the closing on, with a timer that is made at the first wait.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        loop {
            if let Poll::Ready(ending) = self.close.poll(&mut self.session, cx) {
                self.timer = None;
                return Poll::Ready(ending);
            }
            let Some(limit) = self.close.limit() else {
                return Poll::Pending;
            };
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(limit)));
            ready!(poll_until(timer.as_mut(), limit, cx));
            self.close.expire();
        }
    }

    /// Reads on, and takes note of the ends that pass by.
    #[inline]
    fn poll_fill_buf(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        if self.close.has_begun() || self.read_error.is_some() {
            return self.poll_fill_buf_at_end(cx);
        }
        let result = Pin::new(&mut self.session).poll_fill_buf(cx);
        match &result {
            Poll::Ready(Ok(data)) if !data.is_empty() => {}
            Poll::Pending => self.close.reader_waits(cx),
            end => note_end(&mut self.close, end),
        }
        result
    }

    /// The same while the connection is closing, or after it failed.
    #[cold]
    fn poll_fill_buf_at_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        if let Some(error) = self.read_error.take() {
            return Poll::Ready(Err(error));
        }
        let Self { session, close, .. } = self;
        let waker = close.reader_waker(cx);
        let shared = &mut Context::from_waker(waker.as_ref().unwrap_or(cx.waker()));
        let result = if close.closing.is_muted() {
            close.poll_fill_plaintext(session, shared).map_err(error_of)
        } else {
            let result = Pin::new(session).poll_fill_buf(shared);
            note_end(close, &result);
            result
        };
        if result.is_pending() {
            close.reader_waits(cx);
        }
        result
    }

    fn consume(&mut self, amount: usize) {
        Pin::new(&mut self.session).consume(amount);
    }

    //= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
    //# It is not possible to call SSL_write() after calling SSL_shutdown().
    /// Writes by `write`, if there may still be written.
    #[inline]
    fn poll_write_by<T>(&mut self, write: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if self.close.has_begun() {
            return Poll::Ready(Err(shut_down_for_writing()));
        }
        let result = write(Pin::new(&mut self.session));
        if let Poll::Ready(Err(error)) = &result {
            self.note_write_error(error);
        }
        result
    }

    #[cold]
    fn note_write_error(&mut self, error: &io::Error) {
        let event = session::event_of_write_error(&mut self.session, error);
        self.close.closing.on(event);
    }
}

#[cold]
fn shut_down_for_writing() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the TLS connection is shut down for writing")
}

/// Takes note of the end of reading, if tokio-rustls has met it.
fn note_end(close: &mut Close, read: &Poll<io::Result<&[u8]>>) {
    match read {
        //= https://www.rfc-editor.org/rfc/rfc8446#section-6
        //# Upon receiving such an alert, the TLS implementation SHOULD indicate
        //# end-of-data to the application.
        Poll::Ready(Ok([])) => close.on_read(Event::ZeroReturn),
        Poll::Ready(Err(error)) => close.on_read(session::event_of_read_error(error)),
        _ => {}
    }
}

/// The error of a failed read, once tokio-rustls, which would word it, is not asked any more.
fn error_of(ending: Ending) -> io::Error {
    io::Error::new(ending.error_kind(), format!("TLS read failed: {ending}"))
}

impl<S: TlsSession> AsyncBufRead for ShutdownStream<S> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        self.get_mut().connection().poll_fill_buf(cx)
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        self.get_mut().connection().consume(amount);
    }
}

impl<S: TlsSession> AsyncRead for ShutdownStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let connection = self.get_mut().connection();
        // As many records as fit, as tokio-rustls does; but not by its own `poll_read`, which keeps an error that comes after data
        // where nobody finds it again.
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
                Poll::Pending if amount > 0 => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            read = connection.poll_fill_buf(cx);
        }
    }
}

impl<S: TlsSession> AsyncWrite for ShutdownStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().connection().poll_write_by(|session| session.poll_write(cx, buffer))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().connection().poll_write_by(|session| session.poll_write_vectored(cx, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        self.session().is_write_vectored()
    }

    /// Flushes application data; once close_notify is queued, only the transport.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let connection = self.get_mut().connection();
        let result = match connection.close.closing.is_muted() {
            true => Pin::new(connection.session.parts().0).poll_flush(cx),
            false => Pin::new(&mut connection.session).poll_flush(cx),
        };
        if let Poll::Ready(Err(error)) = &result {
            connection.note_write_error(error);
        }
        result
    }

    /// Runs the stream's own policy, as [`AsyncShutdown`] does. `Err` exactly when the goal was not reached; the error can be
    /// downcast to [`ShutdownError`].
    ///
    /// # Panics
    ///
    /// When it has to wait outside a Tokio runtime with time enabled.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let connection = self.get_mut().connection();
        let policy = connection.close.policy;
        connection.close.begin(&mut connection.session, &policy);
        let ending = ready!(connection.poll_close(cx));
        connection.close.result(ending, &policy)?;
        Poll::Ready(Ok(()))
    }
}

#[cfg(unix)]
impl<S: TlsSession + AsRawFd> AsRawFd for ShutdownStream<S> {
    fn as_raw_fd(&self) -> RawFd {
        self.session().as_raw_fd()
    }
}

impl<S: TlsSession> Drop for ShutdownStream<S> {
    //= https://www.rfc-editor.org/rfc/rfc9112#section-9.8
    //# A response that has neither chunked transfer coding nor Content-Length
    //# is complete only if a valid closure alert has been received.
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        connection.close.note_tickets(&mut connection.session);
        if let Some(Adopter { reaper, adopt }) = connection.adopter.take()
            && connection.close.owes_more()
        {
            adopt(&reaper, Box::new(connection));
        }
    }
}

impl<S: TlsSession + fmt::Debug> fmt::Debug for ShutdownStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShutdownStream")
            .field("session", self.session())
            .field("policy", self.policy())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
