//! [`AsyncShutdown`]: the shutdown as a future.

use std::{
    borrow::BorrowMut,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use crate::{
    runtime::timer::Timer,
    tls::{
        driver::Extent,
        policy::ShutdownPolicy,
        report::{ShutdownError, ShutdownReport},
        session::TlsSession,
        stream::ShutdownStream,
    },
};

pin_project! {
    /// Closes a TLS connection: the answer to `SSL_shutdown(3)`.
    ///
    /// The future writes application data and close_notify, then FIN, then reads until the peer's close_notify, as far as the
    /// [policy](ShutdownPolicy) demands. It does not wait for the end of TCP: a peer that answers and keeps TCP open costs one round
    /// trip.
    ///
    /// [`ShutdownStream::shutdown_with`] returns one that borrows the stream. [`AsyncShutdown::new`] returns one that owns the
    /// stream, uses the stream's own policy, and can be spawned. The stream is dropped with the future.
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
    /// The future returns `Ok` exactly if the policy's goal was reached. Otherwise the [`ShutdownError`] states the reason and contains
    /// the report. After a fatal alert of either side, a transport error or a truncation, the future sends nothing and returns an error
    /// ([`Ending::Refused`](crate::Ending::Refused) after an alert).
    ///
    /// # Panics
    ///
    /// If it has to wait outside of a Tokio runtime with time enabled.
    ///
    /// # Cancel safety
    ///
    /// The stream contains all state, the end of each timeout included. You can drop the future at any point and create another one:
    /// it continues, sends nothing twice and restarts no timeout.
    ///
    /// A later shutdown can ask for more than an earlier one: bidirectional after unidirectional, or any that sends close_notify at once
    /// after [receive-first](ShutdownPolicy::receive_first). The connection then has to reach what both ask for, and sends as early as
    /// either asks. The later policy and a new close timeout apply. They also apply after
    /// [`Ending::PeerData`](crate::Ending::PeerData) and after a failed write. A later shutdown that asks for less returns the outcome of
    /// the earlier one.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct AsyncShutdown<S: TlsSession, T: BorrowMut<ShutdownStream<S>> = ShutdownStream<S>> {
        stream: T,
        policy: ShutdownPolicy,
        state: FutureState,
        #[pin]
        timer: Timer,
        session: PhantomData<fn() -> S>,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum FutureState {
    Unpolled,
    Polled,
    Finished,
}

impl<S: TlsSession> AsyncShutdown<S> {
    /// Takes the stream and closes it by its [own policy](ShutdownStream::policy).
    ///
    /// The shutdown begins at the first poll. Dropping the future before that aborts the connection.
    pub fn new(stream: ShutdownStream<S>) -> Self {
        let policy = *stream.policy();
        Self::by(stream, policy)
    }
}

impl<S: TlsSession, T: BorrowMut<ShutdownStream<S>>> AsyncShutdown<S, T> {
    fn by(stream: T, policy: ShutdownPolicy) -> Self {
        Self { stream, policy, state: FutureState::Unpolled, timer: Timer::default(), session: PhantomData }
    }
}

impl<S: TlsSession> ShutdownStream<S> {
    /// Closes the connection by `policy`, and returns the report. See [`AsyncShutdown`] for the rest.
    ///
    /// # Cancel safety
    ///
    /// You can drop the future and call this again, see [`AsyncShutdown`].
    pub fn shutdown_with(&mut self, policy: ShutdownPolicy) -> AsyncShutdown<S, &mut Self> {
        AsyncShutdown::by(self, policy)
    }
}

impl<S: TlsSession, T: BorrowMut<ShutdownStream<S>>> Future for AsyncShutdown<S, T> {
    type Output = Result<ShutdownReport, ShutdownError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let (session, driver) = this.stream.borrow_mut().parts_mut();
        if *this.state == FutureState::Unpolled {
            driver.begin(session, this.policy, Extent::Connection);
            *this.state = FutureState::Polled;
        }
        let timer = &mut this.timer;
        let ending = ready!(driver.poll_to_end(session, cx, |end, cx| timer.as_mut().poll_until(end, cx)));
        *this.state = FutureState::Finished;
        Poll::Ready(driver.result(ending, this.policy))
    }
}

impl<S: TlsSession, T: BorrowMut<ShutdownStream<S>>> futures_core::FusedFuture for AsyncShutdown<S, T> {
    fn is_terminated(&self) -> bool {
        self.state == FutureState::Finished
    }
}
