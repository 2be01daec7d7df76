//! [`ServerDrain`]: how a server ends, from the signal to the exit, within one grace period.

mod acknowledgement;
mod budget;
mod guard;
mod handle;
mod layer;
mod listener;
mod notice;
mod phase;
mod progress;
mod readiness;
mod report;
mod scarcity;
mod signals;

pub use acknowledgement::Acknowledgement;
pub use guard::DrainGuard;
pub use handle::DrainHandle;
pub(crate) use handle::InFlight;
pub use layer::{DrainLayer, DrainResponse, DrainService};
pub(crate) use listener::{Delivery, ListenerInDrain, ListenerUser};
pub use notice::Notice;
pub use phase::DrainPhase;
pub(crate) use readiness::FirstRequest;
pub use readiness::Readiness;
pub use report::DrainReport;

use std::{
    future::{Future, pending, poll_fn},
    io,
    pin::Pin,
    task::{Poll, ready},
    time::Duration,
};

use tokio::{
    task::coop::unconstrained,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use crate::{
    runtime::{debug::debug_struct, timer::from_now},
    tls::Reaper,
};
use acknowledgement::wait_acknowledged;
use budget::Budget;

type Signal = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How long the runtime may take to drop tasks that were aborted.
const ABORT_TIMEOUT: Duration = Duration::from_millis(100);

/// Drains a server: what starts the drain, and how long each phase may take.
///
/// The [grace period](Self::grace_period) is the time from the signal to the exit. It contains, in this order:
///
/// 1. **[Notice](Self::notice)**: [readiness](DrainHandle::is_ready) fails, so that a balancer can notice. Everything else still works.
///    Responses do not carry `Connection: close` yet, because the balancer would then connect again, to this server.
/// 2. **Stop**: the server accepts what the system has already accepted, and closes the listening socket.
/// 3. **[Last request](Self::last_request)**: requests in progress are served, and each connection may have one more. HTTP/1 responses carry
///    `Connection: close`, and HTTP/2 clients receive GOAWAY. Event streams and WebSockets
///    [end](crate::server::EndlessResponse). Other endless responses and upgraded connections can [wait for this
///    phase](DrainHandle::reached).
/// 4. **Deadline**: open gRPC calls end with `UNAVAILABLE`, and other incomplete messages are cut. All other connections
///    receive close_notify. [`force_on`](Self::force_on) starts this phase early.
/// 5. **Exit**: the server waits until the peers' systems have [acknowledged](Self::ack_timeout) what it sent (RFC 9112 section 9.6).
///
/// The drain ends as soon as nothing is left to do. A client of a [`Server`](crate::server::Server) that was idle, and whose system has
/// acknowledged everything, has half a second to answer close_notify.
///
/// Give it to [`Server::drain`](crate::server::Server::drain). For other servers over a [`TlsListener`](crate::server::TlsListener), such as
/// `axum::serve`, tonic or your own accept loop, use [`run`](Self::run).
///
/// ```
/// use std::time::Duration;
/// use tls_shutdown::server::ServerDrain;
///
/// # async fn example(stopped: impl Future<Output = ()> + Send + 'static) {
/// let drain = ServerDrain::on(stopped)
///     .notice(Duration::from_secs(10))
///     .grace_period(Duration::from_secs(60));
/// # }
/// ```
#[must_use]
pub struct ServerDrain {
    signal: Signal,
    force: Signal,
    /// `None`: as long as the balancer needs.
    notice: Option<Duration>,
    grace_period: Duration,
    ack_timeout: Duration,
    handle: DrainHandle,
}

/// Why the wait for requests in progress ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DrainOutcome {
    Finished,
    OutOfTime,
    Forced,
}

impl ServerDrain {
    /// The part of the [grace period](Self::grace_period) that is kept for what follows the deadline. It is a tenth of a grace period below
    /// ten seconds.
    pub const RESERVE: Duration = Duration::from_secs(1);
    /// The longest [notice](Self::notice) that is not fixed. If 40 % of the grace period is less, that is the longest.
    pub const MAX_NOTICE: Duration = Duration::from_secs(10);
    /// Default [time for a last request](Self::last_request).
    pub const LAST_REQUEST: Duration = Duration::from_secs(5);
    /// Default [grace period](Self::grace_period): below the 30 s of Kubernetes' `terminationGracePeriodSeconds`.
    pub const GRACE_PERIOD: Duration = Duration::from_secs(25);
    /// Default [jitter](Self::jitter): none.
    pub const JITTER: Duration = Duration::ZERO;
    /// Default [PING timeout](Self::ping_timeout).
    pub const PING_TIMEOUT: Duration = Duration::from_secs(2);
    /// Default [acknowledgement timeout](Self::ack_timeout).
    pub const ACK_TIMEOUT: Duration = Duration::from_secs(5);

    /// Creates a drain that begins when `signal` resolves. It installs no signal handler;
    /// [`on_terminate_signal`](Self::on_terminate_signal) does.
    pub fn on(signal: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            signal: once(signal),
            force: Box::pin(pending()),
            notice: None,
            grace_period: Self::GRACE_PERIOD,
            ack_timeout: Self::ACK_TIMEOUT,
            handle: DrainHandle::new(),
        }
    }

    /// Creates a drain that begins at SIGTERM or SIGINT (Ctrl-C). A second signal [forces](Self::force_on) its end, also if the drain was
    /// [started](DrainHandle::start) before the first. Systems without SIGTERM have Ctrl-C alone.
    ///
    /// # Errors
    ///
    /// The signal handlers cannot be installed.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with signals enabled.
    pub fn on_terminate_signal() -> io::Result<Self> {
        let (signal, force) = signals::terminate_twice()?;
        Ok(Self { signal, force, ..Self::on(pending()) })
    }

    /// Cuts everything in progress when `signal` resolves, without waiting for the deadline. The drain then ends within the
    /// [reserve](Self::RESERVE). If `signal` resolves later, it ends the wait for acknowledgements. It is polled only after the drain has
    /// begun.
    pub fn force_on(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.force = once(signal);
        self
    }

    /// Fixes how long the server continues without being ready. Choose a time after which no balancer sends new connections. It is a part of
    /// the [grace period](Self::grace_period). A notice above the [longest](Self::longest_notice) is shortened to it. The server logs that
    /// when it starts, and [`DrainReport::notice`] returns [`Notice::Shortened`].
    ///
    /// Default: as long as the balancer needs. If somebody has asked for [readiness](DrainHandle::readiness) within the last minute, the
    /// notice lasts until two probes in a row were answered "not ready", and nobody but probes has connected for a second. It lasts for
    /// [`MAX_NOTICE`](Self::MAX_NOTICE) at most, or for 40 % of a short grace period. If nobody has asked, there is no notice. Set a fixed
    /// one if your balancer looks at something else, or if several balancers with very different intervals look.
    pub fn notice(mut self, notice: Duration) -> Self {
        self.notice = Some(notice);
        self
    }

    /// The longest fixed [notice](Self::notice) for which the [grace period](Self::grace_period) has room: the grace period without the
    /// [reserve](Self::RESERVE) and the [time for a last request](Self::last_request), but at least half of what the reserve leaves.
    ///
    /// ```
    /// # use std::{future::pending, time::Duration};
    /// # use tls_shutdown::server::ServerDrain;
    /// let drain = ServerDrain::on(pending()).grace_period(Duration::from_secs(30));
    /// assert_eq!(drain.longest_notice(), Duration::from_secs(24));
    /// ```
    pub fn longest_notice(&self) -> Duration {
        Budget::longest_notice(self.grace_period, self.handle.timing().last_request)
    }

    /// How long an idle connection may still send a request after the server has stopped accepting. If this is the longest round trip to a
    /// client or more, no client loses the request that it is sending. The deadline ends it. Default: [`LAST_REQUEST`](Self::LAST_REQUEST).
    pub fn last_request(self, window: Duration) -> Self {
        self.handle.timing().last_request = window;
        self
    }

    /// The time from the signal to the exit: the [notice](Self::notice), the [time for a last request](Self::last_request), the longest
    /// request that should not be cut, and the [reserve](Self::RESERVE). May overrun by about 100 ms if tasks do not end, and by 200 ms if
    /// the kernel does not answer.
    /// Default: [`GRACE_PERIOD`](Self::GRACE_PERIOD).
    pub fn grace_period(mut self, grace_period: Duration) -> Self {
        self.grace_period = grace_period;
        self
    }

    /// Spreads the closes of idle connections over this time, at random, so that not all clients connect again at once. The deadline ends it.
    /// Default: [`JITTER`](Self::JITTER).
    pub fn jitter(self, jitter: Duration) -> Self {
        self.handle.timing().jitter = jitter;
        self
    }

    /// How long an HTTP/2 client may take to answer the PING that follows the first GOAWAY (RFC 9113 section 6.8). The final GOAWAY is then
    /// sent without the answer. Default: [`PING_TIMEOUT`](Self::PING_TIMEOUT).
    pub fn ping_timeout(self, timeout: Duration) -> Self {
        self.handle.timing().ping_timeout = timeout;
        self
    }

    /// How long the exit waits for an acknowledgement by the peers' systems. Each acknowledgement restarts the time, within the grace period.
    /// Only on Linux: on other systems, and with zero, the drain does not wait, and reports [`Unknown`](Acknowledgement::Unknown).
    ///
    /// A container's network ends with its last process, and loses what is unacknowledged. Outside of a container, the system continues to
    /// send after the exit.
    ///
    /// Default: [`ACK_TIMEOUT`](Self::ACK_TIMEOUT).
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.ack_timeout = timeout;
        self
    }

    /// Returns a handle for listeners, readiness probes, and everything else that takes part in the drain.
    pub fn handle(&self) -> DrainHandle {
        self.handle.clone()
    }

    /// Runs `serving` until the signal comes, and then drains it. `serving` is a server over a
    /// [`TlsListener`](crate::server::TlsListener) that [takes part](crate::server::TlsListener::with_drain). Returns when all connections
    /// have ended, or at the end of the grace period.
    ///
    /// `serving` should end when the listener returns no more connections. Its output comes with the report, so that the error of a server
    /// is not lost. It is `None` if `serving` had to be dropped at the deadline. A server that ends before the signal is drained at once.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with time enabled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the server without a drain.
    pub async fn run<T>(self, serving: impl Future<Output = T>) -> (DrainReport, Option<T>) {
        let longest_notice = self.longest_notice();
        let Self { mut signal, mut force, notice, grace_period, ack_timeout, handle } = self;
        if let Some(notice) = notice
            && notice > longest_notice
        {
            tracing::warn!(
                ?notice,
                ?longest_notice,
                ?grace_period,
                "the grace period has no room for the notice, which will be shortened"
            );
        }
        let mut serving = Serving { server: Some(Box::pin(serving)), output: None };
        let mut budget;
        let outcome = loop {
            let begin = async {
                tokio::select! {
                    // The signal first: whether one has come is known only after a poll.
                    biased;
                    () = &mut signal => {}
                    () = handle.started() => {}
                }
            };
            serving.serve_until(begin).await;
            budget = Budget::begin(grace_period);
            handle.begin(budget.ends());
            let in_order = async {
                let mut ended = Notice::Interrupted;
                let noticed = async {
                    ended = match notice {
                        Some(notice) if notice > longest_notice => {
                            sleep(longest_notice).await;
                            Notice::Shortened
                        }
                        Some(notice) => {
                            sleep(notice).await;
                            Notice::Fixed
                        }
                        None => handle.probes().until_noticed(Self::MAX_NOTICE.min(grace_period / 5 * 2)).await,
                    }
                };
                serving.serve_until(noticed).await;
                if !handle.end_notice(ended) {
                    return pending().await;
                }
                handle.reapers().iter().for_each(Reaper::hurry);
                serving.serve_until(pending()).await;
                handle.until_no_connections().await;
                handle.until_reapers_idle().await;
            };
            let outcome = tokio::select! {
                biased;
                () = handle.ready() => continue,
                () = in_order => break DrainOutcome::Finished,
                // A server that always has something to do uses up what its task may do at once. Neither of these waits for that.
                () = unconstrained(sleep_until(budget.deadline())) => DrainOutcome::OutOfTime,
                () = unconstrained(&mut force) => DrainOutcome::Forced,
            };
            if handle.enter(DrainPhase::Deadline) {
                break outcome;
            }
        };

        if outcome == DrainOutcome::Forced {
            budget.shorten_to_reserve();
            force = Box::pin(pending());
        }
        if outcome != DrainOutcome::Finished {
            let end = budget.tasks_end();
            serving.serve_until(within(end, handle.until_no_connections())).await;
            // Its connections report their end when the runtime has dropped their tasks.
            serving.server = None;
            within(end.max(from_now(ABORT_TIMEOUT)), handle.until_no_connections()).await;
            within(end, handle.until_reapers_idle()).await;
        }

        handle.enter(DrainPhase::Exit);
        let mut acknowledgement = Acknowledgement::Unknown;
        if !ack_timeout.is_zero() {
            tokio::select! {
                () = wait_acknowledged(&handle, &mut acknowledgement, ack_timeout, budget.ends()) => {}
                () = force => if acknowledgement == Acknowledgement::Unknown {
                    // The first answer has not come yet.
                    wait_acknowledged(&handle, &mut acknowledgement, ack_timeout, Instant::now()).await;
                },
            }
        }
        let lingering = handle.abort_reapers().await;
        handle.enter(DrainPhase::Ended);
        (handle.report(acknowledgement, lingering), serving.output)
    }
}

debug_struct!({} ServerDrain, |drain| {
    notice: drain.notice,
    grace_period: drain.grace_period,
    ack_timeout: drain.ack_timeout,
    handle: drain.handle,
});

/// Waits, until `end` at most. The report shows what did not end.
async fn within(end: Instant, wait: impl Future) {
    let _ = timeout_at(end, wait).await;
}

/// A signal that comes once, also if it is waited for again after a [cancelled](DrainHandle::cancel) drain.
fn once(signal: impl Future<Output = ()> + Send + 'static) -> Signal {
    let mut signal = Some(Box::pin(signal));
    Box::pin(poll_fn(move |cx| {
        let Some(future) = &mut signal else { return Poll::Pending };
        ready!(future.as_mut().poll(cx));
        signal = None;
        Poll::Ready(())
    }))
}

/// The server that is drained.
struct Serving<F: Future> {
    /// `None` once it has ended, or was dropped.
    server: Option<Pin<Box<F>>>,
    output: Option<F::Output>,
}

impl<F: Future> Serving<F> {
    /// Polls the server until `end` resolves, or until the server ends.
    async fn serve_until(&mut self, end: impl Future<Output = ()>) {
        if let Some(server) = &mut self.server {
            tokio::select! {
                () = end => {}
                output = server => (self.server, self.output) = (None, Some(output)),
            }
        }
    }
}
