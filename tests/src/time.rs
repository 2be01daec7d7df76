//! How long tests wait, and how they let time pass.

use std::time::Duration;

use tokio::{
    task::yield_now,
    time::{advance, pause, resume, sleep, timeout},
};

/// No test waits longer than this for an event.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Awaits `future` for at most [`PATIENCE`].
pub async fn soon<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("the event comes within `PATIENCE`")
}

/// Lets every task that is ready run, `count` times, and reads from the sockets in between.
pub async fn turns(count: usize) {
    for _ in 0..count {
        yield_now().await;
    }
}

/// Moves tokio's clock forward in small steps, and lets all tasks run after each. To wait for what must not happen, and for a peer that
/// is slow: every timer that is due within `time` fires in its order, and it takes hardly any real time.
///
/// The runtime must have one thread, and the clock must not be paused.
pub async fn pass_time(time: Duration) {
    const STEP: Duration = Duration::from_millis(5);
    pause();
    let mut left = time;
    while !left.is_zero() {
        let step = left.min(STEP);
        advance(step).await;
        turns(20).await;
        left -= step;
    }
    resume();
}

/// Moves tokio's clock forward at once. No task runs in between, so that all of them find everything that has happened together.
///
/// The runtime must have one thread, and the clock must not be paused.
pub async fn leap(time: Duration) {
    pause();
    advance(time).await;
    resume();
}

/// Nothing happens for this long: every task runs until it waits, then the clock moves forward at once, then the tasks see that.
///
/// The runtime must have one thread, and the clock must not be paused.
pub async fn rest(time: Duration) {
    turns(50).await;
    leap(time).await;
    turns(50).await;
}

/// Waits by the real clock. Only for what nothing reports: each use states why.
pub async fn real_time(time: Duration) {
    sleep(time).await;
}
