//! [`Stall`]: how long a client may keep one direction of its connection waiting.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::runtime::timer::from_now;

/// One direction. It costs next to nothing while that moves.
pub(super) struct Stall {
    limit: Duration,
    state: State,
    /// Made at the first wait. It may be early: then it is set anew when it is over.
    timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Moves,
    /// Since a moment, of which nobody has asked how far the client was.
    Waits {
        end: Instant,
        first_look: Instant,
    },
    /// The client was so far when somebody asked.
    Watched {
        end: Instant,
        seen: Option<u64>,
    },
    Over,
}

/// The part of the limit after which is looked how far the client is: most waits are shorter.
const FIRST_LOOK: u32 = 4;

impl Stall {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, state: State::Moves, timer: None }
    }

    pub(super) fn moved(&mut self) {
        self.state = State::Moves;
    }

    /// Whether the client has kept it waiting to the end.
    pub(super) fn waits(&self) -> bool {
        self.state != State::Moves
    }

    /// Whether the limit was reached.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Waits. Ready when `progress`, which tells how far the client is, has not changed for the limit, with the error that says so. That
    /// takes a quarter longer, or up to twice as long where something has changed before.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, progress: impl Fn() -> Option<u64>) -> Poll<io::Error> {
        if self.state == State::Moves {
            self.state = State::Waits { end: from_now(self.limit), first_look: from_now(self.limit / FIRST_LOOK) };
        }
        loop {
            let next = match self.state {
                State::Waits { first_look, .. } => first_look,
                State::Watched { end, .. } => end,
                State::Moves | State::Over => Instant::now(),
            };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(next)));
            if timer.deadline() > next {
                timer.as_mut().reset(next);
            }
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() < next {
                timer.as_mut().reset(next);
                continue;
            }
            let now = progress();
            self.state = match self.state {
                // It may have taken something just before.
                State::Waits { .. } if now.is_some() => State::Watched { end: from_now(self.limit), seen: now },
                State::Waits { end, .. } => State::Watched { end, seen: now },
                State::Watched { seen, .. } if now != seen => State::Watched { end: from_now(self.limit), seen: now },
                State::Watched { .. } | State::Moves | State::Over => State::Over,
            };
            if self.is_over() {
                let text = "the client has kept the server waiting for too long";
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, text));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, task::Waker};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn each_move_starts_the_time_anew() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut stall = Stall::new(SECOND * 3);
        for _ in 0..10 {
            assert!(stall.poll(&mut cx, || None).is_pending());
            tokio::time::advance(SECOND * 2).await;
            assert!(stall.poll(&mut cx, || None).is_pending());
            stall.moved();
        }
        assert!(stall.poll(&mut cx, || None).is_pending());
        tokio::time::advance(SECOND * 2).await;
        assert!(stall.poll(&mut cx, || None).is_pending() && !stall.is_over());
        tokio::time::advance(SECOND).await;
        let over = stall.poll(&mut cx, || None);
        assert!(matches!(over, Poll::Ready(error) if error.kind() == io::ErrorKind::TimedOut) && stall.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_something_is_waited_for() {
        let mut cx = Context::from_waker(Waker::noop());
        let taken = Cell::new(7);
        let mut stall = Stall::new(SECOND * 4);
        for _ in 0..20 {
            assert!(stall.poll(&mut cx, || Some(taken.get())).is_pending());
            tokio::time::advance(SECOND).await;
            taken.set(taken.get() + 1);
        }
        // Nothing from here on. The time counts from the last look that has found something.
        for _ in 0..4 {
            assert!(stall.poll(&mut cx, || Some(taken.get())).is_pending());
            tokio::time::advance(SECOND).await;
        }
        let mut seconds = 4;
        while stall.poll(&mut cx, || Some(taken.get())).is_pending() {
            tokio::time::advance(SECOND).await;
            seconds += 1;
        }
        assert!((4..=8).contains(&seconds), "{seconds}");
    }

    /// What it takes before the first look is nothing that anybody has seen, and counts all the same.
    #[tokio::test(start_paused = true)]
    async fn no_wait_is_shorter_than_the_limit() {
        let mut cx = Context::from_waker(Waker::noop());
        for first in [0, 1, 9, 10, 11, 38] {
            let mut stall = Stall::new(SECOND * 40);
            let mut taken = 0;
            for second in 0..400 {
                // The last second before it would be too long.
                taken += u64::from(second % 39 == first);
                assert!(stall.poll(&mut cx, || Some(taken)).is_pending(), "{first}, then {second}");
                tokio::time::advance(SECOND).await;
            }
        }
    }
}
