//! [`Handshakes`]: the TLS handshakes in progress, side by side and within a limit.

use std::{
    collections::BTreeMap,
    future::Future,
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout},
};
use tokio_rustls::StartHandshake;

use super::{client_hello::read_client_hello, config::ConfigHandle, listening_socket::Arrival};
use crate::{
    runtime::lock::lock,
    server::{
        connection::{Accepted, ConnectionObservers},
        drain::{DrainHandle, DrainPhase},
        stream::ServerStream,
    },
    tls::{Reaper, ShutdownPolicy, ShutdownStream},
};

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

/// The handshakes in progress.
pub(super) struct Handshakes {
    tasks: JoinSet<Option<ServerStream>>,
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
}

impl Pending {
    /// The handshakes of which the oldest is shed first, and when it can be shed.
    fn first_to_shed(&mut self, speaking: Duration) -> Option<(Instant, &mut BTreeMap<u64, PendingHandshake>)> {
        let (among, time) =
            if self.silent.is_empty() { (&mut self.speaking, speaking) } else { (&mut self.silent, SILENCE) };
        let since = among.first_key_value()?.1.since;
        Some((since.checked_add(time).unwrap_or(since), among))
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
            if let Ok(Some(stream)) = handshake {
                return Poll::Ready(stream);
            }
        }
        Poll::Pending
    }

    /// Begins a handshake.
    pub(super) fn begin(
        &mut self,
        arrival: Arrival<TcpListener>,
        observers: &ConnectionObservers,
        options: Arc<HandshakeOptions>,
    ) {
        let place = self.enter();
        let id = place.id;
        let accepted = Accepted::new(observers, arrival.peer.into());
        let drain = observers.drain.clone();
        let task = self.tasks.spawn(handshake(arrival, accepted, place, options, drain));
        let mut pending = lock(&self.pending);
        let Pending { silent, speaking, .. } = &mut *pending;
        if let Some(pending) = silent.get_mut(&id).or_else(|| speaking.get_mut(&id)) {
            pending.task = Some(task);
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

    /// Sheds a handshake if there is no place for one more.
    pub(super) fn make_place(&self, options: &HandshakeOptions) {
        let mut pending = lock(&self.pending);
        if pending.is_full(options.max) {
            let first = pending.first_to_shed(options.timeout / SPEAKING_SHARE);
            if let Some((_, PendingHandshake { task: Some(task), .. })) = first.and_then(|(_, among)| among.pop_first())
            {
                self.shed.fetch_add(1, Ordering::Relaxed);
                task.abort();
            }
        }
    }

    fn enter(&self) -> Place {
        let mut pending = lock(&self.pending);
        let id = pending.next;
        pending.next += 1;
        pending.silent.insert(id, PendingHandshake { since: Instant::now(), task: None });
        Place { pending: self.pending.clone(), id }
    }
}

/// The place of a handshake among those in progress. Dropped when its task ends, however it ends.
struct Place {
    pending: Arc<Mutex<Pending>>,
    id: u64,
}

impl Place {
    /// The ClientHello is complete.
    fn begin_to_speak(&self) {
        let mut pending = lock(&self.pending);
        if let Some(handshake) = pending.silent.remove(&self.id) {
            pending.speaking.insert(self.id, handshake);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut pending = lock(&self.pending);
        pending.silent.remove(&self.id);
        pending.speaking.remove(&self.id);
    }
}

/// A handshake that failed.
struct Failed {
    error: io::Error,
    /// The socket, if an alert may be on its way.
    socket: Option<TcpStream>,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self { error, socket: None }
    }
}

/// Carries out one handshake. Returns `None`, and reports, if it fails.
async fn handshake(
    arrival: Arrival<TcpListener>,
    mut accepted: Accepted,
    place: Place,
    options: Arc<HandshakeOptions>,
    drain: Option<DrainHandle>,
) -> Option<ServerStream> {
    let Arrival { stream: tcp, mut peer, place: connection_place } = arrival;
    let handshake = timeout(options.timeout, async {
        tcp.set_nodelay(true)?;
        if let Some(timeout) = options.tcp_user_timeout {
            set_tcp_user_timeout(&tcp, timeout);
        }
        let client_hello = async {
            let mut tcp = match &options.before_tls {
                Some(hook) => {
                    let (tcp, address) = hook(tcp, peer).await?;
                    peer = address;
                    accepted.peer = address.into();
                    tcp
                }
                None => tcp,
            };
            match read_client_hello(&mut tcp).await {
                Ok(accepted) => Ok(StartHandshake::from_parts(accepted, tcp)),
                Err(error) => Err(Failed { error, socket: Some(tcp) }),
            }
        };
        let finish = async |start: StartHandshake<TcpStream>| {
            let (config, config_of_connection) = options.config.for_connection();
            let stream = start.into_stream(config).into_fallible().await;
            stream
                .map(|stream| (stream, config_of_connection))
                .map_err(|(error, socket)| Failed { error, socket: Some(socket) })
        };
        let Some(drain) = drain else {
            let start = client_hello.await?;
            place.begin_to_speak();
            return finish(start).await;
        };
        // A draining server waits for a ClientHello no longer than for a last request.
        let start = tokio::select! {
            start = client_hello => start?,
            () = drain.until_window_over() => return Err(io::Error::from(ErrorKind::TimedOut).into()),
        };
        place.begin_to_speak();
        tokio::select! {
            stream = finish(start) => stream,
            () = drain.reached(DrainPhase::Deadline) => Err(io::Error::from(ErrorKind::TimedOut).into()),
        }
    });
    match handshake.await.unwrap_or_else(|elapsed| Err(io::Error::from(elapsed).into())) {
        Ok((tls, config)) => {
            let stream = ShutdownStream::new(tls).with_policy(options.policy).with_reaper(&options.reaper);
            Some(ServerStream::new(stream, accepted.finish(config), peer, connection_place))
        }
        Err(Failed { error, socket }) => {
            tracing::debug!(%peer, %error, "the TLS handshake failed");
            if let Some(socket) = socket {
                options.reaper.linger(socket);
            }
            accepted.fail(&error);
            None
        }
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
