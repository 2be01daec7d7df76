//! [`ClientDrain`]: ends all connections of a client, and tells how.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{
    layer::{Draining, OnEnd},
    stream::{ClientStream, Drained, Shared},
};
use crate::tls::{Ending, ShutdownReport, ShutdownStream, TlsSession};

/// Ends every TLS connection that was made through a [`ShutdownLayer`](super::ShutdownLayer), and waits until it has.
///
/// - A connection that is **idle**, pooled or never used, is closed at once by its policy, and its owner reads its end.
/// - A **request in flight** is finished first. In HTTP/1 the stream knows from the bytes that pass when it is, and closes then. An
///   HTTP/2 client is told to go away, as a server would tell it: it opens no more streams, finishes those in flight, and ends
///   the connection itself. A request that is made in that very moment may have reached the server and fail all the same: that is
///   how hyper takes any GOAWAY.
/// - A **new request** is refused with [`Draining`], since there is no connection for it. So is one that still waits for its
///   connection; nothing of it was sent. A connection that is being made is waited for, and closed when its handshake is done: a
///   client connects more often than it has to, and the server should see no broken handshake. One whose server does not answer takes
///   until the limit.
/// - A connection that speaks **anything else**, upgraded ones among it, is its owner's to end. [`begun`](Self::begun) tells when.
/// - What is in flight at the **limit** is cut: its connection ends without close_notify, and its owner gets an error.
///
/// What was closed [bidirectionally](crate::ShutdownPolicy::bidirectional) has its session tickets, and its peer has read
/// everything, as far as that policy can promise it: the process may exit. Other endings tell what may be missing; some servers,
/// nginx for one, never answer close_notify, and their connections end [truncated](Ending::Truncated). What a reaper still [lingers](crate::Reaper) over is not waited for.
///
/// It cannot be undone. Connections without TLS are not known to it. Clones are handles to the same drain.
///
/// # Examples
///
/// ```
/// # async fn exit(layer: tls_shutdown::client::ShutdownLayer) {
/// let report = layer.drain().drain(std::time::Duration::from_secs(10)).await;
/// println!("{report}"); // 8 ended: 8 complete; 16 tickets, 0 left, 2.1 ms
/// # }
/// ```
#[derive(Clone)]
pub struct ClientDrain {
    register: Arc<watch::Sender<Register>>,
}

#[derive(Default)]
struct Register {
    draining: bool,
    next: u64,
    /// Connections that are being made.
    connecting: usize,
    open: BTreeMap<u64, Weak<dyn Drained>>,
    endings: BTreeMap<&'static str, usize>,
    tickets: u64,
}

impl Register {
    fn left(&self) -> usize {
        self.open.len() + self.connecting
    }
}

/// A connection that is being made; when this is dropped, it is made, or not.
pub(super) struct Attempt(ClientDrain);

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.register.send_modify(|register| register.connecting -= 1);
    }
}

/// The end of a connection, told when this is dropped: also where the user's callback panics, so that nobody waits for that
/// connection for ever.
struct Told<'a> {
    drain: &'a ClientDrain,
    id: u64,
    report: &'a ShutdownReport,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.drain.ended(self.id, self.report);
    }
}

impl ClientDrain {
    pub(super) fn new() -> Self {
        Self { register: Arc::new(watch::Sender::default()) }
    }

    /// Whether the drain has begun.
    pub fn has_begun(&self) -> bool {
        self.register.borrow().draining
    }

    /// The number of TLS connections that have not ended. Those that are being made are not among them.
    pub fn open(&self) -> usize {
        self.register.borrow().open.len()
    }

    /// Waits until the drain begins, for owners of connections that are not HTTP.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again.
    pub async fn begun(&self) {
        // The sender is here, so that this cannot fail.
        let _ = self.register.subscribe().wait_for(|register| register.draining).await;
    }

    /// Begins, if that was not done, and waits until every connection has ended, `limit` at most. Then it cuts what is still in
    /// flight, and leaves what is closing: that goes on within the limits of its policy, and can be waited for by another call.
    ///
    /// A closing takes its time too, against a silent peer the policy's [deadline](crate::ShutdownPolicy::deadline). Where the
    /// report has to tell of each, allow that much more than requests may take.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime with time enabled.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again. The drain goes on meanwhile, but cuts nothing.
    pub async fn drain(&self, limit: Duration) -> ClientDrainReport {
        let began = Instant::now();
        self.register.send_modify(|register| register.draining = true);
        self.each(|stream| stream.wind_down());
        let mut register = self.register.subscribe();
        if timeout(limit, register.wait_for(|register| register.left() == 0)).await.is_err() {
            self.each(|stream| stream.cut());
        }
        let register = self.register.borrow();
        ClientDrainReport {
            endings: register.endings.clone(),
            tickets: register.tickets,
            left: register.left(),
            elapsed: began.elapsed(),
        }
    }

    /// Registers that a connection is being made, unless the drain has begun.
    pub(super) fn attempt(&self) -> Option<Attempt> {
        let mut may = false;
        self.register.send_if_modified(|register| {
            may = !register.draining;
            register.connecting += usize::from(may);
            false
        });
        may.then(|| Attempt(self.clone()))
    }

    /// Registers a connection, unless it has come too late; it is closed then.
    pub(super) fn admit<S>(&self, stream: ShutdownStream<S>, on_end: Option<OnEnd>) -> Result<ClientStream<S>, Draining>
    where
        S: TlsSession<Transport: Send> + Send + 'static,
    {
        let mut id = 0;
        self.register.send_if_modified(|register| {
            id = register.next;
            register.next += 1;
            false
        });
        let drain = self.clone();
        let stream = Arc::new(Shared::new(stream.on_end(move |report| {
            let _told = Told { drain: &drain, id, report };
            if let Some(on_end) = on_end {
                on_end(report);
            }
        })));
        let drained: Weak<dyn Drained> = Arc::downgrade(&(stream.clone() as Arc<dyn Drained>));
        let mut draining = false;
        self.register.send_if_modified(|register| {
            register.open.insert(id, drained);
            draining = register.draining;
            false
        });
        if draining {
            stream.close_unused();
            return Err(Draining);
        }
        Ok(ClientStream::tls(stream))
    }

    fn ended(&self, id: u64, report: &ShutdownReport) {
        self.register.send_modify(|register| {
            register.open.remove(&id);
            if register.draining {
                *register.endings.entry(report.ending().name()).or_default() += 1;
                register.tickets += u64::from(report.tickets());
            }
        });
    }

    /// Acts on each open connection, without the register's lock: a connection that ends takes it.
    fn each(&self, act: fn(&dyn Drained)) {
        let open: Vec<_> = self.register.borrow().open.values().filter_map(Weak::upgrade).collect();
        open.iter().for_each(|stream| act(stream.as_ref()));
    }
}

impl fmt::Debug for ClientDrain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientDrain")
            .field("has_begun", &self.has_begun())
            .field("open", &self.open())
            .finish_non_exhaustive()
    }
}

/// What a [`ClientDrain`] has done, from its begin on. [`Display`](fmt::Display) gives one line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientDrainReport {
    endings: BTreeMap<&'static str, usize>,
    tickets: u64,
    left: usize,
    elapsed: Duration,
}

impl ClientDrainReport {
    /// The number of connections that ended.
    pub fn ended(&self) -> usize {
        self.endings.values().sum()
    }

    /// The number of connections that ended so, whatever the details of [`Ending::Transport`] and [`Ending::PeerAlert`].
    pub fn count(&self, ending: Ending) -> usize {
        self.endings.get(ending.name()).copied().unwrap_or(0)
    }

    /// The TLS 1.3 session tickets that those connections have received in their lives.
    pub fn tickets(&self) -> u64 {
        self.tickets
    }

    /// The number of connections that have not ended: those that were still being made, or closing, at the limit.
    pub fn left(&self) -> usize {
        self.left
    }

    /// How long [`drain`](ClientDrain::drain) has waited.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

impl fmt::Display for ClientDrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ended", self.ended())?;
        for (number, (ending, count)) in self.endings.iter().enumerate() {
            write!(f, "{} {count} {ending}", if number == 0 { ":" } else { "," })?;
        }
        let milliseconds = self.elapsed.as_secs_f64() * 1000.0;
        let tickets = if self.tickets == 1 { "ticket" } else { "tickets" };
        write!(f, "; {} {tickets}, {} left, {milliseconds:.1} ms", self.tickets, self.left)
    }
}
