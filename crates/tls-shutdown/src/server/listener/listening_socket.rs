//! [`Listener`], the trait of listening sockets; and [`ListeningSocket`]: one of them until it is closed, also by a server drain.

use std::{
    future::Future,
    io::{self, ErrorKind},
    mem,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::{sync::PollSemaphore, task::task_tracker::TaskTrackerToken};

use super::accept_errors::{AcceptErrors, is_of_one_connection, warn_of_reset};
#[cfg(target_os = "linux")]
use super::accept_errors::{accept_now, has_waiting};
use crate::{
    runtime::timer::{BoxedTimer, from_now},
    server::{
        drain::{DrainHandle, DrainPhase},
        peer::Peer,
    },
};

/// The largest number of queued connections that are accepted before the socket is closed: the highest value to which
/// `net.core.somaxconn` is set in practice, for a socket that somebody else has created.
const MAX_QUEUED: usize = 65_536;
/// The pause after the system refuses to accept, because file descriptors are used up for example.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections that a [`Server`](crate::server::Server) serves without TLS: [`TcpSocket`](crate::server::TcpSocket),
/// [`tokio::net::TcpListener`], [`UnixSocket`](crate::server::UnixSocket), [`tokio::net::UnixListener`], and what you implement it for.
///
/// If the streams are [`TcpStream`]s or [`UnixStream`](tokio::net::UnixStream)s, a listener of your own has every guarantee that these
/// sockets have: one that counts connections, limits them, or reads the header of the PROXY protocol. If it wraps a
/// [`TcpSocket`](crate::server::TcpSocket), let it pass on [`poll_stop`](Self::poll_stop), too. Other streams are boxed, and a cut response
/// cannot reset them.
///
/// ```
/// use std::{io, net::SocketAddr, task::{Context, Poll}};
/// use tls_shutdown::server::Listener;
/// use tokio::net::{TcpListener, TcpStream};
///
/// /// Counts what it accepts.
/// struct Counted {
///     tcp: TcpListener,
///     accepted: u64,
/// }
///
/// impl Listener for Counted {
///     type Stream = TcpStream;
///     type Peer = SocketAddr;
///
///     fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
///         let accept = self.tcp.poll_accept(cx);
///         self.accepted += u64::from(accept.is_ready());
///         accept
///     }
///
///     fn accept_queued(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
///         self.tcp.accept_queued()
///     }
///
///     fn local_addr(&self) -> Option<SocketAddr> {
///         Listener::local_addr(&self.tcp)
///     }
/// }
/// ```
pub trait Listener: Send + 'static {
    /// The stream of a connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Who is at its other end: a [`SocketAddr`] or a [`Peer`].
    type Peer: Into<Peer> + Send;

    /// Accepts the next connection.
    ///
    /// # Errors
    ///
    /// Those of the system. The server logs them and tries again after a pause.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Stream, Self::Peer)>>;

    /// Lets no new connection enter the system's queue, and waits for those that are on their way. A server drain calls this before it drops
    /// the listener, until it is ready, for 10 s at most. Wake the task also for each connection that enters the queue meanwhile.
    ///
    /// The default is ready at once. A connection that enters the queue between the last accept and the drop is reset then.
    /// [`TcpSocket`](crate::server::TcpSocket) does better.
    fn poll_stop(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Ready(())
    }

    /// Accepts the next connection of the system's queue, without a wait. A server drain calls this until the listener has
    /// [stopped](Self::poll_stop) and the queue is empty, and then drops the listener.
    ///
    /// The default calls [`poll_accept`](Self::poll_accept) once. Tokio's own listeners ask the system only after the runtime has polled
    /// it: call their `accept_queued`.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](ErrorKind::WouldBlock) if the queue is empty, and those of the system.
    fn accept_queued(&mut self) -> io::Result<(Self::Stream, Self::Peer)> {
        match self.poll_accept(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(accepted) => accepted,
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }

    /// Whether a connection waits in the system's queue. The server asks this after an error of the system, which may refuse to accept
    /// although no connection waits. The server then neither warns nor pauses. Default: `true`. Return that also if you do not know.
    fn has_waiting(&self) -> bool {
        true
    }

    /// The address of a TCP socket. A server drain asks the kernel for what the connections of this address have not acknowledged.
    /// Default: `None`.
    fn local_addr(&self) -> Option<SocketAddr> {
        None
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;
    type Peer = SocketAddr;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        Self::poll_accept(self, cx)
    }

    fn accept_queued(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        #[cfg(target_os = "linux")]
        let (tcp, peer) = {
            let tcp = std::net::TcpStream::from(accept_now(self)?);
            // It has no peer if it was reset meanwhile.
            let peer = tcp.peer_addr().map_err(|_| ErrorKind::ConnectionAborted)?;
            (tcp, peer)
        };
        #[cfg(not(target_os = "linux"))]
        let (tcp, peer) = {
            #[cfg(unix)]
            let socket = std::os::fd::AsFd::as_fd(self).try_clone_to_owned()?;
            #[cfg(windows)]
            let socket = std::os::windows::io::AsSocket::as_socket(self).try_clone_to_owned()?;
            let (tcp, peer) = std::net::TcpListener::from(socket).accept()?;
            tcp.set_nonblocking(true)?;
            (tcp, peer)
        };
        Ok((TcpStream::from_std(tcp)?, peer))
    }

    #[cfg(target_os = "linux")]
    fn has_waiting(&self) -> bool {
        has_waiting(self)
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        Self::local_addr(self).ok()
    }
}

/// A connection that was accepted.
pub(super) struct Arrival<L: Listener> {
    pub(super) stream: L::Stream,
    pub(super) peer: L::Peer,
    /// Its place within the [limit](crate::server::Server::max_connections), which its stream holds. `None` without a limit.
    pub(super) place: Option<OwnedSemaphorePermit>,
}

/// A listening socket until it is closed.
pub(super) struct ListeningSocket<L: Listener> {
    phase: ListeningPhase<L>,
    /// The places for connections, if they are limited.
    places: Option<PollSemaphore>,
    /// A connection that waits for a place: whether one is in the system's queue is not known before it is accepted.
    waiting: Option<(L::Stream, L::Peer)>,
    membership: Option<DrainMembership>,
    /// When to accept again after an error of the system.
    retry_at: Option<Instant>,
    accept_errors: AcceptErrors,
    timer: BoxedTimer,
}

enum ListeningPhase<L> {
    Open(L),
    EmptyingQueue {
        listener: L,
        state: QueueState,
        /// How many more connections may come out of the queue: clients that go on connecting must not keep the server from stopping.
        left: usize,
        /// Until when the system may refuse to accept, and the listener need not stop.
        end: Instant,
    },
    Closed,
}

/// Whether connections still enter the queue that is emptied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum QueueState {
    /// The listener has not [stopped](Listener::poll_stop).
    Fills,
    /// None that is waited for.
    Stopped,
}

/// The part that an open listener takes in a server drain.
struct DrainMembership {
    /// Held while the socket is open.
    _open: TaskTrackerToken,
    /// Resolves when the drain stops accepting.
    stop: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    /// The drain, until the listener has registered: at the first accept, when all options are set.
    unregistered: Option<DrainHandle>,
    drain: DrainHandle,
}

impl<L: Listener> ListeningSocket<L> {
    pub(super) fn new(listener: L) -> Self {
        let phase = ListeningPhase::Open(listener);
        Self {
            phase,
            places: None,
            waiting: None,
            membership: None,
            retry_at: None,
            accept_errors: AcceptErrors::default(),
            timer: BoxedTimer::default(),
        }
    }

    /// Joins a server drain.
    pub(super) fn join(&mut self, drain: &DrainHandle) {
        if let ListeningPhase::Open(_) = self.phase {
            self.membership = Some(DrainMembership {
                _open: drain.count_socket(),
                stop: Box::pin(drain.reached(DrainPhase::LastRequest)),
                unregistered: Some(drain.clone()),
                drain: drain.clone(),
            });
        }
    }

    /// Limits the connections, also those of other listeners that have the same places.
    pub(super) fn limit(&mut self, places: Option<&Arc<Semaphore>>) {
        self.places = places.cloned().map(PollSemaphore::new);
    }

    /// The drain with which the listener has to register now, once.
    pub(super) fn take_unregistered(&mut self) -> Option<DrainHandle> {
        self.membership.as_mut()?.unregistered.take()
    }

    /// The listener while it is open.
    pub(super) fn get_ref(&self) -> Option<&L> {
        match &self.phase {
            ListeningPhase::Open(listener) => Some(listener),
            ListeningPhase::EmptyingQueue { .. } | ListeningPhase::Closed => None,
        }
    }

    /// Stops listening at once. [`next_queued`](Self::next_queued) returns the connections in the system's queue. If the system refuses to
    /// accept, the socket stays open until that is over, for `timeout` at most. Does nothing on a closed listener.
    pub(super) fn close(&mut self, timeout: Duration) {
        self.empty_queue(timeout);
        if let ListeningPhase::EmptyingQueue { state, .. } = &mut self.phase {
            *state = QueueState::Stopped;
        }
    }

    fn empty_queue(&mut self, timeout: Duration) {
        self.phase = match mem::replace(&mut self.phase, ListeningPhase::Closed) {
            ListeningPhase::Open(listener) => {
                let state = QueueState::Fills;
                ListeningPhase::EmptyingQueue { listener, state, left: MAX_QUEUED, end: from_now(timeout) }
            }
            phase => phase,
        };
    }

    /// Accepts the next connection, but not before `not_before`. Returns `None` once the socket is closed.
    pub(super) fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
        not_before: Option<Instant>,
        close_timeout: Duration,
    ) -> Poll<Option<Arrival<L>>> {
        loop {
            if let Some(DrainMembership { stop, .. }) = &mut self.membership
                && let ListeningPhase::Open(_) = self.phase
                && stop.as_mut().poll(cx).is_ready()
            {
                self.retry_at = None;
                self.empty_queue(close_timeout);
            }
            let listener = match &mut self.phase {
                ListeningPhase::Open(listener) => listener,
                ListeningPhase::EmptyingQueue { listener, state, end, .. } => {
                    // A listener of the user's may never stop.
                    if *state == QueueState::Fills
                        && (listener.poll_stop(cx).is_ready() || self.timer.poll_until(*end, cx).is_ready())
                    {
                        *state = QueueState::Stopped;
                    }
                    if let Some(retry_at) = self.retry_at {
                        ready!(self.timer.poll_until(retry_at, cx));
                        self.retry_at = None;
                    }
                    match self.next_queued() {
                        Some(accepted) => return Poll::Ready(Some(accepted)),
                        None if self.retry_at.is_none() && self.fills() => return Poll::Pending,
                        None => continue,
                    }
                }
                ListeningPhase::Closed => return Poll::Ready(None),
            };
            if let Some((stream, peer)) = self.waiting.take() {
                if let Poll::Ready(place) = poll_place(&mut self.places, cx) {
                    self.retry_at = None;
                    return Poll::Ready(Some(Arrival { stream, peer, place }));
                }
                self.waiting = Some((stream, peer));
                if let Some(retry_at) = self.retry_at {
                    ready!(self.timer.poll_until(retry_at, cx));
                }
                self.membership.iter().for_each(|membership| membership.drain.end_idle_connection());
                self.retry_at = Some(from_now(RETRY_PAUSE));
                continue;
            }
            if let Some(not_before) = self.retry_at.max(not_before) {
                ready!(self.timer.poll_until(not_before, cx));
                self.retry_at = None;
            }
            match ready!(listener.poll_accept(cx)) {
                Ok(accepted) => self.waiting = Some(accepted),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if listener.has_waiting() {
                        self.accept_errors.report(&error);
                        self.membership.iter().for_each(|membership| membership.drain.make_room());
                    }
                    self.retry_at = Some(from_now(RETRY_PAUSE));
                }
            }
        }
    }

    /// Whether connections still enter the queue that is emptied.
    fn fills(&self) -> bool {
        matches!(self.phase, ListeningPhase::EmptyingQueue { state: QueueState::Fills, .. })
    }

    /// The next connection in the queue of a socket that [closes](Self::close). `None` if the queue is empty, or if the system refuses to
    /// accept for now. Once the queue is empty and stopped, the socket is closed.
    ///
    /// The limit of connections is no limit here: a client that still waits in the queue would be reset.
    pub(super) fn next_queued(&mut self) -> Option<Arrival<L>> {
        if let Some((stream, peer)) = self.waiting.take() {
            return Some(Arrival { stream, peer, place: None });
        }
        while let ListeningPhase::EmptyingQueue { listener, state, left, end } = &mut self.phase {
            if *left == 0 {
                if listener.has_waiting() {
                    warn_of_reset(&io::Error::other("clients connect faster than they are accepted"));
                }
                break;
            }
            match listener.accept_queued() {
                Ok((stream, peer)) => {
                    *left -= 1;
                    return Some(Arrival { stream, peer, place: None });
                }
                Err(error) if is_of_one_connection(&error) => *left -= 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock || !listener.has_waiting() => match state {
                    QueueState::Fills => return None,
                    QueueState::Stopped => break,
                },
                Err(_) if Instant::now() < *end => {
                    self.retry_at = Some(from_now(RETRY_PAUSE));
                    return None;
                }
                Err(error) => {
                    warn_of_reset(&error);
                    break;
                }
            }
        }
        self.phase = ListeningPhase::Closed;
        self.membership = None;
        None
    }
}

/// A place for a connection, or `None` if they are not limited.
fn poll_place(places: &mut Option<PollSemaphore>, cx: &mut Context<'_>) -> Poll<Option<OwnedSemaphorePermit>> {
    // The semaphore is never closed.
    places.as_mut().map_or(Poll::Ready(None), |places| places.poll_acquire(cx))
}
