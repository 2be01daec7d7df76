//! The reading half of the driver: the drain, and the application's reads once close_notify is sealed.

use std::{
    io::{self, Read},
    task::{Context, Poll, Waker, ready},
};

use tokio::task::coop;

use super::{Arrival, CloseDriver, Extent, Reading};
use crate::{
    runtime::{
        wakers::{remember, wake_both},
        yield_once::YieldOnce,
    },
    tls::{
        close_state::{Event, Local, Remote, Step},
        policy::PeerData,
        report::Ending,
        session::{NextRead, TlsConnection, TlsSession},
        session_io,
        tls_error::{Failure, failure_of_processing, failure_of_read_error, failure_of_read_error_ref},
    },
};

/// The application data that a half-close keeps for a later read, on a stream that was never read.
const MAX_KEPT_BYTES: u64 = 64 * 1024;

/// The bytes beside application data that a drain may read before the drain limit counts them.
const MAX_OVERHEAD_BYTES: u64 = 64 * 1024;

impl CloseDriver {
    //= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
    //# The peer is still allowed to send data after receiving the
    //# close_notify event.
    /// Reads and discards until an event occurs.
    pub(super) fn poll_drain<S: TlsSession>(&mut self, session: &mut S, cx: &mut Context<'_>) -> Poll<()> {
        let failure = loop {
            if !self.kept.is_empty()
                && let Some(event) = self.forbids_discard()
            {
                break event.into();
            }
            match session.connection().next_read() {
                NextRead::Data(data) => {
                    let amount = data.len();
                    if self.may_keep(amount) {
                        self.kept.extend_from_slice(data);
                    } else {
                        ready!(self.poll_reader_begun(cx));
                        if let Some(event) = self.discard(amount) {
                            break event.into();
                        }
                    }
                    session.connection().consume(amount);
                    continue;
                }
                //= https://www.rfc-editor.org/rfc/rfc8446#section-6.1
                //# Any data received after a closure alert has been received MUST be
                //# ignored.
                NextRead::ZeroReturn => break Event::ZeroReturn.into(),
                NextRead::TransportEnd(_) => break Event::TransportEnd.into(),
                NextRead::Nothing => {}
            }
            if let Some(tickets) = self.in_force.tickets()
                && self.state.step() == Step::Drain
                && !self.state.goal.keeps_transport()
                && session.connection().has_tickets(tickets)
            {
                break Event::TicketsKept.into();
            }
            let overhead = self.counts.wire_read.saturating_sub(self.counts.discarded_late);
            if overhead > self.in_force.max_drain_bytes().saturating_add(MAX_OVERHEAD_BYTES) {
                break Event::ReadFailed(Ending::DrainLimit).into();
            }
            let budget = ready!(coop::poll_proceed(cx));
            let result = ready!(self.poll_read_records(session, cx));
            budget.made_progress();
            self.arrival = Arrival::Late;
            // A reaper may have to end the closing at any wait from here on.
            self.count_tickets(session);
            match result {
                Ok(amount) => self.counts.wire_read += amount as u64,
                Err(failure) => {
                    self.discard_before_failure(session);
                    // `ReadPending` only looks. What is left in rustls's queue could not be written, and must not be written now.
                    if !self.state.writes_sealed() && self.state.step() == Step::Drain {
                        session_io::try_write_fatal_alert(session, cx);
                    }
                    break failure;
                }
            }
        };
        self.on_failure(failure);
        Poll::Ready(())
    }

    /// Whether a later read may still have the data: of a stream that was never read, and as long as nothing is missing before it.
    fn may_keep(&self, amount: usize) -> bool {
        let limit = self.in_force.max_drain_bytes().min(MAX_KEPT_BYTES);
        self.extent == Extent::WriteHalf
            && self.reading == Reading::Never
            && self.in_force.peer_data() == PeerData::Discard
            && self.state.drains()
            && self.discarded() == 0
            && (self.kept.len() + amount) as u64 <= limit
    }

    /// Gives a read that is about to begin a turn, before anything is discarded. `join!` may poll the shutdown before the read beside it, and
    /// the task of a read may not have run yet.
    fn poll_reader_begun(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let may_be_read = (self.extent, self.reading) == (Extent::WriteHalf, Reading::Never);
        if may_be_read && self.discarded() == 0 && self.forbids_discard().is_none() {
            ready!(self.yielded.poll_done(cx));
            self.yielded = YieldOnce::default();
        }
        Poll::Ready(())
    }

    fn discarded(&self) -> u64 {
        self.counts.discarded_unread + self.counts.discarded_late
    }

    /// Returns the event that forbids to discard application data.
    fn forbids_discard(&self) -> Option<Event> {
        //= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#return-values
        //# It can also occur when not all data was read using SSL_read().
        if self.in_force.peer_data() == PeerData::Reject || !self.state.drains() {
            return Some(Event::PeerData);
        }
        // `poll_shutdown` ends only the write half. The data belongs to the task that reads.
        if self.extent == Extent::WriteHalf && self.reading != Reading::Never {
            return Some(if self.state.local == Local::Finished { Event::DataForReader } else { Event::PeerData });
        }
        None
    }

    /// Counts `amount` bytes of plaintext as discarded, or returns the event that forbids it.
    fn discard(&mut self, amount: usize) -> Option<Event> {
        let forbidden = self.forbids_discard();
        if forbidden.is_some() {
            return forbidden;
        }
        if self.discarded() + amount as u64 > self.in_force.max_drain_bytes() {
            return Some(Event::ReadFailed(Ending::DrainLimit));
        }
        match self.arrival {
            Arrival::Unread => self.counts.discarded_unread += amount as u64,
            Arrival::Late => self.counts.discarded_late += amount as u64,
        }
        None
    }

    /// Discards and counts the data that was decrypted before a record failed.
    fn discard_before_failure<S: TlsSession>(&mut self, session: &mut S) {
        while let NextRead::Data(data) = session.connection().next_read() {
            let amount = data.len();
            if self.discard(amount).is_some() {
                return;
            }
            session.connection().consume(amount);
        }
    }

    /// The waker with which the application's read polls the transport, if it differs from that of `cx`.
    pub(crate) fn reader_waker(&self, cx: &Context<'_>) -> Option<Waker> {
        wake_both(cx.waker(), &self.closer)
    }

    /// Keeps early data, which rustls's server holds apart from what follows it, for the first read. The handshake is complete, so that
    /// it is not replayed (RFC 8470 section 3).
    pub(crate) fn keep_early_data<S: TlsSession>(&mut self, session: &mut S) {
        if self.reading == Reading::Never
            && let TlsConnection::Server(server) = session.connection()
            && let Some(mut early_data) = server.early_data()
        {
            early_data.read_to_end(&mut self.kept).expect("it is in memory");
        }
    }

    /// Whether the next read may find more than rustls's stream has: what was kept, and a server's early data at the first read.
    #[inline]
    pub(crate) fn may_have_kept(&self) -> bool {
        self.reading == Reading::Never || !self.kept.is_empty()
    }

    /// The application reads.
    #[inline]
    pub(crate) fn begin_reading(&mut self) {
        self.reading = Reading::Begun;
    }

    /// The data that was kept for a later read. An error if data behind it was discarded, and the read has come too late.
    pub(crate) fn kept(&self) -> io::Result<&[u8]> {
        match self.discarded() {
            discarded @ 1.. if self.kept.is_empty() => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "the TLS shutdown has discarded {discarded} bytes that were not read: to read after the end of writing, \
                     begin to read before the shutdown, or call ShutdownStream::close_notify in its place"
                ),
            )),
            _ => Ok(&self.kept),
        }
    }

    pub(crate) fn consume_kept(&mut self, amount: usize) {
        self.kept.drain(..amount);
    }

    /// Remembers the task whose read waits.
    #[inline]
    pub(crate) fn remember_reader(&mut self, cx: &Context<'_>) {
        self.reading = Reading::Waiting;
        remember(&mut self.reader, cx.waker());
    }

    /// Remembers the task whose write waits. A read that fails writes an alert, and so takes its place at the transport.
    #[inline]
    pub(crate) fn remember_writer(&mut self, cx: &Context<'_>) {
        remember(&mut self.closer, cx.waker());
    }

    /// Whether the shutdown has ended, and nothing more can be read.
    pub(crate) fn has_failed_reads(&self) -> bool {
        self.times.ended.is_some() && matches!(self.state.remote, Remote::Failed(_))
    }

    /// Ends a read that found nothing, if the shutdown was given up because our half is broken. The read could wait forever.
    pub(crate) fn end_waiting_read(&mut self) -> io::Result<()> {
        match self.state.local {
            // A read that has used up its budget may not have looked.
            Local::Broken(_, ending) if self.times.ended.is_some() && coop::has_budget_remaining() => {
                self.state.on(Event::NothingToRead);
                Err(read_error(ending))
            }
            _ => Ok(()),
        }
    }

    //= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
    //# SSL_read() should be called until all data is received.
    /// Reads application data as `AsyncBufRead::poll_fill_buf` does, once writes are sealed.
    pub(crate) fn poll_fill_plaintext<'a, S: TlsSession>(
        &mut self,
        session: &'a mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<&'a [u8]>> {
        while matches!(session.connection().next_read(), NextRead::Nothing) {
            // The data that was decrypted before a failed record came first. Now the failure is due.
            match self.state.remote {
                Remote::Failed(ending) => return Poll::Ready(Err(read_error(ending))),
                Remote::Ended => return Poll::Ready(Err(read_error(Ending::Truncated))),
                Remote::Open | Remote::Unread | Remote::ForReader | Remote::Closed => {}
            }
            self.arrival = Arrival::Late;
            if let Err(failure) = ready!(self.poll_read_records(session, cx)) {
                self.on_read(failure);
            }
        }
        self.next_plaintext(session)
    }

    /// Reads once from the transport and processes the records. Returns the number of bytes, 0 at the transport's end. Data that was
    /// decrypted before a failure can still be read.
    #[inline]
    pub(crate) fn poll_read_records<S: TlsSession>(
        &mut self,
        session: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, Failure>> {
        let amount = match ready!(session_io::poll_read_tls(session, cx, &mut self.scanner)) {
            Ok(0) => return Poll::Ready(Ok(0)),
            Ok(amount) => amount,
            Err(error) => return Poll::Ready(Err(failure_of_read_error(error))),
        };
        let mut connection = session.connection();
        let processed = match self.state.writes_sealed() {
            true => connection.process_after_close_notify(),
            false => connection.process().map_err(Some),
        };
        Poll::Ready(match processed {
            Ok(()) => Ok(amount),
            Err(error) => Err(failure_of_processing(error, &self.scanner)),
        })
    }

    /// The application data that rustls has, or the end of it.
    #[inline]
    pub(crate) fn next_plaintext<'a, S: TlsSession>(&mut self, session: &'a mut S) -> Poll<io::Result<&'a [u8]>> {
        Poll::Ready(match session.connection().next_read() {
            NextRead::Data(data) => Ok(data),
            NextRead::ZeroReturn => {
                self.on_read(Event::ZeroReturn);
                Ok(&[])
            }
            end @ (NextRead::TransportEnd(_) | NextRead::Nothing) => {
                let error = match end {
                    NextRead::TransportEnd(error) => error,
                    _ => read_error(Ending::Truncated),
                };
                self.on_read(failure_of_read_error_ref(&error));
                Err(error)
            }
        })
    }
}

/// The error of a read at an end that only the driver knows any more.
fn read_error(ending: Ending) -> io::Error {
    io::Error::new(ending.about().kind, format!("TLS read failed: {ending}"))
}
