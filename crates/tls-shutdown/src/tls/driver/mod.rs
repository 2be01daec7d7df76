//! [`CloseDriver`]: carries out each step of the table on the TLS stream, keeps the time, and counts.
//!
//! The stream owns the driver, and the driver owns all state. A future that is dropped at any poll loses nothing.

mod drain;
mod outcome;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use tokio::{io::AsyncWrite, task::coop, time::Instant};

use crate::{
    runtime::{
        timer::from_now,
        wakers::{remember, wake, wake_both},
        yield_once::YieldOnce,
    },
    tls::{
        close_notify::CloseNotify,
        close_state::{Begun, CloseState, Event, Goal, Limit, Local, Remote, Step},
        observers::Observers,
        policy::{Abort, PeerData, ShutdownPolicy},
        record_scanner::RecordScanner,
        report::{Counts, Ending},
        session::{NextRead, TlsSession},
        session_io::{self, retry_interrupted},
        socket::{deliver_on_close, reset_on_close},
        tls_error::{Failure, failure_of_read_error},
    },
};

/// All that a stream keeps about its shutdown.
pub(crate) struct CloseDriver {
    pub(crate) state: CloseState,
    /// The stream's own policy, for `poll_shutdown`, the owned future and the reaper.
    pub(crate) policy: ShutdownPolicy,
    /// The policy in force, but for its goal, which the table keeps.
    in_force: ShutdownPolicy,
    times: Times,
    counts: Counts,
    arrival: Arrival,
    close_notify: CloseNotify,
    scanner: RecordScanner,
    yielded: YieldOnce,
    /// The last task that waits to read, and the last that waits to write or for the shutdown. The transport keeps one waker for each
    /// direction, and these may be two tasks (`tokio::io::split`).
    reader: Option<Waker>,
    closer: Option<Waker>,
    /// Whether the application has ever read.
    reading: Reading,
    /// What the shutdown in progress is to end.
    extent: Extent,
    /// Application data for a later read: what arrived during a half-close on a stream that was never read, and a server's early data.
    kept: Vec<u8>,
    /// What TCP does if the connection ends before close_notify was sent.
    on_incomplete: Abort,
    /// The first error that a read or write met.
    source: Option<Arc<io::Error>>,
    pub(crate) observers: Observers,
}

#[derive(Default)]
struct Times {
    began: Option<Instant>,
    ended: Option<Instant>,
    /// The end of the stall timeout and of the close timeout, each while it runs.
    stall: Option<Instant>,
    close: Option<Instant>,
}

/// Whether the application has ever read from the stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    Never,
    Begun,
    /// It has, and its last read waits, as far as is known.
    Waiting,
}

/// What a shutdown ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Extent {
    /// Our half, as tokio's `poll_shutdown` does: the application may read on.
    WriteHalf,
    /// The whole connection: nobody reads any more.
    Connection,
}

/// When data that is discarded was decrypted.
#[derive(Clone, Copy)]
enum Arrival {
    /// Before the shutdown read anything.
    Unread,
    Late,
}

impl CloseDriver {
    pub(crate) fn new(policy: ShutdownPolicy) -> Self {
        Self {
            state: CloseState::OPEN,
            policy,
            in_force: policy,
            times: Times::default(),
            counts: Counts::ZERO,
            arrival: Arrival::Unread,
            close_notify: CloseNotify::default(),
            scanner: RecordScanner::default(),
            yielded: YieldOnce::default(),
            reading: Reading::Never,
            extent: Extent::WriteHalf,
            kept: Vec::new(),
            reader: None,
            closer: None,
            on_incomplete: Abort::Fin,
            source: None,
            observers: Observers::default(),
        }
    }

    /// Whether a shutdown has begun. The application cannot write from then on.
    #[inline]
    pub(crate) fn has_begun(&self) -> bool {
        self.times.began.is_some()
    }

    /// Begins the shutdown that `policy` describes, or asks the one in progress for more.
    pub(crate) fn begin<S: TlsSession>(&mut self, session: &mut S, policy: &ShutdownPolicy, extent: Extent) {
        self.extent = self.extent.max(extent);
        match policy.goal() {
            Some(goal) => self.begin_goal(session, goal, *policy),
            None => {
                self.start_time(session);
                self.state.keep_quiet();
                self.set_abort_mode(Abort::Fin, session);
            }
        }
    }

    /// The same for one goal, which may be none that a policy has.
    pub(crate) fn begin_goal<S: TlsSession>(&mut self, session: &mut S, goal: Goal, policy: ShutdownPolicy) {
        self.start_time(session);
        if self.extent == Extent::WriteHalf && self.is_unanswered() {
            return;
        }
        if self.state.begin(goal, policy.unexpected_eof()) == Begun::Anew {
            self.in_force = policy;
            self.times.close = None;
            self.times.ended = None;
        }
    }

    /// Starts the time of the shutdown, once.
    fn start_time<S: TlsSession>(&mut self, session: &mut S) {
        if self.has_begun() {
            return;
        }
        self.keep_early_data(session);
        self.times.began = Some(Instant::now());
        // tokio-rustls may have met it before the stream was wrapped.
        if matches!(session.connection().next_read(), NextRead::TransportEnd(_)) {
            self.state.on(Event::TransportEnd);
        }
    }

    /// Lets the reaper wait for the peer's close_notify: within the rest of the close timeout if the shutdown is in progress, and within
    /// a new one if it has ended.
    pub(crate) fn listen(&mut self) {
        self.extent = Extent::Connection;
        // The application may have read for long since then, and the peer may have owed it data.
        if self.state.step() == Step::End(Ending::Sent) {
            self.times.close = None;
        }
        if !self.has_begun() {
            self.in_force = self.policy;
        }
        // Rejected data stays where it is. After a failed write it is in the way of the reason for the failure, and nobody else will
        // read it.
        let write_failed = self.state.peer_unread_after_write_error();
        if write_failed || self.state.remote != Remote::Unread {
            let goal = match self.state.goal {
                // Nothing is sent before the peer's close_notify, also not now.
                Goal::ReceiveFirst => Goal::ReceiveFirst,
                _ => Goal::SendThenListen,
            };
            let begun = self.state.begin(goal, self.policy.unexpected_eof());
            if write_failed || begun == Begun::Anew {
                self.times.ended = None;
                self.in_force = self.in_force.with_peer_data(PeerData::Discard);
            }
        }
    }

    /// Sets what TCP does if the connection ends, in whatever way, before close_notify was sent.
    pub(crate) fn set_abort_mode<S: TlsSession>(&mut self, abort: Abort, session: &mut S) {
        if self.on_incomplete != abort {
            self.on_incomplete = abort;
            if let Some(socket) = S::socket(session.transport_mut()) {
                match abort {
                    Abort::Reset => reset_on_close(socket),
                    Abort::Fin => deliver_on_close(socket),
                }
            }
        }
    }

    /// Whether a stream that is dropped now leaves work: the rest of its shutdown, or the linger that prevents a reset over unread
    /// data.
    pub(crate) fn needs_reaper(&self) -> bool {
        if self.state.peer_unread_after_write_error() {
            return !self.state.is_unwrapping();
        }
        match self.state.step() {
            Step::End(
                Ending::Sent
                | Ending::TimedOut
                | Ending::DrainLimit
                | Ending::PeerData
                | Ending::ProtocolError
                | Ending::TlsLimit
                | Ending::NotTls,
            ) => self.state.sent() && !self.state.received(),
            //= https://www.rfc-editor.org/rfc/rfc9112#section-9.6
            //# If a server performs an immediate close of a TCP connection, there is
            //# a significant risk that the client will not be able to read the last
            //# HTTP response.
            // The peer's close_notify does not prove that the peer has our last data, even if it came after ours was sent: the peer may
            // have closed its half while it still receives. Its FIN, which mostly is there already, ends the linger.
            Step::End(Ending::Complete) => self.state.sent(),
            Step::End(_) => false,
            // Whoever drops the future of an unwrap has given it up.
            _ => self.has_begun() && !self.state.is_unwrapping(),
        }
    }

    pub(crate) fn count_tickets<S: TlsSession>(&mut self, session: &mut S) {
        self.counts.tickets = session.connection().tickets();
    }

    /// Drives the shutdown to its end. `poll_until` waits until an instant.
    pub(crate) fn poll_to_end<S: TlsSession>(
        &mut self,
        session: &mut S,
        cx: &mut Context<'_>,
        mut poll_until: impl FnMut(Instant, &mut Context<'_>) -> Poll<()>,
    ) -> Poll<Ending> {
        loop {
            if let Poll::Ready(ending) = self.poll_steps(session, cx) {
                return Poll::Ready(if self.is_unanswered() { Ending::TimedOut } else { ending });
            }
            let (end, timeout) = match self.state.step().limit() {
                Some(Limit::Stall) => (self.times.stall, Event::StallTimeout),
                Some(Limit::Close) if self.reader_goes_on() => (self.times.close, Event::DataForReader),
                Some(Limit::Close) => (self.times.close, Event::CloseTimeout),
                None => return Poll::Pending,
            };
            let Some(end) = end else { return Poll::Pending };
            ready!(poll_until(end, cx));
            self.state.on(timeout);
        }
    }

    /// Whether a half-close has timed out, and the application has not read since.
    fn is_unanswered(&self) -> bool {
        self.reading == Reading::Never && self.state.remote == Remote::ForReader
    }

    /// Whether a half-close leaves the wait for the peer to the application's reads. The peer may take its time for an answer, and a reader
    /// may be busy with what it has read: that must not end its reads. The close timeout then ends the shutdown alone.
    fn reader_goes_on(&self) -> bool {
        self.extent == Extent::WriteHalf && self.state.local == Local::Finished
    }

    /// Carries out steps until one has to wait.
    pub(crate) fn poll_steps<S: TlsSession>(&mut self, session: &mut S, cx: &mut Context<'_>) -> Poll<Ending> {
        remember(&mut self.closer, cx.waker());
        loop {
            let step = self.state.step();
            self.start_timeout(step);
            match step {
                Step::FlushData => ready!(self.poll_flush_data(session, cx)),
                Step::QueueCloseNotify => match self.close_notify.seal(session) {
                    Ok(()) => self.state.on(Event::Done),
                    Err(ending) => self.state.on(Event::WriteFailed(ending)),
                },
                Step::WriteCloseNotify => {
                    let before = self.close_notify.len();
                    let result = self.close_notify.poll_write::<S>(session.transport_mut(), self.state.goal, cx);
                    self.count_written((before - self.close_notify.len()) as u64);
                    self.on_written(ready!(result));
                }
                //= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
                //# When using a buffering BIO, like a BIO pair, data must be written into
                //# or retrieved out of the BIO before being able to continue.
                Step::FlushTransport => {
                    // close_notify is sent: the kernel has to deliver it, whatever becomes of the transport.
                    self.set_abort_mode(Abort::Fin, session);
                    let result = Pin::new(session.transport_mut()).poll_flush(cx);
                    self.on_written(ready!(retry_interrupted(result, cx)));
                }
                Step::Finish => {
                    let result = Pin::new(session.transport_mut()).poll_shutdown(cx);
                    self.on_written(match ready!(retry_interrupted(result, cx)) {
                        // The peer has closed TCP already, so that nothing is left to shut down.
                        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
                        result => result,
                    });
                }
                Step::Drain | Step::ReadPending => {
                    let waker = wake_both(cx.waker(), &self.reader);
                    let cx = &mut Context::from_waker(waker.as_ref().unwrap_or(cx.waker()));
                    ready!(match step {
                        Step::Drain => self.poll_drain(session, cx),
                        _ => self.poll_read_pending(session, cx),
                    });
                }
                Step::End(ending) => {
                    self.count_tickets(session);
                    self.times.ended.get_or_insert_with(Instant::now);
                    self.closer = None;
                    wake(&mut self.reader);
                    return Poll::Ready(ending);
                }
            }
        }
    }

    /// Starts the timeout that bounds `step`, unless it runs.
    fn start_timeout(&mut self, step: Step) {
        let (end, timeout) = match step.limit() {
            Some(Limit::Stall) => (&mut self.times.stall, self.in_force.stall_timeout()),
            Some(Limit::Close) => {
                self.times.stall = None;
                (&mut self.times.close, self.in_force.close_timeout())
            }
            None => return,
        };
        if end.is_none() {
            *end = Some(from_now(timeout));
        }
    }

    fn poll_flush_data<S: TlsSession>(&mut self, session: &mut S, cx: &mut Context<'_>) -> Poll<()> {
        let was_handshaking = session.connection().is_handshaking();
        let mut written = 0;
        let result = session_io::poll_flush_data(session, cx, &mut written);
        self.count_written(written);
        if !session.connection().is_handshaking() {
            self.state.on(Event::HandshakeDone);
        }
        match ready!(result) {
            Err(error) if was_handshaking => self.on_failure(failure_of_read_error(error)),
            // Nothing will finish this handshake, and an alert would not be encrypted.
            Ok(()) if session.connection().is_handshaking() => self.state.on(Event::ReadFailed(Ending::NotStarted)),
            result => self.on_written(result),
        }
        Poll::Ready(())
    }

    fn poll_read_pending<S: TlsSession>(&mut self, session: &mut S, cx: &mut Context<'_>) -> Poll<()> {
        let before = self.counts.wire_read;
        if self.poll_drain(session, cx).is_pending() {
            if self.counts.wire_read > before || !coop::has_budget_remaining() {
                // The budget may have ended, and not the peer's data.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            ready!(self.yielded.poll_done(cx));
            self.state.on(Event::NothingToRead);
        }
        Poll::Ready(())
    }

    fn count_written(&mut self, amount: u64) {
        if amount > 0 {
            self.counts.wire_written += amount;
            self.times.stall = Some(from_now(self.in_force.stall_timeout()));
        }
    }

    fn on_written(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => self.state.on(Event::Done),
            Err(error) => self.on_failure(Failure::of_write_error(error)),
        }
    }

    /// Applies a failure, and keeps the first error.
    pub(crate) fn on_failure(&mut self, Failure { event, source }: Failure) {
        self.source = self.source.take().or(source);
        self.state.on(event);
    }

    /// Applies an end that the application's read has met. The task that waits for the shutdown may be done with it.
    pub(crate) fn on_read(&mut self, failure: impl Into<Failure>) {
        self.on_failure(failure.into());
        wake(&mut self.closer);
    }
}
