//! [`TlsListener`]: accepts TLS connections side by side, and stops without losing one.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_core::Stream;
use rustls::{ServerConfig, server::Acceptor};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, ToSocketAddrs, lookup_host},
    task::{AbortHandle, JoinSet},
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::{
    server::connection::{Accepted, Connection, ConnectionReport, Observers},
    server::drain::{DrainHandle, DrainPhase, Listening},
    tls::policy::ShutdownPolicy,
    tls::reaper::Reaper,
    tls::socket,
    tls::stream::ShutdownStream,
};

/// The stream of a connection that a [`TlsListener`] has accepted.
pub type ServerStream = ShutdownStream<TlsStream<TcpStream>>;

/// How many connections the system may accept ahead of us. Tokio's own 128 are soon used up, and clients then wait for seconds.
const BACKLOG: u32 = 1024;
/// How many connections are taken from the system's queue before the socket is closed, at the most: as many as `net.core.somaxconn` is
/// ever raised to, for a socket that somebody else has made.
const MOST_QUEUED: usize = 65_536;
/// How long a peer may be silent before it can be shed. Those of a burst have just come, and have had no turn yet.
const SILENCE: Duration = Duration::from_millis(250);
/// The part of the handshake's time that a peer that speaks has before it can be shed.
const SPEAKING_SHARE: u32 = 4;
/// How long to wait before accepting again when the system refuses to: there may be no file descriptor left.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// Listens on a TCP socket and gives TLS connections whose handshake is done.
///
/// - Handshakes run side by side, each within a [timeout](Self::handshake_timeout), so that a slow client holds up nobody. At the
///   [limit](Self::max_handshakes) of handshakes in progress, the oldest that has sent no complete ClientHello is shed.
/// - Its streams close by the listener's [policy](Self::with_policy), unidirectionally by default, and have its [reaper](Reaper).
/// - [`on_end`](Self::on_end) is called once for each connection that was accepted, also where the handshake failed.
/// - In a server drain [it takes part](Self::with_drain) in, it accepts what the system has accepted, then closes the socket, and
///   still gives the connections whose handshakes are in progress.
/// - Errors of the system, such as a lack of file descriptors, are logged, and it tries again after a pause.
///
/// [`accept`](Self::accept) is one way to have the connections. It is also a [`Stream`] of them, as tonic wants it, and, with
/// feature `axum`, axum's `Listener`.
///
/// ```
/// # use std::sync::Arc;
/// # use tls_shutdown::server::TlsListener;
/// # async fn example(config: rustls::ServerConfig) -> std::io::Result<()> {
/// let mut listener = TlsListener::bind("127.0.0.1:8443", config)
///     .await?
///     .on_end(|report| println!("{report}"));
/// while let Some((stream, peer)) = listener.accept().await {
///     // Serve it, shut it down, drop it.
/// #   let _ = (stream, peer);
/// }
/// # Ok(())
/// # }
/// ```
///
/// Its limit: a connection that the system accepts between the last look at its queue and the close of the socket is reset. A
/// [notice](crate::server::ServerDrain::notice), or a successor that [holds the same socket](Self::from_std), avoids that.
pub struct TlsListener {
    /// `None` once it is closed.
    tcp: Option<TcpListener>,
    address: io::Result<SocketAddr>,
    back_off: Option<Pin<Box<Sleep>>>,
    /// Until there is a place for one more handshake.
    patience: Option<Pin<Box<Sleep>>>,
    /// Held while the socket is open.
    listens: Option<TaskTrackerToken>,
    /// The drain that is still to be told of this listener.
    joins: Option<DrainHandle>,
    /// Resolves when the server drain stops accepting.
    stop: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
    handshakes: JoinSet<Option<Accept>>,
    pending: Arc<Mutex<Pending>>,
    shed: Arc<AtomicU64>,
    options: Arc<Options>,
    observers: Observers,
}

pub(crate) type Accept = (ServerStream, Arc<Connection>);
type BeforeTls = dyn Fn(TcpStream, SocketAddr) -> Pin<Box<dyn Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send>>
    + Send
    + Sync;

/// What each handshake needs.
#[derive(Clone)]
struct Options {
    config: ConfigHandle,
    policy: ShutdownPolicy,
    reaper: Reaper,
    handshake_timeout: Duration,
    max_handshakes: usize,
    tcp_user_timeout: Option<Duration>,
    before_tls: Option<Arc<BeforeTls>>,
}

/// Handshakes in progress, by age.
#[derive(Default)]
struct Pending {
    next: u64,
    /// Those whose ClientHello is not complete.
    silent: BTreeMap<u64, Pended>,
    speaking: BTreeMap<u64, Pended>,
}

struct Pended {
    since: Instant,
    /// `None` until the task that was spawned is known.
    task: Option<AbortHandle>,
}

impl Pending {
    /// When the first of them can be shed, and among which it is.
    fn first_to_shed(&mut self, speaking: Duration) -> Option<(Instant, &mut BTreeMap<u64, Pended>)> {
        let (among, time) =
            if self.silent.is_empty() { (&mut self.speaking, speaking) } else { (&mut self.silent, SILENCE) };
        let since = among.first_key_value()?.1.since;
        Some((since.checked_add(time).unwrap_or(since), among))
    }
}

/// Replaces the configuration of a [`TlsListener`], so that a new certificate needs no restart.
#[derive(Clone, Debug)]
pub struct ConfigHandle {
    current: Arc<RwLock<Arc<ServerConfig>>>,
}

impl ConfigHandle {
    /// New handshakes use `config` from now on. Sessions can still be resumed: it takes over where sessions are kept from the one
    /// before, and, unless it has a ticketer, that one's. So [`TicketKeys`](crate::server::TicketKeys) are rotated by a configuration that has
    /// new ones. Connections that there are do not change.
    pub fn replace(&self, config: impl Into<Arc<ServerConfig>>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let mut config = Arc::unwrap_or_clone(config.into());
        config.session_storage = current.session_storage.clone();
        if !config.ticketer.enabled() {
            config.ticketer = current.ticketer.clone();
        }
        *current = Arc::new(config);
    }

    fn current(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl TlsListener {
    /// Default [limit of handshakes](Self::max_handshakes) in progress.
    pub const MAX_HANDSHAKES: usize = 1000;
    /// Default [time of a handshake](Self::handshake_timeout).
    pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

    /// Listens on the first of the addresses on which that is possible.
    ///
    /// # Errors
    ///
    /// The last error of the system, where none is.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropped, nothing listens.
    pub async fn bind(address: impl ToSocketAddrs, config: impl Into<Arc<ServerConfig>>) -> io::Result<Self> {
        let mut result = Err(ErrorKind::AddrNotAvailable.into());
        for address in lookup_host(address).await? {
            result = listen(address);
            if result.is_ok() {
                break;
            }
        }
        Ok(Self::from_tcp(result?, config))
    }

    /// Listens on a socket that is there already: opened by systemd, inherited from a predecessor, or set up by hand. It is made
    /// non-blocking.
    ///
    /// # Errors
    ///
    /// When the socket cannot be made non-blocking, or be registered with the runtime.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub fn from_std(listener: std::net::TcpListener, config: impl Into<Arc<ServerConfig>>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::from_tcp(TcpListener::from_std(listener)?, config))
    }

    /// Listens on a Tokio socket.
    pub fn from_tcp(tcp: TcpListener, config: impl Into<Arc<ServerConfig>>) -> Self {
        let options = Options {
            config: ConfigHandle { current: Arc::new(RwLock::new(config.into())) },
            policy: ShutdownPolicy::unidirectional(),
            reaper: Reaper::new(),
            handshake_timeout: Self::HANDSHAKE_TIMEOUT,
            max_handshakes: Self::MAX_HANDSHAKES,
            tcp_user_timeout: None,
            before_tls: None,
        };
        Self {
            address: tcp.local_addr(),
            tcp: Some(tcp),
            back_off: None,
            patience: None,
            listens: None,
            joins: None,
            stop: None,
            handshakes: JoinSet::new(),
            pending: Arc::default(),
            shed: Arc::default(),
            options: Arc::new(options),
            observers: Observers::default(),
        }
    }

    /// Sets the policy of the streams. Default: [`unidirectional`](ShutdownPolicy::unidirectional).
    pub fn with_policy(mut self, policy: ShutdownPolicy) -> Self {
        self.options().policy = policy;
        self
    }

    /// Sets the reaper of the streams. Default: one of its own, with the default [limits](crate::ReaperLimits).
    pub fn with_reaper(mut self, reaper: &Reaper) -> Self {
        self.options().reaper = reaper.clone();
        self
    }

    /// The reaper of the streams, to be [waited for](Reaper::wait_idle) before the process exits. A server drain does that.
    pub fn reaper(&self) -> &Reaper {
        &self.options.reaper
    }

    /// Limits the time from the accept to the end of the handshake, what is done [before TLS](Self::before_tls) included.
    /// Default: [`HANDSHAKE_TIMEOUT`](Self::HANDSHAKE_TIMEOUT).
    pub fn handshake_timeout(mut self, limit: Duration) -> Self {
        self.options().handshake_timeout = limit;
        self
    }

    /// Limits the handshakes in progress. At the limit, a further connection sheds the oldest of those that have sent no complete
    /// ClientHello for a quarter of a second, or, where all have, the oldest that has had a quarter of the
    /// [handshake's time](Self::handshake_timeout). Until there is one, or one is done, connections wait in the system's queue: those of
    /// a burst are not shed for each other. What is accepted by a [`close`](Self::close) comes on top of the limit.
    /// Default: [`MAX_HANDSHAKES`](Self::MAX_HANDSHAKES).
    ///
    /// # Panics
    ///
    /// If `limit` is 0.
    pub fn max_handshakes(mut self, limit: usize) -> Self {
        assert!(limit > 0, "a listener without handshakes accepts nothing");
        self.options().max_handshakes = limit;
        self
    }

    /// Limits how long the system goes on to send to a peer that acknowledges nothing (`TCP_USER_TIMEOUT`; Linux). Default: the
    /// system's own limit, about 15 minutes. It also ends a connection whose peer is there, but does not read for so long.
    pub fn tcp_user_timeout(mut self, limit: Duration) -> Self {
        self.options().tcp_user_timeout = Some(limit);
        self
    }

    /// Has `hook` see each connection before its TLS handshake: to refuse it, by an error, or to take the peer's address from what
    /// a balancer says first (the PROXY protocol). It must read no byte of TLS.
    pub fn before_tls<F, R>(mut self, hook: F) -> Self
    where
        F: Fn(TcpStream, SocketAddr) -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send + 'static,
    {
        self.options().before_tls = Some(Arc::new(move |tcp, peer| Box::pin(hook(tcp, peer))));
        self
    }

    /// Has `on_end` called once for each connection that was accepted, whatever became of it. A later one replaces an earlier one.
    ///
    /// It is called by whoever drops the last of the connection, so it should be short, and must not block. Do not set an
    /// [`on_end`](ShutdownStream::on_end) on the streams: it would take the place of this one.
    pub fn on_end(mut self, on_end: impl Fn(&ConnectionReport) + Send + Sync + 'static) -> Self {
        self.observers.on_end = Some(Arc::new(on_end));
        self
    }

    /// Takes part in a server drain: its connections are counted there, and when the drain stops accepting, it accepts what the
    /// system has accepted and closes its socket. [`accept`](Self::accept) gives what is left then, and `None` after that.
    pub fn with_drain(mut self, drain: &DrainHandle) -> Self {
        self.observers.drain = Some(drain.clone());
        self.joins = Some(drain.clone());
        self.listens = Some(drain.listens());
        let drain = drain.clone();
        self.stop = Some(Box::pin(async move { drain.reached(DrainPhase::LastRequest).await }));
        self
    }

    /// A handle that replaces the TLS configuration while the listener runs.
    pub fn config_handle(&self) -> ConfigHandle {
        self.options.config.clone()
    }

    /// The address it listens on.
    ///
    /// # Errors
    ///
    /// When the system did not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.address.as_ref().copied().map_err(|error| error.kind().into())
    }

    /// Connections that were given up in their handshake, since there were too many.
    pub fn shed(&self) -> u64 {
        // A statistic: it orders nothing.
        self.shed.load(Ordering::Relaxed)
    }

    /// The next connection whose handshake is done, and its peer's address; `None` once the listener is [closed](Self::close) and
    /// no handshake is in progress. Handshakes only begin while it is called.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime with time enabled.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again: no connection is lost.
    pub async fn accept(&mut self) -> Option<(ServerStream, SocketAddr)> {
        let (stream, connection) = std::future::poll_fn(|cx| self.poll_accept(cx)).await?;
        Some((stream, connection.peer))
    }

    /// Stops listening: accepts what the system has accepted already, since it would reset that with the socket, and closes the
    /// socket. [`accept`](Self::accept) still gives those connections. Nothing happens where it is closed.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime with time enabled.
    pub fn close(&mut self) {
        self.stop = None;
        self.back_off = None;
        if let Some(tcp) = self.tcp.take()
            && let Err(error) = self.accept_queued(tcp)
        {
            tracing::warn!(%error, "connections that were not accepted yet are reset");
        }
        self.listens = None;
    }

    fn options(&mut self) -> &mut Options {
        Arc::make_mut(&mut self.options)
    }

    pub(crate) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Accept>> {
        // Only now are the reaper and the rest sure to be set.
        if let Some(drain) = self.joins.take() {
            drain.register(Listening {
                address: self.address.as_ref().ok().copied(),
                reaper: self.options.reaper.clone(),
                shed: self.shed.clone(),
            });
        }
        loop {
            while let Poll::Ready(Some(handshake)) = self.handshakes.poll_join_next(cx) {
                if let Ok(Some(accept)) = handshake {
                    return Poll::Ready(Some(accept));
                }
            }
            if let Some(stop) = &mut self.stop
                && stop.as_mut().poll(cx).is_ready()
            {
                self.close();
                continue;
            }
            if self.tcp.is_none() {
                return if self.handshakes.is_empty() { Poll::Ready(None) } else { Poll::Pending };
            }
            if let Some(back_off) = &mut self.back_off {
                ready!(back_off.as_mut().poll(cx));
                self.back_off = None;
            }
            if let Some(place) = self.next_place() {
                let patience = self.patience.get_or_insert_with(|| Box::pin(sleep_until(place)));
                if patience.deadline() != place {
                    patience.as_mut().reset(place);
                }
                ready!(patience.as_mut().poll(cx));
            }
            let Some(tcp) = &self.tcp else { continue };
            match ready!(tcp.poll_accept(cx)) {
                Ok((tcp, peer)) => {
                    self.make_place();
                    self.begin(tcp, peer);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection, will try again");
                    self.back_off = Some(Box::pin(sleep(ACCEPT_BACK_OFF)));
                }
            }
        }
    }

    /// No more than a queue holds: whoever goes on connecting must not keep the server from stopping. Nothing is shed for them, since
    /// none of them has had the time to say something.
    fn accept_queued(&mut self, tcp: TcpListener) -> io::Result<()> {
        // Tokio's own listener asks the system only after the runtime has heard of something to accept.
        let tcp = tcp.into_std()?;
        for _ in 0..MOST_QUEUED {
            match tcp.accept() {
                Ok((tcp, peer)) => {
                    tcp.set_nonblocking(true)?;
                    self.begin(TcpStream::from_std(tcp)?, peer);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("clients connect faster than they are accepted"))
    }

    /// Begins a handshake.
    fn begin(&mut self, tcp: TcpStream, peer: SocketAddr) {
        let entry = self.enter();
        let id = entry.id;
        let accepted = Accepted::new(&self.observers, peer);
        let drain = self.observers.drain.clone();
        let handshake = self.handshakes.spawn(shake_hands(tcp, accepted, entry, self.options.clone(), drain));
        let mut pending = lock(&self.pending);
        let Pending { silent, speaking, .. } = &mut *pending;
        if let Some(pended) = silent.get_mut(&id).or_else(|| speaking.get_mut(&id)) {
            pended.task = Some(handshake);
        }
    }

    /// When there is a place for one more handshake, unless that is now.
    fn next_place(&self) -> Option<Instant> {
        let mut pending = lock(&self.pending);
        if pending.silent.len() + pending.speaking.len() < self.options.max_handshakes {
            return None;
        }
        let (due, _) = pending.first_to_shed(self.options.handshake_timeout / SPEAKING_SHARE)?;
        Some(due).filter(|due| *due > Instant::now())
    }

    /// Makes place for one more handshake.
    fn make_place(&self) {
        let mut pending = lock(&self.pending);
        if pending.silent.len() + pending.speaking.len() >= self.options.max_handshakes {
            let first = pending.first_to_shed(self.options.handshake_timeout / SPEAKING_SHARE);
            if let Some((_, Pended { task: Some(task), .. })) = first.and_then(|(_, among)| among.pop_first()) {
                self.shed.fetch_add(1, Ordering::Relaxed);
                task.abort();
            }
        }
    }

    fn enter(&self) -> Entry {
        let mut pending = lock(&self.pending);
        let id = pending.next;
        pending.next += 1;
        pending.silent.insert(id, Pended { since: Instant::now(), task: None });
        Entry { pending: self.pending.clone(), id }
    }
}

/// A handshake's place among those in progress, left when its task ends, however it ends.
struct Entry {
    pending: Arc<Mutex<Pending>>,
    id: u64,
}

impl Entry {
    /// The ClientHello is complete.
    fn speaks(&self) {
        let mut pending = lock(&self.pending);
        if let Some(handshake) = pending.silent.remove(&self.id) {
            pending.speaking.insert(self.id, handshake);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut pending = lock(&self.pending);
        pending.silent.remove(&self.id);
        pending.speaking.remove(&self.id);
    }
}

fn lock(pending: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn shake_hands(
    tcp: TcpStream,
    mut accepted: Accepted,
    entry: Entry,
    options: Arc<Options>,
    drain: Option<DrainHandle>,
) -> Option<Accept> {
    let peer = &mut accepted.peer;
    let handshake = timeout(options.handshake_timeout, async {
        tcp.set_nodelay(true)?;
        if let Some(limit) = options.tcp_user_timeout {
            socket::limit_retransmission(&tcp, limit);
        }
        let client_hello = async {
            let tcp = match &options.before_tls {
                Some(hook) => {
                    let (tcp, told) = hook(tcp, *peer).await?;
                    *peer = told;
                    tcp
                }
                None => tcp,
            };
            LazyConfigAcceptor::new(Acceptor::default(), tcp).await
        };
        let Some(drain) = drain else {
            let start = client_hello.await?;
            entry.speaks();
            return start.into_stream(options.config.current()).await;
        };
        // A server that drains does not wait for the silent.
        let start = tokio::select! {
            start = client_hello => start?,
            () = drain.window_over() => return Err(ErrorKind::TimedOut.into()),
        };
        entry.speaks();
        tokio::select! {
            stream = start.into_stream(options.config.current()) => stream,
            () = drain.reached(DrainPhase::Deadline) => Err(ErrorKind::TimedOut.into()),
        }
    });
    match handshake.await.unwrap_or_else(|elapsed| Err(elapsed.into())) {
        Ok(tls) => {
            let connection = accepted.finish();
            let end = connection.clone();
            let stream = ShutdownStream::new(tls)
                .with_policy(options.policy)
                .with_reaper(&options.reaper)
                .on_end(move |report| end.end(report));
            #[cfg(feature = "tonic")]
            let stream = stream.of_peer(connection.peer);
            Some((stream, connection))
        }
        Err(error) => {
            tracing::debug!(peer = %accepted.peer, %error, "the TLS handshake failed");
            accepted.fail(&error);
            None
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restart need not wait until old connections are forgotten. (Elsewhere this lets two servers take the same port.)
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Whether the connection was gone before it was accepted, so that the next one can be accepted at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused)
}

/// The connections of [`TlsListener::accept`], as tonic's `serve_with_incoming` takes them. There is never an error among them.
impl Stream for TlsListener {
    type Item = io::Result<ServerStream>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let accept = ready!(self.get_mut().poll_accept(cx));
        Poll::Ready(accept.map(|(stream, _)| Ok(stream)))
    }
}

#[cfg(unix)]
impl std::os::fd::AsRawFd for TlsListener {
    /// The listening socket, to be inherited by a successor; -1 once it is closed.
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.tcp.as_ref().map_or(-1, std::os::fd::AsRawFd::as_raw_fd)
    }
}

impl fmt::Debug for TlsListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsListener")
            .field("tcp", &self.tcp)
            .field("handshakes", &self.handshakes.len())
            .field("shed", &self.shed())
            .finish_non_exhaustive()
    }
}
