//! [`ConnectionLifetime`]: when an HTTP connection has to end; and the waits for that, during which the connection goes on.

use std::{
    future::{Future, pending, poll_fn},
    ops::ControlFlow,
    pin::Pin,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::SetOnce,
    task::coop::unconstrained,
    time::{Instant, sleep, sleep_until},
};

use super::{
    drain::{DrainHandle, DrainPhase},
    endless::kind::LeftToApplication,
    retirement::ConfigOfConnection,
};
use crate::runtime::{timer::from_now, when_woken::WhenWoken};

/// The shortest time between two looks at a client, also if a timeout is zero: it must not become a busy loop.
const MIN_LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// A client that is idle for less than this may be about to send its next request.
const MIN_IDLE_TIME: Duration = Duration::from_secs(1);
/// [`Server::AGE_JITTER`](super::Server::AGE_JITTER).
pub(super) const AGE_JITTER: f64 = 0.1;

/// Breaks if the connection has ended by itself.
pub(super) type Flow<T = ()> = ControlFlow<hyper::Result<()>, T>;

/// For how long connections live.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_age: Option<Duration>,
    pub(super) max_requests: Option<u64>,
    pub(super) header_timeout: Duration,
    pub(super) idle_timeout: Duration,
}

impl Limits {
    pub(super) const NONE: Self =
        Self { max_age: None, max_requests: None, header_timeout: Duration::MAX, idle_timeout: Duration::MAX };
}

/// What a connection without a request in flight waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientWait {
    /// Nothing: a request is in flight.
    None,
    /// The next request.
    Request { since: Instant },
    /// The rest of a head.
    Head { since: Instant },
}

/// When a connection has to end: when its client has let it wait for too long, at its age, when its TLS configuration is retired, when it is
/// told to, or with the server drain.
#[derive(Debug)]
pub(super) struct ConnectionLifetime {
    began: Instant,
    limits: Limits,
    drain: DrainHandle,
    /// `None` without TLS.
    config: Option<ConfigOfConnection>,
    /// Set once the connection was told to end.
    closing: SetOnce<()>,
    /// When the window of a client that negotiated HTTP/2 and has sent nothing began.
    first_window: OnceLock<Instant>,
    pub(super) left_to_application: LeftToApplication,
    had_grpc_call: AtomicBool,
}

impl ConnectionLifetime {
    pub(super) fn new(limits: Limits, drain: DrainHandle, config: Option<ConfigOfConnection>) -> Self {
        let max_age = limits.max_age.map(with_jitter);
        Self {
            began: Instant::now(),
            limits: Limits { max_age, ..limits },
            drain,
            config,
            closing: SetOnce::new(),
            first_window: OnceLock::new(),
            left_to_application: LeftToApplication::default(),
            had_grpc_call: AtomicBool::new(false),
        }
    }

    /// Of connections of which nothing else is known.
    pub(super) fn of_drain(drain: DrainHandle) -> Self {
        Self::new(Limits::NONE, drain, None)
    }

    /// Leaves some kinds of endless responses to the application.
    pub(super) fn leaving(self, left_to_application: LeftToApplication) -> Self {
        Self { left_to_application, ..self }
    }

    /// Waits until the client's time to send a request, or the rest of a head, is over. Returns what it has not sent.
    async fn until_client_timeout(&self, wait: impl Fn() -> ClientWait) -> ClientWait {
        loop {
            let Limits { header_timeout, idle_timeout, .. } = self.limits;
            let (now, wait) = (Instant::now(), wait());
            let end = match wait {
                ClientWait::None => None,
                ClientWait::Request { since } => since.checked_add(idle_timeout),
                ClientWait::Head { since } => since.checked_add(header_timeout),
            };
            if end.is_some_and(|end| end <= now) {
                return wait;
            }
            // Nobody tells when a wait begins. If it does right after this look, the next look still comes in time.
            let next_look = from_now(header_timeout.min(idle_timeout).max(MIN_LOOK_INTERVAL));
            sleep_until(end.map_or(next_look, |end| end.min(next_look))).await;
        }
    }

    /// Waits until the client's time to send the rest of a head is over.
    pub(super) async fn until_head_timeout(&self, wait: impl Fn() -> ClientWait) {
        let head = || match wait() {
            ClientWait::Request { .. } => ClientWait::None,
            wait => wait,
        };
        self.until_client_timeout(head).await;
    }

    pub(super) fn drain(&self) -> &DrainHandle {
        &self.drain
    }

    /// A gRPC call has begun.
    pub(super) fn note_grpc_call(&self) {
        self.had_grpc_call.store(true, Ordering::Relaxed);
    }

    pub(super) fn had_grpc_call(&self) -> bool {
        self.had_grpc_call.load(Ordering::Relaxed)
    }

    /// Ends the connection after the requests in progress.
    pub(super) fn close(&self) {
        // It may have been told before.
        let _ = self.closing.set(());
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.initialized()
    }

    /// The service is given a request of this number, from 1 on.
    pub(super) fn on_request(&self, number: u64) {
        if self.limits.max_requests.is_some_and(|max| number >= max) {
            self.close();
        }
    }

    /// What a client of HTTP/2 is waited for until its preface is complete. The time counts from the beginning of the connection.
    pub(super) fn preface_wait(&self) -> ClientWait {
        ClientWait::Head { since: self.began }
    }

    /// Waits until the connection has to end. Returns what the client has not sent in time, if that is the reason.
    pub(super) async fn until_end(&self, wait: impl Fn() -> ClientWait) -> ClientWait {
        let is_idle = || matches!(wait(), ClientWait::Request { since } if since.elapsed() >= MIN_IDLE_TIME);
        tokio::select! {
            () = self.until_last_request() => ClientWait::None,
            wait = self.until_client_timeout(&wait) => wait,
            () = self.drain.scarcity().until_asked(is_idle) => wait(),
        }
    }

    /// Waits until the connection may have only one more request.
    pub(super) async fn until_last_request(&self) {
        let age = async {
            match self.limits.max_age {
                // Boxed, because most connections have none.
                Some(age) => Box::pin(sleep(age.saturating_sub(self.began.elapsed()))).await,
                None => pending().await,
            }
        };
        let retired = async {
            match &self.config {
                Some(config) => config.until_retired().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = age => {}
            () = retired => {}
            &() = self.closing.wait() => {}
            () = self.drain.reached(DrainPhase::LastRequest) => {}
        }
    }

    /// Waits until the window for that request is over, which has begun at `began`.
    pub(super) async fn until_window_over(&self, began: Instant) {
        let timing = *self.drain.timing();
        let window = timing.last_request.saturating_add(at_random(timing.jitter));
        self.until_passed(window.saturating_sub(began.elapsed())).await;
    }

    /// The same for a client that has not begun to speak. Its window begins at the first call.
    pub(super) async fn until_first_window_over(&self) {
        self.until_window_over(*self.first_window.get_or_init(Instant::now)).await;
    }

    /// Waits for a random time, so that not all connections end at once.
    pub(super) async fn until_jitter_over(&self) {
        let timing = *self.drain.timing();
        self.until_passed(at_random(timing.jitter)).await;
    }

    /// Waits until the client's time to answer a PING is over.
    pub(super) async fn until_ping_timeout(&self) {
        let timing = *self.drain.timing();
        self.until_passed(timing.ping_timeout).await;
    }

    async fn until_passed(&self, time: Duration) {
        if !time.is_zero() {
            tokio::select! {
                () = sleep(time) => {}
                () = self.drain.reached(DrainPhase::Deadline) => {}
            }
        }
    }

    /// Waits until what is in progress is cut. A connection that has used up what its task may do at once does not postpone it.
    pub(super) async fn until_deadline(&self) {
        unconstrained(self.drain.reached(DrainPhase::Deadline)).await;
    }

    /// Waits for `phase` until the deadline, at which the connection is at its end.
    pub(super) async fn within_deadline(&self, phase: impl Future<Output = Flow>) -> Flow {
        tokio::select! {
            biased;
            flow = phase => flow,
            () = self.until_deadline() => Flow::Break(Ok(())),
        }
    }
}

/// Drives `connection` until `event`, which wakes the task when it comes. Borrows it, because an async function has room for an argument and
/// for where it moves that, as long as it runs.
pub(super) async fn until<C: Future<Output = hyper::Result<()>>, T>(
    connection: Pin<&mut C>,
    event: Pin<&mut impl Future<Output = T>>,
) -> Flow<T> {
    tokio::select! {
        biased;
        event = WhenWoken::new(event) => Flow::Continue(event),
        result = connection => Flow::Break(result),
    }
}

/// Drives `connection` until it has to wait while `is_enough`.
pub(super) async fn until_pending<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    is_enough: impl Fn() -> bool,
) -> Flow {
    poll_fn(|cx| match connection.as_mut().poll(cx) {
        Poll::Pending if is_enough() => Poll::Ready(Flow::Continue(())),
        poll => poll.map(Flow::Break),
    })
    .await
}

fn with_jitter(age: Duration) -> Duration {
    scaled(age, 1.0 + AGE_JITTER * (2.0 * fastrand::f64() - 1.0))
}

fn at_random(time: Duration) -> Duration {
    scaled(time, fastrand::f64())
}

/// A time that is too long for a `Duration` is its maximum.
fn scaled(time: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(time.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::ready};

    use tokio::{task::coop, time::timeout};

    use super::*;
    use crate::server::drain::ServerDrain;

    /// Without an interval, the loop never waits, and its task takes all of a processor.
    #[tokio::test(start_paused = true)]
    async fn a_timeout_of_zero_is_no_busy_loop() {
        let zero = Limits { header_timeout: Duration::ZERO, idle_timeout: Duration::ZERO, ..Limits::NONE };
        let lifetime = ConnectionLifetime::new(zero, ServerDrain::on(pending()).handle(), None);
        let looks = Cell::new(0);
        let busy = || {
            looks.set(looks.get() + 1);
            assert!(looks.get() < 1000, "it never waits");
            ClientWait::None
        };
        assert!(timeout(Duration::from_secs(1), lifetime.until_end(busy)).await.is_err());
        let idle = ClientWait::Request { since: Instant::now() };
        assert_eq!(lifetime.until_end(|| idle).await, idle);
    }

    /// A client that reads an endless response quickly uses up the budget of each poll.
    #[tokio::test(start_paused = true)]
    async fn the_deadline_comes_in_a_task_without_budget() {
        let drain = ServerDrain::on(ready(())).grace_period(Duration::ZERO).ack_timeout(Duration::ZERO);
        let lifetime = ConnectionLifetime::new(Limits::NONE, drain.handle(), None);
        drain.run(pending::<()>()).await;
        let mut polls = 0;
        let busy = poll_fn(|cx| {
            polls += 1;
            assert!(polls < 1000, "it never ends");
            while let Poll::Ready(budget) = coop::poll_proceed(cx) {
                budget.made_progress();
            }
            Poll::Pending
        });
        assert!(lifetime.within_deadline(busy).await.is_break());
    }

    #[test]
    fn limits_that_never_come_are_no_overflow() {
        for limit in [Duration::ZERO, Duration::from_secs(10), Duration::MAX] {
            for _ in 0..100 {
                assert!(at_random(limit) <= limit);
                let age = with_jitter(limit);
                assert!(age <= scaled(limit, 1.0 + AGE_JITTER) && age >= scaled(limit, 1.0 - AGE_JITTER));
            }
        }
    }
}
