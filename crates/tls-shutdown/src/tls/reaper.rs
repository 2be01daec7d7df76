//! [`Reaper`]: finishes the shutdown of dropped connections in the background, within limits.

use std::{
    collections::BTreeMap,
    future::{Future, pending, poll_fn},
    mem,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Handle,
    sync::{Notify, SetOnce},
    task::AbortHandle,
    time::{sleep, timeout, timeout_at},
};
use tracing::Instrument;

use crate::{
    runtime::{debug::debug_struct, lock::lock, timer::from_now},
    tls::{
        connection::Connection,
        linger::linger,
        reaper_limits::ReaperLimits,
        session::TlsSession,
        session_io::retry_interrupted,
        socket::{Discard, socket_of},
        undelivered::Undelivered,
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
/// 1. It finishes the shutdown by the stream's policy, within the rest of the close timeout. After a unidirectional shutdown or a
///    half-close it waits for the peer's close_notify, for a close timeout of its own. A peer that answers makes the connection
///    [complete](crate::Ending::Complete). After a unidirectional shutdown, a peer that does not leaves it [sent](crate::Ending::Sent).
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

/// How long a hurrying reaper waits for a peer without an undelivered answer. A peer that looks at its socket answers within a round trip.
const COURTESY_TIMEOUT: Duration = Duration::from_millis(500);

struct ReaperState {
    /// The runtime in which the reaper was created, so that a `Drop` needs none.
    runtime: Option<Handle>,
    limits: ReaperLimits,
    closings: Mutex<Closings>,
    /// The last closing has ended.
    idle: Notify,
    /// Set once closings in which no answer is undelivered are to end soon.
    hurry: SetOnce<()>,
    shed: AtomicU64,
    discard: Discard,
}

/// The closings in progress.
#[derive(Default)]
struct Closings {
    next: u64,
    /// Includes those that were shed and have not ended yet.
    count: usize,
    /// `None` until the spawned task is known.
    tasks: BTreeMap<Rank, Option<AbortHandle>>,
}

/// In which order closings are shed: the oldest without an undelivered answer first, then the oldest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    has_answer: bool,
    number: u64,
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
                hurry: SetOnce::new(),
                shed: AtomicU64::new(0),
                discard: Discard::new(),
            }),
        }
    }

    /// The number of connections that are closing. It includes those that were shed and are about to end.
    pub fn closings(&self) -> usize {
        lock(&self.shared.closings).count
    }

    /// The number of connections that the [limit](ReaperLimits::with_max_closings) or [`shed_one`](Self::shed_one) has ended early.
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
        let tasks = mem::take(&mut lock(&self.shared.closings).tasks);
        tasks.into_values().flatten().for_each(|task| task.abort());
    }

    /// Ends each closing in which no answer is [undelivered](Undelivered) after half a second: the present ones from now on, later ones from
    /// their beginning. If the [close_notify](Undelivered::CloseNotify) is not acknowledged then, the closing goes on until it is. For a
    /// server that is about to exit: a peer that looks at its socket answers close_notify within a round trip, and one that does not must not
    /// hold up the exit.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # async fn exit(reaper: tls_shutdown::Reaper) {
    /// reaper.hurry();
    /// let left = reaper.wait_idle(Duration::from_secs(10)).await;
    /// # }
    /// ```
    pub fn hurry(&self) {
        // It may hurry already.
        let _ = self.shared.hurry.set(());
    }

    /// Sends FIN, and discards what arrives until the peer's FIN or the [limits](ReaperLimits), which bound both together. Drops the
    /// transport at once if there is no runtime or no place.
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
        self.linger_with(transport, Undelivered::Alert);
    }

    /// The same for any transport.
    pub(crate) fn linger_with<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        transport: T,
        undelivered: Undelivered,
    ) {
        self.spawn(transport, undelivered, async move |mut transport, shared| {
            let end = from_now(shared.limits.linger_timeout());
            let fin = poll_fn(|cx| retry_interrupted(Pin::new(&mut transport).poll_shutdown(cx), cx));
            if let Ok(Ok(())) = timeout_at(end, fin).await {
                linger(transport, |transport| socket_of(transport), &shared.discard, &shared.limits, end).await;
            }
        });
    }

    /// Takes a connection over, or drops it if there is no runtime or no place.
    pub(crate) fn adopt<S>(&self, connection: Box<Connection<S>>, undelivered: Undelivered)
    where
        S: TlsSession<Transport: Send> + Send + 'static,
    {
        self.spawn(connection, undelivered, async move |connection, shared| {
            if let Some(transport) = finish(connection).await {
                let end = from_now(shared.limits.linger_timeout());
                linger(transport, S::socket, &shared.discard, &shared.limits, end).await;
            }
        });
    }

    /// Closes a connection in a task of its own.
    fn spawn<C, F>(
        &self,
        connection: C,
        undelivered: Undelivered,
        close: impl FnOnce(C, Arc<ReaperState>) -> F + Send + 'static,
    ) where
        C: Send + 'static,
        F: Future<Output = ()> + Send,
    {
        let Some(runtime) = self.shared.runtime.clone().or_else(|| Handle::try_current().ok()) else { return };
        let Some(entry) = self.enter(&undelivered) else { return };
        let rank = entry.rank;
        // One value: a task that is never polled must drop the connection first, too.
        let adopted = (connection, entry);
        let closing = async move {
            let (connection, entry) = adopted;
            let mut close = pin!(close(connection, entry.shared.clone()));
            let mut is_over = pin!(entry.shared.until_over(&undelivered));
            // The closing may use up what the task may do at once.
            poll_fn(|cx| match is_over.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => close.as_mut().poll(cx),
            })
            .await;
        };
        // Its end is logged in the span of the connection.
        let task = runtime.spawn(closing.in_current_span());
        let handle = task.abort_handle();
        let mut closings = lock(&self.shared.closings);
        if let Some(slot) = closings.tasks.get_mut(&rank) {
            *slot = Some(handle);
        } else {
            drop(closings);
            // It has ended, could not even start, or was shed before its handle was stored.
            handle.abort();
        }
    }

    /// Ends one closing, so that its socket is free: the oldest one without an [undelivered](Undelivered) answer, or else the oldest.
    /// Returns whether there was any. For an accept loop to which the system gives no more file descriptors. It counts as [shed](Self::shed).
    ///
    /// ```
    /// # fn on_accept_error(error: &std::io::Error, reaper: &tls_shutdown::Reaper) {
    /// if error.raw_os_error() == Some(24) {
    ///     reaper.shed_one(); // EMFILE: the next accept has a descriptor
    /// }
    /// # }
    /// ```
    pub fn shed_one(&self) -> bool {
        let mut closings = lock(&self.shared.closings);
        let Some((_, task)) = closings.tasks.pop_first() else { return false };
        self.shared.shed.fetch_add(1, Ordering::Relaxed);
        drop(closings);
        if let Some(task) = task {
            task.abort();
        }
        true
    }

    /// Reserves a place, and sheds a connection if there is none. Returns `None` if the limit is 0.
    fn enter(&self, undelivered: &Undelivered) -> Option<Entry> {
        let limit = self.shared.limits.max_closings();
        let mut closings = lock(&self.shared.closings);
        let mut shed = None;
        if closings.tasks.len() >= limit {
            self.shared.shed.fetch_add(1, Ordering::Relaxed);
            shed = closings.tasks.pop_first();
        }
        if limit == 0 {
            return None;
        }
        let rank = Rank { has_answer: matches!(undelivered, Undelivered::Answer), number: closings.next };
        closings.next += 1;
        closings.count += 1;
        closings.tasks.insert(rank, None);
        drop(closings);
        if let Some((_, Some(task))) = shed {
            task.abort();
        }
        Some(Entry { shared: self.shared.clone(), rank })
    }
}

impl Default for Reaper {
    fn default() -> Self {
        Self::new()
    }
}

debug_struct!({} Reaper, |reaper| {
    limits: reaper.shared.limits,
    closings: reaper.closings(),
    shed: reaper.shed(),
});

impl ReaperState {
    /// Waits until the time of a closing is over, if no answer is undelivered and the reaper hurries.
    async fn until_over(&self, undelivered: &Undelivered) {
        let is_acknowledged = match undelivered {
            Undelivered::Answer => return pending().await,
            Undelivered::CloseNotify(is_acknowledged) => Some(is_acknowledged),
            Undelivered::Alert => None,
        };
        self.hurry.wait().await;
        loop {
            sleep(COURTESY_TIMEOUT).await;
            if is_acknowledged.is_none_or(|is_acknowledged| is_acknowledged()) {
                return;
            }
        }
    }
}

/// The place of a connection in the reaper. Dropped when its task ends, however it ends.
struct Entry {
    shared: Arc<ReaperState>,
    rank: Rank,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut closings = lock(&self.shared.closings);
        closings.tasks.remove(&self.rank);
        closings.count -= 1;
        if closings.count == 0 {
            self.shared.idle.notify_waiters();
        }
    }
}

/// Finishes the shutdown and frees the TLS session. Returns the transport if it has to linger.
async fn finish<S: TlsSession>(mut connection: Box<Connection<S>>) -> Option<S::Transport> {
    // Its runtime may have ended.
    connection.timer.stop();
    connection.driver.listen();
    poll_fn(|cx| connection.poll_close(cx)).await;
    connection.driver.needs_reaper().then(|| connection.into_session().into_transport())
}
