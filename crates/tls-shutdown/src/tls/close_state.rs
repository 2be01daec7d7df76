//! The closing handshake as one pure table. A goal and the state of both halves determine the next step; each event changes the
//! state.
//!
//! The table does no I/O and knows no clock, no tokio and no rustls. The driver (`driver/mod.rs`) carries out each [`Step`] and reports
//! the result as an [`Event`]; a timeout is an event too. A test prints the whole table into `close_state/table.txt`, so that a
//! changed row is a visible diff. An oracle that was written independently checks every row (`close_state/tests.rs`).
//!
//! ```text
//! local:   Open ─▶ Handshaking ─▶ Flushing ─▶ Flushed ─▶ Notifying ─▶ Accepted ─▶ Delivered ─▶ Finished
//!                  (0-RTT only)    data out               alert queued  alert out   flushed      FIN
//!            └───────────┴──────────────┴───────────┴───────────┴───────────┴───────────┴────────────┴──▶ Broken
//!            └──▶ Withheld (quiet, refused, aborted)
//! remote:  Open ─▶ Closed (close_notify) │ Ended (EOF, accepted as the end) │ Unread │ ForReader │ Failed
//! ```

use crate::tls::report::Ending;

/// What a shutdown has to reach. Each variant asks for more than the one before it, or for the same and sends earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Goal {
    /// Send close_notify, keep the transport open.
    Notify,
    /// Receive the peer's close_notify, send nothing, keep the transport open.
    UnwrapSilent,
    /// Receive the peer's close_notify, then send ours, keep the transport open.
    UnwrapReply,
    /// Send close_notify, receive the peer's, keep the transport open.
    UnwrapInitiate,
    /// Send close_notify and FIN.
    Send,
    /// Send close_notify and FIN, then wait for the peer's close_notify, and succeed without it. The reaper does that after a
    /// unidirectional shutdown.
    SendThenListen,
    /// Receive the peer's close_notify, then send ours and FIN.
    ReceiveFirst,
    /// Send close_notify and FIN, then receive the peer's close_notify.
    Both,
}

impl Goal {
    /// Whether the transport stays in use afterwards. FIN must not be sent then.
    pub(crate) fn keeps_transport(self) -> bool {
        matches!(self, Self::Notify | Self::UnwrapInitiate | Self::UnwrapReply | Self::UnwrapSilent)
    }

    fn waits_for_peer(self) -> bool {
        !matches!(self, Self::Notify | Self::Send)
    }

    fn receives_first(self) -> bool {
        matches!(self, Self::UnwrapReply | Self::UnwrapSilent | Self::ReceiveFirst)
    }

    /// Raises `self` to a goal that asks for all that `self` and `goal` ask for, and that sends as soon as either. Returns whether that
    /// is more than before.
    fn raise(&mut self, goal: Self) -> bool {
        let raised = match (*self).max(goal) {
            higher if self.receives_first() && goal.receives_first() => higher,
            Self::UnwrapSilent | Self::UnwrapReply => Self::UnwrapInitiate,
            Self::ReceiveFirst => Self::Both,
            higher => higher,
        };
        let is_more = raised != *self;
        *self = raised;
        is_more
    }
}

/// The state of our half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Local {
    /// No shutdown was asked for.
    Open,
    /// A 0-RTT handshake has to finish before anything else.
    Handshaking,
    /// Application data is being written out.
    Flushing,
    /// All application data is out.
    Flushed,
    /// close_notify is queued, and partly written at most.
    Notifying,
    /// The transport has accepted close_notify to its last byte.
    Accepted,
    /// The transport has been flushed.
    Delivered,
    /// FIN is out.
    Finished,
    /// A write failed or timed out, with this much unsent.
    Broken(Unsent, Ending),
    /// Ended without close_notify, on purpose: `Quiet`, `Aborted`, or `Refused`.
    Withheld(Ending),
}

/// What had not been accepted by the transport when writing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsent {
    Data,
    CloseNotify,
    Nothing,
}

/// The state of the peer's half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remote {
    Open,
    /// close_notify was received, and everything before it was read.
    Closed,
    /// The transport ended without close_notify, and the policy accepts that as the end.
    Ended,
    /// Application data arrived, and the policy rejects it. It stays unread.
    Unread,
    /// Application data arrived, and the application reads on. It stays for the application's next read.
    ForReader,
    /// Nothing more can be read, for this reason.
    Failed(Ending),
}

/// What the driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Finish a 0-RTT handshake, write all application data and flush it.
    FlushData,
    /// Queue close_notify; no I/O.
    QueueCloseNotify,
    /// Write close_notify out.
    WriteCloseNotify,
    /// Flush the transport.
    FlushTransport,
    /// Shut the transport's write side down.
    Finish,
    /// Read on to the peer's close_notify.
    Drain,
    /// Read what has already arrived, without waiting: the peer may have sent the reason why our write failed.
    ReadPending,
    /// Nothing: the shutdown has ended.
    End(Ending),
}

/// Which timeout of the policy bounds a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// The stall timeout. Each byte that the transport accepts restarts it.
    Stall,
    /// The close timeout. Nothing restarts it.
    Close,
}

impl Step {
    /// The timeout that bounds this step, or `None` for a step that does not wait.
    pub(crate) fn limit(self) -> Option<Limit> {
        match self {
            Self::FlushData | Self::WriteCloseNotify => Some(Limit::Stall),
            // `ReadPending` does not wait, but a peer that floods could keep it busy.
            Self::FlushTransport | Self::Finish | Self::Drain | Self::ReadPending => Some(Limit::Close),
            Self::QueueCloseNotify | Self::End(_) => None,
        }
    }
}

/// The result of a step, or something that the application's own reads and writes found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The step was carried out.
    Done,
    /// The TLS handshake was completed.
    HandshakeDone,
    /// The peer's close_notify was read, and everything before it.
    ZeroReturn,
    /// The transport ended without close_notify.
    TransportEnd,
    /// Reading failed: `Reset`, `Transport`, `PeerAlert`, `ProtocolError`, `NotTls`, `TlsLimit`, `DrainLimit`.
    ReadFailed(Ending),
    /// Writing failed: `Reset`, `Transport`, or `Refused` if rustls had already ended the connection and queued no close_notify.
    WriteFailed(Ending),
    /// Application data arrived that the policy rejects.
    PeerData,
    /// Application data arrived that belongs to the application's next read.
    DataForReader,
    /// Nothing more has arrived.
    NothingToRead,
    /// The client has as many tickets as the policy asks for.
    TicketsKept,
    /// The stall timeout passed.
    StallTimeout,
    /// The close timeout passed.
    CloseTimeout,
}

/// The meaning of a transport that ends without close_notify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnexpectedEof {
    /// A truncation: the shutdown has failed, and close_notify is not sent any more.
    Truncates,
    /// The end of the data, as with OpenSSL's `SSL_OP_IGNORE_UNEXPECTED_EOF`. Our close_notify is still sent.
    Ends,
}

/// The state of one shutdown: what it has to reach, and how far both halves are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CloseState {
    pub(crate) goal: Goal,
    pub(crate) unexpected_eof: UnexpectedEof,
    pub(crate) local: Local,
    pub(crate) remote: Remote,
}

/// Whether [`CloseState::begin`] asked for more than before. Then the new policy and its timeouts apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    Anew,
    Continued,
}

impl CloseState {
    pub(crate) const OPEN: Self =
        Self { goal: Goal::Notify, unexpected_eof: UnexpectedEof::Truncates, local: Local::Open, remote: Remote::Open };

    /// Asks for `goal`, for the first time or again.
    pub(crate) fn begin(&mut self, goal: Goal, unexpected_eof: UnexpectedEof) -> Begun {
        if self.local == Local::Open {
            self.goal = goal;
            self.local = match self.remote {
                //= https://www.rfc-editor.org/rfc/rfc8446#section-6.1
                //# Each party MUST send a "close_notify" alert before closing its write
                //# side of the connection, unless it has already sent some error alert.
                //= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
                //# Note that SSL_shutdown() must not be called if a previous fatal error
                //# has occurred on a connection i.e. if SSL_get_error() has returned
                //# SSL_ERROR_SYSCALL or SSL_ERROR_SSL.
                Remote::Failed(Ending::PeerAlert(_) | Ending::ProtocolError | Ending::TlsLimit | Ending::NotTls) => {
                    Local::Withheld(Ending::Refused)
                }
                _ => Local::Handshaking,
            };
        } else if matches!(self.remote, Remote::Unread | Remote::ForReader) {
            // The application may have read the data in the meantime.
            self.remote = Remote::Open;
            self.goal.raise(goal);
        //= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
        //# After SSL_shutdown() returned 0, it is possible to call SSL_shutdown()
        //# again to wait for the peer's close_notify alert.
        } else if !self.goal.raise(goal) {
            return Begun::Continued;
        }
        self.unexpected_eof = unexpected_eof;
        if (self.remote, unexpected_eof) == (Remote::Failed(Ending::Truncated), UnexpectedEof::Ends) {
            self.remote = Remote::Ended;
        }
        Begun::Anew
    }

    //= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
    //# When "quiet shutdown" is enabled, SSL_shutdown() will always succeed
    //# and return 1.
    /// Marks the connection as shut down, and sends nothing (`SSL_CTX_set_quiet_shutdown(3)`).
    pub(crate) fn keep_quiet(&mut self) {
        if self.local == Local::Open {
            self.local = Local::Withheld(Ending::Quiet);
        }
    }

    /// Gives the connection up. An earlier failure stays the ending, and a close_notify that was sent stays sent.
    pub(crate) fn abort(&mut self) {
        match (self.local, self.step()) {
            (Local::Broken(_, ending), _) => self.remote_ends(Remote::Failed(ending)),
            (_, Step::End(ending)) if !matches!(ending, Ending::Aborted | Ending::Sent) => {}
            _ if self.sent() => self.remote = Remote::Failed(Ending::Aborted),
            _ => self.local = Local::Withheld(Ending::Aborted),
        }
    }

    /// Whether close_notify, to its last byte, was accepted by the transport.
    pub(crate) fn sent(&self) -> bool {
        matches!(self.local, Local::Accepted | Local::Delivered | Local::Finished | Local::Broken(Unsent::Nothing, _))
    }

    /// Whether the peer's close_notify was read.
    pub(crate) fn received(&self) -> bool {
        self.remote == Remote::Closed
    }

    /// Whether nothing that TLS queues may be written any more: close_notify is sealed, or will never be sent.
    pub(crate) fn writes_sealed(&self) -> bool {
        let notified = matches!(self.local, Local::Notifying | Local::Broken(Unsent::CloseNotify, _));
        notified || self.sent() || matches!(self.local, Local::Withheld(_))
    }

    /// Whether a write has failed and the peer's data was not read to its end. An alert in it may explain the failure.
    pub(crate) fn peer_unread_after_write_error(&self) -> bool {
        matches!((self.local, self.remote), (Local::Broken(..), Remote::Open | Remote::Unread | Remote::ForReader))
    }

    /// Whether an unwrap is in progress that has not sent close_notify, or never will.
    pub(crate) fn is_unwrapping(&self) -> bool {
        let unwraps = self.goal.keeps_transport() && self.goal.waits_for_peer();
        unwraps && !self.sent()
    }

    /// Whether the goal discards application data. Other goals leave it to the application.
    pub(crate) fn drains(&self) -> bool {
        self.goal.waits_for_peer()
    }

    //= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
    //# The shutdown procedure consists of two steps: sending of the
    //# close_notify shutdown alert, and reception of the peer's close_notify
    //# shutdown alert.
    /// The next step.
    pub(crate) fn step(&self) -> Step {
        let goal = self.goal;
        match (self.local, self.remote) {
            (Local::Withheld(ending), _) => Step::End(ending),
            //= https://www.rfc-editor.org/rfc/rfc8446#section-6.2
            //# Upon transmission or receipt of a fatal alert message, both parties
            //# MUST immediately close the connection.
            (_, Remote::Failed(ending)) => Step::End(ending),
            // An alert behind the data may explain more, but the data belongs to the application.
            (Local::Broken(_, ending), Remote::Unread | Remote::ForReader) => Step::End(ending),
            (Local::Finished, Remote::ForReader) => Step::End(Ending::Sent),
            (_, Remote::Unread | Remote::ForReader) => Step::End(Ending::PeerData),
            (Local::Open, _) => Step::End(Ending::Aborted),

            // The peer may have closed, or sent an alert, before our write failed. That explains more than EPIPE.
            (Local::Broken(..), Remote::Open) => Step::ReadPending,
            (Local::Broken(Unsent::Data, ending), _) => Step::End(ending),
            // The next user of the transport would continue behind a part of a record.
            (Local::Broken(_, ending), _) if goal.keeps_transport() => Step::End(ending),
            (Local::Broken(..), Remote::Closed) => Step::End(Ending::Complete),
            (Local::Broken(_, ending), Remote::Ended) => Step::End(ending),

            (Local::Handshaking | Local::Flushing, _) => Step::FlushData,
            //= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
            //# The order of those two steps depends on the application.
            (Local::Flushed, Remote::Open) if goal.receives_first() => Step::Drain,
            (Local::Flushed, Remote::Closed) if goal == Goal::UnwrapSilent => Step::End(Ending::Complete),
            (Local::Flushed, Remote::Ended) if goal == Goal::UnwrapSilent => Step::End(Ending::Truncated),
            (Local::Flushed, _) => Step::QueueCloseNotify,
            (Local::Notifying, _) => Step::WriteCloseNotify,
            (Local::Accepted, _) => Step::FlushTransport,
            //= https://www.rfc-editor.org/rfc/rfc9112#section-9.6
            //# First, the server performs a half-close by closing only the write side
            //# of the read/write connection.
            (Local::Delivered, _) if !goal.keeps_transport() => Step::Finish,

            (Local::Delivered | Local::Finished, Remote::Closed) => Step::End(Ending::Complete),
            (Local::Delivered | Local::Finished, Remote::Ended) => Step::End(Ending::Truncated),
            (Local::Delivered | Local::Finished, Remote::Open) if goal.waits_for_peer() => Step::Drain,
            (Local::Delivered | Local::Finished, Remote::Open) => Step::End(Ending::Sent),
        }
    }

    /// Applies an event. An event without a meaning in this state changes nothing.
    pub(crate) fn on(&mut self, event: Event) {
        match event {
            Event::Done => {
                self.local = match self.local {
                    Local::Handshaking | Local::Flushing => Local::Flushed,
                    Local::Flushed => Local::Notifying,
                    Local::Notifying => Local::Accepted,
                    Local::Accepted => Local::Delivered,
                    Local::Delivered => Local::Finished,
                    other => other,
                }
            }
            Event::HandshakeDone => {
                if self.local == Local::Handshaking {
                    self.local = Local::Flushing;
                }
            }
            Event::ZeroReturn => self.remote_ends(Remote::Closed),
            //= https://www.rfc-editor.org/rfc/rfc8446#section-6.1
            //# If a transport-level close is received prior to a "close_notify", the
            //# receiver cannot know that all the data that was sent has been
            //# received.
            Event::TransportEnd => match (self.unexpected_eof, self.local) {
                (UnexpectedEof::Truncates, _) | (_, Local::Open | Local::Handshaking) => {
                    self.reading_fails(Ending::Truncated);
                }
                (UnexpectedEof::Ends, _) => self.remote_ends(Remote::Ended),
            },
            Event::ReadFailed(ending) => self.reading_fails(ending),
            Event::WriteFailed(ending) => self.writing_fails(ending),
            Event::PeerData => self.remote_ends(Remote::Unread),
            Event::DataForReader => self.remote_ends(Remote::ForReader),
            Event::NothingToRead => {
                if let Local::Broken(_, ending) = self.local {
                    self.remote_ends(Remote::Failed(ending));
                }
            }
            Event::TicketsKept => {
                if self.step() == Step::Drain && !self.goal.keeps_transport() {
                    self.goal = Goal::Send;
                }
            }
            Event::StallTimeout => match self.local {
                Local::Handshaking => self.writing_fails(Ending::NotStarted),
                _ => self.writing_fails(Ending::TimedOut),
            },
            Event::CloseTimeout => match self.remote {
                Remote::Open | Remote::Unread | Remote::ForReader => self.reading_fails(Ending::TimedOut),
                // The outcome is known. Dropping the transport sends FIN.
                _ => self.local = Local::Finished,
            },
        }
    }

    fn remote_ends(&mut self, end: Remote) {
        if matches!(self.remote, Remote::Open | Remote::Unread | Remote::ForReader) {
            self.remote = end;
        }
    }

    /// Nothing more can be read. The ending is that of an earlier failed write, or the goal that was reached before.
    fn reading_fails(&mut self, ending: Ending) {
        match (self.local, ending) {
            (Local::Handshaking, _) if !matches!(self.remote, Remote::Open | Remote::Unread | Remote::ForReader) => {
                self.writing_fails(ending)
            }
            (Local::Handshaking, Ending::Truncated) => self.remote_ends(Remote::Failed(Ending::NotStarted)),
            (Local::Broken(..), Ending::PeerAlert(_)) => self.remote_ends(Remote::Failed(ending)),
            (Local::Broken(_, first), _) => self.remote_ends(Remote::Failed(first)),
            (Local::Finished, Ending::Reset | Ending::PeerAlert(_)) => self.remote_ends(Remote::Failed(ending)),
            (Local::Finished, _) if self.goal == Goal::SendThenListen => self.remote_ends(Remote::Failed(Ending::Sent)),
            _ => self.remote_ends(Remote::Failed(ending)),
        }
    }

    fn writing_fails(&mut self, ending: Ending) {
        let unsent = match self.local {
            Local::Open | Local::Handshaking | Local::Flushing | Local::Flushed => Unsent::Data,
            Local::Notifying => Unsent::CloseNotify,
            Local::Accepted | Local::Delivered | Local::Finished => Unsent::Nothing,
            Local::Broken(..) | Local::Withheld(_) => return,
        };
        self.local = Local::Broken(unsent, ending);
    }
}

#[cfg(test)]
mod tests;
