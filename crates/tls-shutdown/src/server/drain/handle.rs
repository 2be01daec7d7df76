//! [`DrainHandle`]: what all parts of a server share in its drain.

use std::{
    future::Future,
    mem,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};
use tracing::Span;

use super::{
    ABORT_TIMEOUT, Acknowledgement, DrainGuard, DrainLayer, DrainPhase, DrainReport, ServerDrain,
    listener::{Delivery, ListenerInDrain, ListenerUser},
    notice::{Notice, Probes},
    progress::Progress,
    report::Tally,
    scarcity::Scarcity,
    within,
};
use crate::{
    runtime::{debug::debug_struct, lock::lock, timer::from_now},
    tls::Reaper,
};

/// A handle to a server drain, for listeners, readiness probes, and everything else that takes part. Clones are handles to the same drain.
///
/// ```
/// use tls_shutdown::server::{DrainHandle, DrainPhase};
///
/// async fn events(drain: DrainHandle, mut next_event: impl AsyncFnMut() -> String) -> String {
///     tokio::select! {
///         event = next_event() => event,
///         () = drain.reached(DrainPhase::LastRequest) => "goodbye".to_owned(),
///     }
/// }
/// ```
#[derive(Clone)]
pub struct DrainHandle {
    shared: Arc<DrainState>,
}

#[derive(Default)]
struct DrainState {
    progress: Progress,
    listening_sockets: TaskTracker,
    connections: TaskTracker,
    /// What else takes part.
    jobs: TaskTracker,
    probes: Probes,
    scarcity: Scarcity,
    /// The servers that wait for the end of the window.
    window_waits: TaskTracker,
    timing: Mutex<Timing>,
    tally: Mutex<Tally>,
    requests: AtomicU64,
    in_flight: TaskTracker,
    listeners: Mutex<Vec<ListenerInDrain>>,
    /// Of the current phase.
    span: Mutex<Option<Span>>,
}

/// The part of the plan that connections need.
#[derive(Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) last_request: Duration,
    pub(crate) jitter: Duration,
    pub(crate) ping_timeout: Duration,
    /// Of the drain that has begun last.
    ends_at: Option<Instant>,
}

impl Default for Timing {
    fn default() -> Self {
        let (last_request, jitter) = (ServerDrain::LAST_REQUEST, ServerDrain::JITTER);
        Self { last_request, jitter, ping_timeout: ServerDrain::PING_TIMEOUT, ends_at: None }
    }
}

impl DrainHandle {
    pub(super) fn new() -> Self {
        Self { shared: Arc::default() }
    }

    /// The current phase.
    pub fn phase(&self) -> DrainPhase {
        self.shared.progress.phase()
    }

    /// Whether the signal has not come yet, or was [cancelled](Self::cancel). [`readiness`](Self::readiness) answers probes with it.
    pub fn is_ready(&self) -> bool {
        self.phase() == DrainPhase::Serving
    }

    /// The number of open connections, including those in their handshake and those that are closing.
    pub fn connections(&self) -> usize {
        self.shared.connections.len()
    }

    /// The number of requests whose response was not yet passed to the connection as a whole. Counted by a
    /// [`Server`](crate::server::Server) and by a [`DrainLayer`].
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.len()
    }

    /// When the grace period ends, or `None` while the server is [ready](Self::is_ready).
    pub fn ends_at(&self) -> Option<Instant> {
        if self.is_ready() { None } else { self.timing().ends_at }
    }

    /// Waits until the drain is in `phase` or later. Use it to end endless responses and upgraded connections in order, if the server ends
    /// none of [their kind](crate::server::EndlessResponse). The future owns what it needs, so that a stream can [end] with it.
    ///
    /// [end]: https://docs.rs/futures/latest/futures/stream/trait.StreamExt.html#method.take_until
    ///
    /// # Cancel safety
    ///
    /// You can drop the future and call this again.
    pub fn reached(&self, phase: DrainPhase) -> impl Future<Output = ()> + Send + Sync + use<> {
        let shared = self.shared.clone();
        async move { shared.progress.until(|reached| reached >= phase).await }
    }

    /// Waits until the server is [ready](Self::is_ready). After the signal, that is only if the drain is [cancelled](Self::cancel).
    ///
    /// # Cancel safety
    ///
    /// You can drop the future and call this again.
    pub fn ready(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        let shared = self.shared.clone();
        async move { shared.progress.until(|phase| phase == DrainPhase::Serving).await }
    }

    /// Begins the drain, as the signal does. For a route of an administrator, or for a failed part of the program. Does nothing once the
    /// drain has begun. If [`run`](ServerDrain::run) was not called yet, the drain begins as soon as it is.
    pub fn start(&self) {
        self.shared.progress.start();
    }

    /// Undoes the signal during the [notice](ServerDrain::notice): the server is ready again. Returns whether it was in time. A later phase
    /// cannot be undone.
    ///
    /// [`start`](Self::start) begins the drain anew, and so does the next signal after
    /// [`on_terminate_signal`](ServerDrain::on_terminate_signal).
    pub fn cancel(&self) -> bool {
        let mut _span = None;
        let is_in_time = self.shared.progress.change(DrainPhase::Serving, || _span = lock(&self.shared.span).take());
        if is_in_time {
            tracing::info!("the server drain is cancelled");
        }
        is_in_time
    }

    /// Takes part in the drain: it waits until the returned guard is dropped, up to the deadline. For a job in the background, for a server
    /// over other sockets, and for an accept loop of your own.
    ///
    /// ```
    /// use tls_shutdown::server::{DrainHandle, DrainPhase};
    ///
    /// async fn work(drain: DrainHandle, mut next_job: impl AsyncFnMut()) {
    ///     let _guard = drain.track();
    ///     while drain.phase() < DrainPhase::LastRequest {
    ///         next_job().await;
    ///     }
    /// }
    /// ```
    pub fn track(&self) -> DrainGuard {
        DrainGuard { _token: self.shared.jobs.token() }
    }

    /// Waits until the [time for a last request](ServerDrain::last_request) of idle connections is over.
    ///
    /// Give it to `with_graceful_shutdown` of `axum::serve` and to `serve_with_incoming_shutdown` of tonic: both close idle connections
    /// when it resolves. The [listener](crate::server::TlsListener::with_drain) stops earlier by itself. Call it once for each server. If a
    /// server has a listener of another kind, its connections are unknown here, and the whole time passes.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with time enabled.
    ///
    /// # Cancel safety
    ///
    /// You can drop the future and call this again. The time then starts again.
    pub fn last_request_over(self) -> impl Future<Output = ()> + Send + 'static {
        let wait = self.shared.window_waits.token();
        async move {
            let _wait = wait;
            self.reached(DrainPhase::LastRequest).await;
            tokio::select! {
                () = self.until_window_over() => {}
                // Nothing is left that could use the time.
                () = self.until_no_connections(), if self.knows_all_connections() => {}
            }
        }
    }

    /// Whether each server that waits for the end of the window has one of our listeners.
    fn knows_all_connections(&self) -> bool {
        let listeners = lock(&self.shared.listeners);
        let known = listeners.iter().filter(|listener| listener.user == ListenerUser::Framework).count();
        self.shared.window_waits.len() <= known
    }

    /// Returns a layer for HTTP servers other than [`Server`](crate::server::Server). It adds `Connection: close` to HTTP/1 responses from
    /// [`LastRequest`](DrainPhase::LastRequest) on, ends [endless responses](crate::server::EndlessResponse), and counts requests, also
    /// those [in flight](Self::in_flight).
    pub fn layer(&self) -> DrainLayer {
        DrainLayer::new(self)
    }

    /// Waits until the time of a connection for a last request is over. It starts now, or when the server stops accepting.
    pub(crate) async fn until_window_over(&self) {
        self.reached(DrainPhase::LastRequest).await;
        let window = self.timing().last_request;
        tokio::select! {
            () = sleep(window) => {}
            () = self.reached(DrainPhase::Deadline) => {}
        }
    }

    pub(crate) fn timing(&self) -> MutexGuard<'_, Timing> {
        lock(&self.shared.timing)
    }

    pub(crate) fn register(&self, listener: ListenerInDrain) {
        lock(&self.shared.listeners).push(listener);
    }

    /// Counts a listening socket until the token is dropped.
    pub(crate) fn count_socket(&self) -> TaskTrackerToken {
        self.shared.listening_sockets.token()
    }

    /// Counts a connection until the token is dropped.
    pub(crate) fn count_connection(&self) -> TaskTrackerToken {
        self.shared.probes.on_connection();
        self.shared.connections.token()
    }

    /// Counts a request. It is in flight until the returned value is dropped.
    pub(crate) fn begin_request(&self) -> InFlight {
        self.shared.requests.fetch_add(1, Ordering::Relaxed);
        self.shared.in_flight.token()
    }

    /// Whether this is a handle of the same drain.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Counts something since the signal.
    pub(in crate::server) fn count(&self, add: impl FnOnce(&mut Tally)) {
        if !self.is_ready() {
            add(&mut lock(&self.shared.tally));
        }
    }

    /// Asks idle connections to end, if the system refuses to accept new ones.
    pub(crate) fn scarcity(&self) -> &Scarcity {
        &self.shared.scarcity
    }

    /// The system refuses to accept a connection. Ends one that nobody needs: one that is closing, or an idle one.
    pub(crate) fn make_room(&self) {
        if !self.reapers().iter().any(Reaper::shed_one) {
            self.end_idle_connection();
        }
    }

    /// Asks a connection that is idle to end.
    pub(crate) fn end_idle_connection(&self) {
        self.shared.scarcity.ask(self.connections());
    }

    /// Those who ask for the server's readiness.
    pub(super) fn probes(&self) -> &Probes {
        &self.shared.probes
    }

    /// Waits for [`start`](Self::start).
    pub(super) async fn started(&self) {
        self.shared.progress.started().await;
    }

    /// Enters the first phase after the signal.
    pub(super) fn begin(&self, ends_at: Instant) {
        self.timing().ends_at = Some(ends_at);
        // The report counts from the signal on.
        self.shared.requests.store(0, Ordering::Relaxed);
        *lock(&self.shared.tally) = Tally::begin(self.in_flight());
        self.enter(DrainPhase::Notice);
    }

    /// Ends the notice, unless the drain is cancelled. Returns whether it is not.
    pub(super) fn end_notice(&self, notice: Notice) -> bool {
        let goes_on = self.enter(DrainPhase::LastRequest);
        if goes_on {
            lock(&self.shared.tally).notice = notice;
        }
        goes_on
    }

    /// Enters the next phase, unless the drain is cancelled. Returns whether it is not.
    pub(super) fn enter(&self, phase: DrainPhase) -> bool {
        let mut span = match phase {
            DrainPhase::Ended => None,
            phase => Some(tracing::info_span!("server drain", %phase)),
        };
        let goes_on = self.shared.progress.change(phase, || {
            // The span of the phase before ends below: what its end calls must not find the lock held.
            mem::swap(&mut *lock(&self.shared.span), &mut span);
            lock(&self.shared.tally).began.insert(phase, Instant::now());
        });
        if goes_on {
            tracing::info!(%phase, connections = self.connections(), in_flight = self.in_flight(), "server drain");
        }
        goes_on
    }

    /// Waits until no socket listens, no connection is open, and no job takes part.
    pub(super) async fn until_no_connections(&self) {
        let trackers = [&self.shared.listening_sockets, &self.shared.connections, &self.shared.jobs];
        // A job may accept a connection, and end before it.
        while !trackers.iter().all(|tracker| tracker.is_closed() && tracker.is_empty()) {
            for tracker in trackers {
                tracker.close();
                tracker.wait().await;
            }
        }
    }

    /// Waits until no reaper has anything to do.
    pub(super) async fn until_reapers_idle(&self) {
        for reaper in self.reapers() {
            reaper.wait_idle(Duration::MAX).await;
        }
    }

    /// Ends the connections that are still closing, as the end of the process would, so that they are reported and counted. Returns their
    /// number.
    pub(super) async fn abort_reapers(&self) -> usize {
        let mut aborted = 0;
        for reaper in self.reapers() {
            aborted += reaper.closings();
            reaper.abort_all();
            within(from_now(ABORT_TIMEOUT), reaper.wait_idle(Duration::MAX)).await;
        }
        aborted
    }

    /// The reapers of all listeners, each once.
    pub(super) fn reapers(&self) -> Vec<Reaper> {
        let mut reapers: Vec<Reaper> = Vec::new();
        for ListenerInDrain { reaper, .. } in lock(&self.shared.listeners).iter() {
            if !reapers.iter().any(|known| known.same_reaper(reaper)) {
                reapers.push(reaper.clone());
            }
        }
        reapers
    }

    /// The deliveries of all listeners.
    pub(super) fn deliveries(&self) -> Vec<Delivery> {
        lock(&self.shared.listeners).iter().map(|listener| listener.delivery).collect()
    }

    pub(super) fn report(&self, acknowledgement: Acknowledgement, lingering: usize) -> DrainReport {
        let closings_shed: u64 = self.reapers().iter().map(Reaper::shed).sum();
        let listeners = lock(&self.shared.listeners);
        let handshakes_shed: u64 = listeners.iter().map(|listener| listener.shed.load(Ordering::Relaxed)).sum();
        DrainReport {
            tally: lock(&self.shared.tally).clone(),
            requests: self.shared.requests.load(Ordering::Relaxed),
            shed: handshakes_shed + closings_shed,
            left: self.connections(),
            jobs_left: self.shared.jobs.len(),
            lingering,
            acknowledgement,
        }
    }
}

debug_struct!({} DrainHandle, |drain| { phase: drain.phase(), connections: drain.connections() });

/// A request, which is in flight until this is dropped.
pub(crate) type InFlight = TaskTrackerToken;
