//! [`Stall`]: how long a client may keep one direction of its connection waiting.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::driver::from_now;

/// One direction. It costs nothing while that moves.
pub(super) struct Stall {
    limit: Duration,
    state: State,
    /// Made at the first wait. It may be behind: then it is set anew when it is over.
    timer: Option<Pin<Box<Sleep>>>,
}

#[derive(PartialEq, Eq)]
enum State {
    Moves,
    WaitsUntil(Instant),
    Over,
}

impl Stall {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, state: State::Moves, timer: None }
    }

    pub(super) fn moved(&mut self) {
        self.state = State::Moves;
    }

    /// Whether the limit was reached.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Waits. Ready at the limit, with the error that says so.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let end = match self.state {
            State::WaitsUntil(end) => end,
            State::Moves => from_now(self.limit),
            State::Over => Instant::now(),
        };
        self.state = State::WaitsUntil(end);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= end {
                self.state = State::Over;
                return Poll::Ready(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the client has kept the server waiting for too long",
                ));
            }
            timer.as_mut().reset(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_move_starts_the_time_anew() {
        let mut cx = Context::from_waker(Waker::noop());
        let second = Duration::from_secs(1);
        let mut stall = Stall::new(second * 3);
        for _ in 0..10 {
            assert!(stall.poll(&mut cx).is_pending());
            tokio::time::advance(second * 2).await;
            assert!(stall.poll(&mut cx).is_pending());
            stall.moved();
        }
        assert!(stall.poll(&mut cx).is_pending());
        tokio::time::advance(second * 3).await;
        assert!(matches!(stall.poll(&mut cx), Poll::Ready(error) if error.kind() == io::ErrorKind::TimedOut));
    }
}
