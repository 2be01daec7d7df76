//! [`ConnectionLifetime`]: when an HTTP connection has to end; and the waits for that, during which the connection goes on.

use std::{
    future::{Future, pending, poll_fn},
    ops::ControlFlow,
    pin::Pin,
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};

use super::drain::{DrainHandle, DrainPhase};

/// [`Server::HEADER_TIMEOUT`](super::Server::HEADER_TIMEOUT).
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// [`Server::AGE_JITTER`](super::Server::AGE_JITTER).
pub(super) const AGE_JITTER: f64 = 0.1;

/// Breaks if the connection has ended by itself.
pub(super) type Flow = ControlFlow<hyper::Result<()>>;

/// When a connection has to end: at its age, or with the server drain.
pub(super) struct ConnectionLifetime {
    began: Instant,
    max_age: Option<Duration>,
    drain: DrainHandle,
}

impl ConnectionLifetime {
    pub(super) fn new(max_age: Option<Duration>, drain: DrainHandle) -> Self {
        Self { began: Instant::now(), max_age: max_age.map(with_jitter), drain }
    }

    /// Waits until the client has had its time to send the preface of HTTP/2.
    pub(super) async fn until_preface_timeout(&self) {
        sleep_until(self.began + HEADER_TIMEOUT).await;
    }

    /// Waits until the connection may have only one more request.
    pub(super) async fn until_last_request(&self) {
        let age = async {
            match self.max_age {
                Some(age) => sleep(age).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = age => {}
            () = self.drain.reached(DrainPhase::LastRequest) => {}
        }
    }

    /// Waits until the window for that request is over.
    pub(super) async fn until_window_over(&self) {
        let timing = *self.drain.timing();
        self.until_passed(timing.last_request.saturating_add(at_random(timing.jitter))).await;
    }

    /// Waits for a random time, so that not all connections end at once.
    pub(super) async fn until_jitter_over(&self) {
        let timing = *self.drain.timing();
        self.until_passed(at_random(timing.jitter)).await;
    }

    /// Waits until a client has had its time to answer a PING.
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

    /// Waits for `phase` until the deadline, at which the connection is at its end.
    pub(super) async fn within_deadline(&self, phase: impl Future<Output = Flow>) -> Flow {
        tokio::select! {
            biased;
            flow = phase => flow,
            () = self.drain.reached(DrainPhase::Deadline) => Flow::Break(Ok(())),
        }
    }
}

/// Drives `connection` until `event`.
pub(super) async fn until<C: Future<Output = hyper::Result<()>>>(
    connection: Pin<&mut C>,
    event: impl Future<Output = ()>,
) -> Flow {
    tokio::select! {
        biased;
        () = event => Flow::Continue(()),
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
    use super::*;

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
