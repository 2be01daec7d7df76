//! [`Reaper`]: finishes what a dropped connection still owes, within bounds.

use std::{
    collections::BTreeMap,
    fmt,
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::Notify,
    task::{AbortHandle, coop},
    time::{sleep_until, timeout},
};
use tracing::Instrument;

use crate::{
    tls::driver::{from_now, poll_until},
    tls::session::TlsSession,
    tls::socket::Scratch,
    tls::stream::Connection,
};

/// Finishes the closing of streams that were dropped during or after their shutdown.
///
/// Why: a kernel that holds unread bytes when a socket is closed, or gets some later, resets the connection, and the reset may
/// overtake our last data, close_notify included (RFC 9112 section 9.6). A server that closes unidirectionally, or that answers
/// before it has read the whole request, loses answers that way.
///
/// What it does with a stream that [has it](crate::ShutdownStream::with_reaper), when that is dropped:
///
/// 1. It finishes the closing by the stream's policy, with what is left of its deadline. After a unidirectional close it listens
///    for the peer's close_notify as long: a peer that answers makes the connection [complete](crate::Ending::Complete), one
///    that does not leaves it [sent](crate::Ending::Sent).
/// 2. Where the peer's close_notify did not come, it **lingers**: the TLS session is freed, and what still arrives at the socket
///    is discarded, until the peer's FIN or the [limits](ReaperLimits).
///
/// A stream that was dropped before its shutdown was asked for is not finished, but aborted. Only where a write had failed on it,
/// a reaper looks for what the peer has said before, without waiting, so that `on_end` can tell.
///
/// Its limit is the life of the process and the runtime: [`wait_idle`](Self::wait_idle) before the process exits. It needs no
/// runtime to be called from: a stream may be dropped on any thread, and after its runtime is gone, where the connection just
/// ends.
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
    shared: Arc<Shared>,
}

/// The bounds of a [`Reaper`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct ReaperLimits {
    max_closings: usize,
    linger_timeout: Duration,
    linger_idle_timeout: Duration,
}

impl ReaperLimits {
    /// Default number of [closings](Self::with_max_closings) at a time.
    pub const MAX_CLOSINGS: usize = 10_000;
    /// Default time of a [linger](Self::with_linger_timeout), as nginx's `lingering_time`.
    pub const LINGER_TIMEOUT: Duration = Duration::from_secs(30);
    /// Default time of a linger [without a byte](Self::with_linger_idle_timeout), as nginx's `lingering_timeout`.
    pub const LINGER_IDLE_TIMEOUT: Duration = Duration::from_secs(5);

    /// The defaults.
    pub const fn new() -> Self {
        Self {
            max_closings: Self::MAX_CLOSINGS,
            linger_timeout: Self::LINGER_TIMEOUT,
            linger_idle_timeout: Self::LINGER_IDLE_TIMEOUT,
        }
    }

    /// Limits the closings held at a time; a further one sheds the oldest, and with a limit of 0, itself.
    /// Default: [`MAX_CLOSINGS`](Self::MAX_CLOSINGS).
    pub const fn with_max_closings(mut self, max: usize) -> Self {
        self.max_closings = max;
        self
    }

    /// Limits the whole time of a linger. There is no limit in bytes: an upload that was answered early may have to be read to
    /// its end before the peer looks at the answer. Default: [`LINGER_TIMEOUT`](Self::LINGER_TIMEOUT).
    pub const fn with_linger_timeout(mut self, timeout: Duration) -> Self {
        self.linger_timeout = timeout;
        self
    }

    /// Limits the time of a linger in which nothing arrives. Default: [`LINGER_IDLE_TIMEOUT`](Self::LINGER_IDLE_TIMEOUT).
    pub const fn with_linger_idle_timeout(mut self, timeout: Duration) -> Self {
        self.linger_idle_timeout = timeout;
        self
    }
}

impl Default for ReaperLimits {
    fn default() -> Self {
        Self::new()
    }
}

struct Shared {
    /// The runtime in which the reaper was made, so that a `Drop` need not be in one.
    runtime: Option<Handle>,
    limits: ReaperLimits,
    closings: Mutex<Closings>,
    /// The last closing has ended.
    idle: Notify,
    shed: AtomicU64,
    scratch: Scratch,
}

/// The closings in progress by age; `None` until the task that was spawned is known.
#[derive(Default)]
struct Closings {
    next: u64,
    /// Those that were shed and have not ended are among them.
    count: usize,
    tasks: BTreeMap<u64, Option<AbortHandle>>,
}

impl Reaper {
    /// A reaper with the default [limits](ReaperLimits).
    ///
    /// It works in the current Tokio runtime, which must have time enabled. Made outside of one, it works in that of the thread
    /// that drops a stream; where there is none either, the connection just ends.
    pub fn new() -> Self {
        Self::with_limits(ReaperLimits::new())
    }

    /// A reaper with `limits`.
    pub fn with_limits(limits: ReaperLimits) -> Self {
        Self {
            shared: Arc::new(Shared {
                runtime: Handle::try_current().ok(),
                limits,
                closings: Mutex::default(),
                idle: Notify::new(),
                shed: AtomicU64::new(0),
                scratch: Scratch::new(),
            }),
        }
    }

    /// The number of closings in progress, those among them that were shed and are about to end.
    pub fn closings(&self) -> usize {
        self.shared.lock().count
    }

    /// The number of closings that were ended before their time, since there were too many.
    pub fn shed(&self) -> u64 {
        // A statistic: it orders nothing.
        self.shared.shed.load(Ordering::Relaxed)
    }

    /// Waits until no closing is in progress, `limit` at most. Gives the number that is left: 0 where all are done.
    ///
    /// What is left goes on; the end of the process ends it.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime with time enabled.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again.
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

    /// Whether both are handles to one reaper.
    #[cfg(feature = "server")]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Ends all closings in progress where they are.
    #[cfg(feature = "server")]
    pub(crate) fn give_up(&self) {
        let tasks = std::mem::take(&mut self.shared.lock().tasks);
        tasks.into_values().flatten().for_each(|task| task.abort());
    }

    /// Takes a connection over. Dropping the connection instead is what happens where it cannot be.
    pub(crate) fn adopt<S>(&self, connection: Box<Connection<S>>)
    where
        S: TlsSession<Transport: Send> + Send + 'static,
    {
        let Some(runtime) = self.shared.runtime.clone().or_else(|| Handle::try_current().ok()) else {
            return;
        };
        let Some(entry) = self.enter() else {
            return;
        };
        let id = entry.id;
        // One value, so that a task that is never polled drops the connection first, too.
        let adopted = (connection, entry);
        let closing = async move {
            let (connection, entry) = adopted;
            if let Some(transport) = finish(connection).await {
                linger::<S>(transport, &entry.shared).await;
            }
        };
        // Its end is logged where its life was.
        let task = runtime.spawn(closing.in_current_span());
        let handle = task.abort_handle();
        let mut closings = self.shared.lock();
        if let Some(slot) = closings.tasks.get_mut(&id) {
            *slot = Some(handle);
        } else {
            drop(closings);
            // It has ended, could not even start, or was shed before it could be told.
            handle.abort();
        }
    }

    /// Makes place for one more closing, unless there must be none.
    fn enter(&self) -> Option<Entry> {
        let limit = self.shared.limits.max_closings;
        let mut closings = self.shared.lock();
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

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Closings> {
        self.closings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A closing's place in the reaper, left when its task ends, however it ends.
struct Entry {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut closings = self.shared.lock();
        closings.tasks.remove(&self.id);
        closings.count -= 1;
        if closings.count == 0 {
            self.shared.idle.notify_waiters();
        }
    }
}

/// Finishes the closing. Gives the transport if it is to linger; the TLS session is gone then.
async fn finish<S: TlsSession>(mut connection: Box<Connection<S>>) -> Option<S::Transport> {
    connection.close.hear_on();
    poll_fn(|cx| connection.poll_close(cx)).await;
    connection.close.owes_more().then(|| connection.into_session().into_transport())
}

//= https://www.rfc-editor.org/rfc/rfc9112#section-9.6
//# The server then continues to read from the connection until it
//# receives a corresponding close by the client, or until the server is
//# reasonably certain that its own TCP stack has received the client's
//# acknowledgement of the packet(s) containing the server's last
//# response.
/// Discards what arrives, until the peer's FIN or a limit.
async fn linger<S: TlsSession>(mut transport: S::Transport, shared: &Shared) {
    let limits = shared.limits;
    let end = from_now(limits.linger_timeout);
    let mut limit = end.min(from_now(limits.linger_idle_timeout));
    let mut sleep = pin!(sleep_until(limit));
    poll_fn(|cx| {
        while let Poll::Ready(budget) = coop::poll_proceed(cx) {
            match shared.scratch.poll_discard::<S>(&mut transport, cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => limit = end.min(from_now(limits.linger_idle_timeout)),
                Poll::Pending => break,
            }
            budget.made_progress();
        }
        poll_until(sleep.as_mut(), limit, cx)
    })
    .await;
}
