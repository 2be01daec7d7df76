//! [`Handshakes`]: the TLS handshakes in progress, side by side and within a limit.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use rustls::ServerConfig;
use tokio::{
    net::TcpStream,
    task::{AbortHandle, JoinSet, yield_now},
    time::{Instant, timeout},
};
use tokio_rustls::{StartHandshake, server::TlsStream};

#[cfg(target_os = "linux")]
use super::accept_errors::has_waiting;
use super::{client_hello::read_client_hello, config::ConfigHandle, listening_socket::Arrival, tcp_socket::TcpSocket};
use crate::{
    runtime::lock::lock,
    server::{
        connection::{Accepted, ConnectionObservers},
        drain::{DrainHandle, DrainPhase},
        handshake_failure::{FailedHandshake, HandshakeFailure},
        retirement::ConfigOfConnection,
        stream::ServerStream,
    },
    tls::{Reaper, ShutdownPolicy, ShutdownStream},
};

/// [`TlsListener::MAX_HANDSHAKES`](super::TlsListener::MAX_HANDSHAKES).
pub(super) const MAX_HANDSHAKES: usize = 1000;
/// [`TlsListener::HANDSHAKE_TIMEOUT`](super::TlsListener::HANDSHAKE_TIMEOUT).
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer may be silent before the limit can shed it. Connections of one burst do not shed each other.
const SILENCE: Duration = Duration::from_millis(250);
/// The part of the handshake timeout that a peer has after its ClientHello before the limit can shed it.
const SPEAKING_SHARE: u32 = 4;

pub(super) type BeforeTls = dyn Fn(TcpStream, SocketAddr) -> Pin<Box<dyn Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send>>
    + Send
    + Sync;

/// How handshakes are carried out, and what their streams get.
#[derive(Clone)]
pub(super) struct HandshakeOptions {
    pub(super) config: ConfigHandle,
    pub(super) policy: ShutdownPolicy,
    pub(super) reaper: Reaper,
    pub(super) timeout: Duration,
    pub(super) max: usize,
    pub(super) tcp_user_timeout: Option<Duration>,
    pub(super) before_tls: Option<Arc<BeforeTls>>,
}

impl HandshakeOptions {
    /// The defaults of [`TlsListener`](super::TlsListener).
    pub(super) fn new(config: Arc<ServerConfig>) -> Self {
        Self {
            config: ConfigHandle::new(config),
            policy: ShutdownPolicy::unidirectional(),
            reaper: Reaper::new(),
            timeout: HANDSHAKE_TIMEOUT,
            max: MAX_HANDSHAKES,
            tcp_user_timeout: None,
            before_tls: None,
        }
    }
}

/// The handshakes in progress.
pub(super) struct Handshakes {
    tasks: JoinSet<Result<ServerStream, HandshakeFailure>>,
    pending: Arc<Mutex<Pending>>,
    /// The number of handshakes that were shed.
    pub(super) shed: Arc<AtomicU64>,
}

/// The handshakes in progress, the oldest first.
#[derive(Default)]
struct Pending {
    next: u64,
    /// Those whose ClientHello is not complete.
    silent: BTreeMap<u64, PendingHandshake>,
    speaking: BTreeMap<u64, PendingHandshake>,
}

struct PendingHandshake {
    since: Instant,
    /// `None` until the spawned task is known.
    task: Option<AbortHandle>,
    /// `None` while the hook before TLS has it, and once the ClientHello is complete.
    socket: Option<Arc<TcpStream>>,
}

impl PendingHandshake {
    /// Whether the client has sent something that the server has not read yet, as far as the system tells.
    fn has_unread(&self) -> bool {
        #[cfg(target_os = "linux")]
        return self.socket.as_deref().is_some_and(has_waiting);
        #[cfg(not(target_os = "linux"))]
        false
    }
}

impl Pending {
    /// The handshakes of which the oldest is shed first, and when it can be shed.
    fn first_to_shed(&mut self, speaking: Duration) -> Option<(Instant, &mut BTreeMap<u64, PendingHandshake>)> {
        // A client is not silent because the server is late.
        while let Some(oldest) = self.silent.first_entry()
            && oldest.get().since.elapsed() >= SILENCE
            && oldest.get().has_unread()
        {
            let (id, oldest) = oldest.remove_entry();
            self.speaking.insert(id, oldest);
        }
        let (among, time) =
            if self.silent.is_empty() { (&mut self.speaking, speaking) } else { (&mut self.silent, SILENCE) };
        let since = among.first_key_value()?.1.since;
        Some((since.checked_add(time).unwrap_or(since), among))
    }

    fn get_mut(&mut self, id: u64) -> Option<&mut PendingHandshake> {
        self.silent.get_mut(&id).or_else(|| self.speaking.get_mut(&id))
    }

    fn is_full(&self, max: usize) -> bool {
        self.silent.len() + self.speaking.len() >= max
    }
}

impl Handshakes {
    pub(super) fn new() -> Self {
        Self { tasks: JoinSet::new(), pending: Arc::default(), shed: Arc::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// The next stream whose handshake is finished. Pending if there is none now.
    pub(super) fn poll_finished(&mut self, cx: &mut Context<'_>) -> Poll<ServerStream> {
        while let Poll::Ready(Some(handshake)) = self.tasks.poll_join_next(cx) {
            if let Ok(Ok(stream)) = handshake {
                return Poll::Ready(stream);
            }
        }
        Poll::Pending
    }

    /// Begins a handshake.
    pub(super) fn begin(
        &mut self,
        arrival: Arrival<TcpSocket>,
        observers: &ConnectionObservers,
        options: Arc<HandshakeOptions>,
    ) {
        let attempt = self.enter(Accepted::new(observers, arrival.peer.into()));
        let id = attempt.id;
        let drain = observers.drain.clone();
        let task = self.tasks.spawn(handshake(arrival, attempt, options, drain));
        let mut pending = lock(&self.pending);
        if let Some(handshake) = pending.get_mut(id) {
            handshake.task = Some(task);
        }
    }

    /// When there is a place for one more handshake, or `None` if there is one now.
    pub(super) fn next_place(&self, options: &HandshakeOptions) -> Option<Instant> {
        let mut pending = lock(&self.pending);
        if !pending.is_full(options.max) {
            return None;
        }
        let (due, _) = pending.first_to_shed(options.timeout / SPEAKING_SHARE)?;
        Some(due).filter(|due| *due > Instant::now())
    }

    /// Sheds a handshake if there is no place for one more. If all have begun to speak since [`next_place`](Self::next_place), the new one
    /// comes on top of the limit.
    pub(super) fn make_place(&self, options: &HandshakeOptions) {
        let mut pending = lock(&self.pending);
        if pending.is_full(options.max) {
            let first = pending.first_to_shed(options.timeout / SPEAKING_SHARE);
            let first = first.filter(|(due, _)| *due <= Instant::now());
            if let Some((_, PendingHandshake { task: Some(task), .. })) = first.and_then(|(_, among)| among.pop_first())
            {
                self.shed.fetch_add(1, Ordering::Relaxed);
                task.abort();
            }
        }
    }

    pub(super) fn enter(&self, accepted: Accepted) -> Attempt {
        let mut pending = lock(&self.pending);
        let id = pending.next;
        pending.next += 1;
        pending.silent.insert(id, PendingHandshake { since: Instant::now(), task: None, socket: None });
        Attempt { pending: self.pending.clone(), id, accepted: Some(accepted) }
    }
}

/// A handshake in progress, which has a place among the others. Dropped when its task ends, however it ends.
pub(super) struct Attempt {
    pending: Arc<Mutex<Pending>>,
    id: u64,
    /// `None` once its end is known.
    accepted: Option<Accepted>,
}

impl Attempt {
    /// Shows the limit what the client has sent, until the socket is [taken](Self::take).
    fn share(&self, socket: TcpStream) -> Arc<TcpStream> {
        let socket = Arc::new(socket);
        if let Some(handshake) = lock(&self.pending).silent.get_mut(&self.id) {
            handshake.socket = Some(socket.clone());
        }
        socket
    }

    fn take(&self, socket: Arc<TcpStream>) -> Option<TcpStream> {
        let mut pending = lock(&self.pending);
        pending.get_mut(self.id).and_then(|handshake| handshake.socket.take());
        // Whoever sheds a handshake drops its part of the socket at once.
        Arc::into_inner(socket)
    }

    /// The ClientHello is complete.
    fn begin_to_speak(&mut self, server_name: Option<&str>) {
        if let Some(accepted) = &mut self.accepted {
            accepted.set_server_name(server_name);
        }
        let mut pending = lock(&self.pending);
        if let Some(handshake) = pending.silent.remove(&self.id) {
            pending.speaking.insert(self.id, handshake);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut pending = lock(&self.pending);
        let place = pending.silent.remove(&self.id).or_else(|| pending.speaking.remove(&self.id));
        drop(pending);
        // Whoever sheds a handshake takes its place.
        if let (None, Some(accepted)) = (place, self.accepted.take()) {
            accepted.fail(HandshakeFailure::Shed.into());
        }
    }
}

/// A handshake that failed.
struct Failed {
    reason: FailedHandshake,
    /// The socket, if an alert may be on its way.
    socket: Option<TcpStream>,
}

impl From<FailedHandshake> for Failed {
    fn from(reason: FailedHandshake) -> Self {
        Self { reason, socket: None }
    }
}

impl From<HandshakeFailure> for Failed {
    fn from(failure: HandshakeFailure) -> Self {
        FailedHandshake::from(failure).into()
    }
}

/// Carries out one handshake. Reports also if it fails.
pub(super) fn handshake(
    arrival: Arrival<TcpSocket>,
    mut attempt: Attempt,
    options: Arc<HandshakeOptions>,
    drain: Option<DrainHandle>,
) -> impl Future<Output = Result<ServerStream, HandshakeFailure>> {
    let Arrival { stream: tcp, mut peer, place } = arrival;
    // Before the task is polled, which may be late.
    let tcp = attempt.share(tcp);
    async move {
        let finished = timeout(options.timeout, make_handshake(tcp, &mut peer, &mut attempt, &options, drain)).await;
        let accepted = attempt.accepted.take().ok_or(HandshakeFailure::Aborted)?;
        match finished.unwrap_or_else(|_| Err(HandshakeFailure::TimedOut.into())) {
            Ok((tls, config)) => {
                let connection = accepted.finish(tls.get_ref().1, config);
                let stream = ShutdownStream::new(tls).with_policy(options.policy).with_reaper(&options.reaper);
                Ok(ServerStream::new(stream, connection, peer, place))
            }
            Err(Failed { reason, socket }) => {
                if let Some(socket) = socket {
                    options.reaper.linger(socket);
                }
                let failure = reason.failure;
                accepted.fail(reason);
                Err(failure)
            }
        }
    }
}

/// Makes the handshake, without a time limit. Notes in `peer` and in `attempt` what it learns.
async fn make_handshake(
    tcp: Arc<TcpStream>,
    peer: &mut SocketAddr,
    attempt: &mut Attempt,
    options: &HandshakeOptions,
    drain: Option<DrainHandle>,
) -> Result<(TlsStream<TcpStream>, ConfigOfConnection), Failed> {
    tcp.set_nodelay(true).map_err(FailedHandshake::from)?;
    if let Some(timeout) = options.tcp_user_timeout {
        set_tcp_user_timeout(&tcp, timeout);
    }
    let client_hello = async {
        let mut tcp = tcp;
        if let Some(hook) = &options.before_tls {
            let unread = attempt.take(tcp).ok_or(HandshakeFailure::Shed)?;
            let (read, address) = hook(unread, *peer).await.map_err(FailedHandshake::refused)?;
            *peer = address;
            if let Some(accepted) = &mut attempt.accepted {
                accepted.peer = address.into();
            }
            tcp = attempt.share(read);
        }
        let hello = read_client_hello(&tcp).await;
        let tcp = attempt.take(tcp).ok_or(HandshakeFailure::Shed)?;
        match hello {
            Ok(hello) => {
                attempt.begin_to_speak(hello.client_hello().server_name());
                Ok(StartHandshake::from_parts(hello, tcp))
            }
            Err(reason) => Err(Failed { reason, socket: Some(tcp) }),
        }
    };
    let finish = async |start: StartHandshake<TcpStream>| {
        let (config, config_of_connection) = options.config.for_connection();
        match start.into_stream(config).into_fallible().await {
            Ok(stream) => Ok((stream, config_of_connection)),
            Err((error, socket)) => Err(Failed { reason: error.into(), socket: Some(socket) }),
        }
    };
    let Some(drain) = drain else {
        return finish(client_hello.await?).await;
    };
    // A draining server waits for a ClientHello no longer than for a last request.
    let window_over = async {
        drain.until_window_over().await;
        // A ClientHello may be in the system's buffer, and Tokio's sockets ask the system again only after a turn of the runtime.
        yield_now().await;
    };
    let start = tokio::select! {
        biased;
        start = client_hello => start?,
        () = window_over => return Err(HandshakeFailure::Drained.into()),
    };
    tokio::select! {
        stream = finish(start) => stream,
        () = drain.reached(DrainPhase::Deadline) => Err(HandshakeFailure::Drained.into()),
    }
}

/// Limits how long the kernel continues to send to a peer that acknowledges nothing (`TCP_USER_TIMEOUT`, `tcp(7)`).
fn set_tcp_user_timeout(socket: &TcpStream, timeout: Duration) {
    #[cfg(target_os = "linux")]
    {
        let milliseconds = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(socket, milliseconds) {
            tracing::debug!(%error, "cannot set TCP_USER_TIMEOUT");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (socket, timeout);
}
