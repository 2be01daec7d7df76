//! [`ServerDrain`]: how a server ends, from the signal to the exit, within one budget of time.

mod layer;
mod report;
mod signals;

pub(crate) use layer::announce_close;
pub use layer::{DrainBody, DrainLayer, DrainResponse, DrainService, Readiness};
pub use report::{Acknowledgement, DrainReport};
use signals::TerminateSignals;

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};
use tracing::Span;

use super::{
    report::ConnectionReport,
    unacknowledged::{OpenSockets, unacknowledged},
};
use crate::{runtime::timer::from_now, tls::Reaper};

type Signal = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How far a server drain is. Later is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DrainPhase {
    /// No signal has come.
    Serving,
    /// Not ready any more, and as before otherwise: connections are accepted and kept, until the balancer has noticed.
    Notice,
    /// Nothing more is accepted. Each connection may have one more request.
    LastRequest,
    /// What is in progress now is cut.
    Deadline,
    /// All connections have ended, or are given up; what was sent is on its way to the peers.
    Exit,
    /// It is over, and the process may end.
    Ended,
}

impl fmt::Display for DrainPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Serving => "serving",
            Self::Notice => "notice",
            Self::LastRequest => "last_request",
            Self::Deadline => "deadline",
            Self::Exit => "exit",
            Self::Ended => "ended",
        })
    }
}

/// How a server ends: what starts it, and how long each phase may take.
///
/// One budget, [`grace`](Self::grace_period), counts from the signal to the exit, everything included. In this order:
///
/// 1. **[notice](Self::notice)**: the server is not [ready](DrainHandle::is_ready) any more, and goes on as before, so that a
///    balancer can notice. No `Connection: close` yet: it would make the balancer connect anew, to this very server.
/// 2. **stop**: what the system has accepted is accepted, then the listening socket is closed.
/// 3. **[last request](Self::last_request)**: handshakes and first requests in progress are served; on HTTP/1 the next response
///    says `Connection: close`; an idle connection may use its window for one more request. HTTP/2 clients get GOAWAY. Upgraded
///    connections and endless responses are [told](DrainHandle::reached).
/// 4. **deadline**: what is half-sent is cut; everything else gets its close_notify. [`force_on`](Self::force_on) goes here at
///    once.
/// 5. **exit**: until the peers' systems have [acknowledged](Self::ack_timeout) what was sent (RFC 9112 section 9.6).
///
/// It ends as soon as nothing is left. [`Server::drain`](crate::server::Server::drain) takes it; [`run`](Self::run) drains servers that
/// are not ours: `axum::serve`, tonic, a plain accept loop over a [`TlsListener`](crate::server::TlsListener).
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
    notice: Duration,
    grace: Duration,
    ack_timeout: Duration,
    handle: DrainHandle,
}

/// What a server drain tells those who take part in it, and is told by them. Clones are handles to the same drain.
#[derive(Clone)]
pub struct DrainHandle {
    shared: Arc<Shared>,
}

struct Shared {
    phase: watch::Sender<DrainPhase>,
    /// Open sockets that listen.
    sockets: TaskTracker,
    connections: TaskTracker,
    timing: Mutex<Timing>,
    tally: Mutex<Tally>,
    requests: AtomicU64,
    in_flight: AtomicUsize,
    handshakes: AtomicU64,
    listeners: Mutex<Vec<ListenerInDrain>>,
    /// Of the phase that goes on.
    span: Mutex<Span>,
}

/// What connections need to know of the plan, and when it runs out.
#[derive(Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) last_request: Duration,
    pub(crate) spread: Duration,
    pub(crate) pong: Duration,
    ends: Option<Instant>,
}

/// What a listener leaves to the drain to wait for, and to count.
pub(crate) struct ListenerInDrain {
    pub(crate) address: Option<SocketAddr>,
    pub(crate) reaper: Reaper,
    pub(crate) shed: Arc<AtomicU64>,
}

/// What has happened since the signal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) endings: BTreeMap<&'static str, u64>,
    pub(crate) handshakes_cut: u64,
    pub(crate) responses_cut: u64,
    pub(crate) upgraded: u64,
}

/// How long the runtime may take to end tasks that are given up, those of a reaper among them.
const GIVE_UP_LIMIT: Duration = Duration::from_millis(100);
/// How long the system may take to tell what is not acknowledged, where the grace is over.
const TABLE_LIMIT: Duration = Duration::from_millis(200);
/// How many times as long as the system takes to tell is waited until it is asked again.
const TABLE_SHARE: u32 = 10;
/// How often the system is asked whether the peers have acknowledged everything. There is no event for that.
const ACKNOWLEDGEMENT_INTERVAL: Duration = Duration::from_millis(20);

impl ServerDrain {
    /// The most of the [grace](Self::grace_period) that is kept for what follows the deadline; of a grace below ten seconds it is a tenth.
    pub const RESERVE: Duration = Duration::from_secs(1);
    /// Default [notice](Self::notice): none.
    pub const NOTICE: Duration = Duration::ZERO;
    /// Default [window for a last request](Self::last_request).
    pub const LAST_REQUEST: Duration = Duration::from_secs(5);
    /// Default [grace](Self::grace_period): below the 30 s of Kubernetes' `terminationGracePeriodSeconds`.
    pub const GRACE_PERIOD: Duration = Duration::from_secs(25);
    /// Default time over which closes are [spread](Self::jitter): none.
    pub const JITTER: Duration = Duration::ZERO;
    /// Default limit of the wait for a [PONG](Self::ping_timeout).
    pub const PING_TIMEOUT: Duration = Duration::from_secs(2);
    /// Default limit of the wait for [acknowledgements](Self::ack_timeout).
    pub const ACK_TIMEOUT: Duration = Duration::from_secs(5);

    /// Drains when `signal` resolves. No signal handler is installed behind your back: see
    /// [`on_terminate_signal`](Self::on_terminate_signal) for that.
    pub fn on(signal: impl Future<Output = ()> + Send + 'static) -> Self {
        let timing =
            Timing { last_request: Self::LAST_REQUEST, spread: Self::JITTER, pong: Self::PING_TIMEOUT, ends: None };
        Self {
            signal: Box::pin(signal),
            force: Box::pin(std::future::pending()),
            notice: Self::NOTICE,
            grace: Self::GRACE_PERIOD,
            ack_timeout: Self::ACK_TIMEOUT,
            handle: DrainHandle {
                shared: Arc::new(Shared {
                    phase: watch::Sender::new(DrainPhase::Serving),
                    sockets: TaskTracker::new(),
                    connections: TaskTracker::new(),
                    timing: Mutex::new(timing),
                    tally: Mutex::default(),
                    requests: AtomicU64::new(0),
                    in_flight: AtomicUsize::new(0),
                    handshakes: AtomicU64::new(0),
                    listeners: Mutex::default(),
                    span: Mutex::new(Span::none()),
                }),
            },
        }
    }

    /// Drains at SIGTERM or SIGINT (Ctrl-C); a second one [forces](Self::force_on) the end. Where there is no SIGTERM, Ctrl-C alone.
    ///
    /// # Errors
    ///
    /// When the handlers cannot be installed.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime with signals enabled.
    pub fn on_terminate_signal() -> io::Result<Self> {
        let signals = Arc::new(tokio::sync::Mutex::new(TerminateSignals::listen()?));
        let next =
            |signals: Arc<tokio::sync::Mutex<TerminateSignals>>| async move { signals.lock().await.next().await };
        Ok(Self::on(next(signals.clone())).force_on(next(signals)))
    }

    /// Goes to the deadline at once when `signal` resolves, and waits a second at most for acknowledgements then; where it resolves
    /// later, it ends that wait. It is polled only after the drain has begun.
    pub fn force_on(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.force = Box::pin(signal);
        self
    }

    /// How long the server goes on as before, but not ready: at least as long as it takes until no balancer sends new connections
    /// any more. It is a part of the [grace](Self::grace_period), which has to be longer. Default: [`NOTICE`](Self::NOTICE).
    pub fn notice(mut self, notice: Duration) -> Self {
        self.notice = notice;
        self
    }

    /// How long an idle connection may still bring a request after the server has stopped accepting: the longest round trip to a
    /// client, and a client that is about to use a connection loses nothing. Default: [`LAST_REQUEST`](Self::LAST_REQUEST).
    pub fn last_request(self, window: Duration) -> Self {
        self.handle.timing().last_request = window;
        self
    }

    /// The time from the signal to the exit, everything included. Where tasks do not end, or the system does not tell what is
    /// acknowledged, a very short one may be exceeded by some 100 ms. Default: [`GRACE_PERIOD`](Self::GRACE_PERIOD).
    pub fn grace_period(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Spreads the closes of idle connections over this time, at random, so that not all clients connect anew at once.
    /// Default: [`JITTER`](Self::JITTER).
    pub fn jitter(self, spread: Duration) -> Self {
        self.handle.timing().spread = spread;
        self
    }

    /// How long an HTTP/2 client may take to answer the PING that goes with the first GOAWAY (RFC 9113 section 6.8). After that
    /// the final GOAWAY goes out without it. Default: [`PING_TIMEOUT`](Self::PING_TIMEOUT).
    pub fn ping_timeout(self, limit: Duration) -> Self {
        self.handle.timing().pong = limit;
        self
    }

    /// How long the exit waits for the peers' systems to acknowledge what was sent, when nothing comes of it: each acknowledgement
    /// starts the time anew, within the grace. Only on Linux; elsewhere, and where `limit` is zero, nothing is waited for, and the
    /// report says [`Unknown`](Acknowledgement::Unknown).
    ///
    /// A container's network ends with its last process, and with it all that is unacknowledged; other systems go on to send.
    ///
    /// Default: [`ACK_TIMEOUT`](Self::ACK_TIMEOUT).
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.ack_timeout = timeout;
        self
    }

    /// A handle, for listeners, readiness probes, and whoever has to know of the drain.
    pub fn handle(&self) -> DrainHandle {
        self.handle.clone()
    }

    /// Polls `serving`, a server over a [`TlsListener`](crate::server::TlsListener) that [takes part](crate::server::TlsListener::with_drain), until
    /// the signal comes, and drains it then. Returns when all of its connections have ended, or the grace has.
    ///
    /// `serving` should end when the listener gives no more connections. It is dropped at the deadline, or when it has ended.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime with time enabled.
    ///
    /// # Cancel safety
    ///
    /// Dropping it stops the server without a drain.
    pub async fn run(mut self, serving: impl Future) -> DrainReport {
        let handle = self.handle.clone();
        let mut serving = Some(Box::pin(serving));
        serve_until(&mut serving, &mut self.signal).await;
        let signalled = Instant::now();
        let reserve = Self::RESERVE.min(self.grace / 10);
        let ends = from_now(self.grace);
        let deadline = from_now(self.grace - reserve);
        if self.notice >= self.grace - reserve && !self.notice.is_zero() {
            let (notice, grace) = (self.notice, self.grace);
            tracing::warn!(?notice, ?grace, "nothing is left of the grace after the notice, all requests will be cut");
        }
        handle.begin(ends);
        let mut times = report::Times::new(signalled);

        let in_order = async {
            serve_until(&mut serving, sleep(self.notice)).await;
            handle.enter(DrainPhase::LastRequest);
            times.last_request = Some(Instant::now());
            serve_until(&mut serving, std::future::pending()).await;
            handle.wait_connections(None).await;
            handle.wait_reapers(None).await;
        };
        let way = tokio::select! {
            () = in_order => Way::InOrder,
            () = sleep_until(deadline) => Way::OutOfTime,
            () = &mut self.force => Way::Forced,
        };
        if way != Way::InOrder {
            handle.enter(DrainPhase::Deadline);
            times.deadline = Some(Instant::now());
            // The rest is for the runtime and the system.
            let limit = Some(ends.min(from_now(reserve)) - reserve / 2);
            serve_until(&mut serving, handle.wait_connections(limit)).await;
            // What is dropped with it is told once the runtime has dropped its tasks.
            drop(serving);
            handle.wait_connections(limit.max(Some(from_now(GIVE_UP_LIMIT)))).await;
            handle.wait_reapers(limit).await;
        }
        handle.enter(DrainPhase::Exit);
        times.exit = Some(Instant::now());
        let mut acknowledgement = Acknowledgement::Unknown;
        if !self.ack_timeout.is_zero() {
            let (ends, force): (_, Signal) = match way {
                Way::Forced => (ends.min(from_now(reserve)), Box::pin(std::future::pending())),
                Way::InOrder | Way::OutOfTime => (ends, self.force),
            };
            let is_cut_off = tokio::select! {
                () = handle.wait_acknowledgement(&mut acknowledgement, self.ack_timeout, ends) => false,
                () = force => true,
            };
            if is_cut_off && acknowledgement == Acknowledgement::Unknown {
                // Nobody was asked yet.
                handle.wait_acknowledgement(&mut acknowledgement, self.ack_timeout, Instant::now()).await;
            }
        }
        let lingering = handle.give_up_reapers().await;
        let report = handle.report(&times, acknowledgement, lingering);
        handle.enter(DrainPhase::Ended);
        report
    }
}

/// How the connections of a drain have come to their end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    InOrder,
    OutOfTime,
    Forced,
}

impl fmt::Debug for ServerDrain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerDrain")
            .field("notice", &self.notice)
            .field("grace", &self.grace)
            .field("ack_timeout", &self.ack_timeout)
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}

impl DrainHandle {
    /// How far the drain is.
    pub fn phase(&self) -> DrainPhase {
        *self.shared.phase.borrow()
    }

    /// Whether no signal has come: what a readiness probe should be told. [`readiness`](Self::readiness) tells it by HTTP.
    pub fn is_ready(&self) -> bool {
        self.phase() == DrainPhase::Serving
    }

    /// Connections that are open, those in their handshake and those that are closing included.
    pub fn connections(&self) -> usize {
        self.shared.connections.len()
    }

    /// Requests whose response has not been handed over to the connection, to its last byte. Known for a
    /// [`Server`](crate::server::Server), and behind a [`DrainLayer`].
    pub fn in_flight(&self) -> usize {
        // A statistic: it orders nothing.
        self.shared.in_flight.load(Ordering::Relaxed)
    }

    /// When the grace ends, once the signal has come.
    pub fn ends_at(&self) -> Option<Instant> {
        self.timing().ends
    }

    /// Resolves when the drain is as far as `phase`. For endless responses and upgraded connections, which should say farewell at
    /// [`LastRequest`](DrainPhase::LastRequest).
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again.
    pub async fn reached(&self, phase: DrainPhase) {
        let mut phases = self.shared.phase.subscribe();
        // The sender lives as long as this handle.
        let _ = phases.wait_for(|reached| *reached >= phase).await;
    }

    /// Resolves when idle connections have had their window for a last request. This is what `axum::serve`'s
    /// `with_graceful_shutdown` and tonic's `serve_with_incoming_shutdown` want: they stop accepting and close idle connections
    /// when it resolves, and until then the [listener](crate::server::TlsListener::with_drain) stops accepting by itself.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again: the window then begins anew.
    pub async fn last_request_over(self) {
        self.reached(DrainPhase::LastRequest).await;
        tokio::select! {
            () = self.window_over() => {}
            // Nothing is left that could use it.
            () = self.no_connections() => {}
        }
    }

    /// Resolves when a connection has had its window, which begins now or when the server stops accepting.
    pub(crate) async fn window_over(&self) {
        self.reached(DrainPhase::LastRequest).await;
        let Timing { last_request, .. } = *self.timing();
        tokio::select! {
            () = sleep(last_request) => {}
            () = self.reached(DrainPhase::Deadline) => {}
        }
    }

    /// A layer for HTTP servers that are not ours: it has HTTP/1 responses say `Connection: close` from
    /// [`LastRequest`](DrainPhase::LastRequest) on, and counts requests and what is [in flight](Self::in_flight).
    pub fn layer(&self) -> DrainLayer {
        DrainLayer::new(self.clone())
    }

    /// A service for readiness probes: 200 while [ready](Self::is_ready), 503 from the signal on.
    pub fn readiness(&self) -> Readiness {
        Readiness::new(self.clone())
    }

    pub(crate) fn timing(&self) -> MutexGuard<'_, Timing> {
        lock(&self.shared.timing)
    }

    pub(crate) fn register(&self, listening: ListenerInDrain) {
        lock(&self.shared.listeners).push(listening);
    }

    pub(crate) fn count_socket(&self) -> TaskTrackerToken {
        self.shared.sockets.token()
    }

    pub(crate) fn count_connection(&self) -> TaskTrackerToken {
        self.shared.connections.token()
    }

    /// A request is begun, and in flight as long as the value that this gives.
    pub(crate) fn begin_request(&self) -> InFlight {
        self.shared.requests.fetch_add(1, Ordering::Relaxed);
        self.shared.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }

    pub(crate) fn count_handshake(&self) {
        self.shared.handshakes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_ended(&self, report: &ConnectionReport) {
        if self.is_ready() {
            return;
        }
        let mut tally = lock(&self.shared.tally);
        *tally.endings.entry(report.ending().name()).or_default() += 1;
        tally.responses_cut += report.responses_cut();
        tally.handshakes_cut += u64::from(!report.handshake_finished());
        tally.upgraded += u64::from(report.was_upgraded());
    }

    fn begin(&self, ends: Instant) {
        self.timing().ends = Some(ends);
        // What is counted from the signal on.
        self.shared.requests.store(0, Ordering::Relaxed);
        self.shared.handshakes.store(0, Ordering::Relaxed);
        self.enter(DrainPhase::Notice);
    }

    fn enter(&self, phase: DrainPhase) {
        // Each ends with the next.
        *lock(&self.shared.span) = match phase {
            DrainPhase::Ended => Span::none(),
            phase => tracing::info_span!("server drain", %phase),
        };
        tracing::info!(%phase, connections = self.connections(), in_flight = self.in_flight(), "server drain");
        self.shared.phase.send_replace(phase);
    }

    /// Resolves when no socket listens and no connection is open.
    async fn no_connections(&self) {
        for tracker in [&self.shared.sockets, &self.shared.connections] {
            tracker.close();
            tracker.wait().await;
        }
    }

    async fn wait_connections(&self, limit: Option<Instant>) {
        within(limit, self.no_connections()).await;
    }

    async fn wait_reapers(&self, limit: Option<Instant>) {
        for reaper in self.reapers() {
            within(limit, reaper.wait_idle(Duration::MAX)).await;
        }
    }

    /// Ends what the exit of the process would end, so that it is told and counted. Gives the number of connections.
    async fn give_up_reapers(&self) -> usize {
        let mut given_up = 0;
        for reaper in self.reapers() {
            given_up += reaper.closings();
            reaper.abort_all();
            within(Some(from_now(GIVE_UP_LIMIT)), reaper.wait_idle(Duration::MAX)).await;
        }
        given_up
    }

    /// Each once: listeners may share one.
    fn reapers(&self) -> Vec<Reaper> {
        let mut reapers: Vec<Reaper> = Vec::new();
        for ListenerInDrain { reaper, .. } in lock(&self.shared.listeners).iter() {
            if !reapers.iter().any(|known| known.same_reaper(reaper)) {
                reapers.push(reaper.clone());
            }
        }
        reapers
    }

    //= https://www.rfc-editor.org/rfc/rfc9112#section-9.6
    //# The server then continues to read from the connection until it
    //# receives a corresponding close by the client, or until the server is
    //# reasonably certain that its own TCP stack has received the client's
    //# acknowledgement of the packet(s) containing the server's last
    //# response.
    /// What is known so far is in `known`, also where this is dropped.
    async fn wait_acknowledgement(&self, known: &mut Acknowledgement, limit: Duration, ends: Instant) {
        let addresses: Vec<_> = lock(&self.shared.listeners).iter().filter_map(|listening| listening.address).collect();
        let mut least = u64::MAX;
        let mut end = ends;
        loop {
            let addresses = addresses.clone();
            let has_open = self.connections() > 0 || self.reapers().iter().any(|reaper| reaper.closings() > 0);
            let open = if has_open { OpenSockets::Some } else { OpenSockets::None };
            let asked = Instant::now();
            // A table of many sockets takes the kernel a while, and the runtime may have no thread left.
            let table = tokio::task::spawn_blocking(move || unacknowledged(&addresses, open));
            let Ok(table) = timeout_at(ends.max(from_now(TABLE_LIMIT)), table).await else { return };
            let bytes = match table.ok().flatten() {
                None => return *known = Acknowledgement::Unknown,
                Some(0) => return *known = Acknowledgement::Everything,
                Some(bytes) => bytes,
            };
            *known = Acknowledgement::Missing(bytes);
            if bytes < least {
                least = bytes;
                end = ends.min(from_now(limit));
            }
            if Instant::now() >= end {
                return;
            }
            let pause = ACKNOWLEDGEMENT_INTERVAL.max(asked.elapsed() * TABLE_SHARE);
            sleep_until(end.min(from_now(pause))).await;
        }
    }

    fn report(&self, times: &report::Times, acknowledgement: Acknowledgement, lingering: usize) -> DrainReport {
        let closings_shed: u64 = self.reapers().iter().map(Reaper::shed).sum();
        let listeners = lock(&self.shared.listeners);
        let handshakes_shed: u64 = listeners.iter().map(|listening| listening.shed.load(Ordering::Relaxed)).sum();
        DrainReport {
            tally: lock(&self.shared.tally).clone(),
            requests: self.shared.requests.load(Ordering::Relaxed),
            handshakes: self.shared.handshakes.load(Ordering::Relaxed),
            shed: handshakes_shed + closings_shed,
            left: self.connections(),
            lingering,
            acknowledgement,
            times: times.spent(),
        }
    }
}

/// A request that is in flight.
#[derive(Debug)]
pub(crate) struct InFlight(DrainHandle);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for DrainHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrainHandle")
            .field("phase", &self.phase())
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Polls the server until `end`, or until it ends itself: it is `None` then.
async fn serve_until<F: Future>(serving: &mut Option<Pin<Box<F>>>, end: impl Future<Output = ()>) {
    if let Some(server) = serving {
        tokio::select! {
            () = end => {}
            _ = server => *serving = None,
        }
    }
}

async fn within(limit: Option<Instant>, wait: impl Future) {
    match limit {
        // Whether it was reached is what the counts say.
        Some(limit) => drop(timeout_at(limit, wait).await),
        None => drop(wait.await),
    }
}
