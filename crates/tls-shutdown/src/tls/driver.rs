//! Drives the table: carries out each step on the TLS stream and keeps the time.
//!
//! All state lives in [`Close`], which the stream owns, so that a future can be dropped at any poll and made again.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker, ready},
    time::Duration,
};

use tokio::{
    io::AsyncWrite,
    task::coop,
    time::{Instant, Sleep},
};

#[cfg(feature = "server")]
use crate::tls::stream::Abort;
use crate::{
    tls::close_state::{Begun, Closing, Event, Goal, Limit, Local, Remote, Step, UnexpectedEof},
    tls::policy::{Limits, PeerData, ShutdownPolicy, Unwrap},
    tls::records::RecordWalk,
    tls::report::{Ending, ShutdownError, ShutdownReport},
    tls::session::{self, Follower, LastWords, Plaintext, TlsSession},
};

/// What may be read beside application data before the drain limit counts it, in bytes.
const RECORD_OVERHEAD_LIMIT: u64 = 64 * 1024;

/// A time that no process lives to see, and that clocks can still add.
const NEVER: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);

type OnEnd = Box<dyn FnOnce(&ShutdownReport) + Send + Sync>;

/// All that a stream keeps about its closing.
pub(crate) struct Close {
    pub(crate) closing: Closing,
    /// The stream's own policy, for `poll_shutdown`, the owned future and the reaper.
    pub(crate) policy: ShutdownPolicy,
    /// The bounds of the policy in force.
    limits: Limits,
    times: Times,
    counts: Counts,
    arrival: Arrival,
    last_words: LastWords,
    walk: RecordWalk,
    turn: Turn,
    /// The last task that waits to read, and the last that waits for the closing. The transport keeps one waker, and these may
    /// be two tasks (`tokio::io::split`).
    reader: Option<Waker>,
    closer: Option<Waker>,
    /// What TCP does if close_notify does not get out.
    #[cfg(feature = "server")]
    unfinished: Abort,
    pub(crate) on_end: Option<OnEnd>,
}

#[derive(Default)]
struct Times {
    began: Option<Instant>,
    ended: Option<Instant>,
    stalls: Option<Instant>,
    deadline: Option<Instant>,
}

/// When data that is to be discarded was decrypted.
#[derive(Clone, Copy)]
enum Arrival {
    /// Before anything was read since the closing began.
    Unread,
    Late,
}

#[derive(Default)]
struct Counts {
    discarded_unread: u64,
    discarded_late: u64,
    tickets: u32,
    wire_written: u64,
    wire_read: u64,
}

impl Close {
    pub(crate) fn new(policy: ShutdownPolicy) -> Self {
        Self {
            closing: Closing::OPEN,
            policy,
            limits: policy.limits(),
            times: Times::default(),
            counts: Counts::default(),
            arrival: Arrival::Unread,
            last_words: LastWords::default(),
            walk: RecordWalk::default(),
            turn: Turn::Due,
            reader: None,
            closer: None,
            #[cfg(feature = "server")]
            unfinished: Abort::Fin,
            on_end: None,
        }
    }

    /// Whether a shutdown was asked for: from then on the application may not write.
    #[inline]
    pub(crate) fn has_begun(&self) -> bool {
        self.times.began.is_some()
    }

    /// How the connection has ended, if this was all: unlike the ending of a shutdown, a refused one tells what went before.
    pub(crate) fn ending(&self) -> Ending {
        match (self.closing.step(), self.closing.remote) {
            (Step::End(Ending::Refused), Remote::Failed(ending)) => ending,
            (Step::End(ending), _) => ending,
            (Step::Salvage, _) => match self.closing.local {
                Local::Broken(_, ending) => ending,
                _ => Ending::Aborted,
            },
            _ if self.closing.sent() => Ending::Sent,
            _ => Ending::Aborted,
        }
    }

    pub(crate) fn report(&self, ending: Ending) -> ShutdownReport {
        let counts = &self.counts;
        let mut report = ShutdownReport::new(ending);
        report.sent = self.closing.sent();
        report.received = self.closing.received();
        if let Remote::Failed(Ending::PeerAlert(alert)) = self.closing.remote {
            report.alert = Some(alert);
        }
        report.discarded_unread = counts.discarded_unread;
        report.discarded_late = counts.discarded_late;
        report.tickets = counts.tickets;
        report.wire_written = counts.wire_written;
        report.wire_read = counts.wire_read;
        report.elapsed = match self.times.began {
            Some(began) => self.times.ended.unwrap_or_else(Instant::now) - began,
            None => Duration::ZERO,
        };
        report
    }

    /// Asks for what `policy` says, for the first time or again.
    pub(crate) fn begin<S: TlsSession>(&mut self, session: &mut S, policy: &ShutdownPolicy) {
        self.start(session);
        let Some(goal) = policy.goal() else {
            self.closing.keep_quiet();
            #[cfg(feature = "server")]
            self.finish_by(Abort::Fin, session);
            return;
        };
        if self.closing.begin(goal, policy.unexpected_eof()) == Begun::Anew {
            self.limits = policy.limits();
            self.times.deadline = None;
            self.times.ended = None;
        }
    }

    /// Asks for close_notify alone.
    pub(crate) fn begin_close_notify<S: TlsSession>(&mut self, session: &mut S) {
        self.start(session);
        if self.closing.begin(Goal::Notify, self.policy.unexpected_eof()) == Begun::Anew {
            self.limits = self.policy.limits();
            self.times.deadline = None;
            self.times.ended = None;
        }
    }

    /// Asks for what it takes to have the transport back. Application data that is still to be read is in the way.
    pub(crate) fn begin_unwrap<S: TlsSession>(&mut self, session: &mut S, unwrap: Unwrap) {
        self.start(session);
        if self.closing.begin(unwrap.goal(), UnexpectedEof::Truncates) == Begun::Anew {
            self.limits = self.policy.with_peer_data(PeerData::Reject).limits();
            self.times.deadline = None;
            self.times.ended = None;
        }
    }

    /// Lets the reaper listen on after a unidirectional close, within what is left of the deadline.
    pub(crate) fn hear_on(&mut self) {
        if !self.has_begun() {
            self.limits = self.policy.limits();
        }
        // Data that the policy has rejected stays so, unless a write has failed: nothing is left to be done but to find out why.
        let is_broken = self.closing.lacks_last_words();
        if is_broken || self.closing.remote != Remote::Unread {
            let begun = self.closing.begin(Goal::Hear, self.policy.unexpected_eof());
            if is_broken || begun == Begun::Anew {
                self.times.ended = None;
                self.limits.peer_data = PeerData::Discard;
            }
        }
    }

    /// Sets what TCP does if the connection ends, in whatever way, before close_notify is out.
    #[cfg(feature = "server")]
    pub(crate) fn finish_by<S: TlsSession>(&mut self, abort: Abort, session: &mut S) {
        if self.unfinished != abort {
            self.unfinished = abort;
            match abort {
                Abort::Reset => crate::tls::socket::reset_on_drop::<S>(session.parts().0),
                Abort::Fin => crate::tls::socket::deliver_on_drop::<S>(session.parts().0),
            }
        }
    }

    /// Starts the time, once.
    fn start<S: TlsSession>(&mut self, session: &mut S) {
        if self.has_begun() {
            return;
        }
        self.times.began = Some(Instant::now());
        // It may have been met before the stream was wrapped.
        if matches!(session.parts().1.plaintext(), Plaintext::TransportEnd) {
            self.closing.on(Event::TransportEnd);
        }
    }

    /// Whether a stream that is dropped now leaves something to do: the rest of its closing, or the linger that keeps the kernel
    /// from resetting the connection over data that nobody reads.
    pub(crate) fn owes_more(&self) -> bool {
        if self.closing.lacks_last_words() {
            return !self.closing.is_unwrapping();
        }
        match self.closing.step() {
            Step::End(
                Ending::Sent
                | Ending::TimedOut
                | Ending::DrainLimit
                | Ending::PeerData
                | Ending::ProtocolError
                | Ending::NotTls,
            ) => self.closing.sent() && !self.closing.received(),
            Step::End(_) => false,
            // Whoever gives up an unwrap has not asked for more.
            _ => self.has_begun() && !self.closing.is_unwrapping(),
        }
    }

    pub(crate) fn note_tickets<S: TlsSession>(&mut self, session: &mut S) {
        self.counts.tickets = session.parts().1.tickets();
    }

    /// The instant at which the step in progress is given up.
    pub(crate) fn limit(&self) -> Option<Instant> {
        match self.closing.step().limit()? {
            Limit::Stall => self.times.stalls,
            Limit::Deadline => self.times.deadline,
        }
    }

    /// The instant of [`limit`](Self::limit) has come.
    pub(crate) fn expire(&mut self) {
        match self.closing.step().limit() {
            Some(Limit::Stall) => self.closing.on(Event::StallLimit),
            Some(Limit::Deadline) => self.closing.on(Event::Deadline),
            None => {}
        }
    }

    /// Starts the clock that bounds `step`, unless it runs.
    fn start_clock(&mut self, step: Step) {
        let (clock, limit) = match step.limit() {
            Some(Limit::Stall) => (&mut self.times.stalls, self.limits.stall),
            Some(Limit::Deadline) => {
                self.times.stalls = None;
                (&mut self.times.deadline, self.limits.deadline)
            }
            None => return,
        };
        if clock.is_none() {
            *clock = Some(from_now(limit));
        }
    }

    fn note_written(&mut self, amount: u64) {
        if amount > 0 {
            self.counts.wire_written += amount;
            self.times.stalls = Some(from_now(self.limits.stall));
        }
    }

    /// Carries the closing on to its end.
    pub(crate) fn poll<S: TlsSession>(&mut self, session: &mut S, cx: &mut Context<'_>) -> Poll<Ending> {
        remember(&mut self.closer, cx.waker());
        loop {
            let step = self.closing.step();
            self.start_clock(step);
            match step {
                Step::FlushData => ready!(self.poll_flush_data(session, cx)),
                Step::QueueCloseNotify => match self.last_words.seal(session) {
                    Ok(()) => self.closing.on(Event::Done),
                    Err(ending) => self.closing.on(Event::WriteFailed(ending)),
                },
                Step::WriteCloseNotify => {
                    let before = self.last_words.len();
                    let follower = if self.closing.goal.keeps_transport() { Follower::Other } else { Follower::Fin };
                    let result = self.last_words.poll_write(session.parts().0, follower, cx);
                    self.note_written((before - self.last_words.len()) as u64);
                    self.on_written(ready!(result));
                }
                //= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
                //# When using a buffering BIO, like a BIO pair, data must be written into
                //# or retrieved out of the BIO before being able to continue.
                Step::FlushTransport => {
                    let result = Pin::new(session.parts().0).poll_flush(cx);
                    self.on_written(ready!(result));
                }
                Step::Finish => {
                    #[cfg(feature = "server")]
                    self.finish_by(Abort::Fin, session);
                    let result = ready!(Pin::new(session.parts().0).poll_shutdown(cx));
                    self.on_written(match result {
                        // The peer has closed TCP already: there is nothing left to shut down.
                        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
                        result => result,
                    });
                }
                Step::Drain => {
                    let waker = shared_waker(cx.waker(), &self.reader);
                    let cx = &mut Context::from_waker(waker.as_ref().unwrap_or(cx.waker()));
                    ready!(self.poll_drain(session, cx));
                }
                Step::Salvage => {
                    let before = self.counts.wire_read;
                    if self.poll_drain(session, cx).is_pending() {
                        if self.counts.wire_read > before || !coop::has_budget_remaining() {
                            // It may be the budget that is at its end, and not what the peer has sent.
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        ready!(self.turn.poll_taken(cx));
                        self.closing.on(Event::NothingToRead);
                    }
                }
                Step::End(ending) => {
                    self.note_tickets(session);
                    self.times.ended.get_or_insert_with(Instant::now);
                    self.closer = None;
                    if let Some(reader) = self.reader.take() {
                        reader.wake();
                    }
                    return Poll::Ready(ending);
                }
            }
        }
    }

    fn poll_flush_data<S: TlsSession>(&mut self, session: &mut S, cx: &mut Context<'_>) -> Poll<()> {
        let was_handshaking = session.parts().1.is_handshaking();
        let mut written = 0;
        let result = session::poll_flush_data(session, cx, &mut written);
        self.note_written(written);
        if !session.parts().1.is_handshaking() {
            self.closing.on(Event::HandshakeDone);
        }
        match ready!(result) {
            Err(error) if was_handshaking => self.closing.on(session::event_of_read_error(&error)),
            // A handshake that nothing will finish, and an alert that would not be encrypted.
            Ok(()) if session.parts().1.is_handshaking() => self.closing.on(Event::ReadFailed(Ending::NotStarted)),
            result => self.on_written(result),
        }
        Poll::Ready(())
    }

    fn on_written(&mut self, result: io::Result<()>) {
        self.closing.on(match result {
            Ok(()) => Event::Done,
            Err(error) => Event::WriteFailed(Ending::of_transport_error(error.kind())),
        });
    }

    //= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
    //# The peer is still allowed to send data after receiving the
    //# close_notify event.
    /// Reads and discards, until an event has come of it.
    fn poll_drain<S: TlsSession>(&mut self, session: &mut S, cx: &mut Context<'_>) -> Poll<()> {
        let event = loop {
            match session.parts().1.plaintext() {
                Plaintext::Data(data) => {
                    let amount = data.len();
                    if let Some(event) = self.discard(amount) {
                        break event;
                    }
                    session.parts().1.consume(amount);
                    continue;
                }
                //= https://www.rfc-editor.org/rfc/rfc8446#section-6.1
                //# Any data received after a closure alert has been received MUST be
                //# ignored.
                Plaintext::ZeroReturn => break Event::ZeroReturn,
                Plaintext::TransportEnd => break Event::TransportEnd,
                Plaintext::Nothing => {}
            }
            if let Some(tickets) = self.limits.tickets
                && self.closing.step() == Step::Drain
                && !self.closing.goal.keeps_transport()
                && session.parts().1.keeps_tickets(tickets)
            {
                break Event::TicketsKept;
            }
            let beside_data = self.counts.wire_read.saturating_sub(self.counts.discarded_late);
            if beside_data > self.limits.drain.saturating_add(RECORD_OVERHEAD_LIMIT) {
                break Event::ReadFailed(Ending::DrainLimit);
            }
            let budget = ready!(coop::poll_proceed(cx));
            let result = ready!(session::poll_read_records(session, cx, &mut self.walk));
            budget.made_progress();
            self.arrival = Arrival::Late;
            match result {
                Ok(amount) => self.counts.wire_read += amount as u64,
                Err(event) => {
                    self.discard_before_failure(session);
                    // A salvage only looks: what is left in rustls's queue could not be written, and must not be now.
                    if !self.closing.is_muted() && self.closing.step() == Step::Drain {
                        session::try_write_fatal_alert(session, cx);
                    }
                    break event;
                }
            }
        };
        self.closing.on(event);
        Poll::Ready(())
    }

    /// Counts `amount` bytes of plaintext as discarded, or tells why they must not be.
    fn discard(&mut self, amount: usize) -> Option<Event> {
        let discarded = self.counts.discarded_unread + self.counts.discarded_late;
        //= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#return-values
        //# It can also occur when not all data was read using SSL_read().
        if self.limits.peer_data == PeerData::Reject || !self.closing.drains() {
            return Some(Event::PeerData);
        }
        if discarded + amount as u64 > self.limits.drain {
            return Some(Event::ReadFailed(Ending::DrainLimit));
        }
        match self.arrival {
            Arrival::Unread => self.counts.discarded_unread += amount as u64,
            Arrival::Late => self.counts.discarded_late += amount as u64,
        }
        None
    }

    /// Data that was decrypted before a record that failed is discarded too, and must not go uncounted.
    fn discard_before_failure<S: TlsSession>(&mut self, session: &mut S) {
        while let Plaintext::Data(data) = session.parts().1.plaintext() {
            let amount = data.len();
            if self.discard(amount).is_some() {
                return;
            }
            session.parts().1.consume(amount);
        }
    }

    /// The waker with which the application's read is to poll the transport, if not that of `cx`.
    pub(crate) fn reader_waker(&self, cx: &Context<'_>) -> Option<Waker> {
        shared_waker(cx.waker(), &self.closer)
    }

    /// The application's read waits.
    #[inline]
    pub(crate) fn reader_waits(&mut self, cx: &Context<'_>) {
        remember(&mut self.reader, cx.waker());
    }

    //= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
    //# SSL_read() should be called until all data is received.
    /// Reads application data, as `AsyncBufRead::poll_fill_buf` does, once TLS is muted.
    pub(crate) fn poll_fill_plaintext<'a, S: TlsSession>(
        &mut self,
        session: &'a mut S,
        cx: &mut Context<'_>,
    ) -> Poll<Result<&'a [u8], Ending>> {
        while matches!(session.parts().1.plaintext(), Plaintext::Nothing) {
            // What was decrypted before a record that failed came first, and the failure is told now.
            match self.closing.remote {
                Remote::Failed(ending) => return Poll::Ready(Err(ending)),
                Remote::Ended => return Poll::Ready(Err(Ending::Truncated)),
                Remote::Open | Remote::Unread | Remote::Closed => {}
            }
            self.arrival = Arrival::Late;
            if let Err(event) = ready!(session::poll_read_records(session, cx, &mut self.walk)) {
                self.on_read(event);
            }
        }
        Poll::Ready(match session.parts().1.plaintext() {
            Plaintext::Data(data) => Ok(data),
            Plaintext::ZeroReturn => {
                self.on_read(Event::ZeroReturn);
                Ok(&[])
            }
            Plaintext::TransportEnd | Plaintext::Nothing => {
                self.on_read(Event::TransportEnd);
                Err(Ending::Truncated)
            }
        })
    }

    /// Takes note of an end that the application's read has met. A task that waits for the closing may be done with it.
    pub(crate) fn on_read(&mut self, event: Event) {
        self.closing.on(event);
        if let Some(closer) = self.closer.take() {
            closer.wake();
        }
    }

    /// `Ok` exactly when what `policy` asks for was reached.
    pub(crate) fn result(&self, ending: Ending, policy: &ShutdownPolicy) -> Result<ShutdownReport, ShutdownError> {
        let report = self.report(ending);
        let reached = match ending {
            // A quiet shutdown asks for nothing, and always succeeds.
            _ if policy.goal().is_none() => true,
            Ending::Complete | Ending::Sent => true,
            // Only where the policy accepts that end does the table go on to send close_notify after it.
            Ending::Truncated => self.closing.remote == Remote::Ended && report.sent,
            _ => false,
        };
        if reached { Ok(report) } else { Err(ShutdownError::new(report)) }
    }
}

impl Drop for Close {
    fn drop(&mut self) {
        let report = self.report(self.ending());
        tracing::debug!(
            ending = %report.ending(),
            sent = report.sent(),
            received = report.received(),
            discarded = report.discarded(),
            elapsed = ?report.elapsed(),
            "TLS connection ended"
        );
        if let Some(on_end) = self.on_end.take() {
            on_end(&report);
        }
    }
}

/// A turn of the runtime, to be had before a transport without bytes is believed.
///
/// Tokio's sockets do not ask the system again before the runtime has, and give nothing to a task whose budget is used up; the
/// peer's last words may be there all the same.
enum Turn {
    Due,
    Taking(Pin<Box<dyn Future<Output = ()> + Send + Sync>>),
    Taken,
}

impl Turn {
    /// Ready where the turn was taken before this poll.
    fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self {
                Self::Due => *self = Self::Taking(Box::pin(tokio::task::yield_now())),
                Self::Taking(turn) => {
                    ready!(turn.as_mut().poll(cx));
                    *self = Self::Taken;
                    // What the transport said was before the turn.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Self::Taken => return Poll::Ready(()),
            }
        }
    }
}

#[inline]
pub(crate) fn remember(slot: &mut Option<Waker>, waker: &Waker) {
    if !slot.as_ref().is_some_and(|slot| slot.will_wake(waker)) {
        *slot = Some(waker.clone());
    }
}

/// A waker for both tasks, if there are two.
fn shared_waker(mine: &Waker, other: &Option<Waker>) -> Option<Waker> {
    struct Shared([Waker; 2]);

    impl Wake for Shared {
        fn wake(self: Arc<Self>) {
            self.0.iter().for_each(Waker::wake_by_ref);
        }
    }

    let other = other.as_ref().filter(|other| !other.will_wake(mine))?;
    Some(Arc::new(Shared([mine.clone(), other.clone()])).into())
}

/// The instant after `limit`, or one that never comes.
pub(crate) fn from_now(limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(limit).unwrap_or_else(|| now + NEVER)
}

/// Waits for `instant` with `sleep`, whatever that was set to before.
pub(crate) fn poll_until(mut sleep: Pin<&mut Sleep>, instant: Instant, cx: &mut Context<'_>) -> Poll<()> {
    // Under a flood every poll uses up the task's budget before it comes here, and a `Sleep` without budget is never ready.
    if Instant::now() >= instant {
        return Poll::Ready(());
    }
    if sleep.deadline() != instant {
        sleep.as_mut().reset(instant);
    }
    sleep.poll(cx)
}
