//! [`AsyncShutdown`]: the future over the driver.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::Sleep;

use crate::{
    tls::driver::poll_until,
    tls::policy::ShutdownPolicy,
    tls::report::{ShutdownError, ShutdownReport},
    tls::session::TlsSession,
    tls::stream::ShutdownStream,
};

pin_project! {
    /// Closes a TLS connection: the answer to `SSL_shutdown(3)`.
    ///
    /// It first polls application data and close_notify out, then FIN, then reads on to the peer's close_notify, as far as the
    /// [policy](ShutdownPolicy) asks for that. It does not wait for TCP: a peer that answers and keeps TCP open is done with
    /// after one round trip.
    ///
    /// [`ShutdownStream::shutdown_with`] makes one that borrows the stream. [`AsyncShutdown::new`] makes one that owns it, uses
    /// the stream's own policy, and can be spawned; the stream is dropped with the future.
    ///
    /// ```
    /// # use tls_shutdown::{ShutdownPolicy, ShutdownStream};
    /// # async fn close(
    /// #     mut stream: ShutdownStream<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>,
    /// # ) {
    /// match stream.shutdown_with(ShutdownPolicy::bidirectional()).await {
    ///     Ok(report) => println!("closed: {report}"),
    ///     Err(error) => eprintln!("{error}"),
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// `Ok` exactly when the policy's goal was reached; [`ShutdownError`] tells what went wrong, and carries the report. Nothing
    /// is sent, and the shutdown is refused, after a fatal alert of either side ([`Ending::Refused`]), after a transport error,
    /// and after a truncation.
    ///
    /// # Panics
    ///
    /// When it has to wait outside a Tokio runtime with time enabled.
    ///
    /// # Cancel safety
    ///
    /// The state lives in the stream, the deadline's instant included. Dropping the future at any point and making it again
    /// continues: nothing is sent twice and no clock starts again. A later shutdown can only ask for more than an earlier one,
    /// from unidirectional to bidirectional; only then, and where the peer's data was in the way ([`Ending::PeerData`], or a failed
    /// write), do its policy and a new deadline count. One that asks for less gets the outcome of what was asked before.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct AsyncShutdown<T> {
        target: T,
        policy: ShutdownPolicy,
        state: FutureState,
        #[pin]
        sleep: Option<Sleep>,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum FutureState {
    Unpolled,
    Polled,
    Finished,
}

/// What an [`AsyncShutdown`] can close: a [`ShutdownStream`], owned or by `&mut`.
pub trait ShutdownTarget: sealed::Sealed {
    /// The TLS stream in it.
    type Session: TlsSession;

    #[doc(hidden)]
    fn stream(&mut self) -> &mut ShutdownStream<Self::Session>;
}

mod sealed {
    pub trait Sealed {}
    impl<S: crate::TlsSession> Sealed for crate::ShutdownStream<S> {}
    impl<S: crate::TlsSession> Sealed for &mut crate::ShutdownStream<S> {}
}

impl<S: TlsSession> ShutdownTarget for ShutdownStream<S> {
    type Session = S;

    fn stream(&mut self) -> &mut Self {
        self
    }
}

impl<S: TlsSession> ShutdownTarget for &mut ShutdownStream<S> {
    type Session = S;

    fn stream(&mut self) -> &mut ShutdownStream<S> {
        self
    }
}

impl<S: TlsSession> AsyncShutdown<ShutdownStream<S>> {
    /// Takes the stream and closes it by its [own policy](ShutdownStream::policy).
    ///
    /// The shutdown is asked for at the first poll: a future that is dropped before that aborts the connection.
    pub fn new(stream: ShutdownStream<S>) -> Self {
        let policy = *stream.policy();
        Self::with_policy(stream, policy)
    }
}

impl<T: ShutdownTarget> AsyncShutdown<T> {
    pub(crate) fn with_policy(target: T, policy: ShutdownPolicy) -> Self {
        Self { target, policy, state: FutureState::Unpolled, sleep: None }
    }
}

impl<T: ShutdownTarget> Future for AsyncShutdown<T> {
    type Output = Result<ShutdownReport, ShutdownError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let (session, close) = this.target.stream().parts();
        if *this.state == FutureState::Unpolled {
            close.begin(session, this.policy);
            *this.state = FutureState::Polled;
        }
        loop {
            if let Poll::Ready(ending) = close.poll(session, cx) {
                *this.state = FutureState::Finished;
                return Poll::Ready(close.result(ending, this.policy));
            }
            let Some(limit) = close.limit() else {
                return Poll::Pending;
            };
            if this.sleep.is_none() {
                this.sleep.set(Some(tokio::time::sleep_until(limit)));
            }
            if let Some(sleep) = this.sleep.as_mut().as_pin_mut() {
                ready!(poll_until(sleep, limit, cx));
            }
            close.expire();
        }
    }
}

impl<T: ShutdownTarget> futures_core::FusedFuture for AsyncShutdown<T> {
    fn is_terminated(&self) -> bool {
        self.state == FutureState::Finished
    }
}
