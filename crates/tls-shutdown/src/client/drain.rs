//! [`ClientDrain`]: ends all connections of a client.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{self, Instant},
};

use super::{
    draining::Draining,
    report::ClientDrainReport,
    retirement::PoolLimits,
    shared_stream::{Drained, Link, Owner, SharedStream},
    stream::ClientStream,
};
use crate::{
    runtime::debug::debug_struct,
    tls::{ShutdownReport, ShutdownStream, TlsSession},
};

/// Ends every TLS connection that was made through a [`ShutdownLayer`](super::ShutdownLayer), and waits for their ends.
///
/// - An **idle connection**, in a pool or never used, is closed at once by its policy. Its owner reads the end of the stream.
/// - A **request in flight** is finished first. An HTTP/1 connection then closes. An HTTP/2 client receives GOAWAY, as if from its server: it
///   opens no more streams, finishes those in flight, and ends the connection itself. hyper may fail a request that is sent in this moment,
///   although the server has received it, as with any GOAWAY.
/// - A **new request** fails with [`Draining`], and so does a request that still waits for a connection. Nothing of it was sent.
/// - A **handshake** in progress is finished, because the server should not see a broken one, and the connection then closes. If the server
///   does not answer, that takes until the timeout.
/// - A connection that speaks **another protocol**, for example after an upgrade, is ended by its owner. [`begun`](Self::begun) returns when
///   it should do that.
/// - A connection that its owner has **half-closed**, and reads on, is closed or cut like the others.
/// - A connection that its owner has **shut down**, and still holds, has ended, well or not. Its [`on_end`](super::ShutdownLayer::on_end) waits
///   for the drop, and the drain for half a second for that.
/// - At the **timeout**, requests in flight are cut: their connections end without close_notify, and their owners receive an error.
///
/// A connection that was closed [bidirectionally](crate::ShutdownPolicy::bidirectional) has its session tickets, and its peer has read
/// everything, within the limits of that policy: the process may exit. The other endings show what may be missing. Some servers, nginx among
/// them, never answer close_notify: their connections end [truncated](crate::Ending::Truncated).
///
/// Its limits: a drain cannot be undone. It does not end connections without TLS, and does not wait for a [`Reaper`](crate::Reaper) that
/// lingers. Clones are handles to the same drain.
///
/// ```
/// # async fn exit(layer: tls_shutdown::client::ShutdownLayer) {
/// let report = layer.drain().run(std::time::Duration::from_secs(10)).await;
/// println!("{report}"); // 8 ended: 8 complete; 16 tickets, 0 left, 2.1 ms
/// # }
/// ```
#[derive(Clone)]
pub struct ClientDrain {
    register: watch::Sender<Entries>,
}

/// How long owners may take to drop what has ended. Their callbacks then come before the end of the drain, which may be that of the process.
const DROP_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Entries {
    phase: RegisterPhase,
    next_id: u64,
    attempts: usize,
    open: BTreeMap<u64, Weak<dyn Drained>>,
    /// Those that have ended, and that their owners still hold.
    held: usize,
    /// Counted from the beginning of the drain on.
    endings: BTreeMap<&'static str, u64>,
    tickets: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum RegisterPhase {
    #[default]
    Open,
    Draining,
}

impl Entries {
    fn left(&self) -> usize {
        self.open.len() + self.attempts
    }
}

/// A connection that is being made, until this is dropped.
pub(super) struct Attempt(ClientDrain);

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.register.send_modify(|entries| entries.attempts -= 1);
    }
}

impl ClientDrain {
    pub(super) fn new() -> Self {
        Self { register: watch::Sender::default() }
    }

    /// Whether the drain has begun.
    pub fn has_begun(&self) -> bool {
        self.register.borrow().phase == RegisterPhase::Draining
    }

    /// The number of open TLS connections, without those in their handshake.
    pub fn open(&self) -> usize {
        self.register.borrow().open.len()
    }

    /// Waits until the drain begins. Use it to end connections that do not speak HTTP.
    ///
    /// # Cancel safety
    ///
    /// You can drop the future and call this again.
    pub async fn begun(&self) {
        self.wait_until(|entries| entries.phase == RegisterPhase::Draining).await;
    }

    /// Begins the drain, unless it has begun, and waits until every connection has ended, for `timeout` at most. After the timeout it cuts
    /// the requests in flight. Connections that are closing continue within their policy; call this again to wait for them.
    ///
    /// A shutdown takes time, too: with a silent peer, the policy's [close timeout](crate::ShutdownPolicy::with_close_timeout). Add it to the
    /// time for requests if the report should contain every ending.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with time enabled.
    ///
    /// # Cancel safety
    ///
    /// You can drop the future and call this again. Meanwhile the drain goes on, but cuts nothing.
    pub async fn run(&self, timeout: Duration) -> ClientDrainReport {
        let began = Instant::now();
        self.register.send_modify(|entries| entries.phase = RegisterPhase::Draining);
        self.for_each_open(|stream| stream.close_when_idle());
        if time::timeout(timeout, self.wait_until(|entries| entries.left() == 0)).await.is_err() {
            self.for_each_open(|stream| stream.cut());
        }
        let drop_timeout = DROP_TIMEOUT.min(timeout.saturating_sub(began.elapsed()));
        let _ = time::timeout(drop_timeout, self.wait_until(|entries| entries.held == 0)).await;
        let entries = self.register.borrow();
        ClientDrainReport {
            endings: entries.endings.clone(),
            tickets: entries.tickets,
            left: entries.left(),
            elapsed: began.elapsed(),
        }
    }

    /// Registers a connection that is being made. Returns `None` if the drain has begun.
    pub(super) fn attempt(&self) -> Option<Attempt> {
        let is_open = self.register.send_if_modified(|entries| {
            let is_open = entries.phase == RegisterPhase::Open;
            entries.attempts += usize::from(is_open);
            is_open
        });
        is_open.then(|| Attempt(self.clone()))
    }

    /// Registers a connection. If the drain has begun, closes it and fails.
    pub(super) fn admit<S>(&self, stream: ShutdownStream<S>, limits: PoolLimits) -> Result<ClientStream<S>, Draining>
    where
        S: TlsSession<Transport: Send> + Send + 'static,
    {
        let (mut id, mut phase) = (0, RegisterPhase::Open);
        self.register.send_modify(|entries| {
            entries.next_id += 1;
            id = entries.next_id;
        });
        let drain = self.clone();
        let stream =
            Arc::new(SharedStream::new(stream, limits, move |report, owner| drain.count_end(id, report, owner)));
        let drained: Arc<dyn Drained> = stream.clone();
        self.register.send_modify(|entries| {
            entries.open.insert(id, Arc::downgrade(&drained));
            phase = entries.phase;
        });
        match phase {
            RegisterPhase::Open => Ok(ClientStream::tls(stream)),
            RegisterPhase::Draining => {
                stream.with(Link::close);
                Err(Draining)
            }
        }
    }

    /// Counts the end of a connection, once.
    fn count_end(&self, id: u64, report: &ShutdownReport, owner: Owner) {
        self.register.send_modify(|entries| {
            let is_new = entries.open.remove(&id).is_some();
            match owner {
                Owner::Holds => entries.held += usize::from(is_new),
                Owner::HasDropped => entries.held -= usize::from(!is_new),
            }
            if is_new && entries.phase == RegisterPhase::Draining {
                *entries.endings.entry(report.ending().name()).or_default() += 1;
                entries.tickets += u64::from(report.tickets());
            }
        });
    }

    /// Acts on each open connection, without the lock: a connection that ends takes it.
    fn for_each_open(&self, act: fn(&dyn Drained)) {
        let open: Vec<_> = self.register.borrow().open.values().filter_map(Weak::upgrade).collect();
        open.iter().for_each(|stream| act(stream.as_ref()));
    }

    async fn wait_until(&self, is_reached: fn(&Entries) -> bool) {
        // Cannot fail: `self` is a sender.
        let _ = self.register.subscribe().wait_for(is_reached).await;
    }
}

debug_struct!({} ClientDrain, |drain| { has_begun: drain.has_begun(), open: drain.open() });
