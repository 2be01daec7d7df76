//! [`Reaper`]: finishes the shutdown of dropped connections in the background, within limits.

use std::{
    collections::BTreeMap,
    fmt,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    runtime::Handle,
    sync::Notify,
    task::{AbortHandle, coop},
    time::timeout,
};
use tracing::Instrument;

use crate::{
    runtime::{
        lock::lock,
        timer::{Timer, from_now},
    },
    tls::{
        connection::Connection,
        session::TlsSession,
        socket::{Discard, socket_of},
    },
};

/// Finishes the shutdown of streams that were dropped during or after it, in the background.
///
/// Why: if a socket is closed while the kernel holds unread bytes, or receives bytes later, the kernel resets the connection. The reset
/// may overtake our last data, close_notify included (RFC 9112 section 9.6). Answers are lost that way by a server that closes
/// unidirectionally, or that answers before it has read the whole request.
///
/// When a stream [with this reaper](crate::ShutdownStream::with_reaper) is dropped, the reaper does two things:
///
/// 1. It finishes the shutdown by the stream's policy, within the rest of the close timeout. After a unidirectional shutdown it also
///    waits for the peer's close_notify that long. A peer that answers makes the connection [complete](crate::Ending::Complete), a peer
///    that does not leaves it [sent](crate::Ending::Sent).
/// 2. It **lingers**: it frees the TLS session, and discards what arrives at the socket, until the peer's FIN or the
///    [limits](ReaperLimits). It does so also if the peer's close_notify came, because a peer may close its half while it still receives.
///
/// A stream that is dropped before its shutdown has begun is aborted, not finished. If a write had failed on it, the reaper reads what
/// has arrived, without waiting, so that `on_end` can report the reason.
///
/// Its limit is the life of the process and of the runtime: call [`wait_idle`](Self::wait_idle) before the process exits. A stream may
/// be dropped on any thread, also after its runtime has ended; then the connection ends at once.
///
/// Clones are handles to the same reaper.
///
/// ```
/// # async fn serve(
/// #     tls: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
/// # ) {
/// use tls_shutdown::{Reaper, ShutdownStream};
///
/// let reaper = Reaper::new();
/// let stream = ShutdownStream::new(tls).with_reaper(&reaper);
/// // .. serve the connection, shut it down, drop it ..
/// # drop(stream);
/// let left = reaper.wait_idle(std::time::Duration::from_secs(10)).await;
/// # }
/// ```
#[derive(Clone)]
pub struct Reaper {
    shared: Arc<ReaperState>,
}

/// The limits of a [`Reaper`].
///
/// ```
/// use std::time::Duration;
/// use tls_shutdown::{Reaper, ReaperLimits};
///
/// let reaper = Reaper::with_limits(ReaperLimits::new().with_linger_timeout(Duration::from_secs(10)));
/// # let _ = reaper;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct ReaperLimits {
    max_closings: usize,
    linger_timeout: Duration,
    linger_idle_timeout: Duration,
}

impl ReaperLimits {
    /// Default [number of closings](Self::with_max_closings) at a time.
    pub const MAX_CLOSINGS: usize = 10_000;
    /// Default [time of a linger](Self::with_linger_timeout), as nginx's `lingering_time`.
    pub const LINGER_TIMEOUT: Duration = Duration::from_secs(30);
    /// Default [time of a linger without a byte](Self::with_linger_idle_timeout), as nginx's `lingering_timeout`.
    pub const LINGER_IDLE_TIMEOUT: Duration = Duration::from_secs(5);

    /// The defaults.
    pub const fn new() -> Self {
        Self {
            max_closings: Self::MAX_CLOSINGS,
            linger_timeout: Self::LINGER_TIMEOUT,
            linger_idle_timeout: Self::LINGER_IDLE_TIMEOUT,
        }
    }

    /// Limits the connections that close at a time. A further one sheds the oldest, and with a limit of 0, itself.
    /// Default: [`MAX_CLOSINGS`](Self::MAX_CLOSINGS).
    pub const fn with_max_closings(mut self, max: usize) -> Self {
        self.max_closings = max;
        self
    }

    /// Limits the whole time of a linger. There is no limit in bytes: a client may send the rest of a large upload before it reads an
    /// early answer. Default: [`LINGER_TIMEOUT`](Self::LINGER_TIMEOUT).
    pub const fn with_linger_timeout(mut self, timeout: Duration) -> Self {
        self.linger_timeout = timeout;
        self
    }

    /// Limits the time of a linger without an arriving byte. Default: [`LINGER_IDLE_TIMEOUT`](Self::LINGER_IDLE_TIMEOUT).
    pub const fn with_linger_idle_timeout(mut self, timeout: Duration) -> Self {
        self.linger_idle_timeout = timeout;
        self
    }

    /// The number of connections that may close at a time.
    pub const fn max_closings(&self) -> usize {
        self.max_closings
    }

    /// The longest linger.
    pub const fn linger_timeout(&self) -> Duration {
        self.linger_timeout
    }

    /// The longest time of a linger without an arriving byte.
    pub const fn linger_idle_timeout(&self) -> Duration {
        self.linger_idle_timeout
    }
}

impl Default for ReaperLimits {
    fn default() -> Self {
        Self::new()
    }
}

struct ReaperState {
    /// The runtime in which the reaper was created, so that a `Drop` needs none.
    runtime: Option<Handle>,
    limits: ReaperLimits,
    closings: Mutex<Closings>,
    /// The last closing has ended.
    idle: Notify,
    shed: AtomicU64,
    discard: Discard,
}

/// The closings in progress, the oldest first.
#[derive(Default)]
struct Closings {
    next: u64,
    /// Includes those that were shed and have not ended yet.
    count: usize,
    /// `None` until the spawned task is known.
    tasks: BTreeMap<u64, Option<AbortHandle>>,
}

impl Reaper {
    /// Creates a reaper with the default [limits](ReaperLimits).
    ///
    /// It works in the current Tokio runtime, which must have time enabled. If it is created outside of a runtime, it works in that of
    /// the thread that drops a stream. Without any runtime, the connection ends at once.
    pub fn new() -> Self {
        Self::with_limits(ReaperLimits::new())
    }

    /// Creates a reaper with `limits`.
    pub fn with_limits(limits: ReaperLimits) -> Self {
        Self {
            shared: Arc::new(ReaperState {
                runtime: Handle::try_current().ok(),
                limits,
                closings: Mutex::default(),
                idle: Notify::new(),
                shed: AtomicU64::new(0),
                discard: Discard::new(),
            }),
        }
    }

    /// The number of connections that are closing. It includes those that were shed and are about to end.
    pub fn closings(&self) -> usize {
        lock(&self.shared.closings).count
    }

    /// The number of connections that the [limit](ReaperLimits::with_max_closings) has ended early.
    pub fn shed(&self) -> u64 {
        // A statistic: it orders nothing.
        self.shared.shed.load(Ordering::Relaxed)
    }

    /// Waits until no connection is closing, for `limit` at most. Returns the number of those that are still closing.
    ///
    /// They continue until the process ends.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with time enabled.
    ///
    /// # Cancel safety
    ///
    /// You can drop the future and call this again.
    pub async fn wait_idle(&self, limit: Duration) -> usize {
        let idle = async {
            loop {
                let idle = self.shared.idle.notified();
                if self.closings() == 0 {
                    return;
                }
                idle.await;
            }
        };
        match timeout(limit, idle).await {
            Ok(()) => 0,
            Err(_) => self.closings(),
        }
    }

    /// Whether both are handles to the same reaper.
    pub fn same_reaper(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Ends all connections that are closing, as the end of the process would. Each reports its end by
    /// [`on_end`](crate::ShutdownStream::on_end) before it leaves [`closings`](Self::closings).
    ///
    /// For a server whose time is over, and that counts every connection.
    pub fn abort_all(&self) {
        let tasks = std::mem::take(&mut lock(&self.shared.closings).tasks);
        tasks.into_values().flatten().for_each(|task| task.abort());
    }

    /// Sends FIN, and discards what arrives until the peer's FIN or the [limits](ReaperLimits). Drops the transport at once if there is
    /// no runtime or no place.
    ///
    /// For a transport whose TLS handshake has failed. The alert tells the client why, but a client of TLS 1.3 may send data already. If
    /// the socket is closed while that arrives, the reset destroys the alert. `TlsListener` does this for its own handshakes.
    ///
    /// ```
    /// # async fn accept(
    /// #     acceptor: tokio_rustls::TlsAcceptor,
    /// #     tcp: tokio::net::TcpStream,
    /// #     reaper: tls_shutdown::Reaper,
    /// # ) {
    /// match acceptor.accept(tcp).into_fallible().await {
    ///     Ok(tls) => { /* serve it */ }
    ///     Err((_error, tcp)) => reaper.linger(tcp),
    /// }
    /// # }
    /// ```
    pub fn linger<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, transport: T) {
        self.spawn(transport, async move |mut transport, shared| {
            let fin = poll_fn(|cx| Pin::new(&mut transport).poll_shutdown(cx));
            if let Ok(Ok(())) = timeout(shared.limits.linger_timeout, fin).await {
                linger(transport, |transport| socket_of(transport), &shared).await;
            }
        });
    }

    /// Takes a connection over, or drops it if there is no runtime or no place.
    pub(crate) fn adopt<S>(&self, connection: Box<Connection<S>>)
    where
        S: TlsSession<Transport: Send> + Send + 'static,
    {
        self.spawn(connection, async move |connection, shared| {
            if let Some(transport) = finish(connection).await {
                linger(transport, S::socket, &shared).await;
            }
        });
    }

    /// Closes a connection in a task of its own.
    fn spawn<C, F>(&self, connection: C, close: impl FnOnce(C, Arc<ReaperState>) -> F + Send + 'static)
    where
        C: Send + 'static,
        F: Future<Output = ()> + Send,
    {
        let Some(runtime) = self.shared.runtime.clone().or_else(|| Handle::try_current().ok()) else {
            return;
        };
        let Some(entry) = self.enter() else {
            return;
        };
        let id = entry.id;
        // One value: a task that is never polled must drop the connection first, too.
        let adopted = (connection, entry);
        let closing = async move {
            let (connection, entry) = adopted;
            close(connection, entry.shared.clone()).await;
        };
        // Its end is logged where its life was.
        let task = runtime.spawn(closing.in_current_span());
        let handle = task.abort_handle();
        let mut closings = lock(&self.shared.closings);
        if let Some(slot) = closings.tasks.get_mut(&id) {
            *slot = Some(handle);
        } else {
            drop(closings);
            // It has ended, could not even start, or was shed before it could be told.
            handle.abort();
        }
    }

    /// Reserves a place, and sheds the oldest connection if there is none. Returns `None` if the limit is 0.
    fn enter(&self) -> Option<Entry> {
        let limit = self.shared.limits.max_closings;
        let mut closings = lock(&self.shared.closings);
        let mut oldest = None;
        if closings.tasks.len() >= limit {
            self.shared.shed.fetch_add(1, Ordering::Relaxed);
            oldest = closings.tasks.pop_first();
        }
        if limit == 0 {
            return None;
        }
        let id = closings.next;
        closings.next += 1;
        closings.tasks.insert(id, None);
        closings.count += 1;
        drop(closings);
        if let Some((_, Some(task))) = oldest {
            task.abort();
        }
        Some(Entry { shared: self.shared.clone(), id })
    }
}

impl Default for Reaper {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Reaper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reaper")
            .field("limits", &self.shared.limits)
            .field("closings", &self.closings())
            .field("shed", &self.shed())
            .finish_non_exhaustive()
    }
}

/// The place of a connection in the reaper. Dropped when its task ends, however it ends.
struct Entry {
    shared: Arc<ReaperState>,
    id: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut closings = lock(&self.shared.closings);
        closings.tasks.remove(&self.id);
        closings.count -= 1;
        if closings.count == 0 {
            self.shared.idle.notify_waiters();
        }
    }
}

/// Finishes the shutdown and frees the TLS session. Returns the transport if it has to linger.
async fn finish<S: TlsSession>(mut connection: Box<Connection<S>>) -> Option<S::Transport> {
    connection.driver.listen();
    poll_fn(|cx| connection.poll_close(cx)).await;
    connection.driver.needs_reaper().then(|| connection.into_session().into_transport())
}

//= https://www.rfc-editor.org/rfc/rfc9112#section-9.6
//# The server then continues to read from the connection until it
//# receives a corresponding close by the client, or until the server is
//# reasonably certain that its own TCP stack has received the client's
//# acknowledgement of the packet(s) containing the server's last
//# response.
/// Discards what arrives, until the peer's FIN or a limit.
async fn linger<T: AsyncRead + Unpin>(
    mut transport: T,
    socket: impl Fn(&T) -> Option<&TcpStream>,
    shared: &ReaperState,
) {
    let limits = shared.limits;
    let end = from_now(limits.linger_timeout);
    let mut idle_end = end.min(from_now(limits.linger_idle_timeout));
    let mut timer = pin!(Timer::default());
    poll_fn(|cx| {
        while let Poll::Ready(budget) = coop::poll_proceed(cx) {
            let discarded = match socket(&transport) {
                Some(socket) => shared.discard.poll_discard(socket, cx),
                None => poll_discard(&mut transport, cx),
            };
            match discarded {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => idle_end = end.min(from_now(limits.linger_idle_timeout)),
                Poll::Pending => break,
            }
            budget.made_progress();
        }
        timer.as_mut().poll_until(idle_end, cx)
    })
    .await;
}

/// Discards what has arrived. Returns the number of bytes, 0 at the end of the stream.
fn poll_discard<T: AsyncRead + Unpin>(transport: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let mut bytes = [0; Discard::STACK_BYTES];
    let mut buffer = ReadBuf::new(&mut bytes);
    ready!(Pin::new(transport).poll_read(cx, &mut buffer))?;
    Poll::Ready(Ok(buffer.filled().len()))
}
