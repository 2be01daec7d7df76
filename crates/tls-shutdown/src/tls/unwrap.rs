//! [`ShutdownStream::into_plaintext`]: takes TLS off, and keeps the TCP connection.

use std::{error, fmt, future::poll_fn, io};

use crate::tls::{
    plaintext::Plaintext,
    policy::{Abort, Unwrap},
    records::Records,
    report::{Ending, ShutdownError},
    session::TlsSession,
    stream::ShutdownStream,
};

impl<S, T> ShutdownStream<S>
where
    S: TlsSession<Transport = Records<T>>,
{
    /// Takes TLS off the connection. Sends and receives close_notify in the order of `unwrap`, sends no FIN, and returns the transport
    /// with every byte that came behind the peer's close_notify.
    ///
    /// The policy's [stall timeout](crate::ShutdownPolicy::with_stall_timeout) and
    /// [close timeout](crate::ShutdownPolicy::with_close_timeout) apply. `on_end` is called when TLS is off.
    ///
    /// # Errors
    ///
    /// The error contains the stream. Unless the ending is [`Ending::PeerData`], the TLS connection has ended, and the stream can only be
    /// dropped or taken apart:
    ///
    /// - [`Ending::PeerData`]: the peer has sent application data, which is not discarded. Read it, and call this again.
    /// - [`Ending::NotTls`]: the peer continues in plaintext without close_notify, which this or an earlier read has met.
    ///   [`UnwrapError::into_plaintext`] returns what it sent.
    /// - [`Ending::Refused`]: an earlier shutdown has sent FIN, or the connection had failed before.
    /// - [`Ending::Truncated`], [`Ending::TimedOut`] and the others: see [`AsyncShutdown`](crate::AsyncShutdown).
    ///
    /// # Panics
    ///
    /// If it has to wait outside of a Tokio runtime with time enabled.
    ///
    /// # Cancel safety
    ///
    /// The future owns the stream: dropping it drops the connection. A reaper finishes the shutdown only if our close_notify was sent.
    ///
    /// # Examples
    ///
    /// The method exists only over [`Records`]:
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
        let ending = poll_fn(|cx| {
            let connection = self.connection_mut();
            // Unread application data is an error then.
            let policy = connection.driver.policy.to_unwrap();
            connection.driver.begin_goal(&mut connection.session, unwrap.goal(), policy);
            connection.poll_close(cx)
        })
        .await;
        let (session, driver) = self.parts_mut();
        let ending = match ending {
            Ending::Complete | Ending::Sent if !driver.state.goal.keeps_transport() => Ending::Refused,
            // The application's own read has met the plaintext, and has left it in `Records`.
            Ending::Refused if driver.ending() == Ending::NotTls => Ending::NotTls,
            ending => ending,
        };
        if ending == Ending::Complete {
            // The abort mode was for TLS, and ends with it.
            driver.set_abort_mode(Abort::Fin, session);
            return Ok(Plaintext::without_tls(self.into_inner().into_transport()));
        }
        Err(UnwrapError { error: driver.error(ending), stream: self })
    }
}

/// TLS could not be taken off. The error contains the stream.
///
/// It converts to an [`io::Error`] if only the error matters. The conversion drops the connection.
#[derive(Debug)]
pub struct UnwrapError<S: TlsSession> {
    error: ShutdownError,
    stream: ShutdownStream<S>,
}

impl<S: TlsSession> UnwrapError<S> {
    /// The reason.
    pub fn error(&self) -> &ShutdownError {
        &self.error
    }

    /// Returns the stream.
    pub fn into_stream(self) -> ShutdownStream<S> {
        self.stream
    }
}

impl<S, T> UnwrapError<S>
where
    S: TlsSession<Transport = Records<T>>,
{
    /// Returns the connection in plaintext after [`Ending::NotTls`]: the peer has continued in plaintext without close_notify. Reads
    /// return its bytes from the first one on.
    ///
    /// Nothing authenticates that the TLS data before was complete. Continue only in a protocol whose last message under TLS proves it.
    ///
    /// # Errors
    ///
    /// Returns itself after every other ending: the end of TLS is then unknown.
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
            Ending::NotTls => Ok(Plaintext::without_tls(self.stream.into_inner().into_transport())),
            _ => Err(self),
        }
    }
}

impl<S: TlsSession> fmt::Display for UnwrapError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<S: TlsSession + fmt::Debug> error::Error for UnwrapError<S> {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.error.source()
    }
}

impl<S: TlsSession> From<UnwrapError<S>> for io::Error {
    fn from(error: UnwrapError<S>) -> Self {
        error.error.into()
    }
}
