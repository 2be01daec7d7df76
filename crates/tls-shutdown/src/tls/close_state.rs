//! The closing handshake as one pure table: a goal and two halves, what to do next, and what each event makes of them.
//!
//! No I/O, no clock, no tokio, no rustls: the driver in `driver.rs` carries out each [`Step`] and reports what came of it as
//! an [`Event`]; time is an event too. The whole table is printed into `closing/table.txt`, so that a changed row is a visible
//! diff, and checked against an oracle that was written apart from it (`closing/tests.rs`).
//!
//! ```text
//! local:   Open ─▶ Handshaking ─▶ Flushing ─▶ Flushed ─▶ Notifying ─▶ Accepted ─▶ Delivered ─▶ Finished
//!                  (0-RTT only)    data out               alert queued  alert out   flushed      FIN
//!                        └──────────────┴───────────────────────┴───────────┴───────────┴──▶ Broken
//! remote:  Open ─▶ Closed (close_notify) │ Ended (EOF, accepted as the end) │ Unread │ Failed
//! ```

use crate::tls::report::Ending;

/// What a closing is to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Send close_notify, keep the transport open.
    Notify,
    /// Send close_notify, receive the peer's, keep the transport open.
    UnwrapInitiate,
    /// Receive the peer's close_notify, then send ours, keep the transport open.
    UnwrapReply,
    /// Receive the peer's close_notify, send nothing, keep the transport open.
    UnwrapSilent,
    /// Send close_notify and FIN.
    Send,
    /// As `Send`; a peer that answers is still heard, one that does not is no failure. What the reaper does for a
    /// unidirectional close.
    Hear,
    /// Receive the peer's close_notify, then send ours and FIN.
    ReceiveFirst,
    /// Send close_notify and FIN, then receive the peer's close_notify.
    Both,
}

impl Goal {
    /// Whether the transport is to carry something else afterwards, so that there must be no FIN.
    pub(crate) fn keeps_transport(self) -> bool {
        matches!(self, Self::Notify | Self::UnwrapInitiate | Self::UnwrapReply | Self::UnwrapSilent)
    }

    fn waits_for_peer(self) -> bool {
        !matches!(self, Self::Notify | Self::Send)
    }

    fn receives_first(self) -> bool {
        matches!(self, Self::UnwrapReply | Self::UnwrapSilent | Self::ReceiveFirst)
    }

    /// How much a goal asks for. Goals that ask for the same, in another order, do not raise each other.
    fn rank(self) -> u8 {
        match self {
            Self::Notify => 0,
            Self::UnwrapInitiate | Self::UnwrapReply | Self::UnwrapSilent => 1,
            Self::Send => 2,
            Self::Hear => 3,
            Self::ReceiveFirst | Self::Both => 4,
        }
    }

    /// Raises `self` to `goal`; tells whether that asks for more than before.
    fn raise(&mut self, goal: Self) -> bool {
        let raised = goal.rank() > self.rank();
        if raised {
            *self = goal;
        }
        raised
    }
}

/// How far our half is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Local {
    /// No shutdown was asked for.
    Open,
    /// A 0-RTT handshake is to be finished before anything else.
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
    /// Writing failed or stalled, with this much unsent.
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

/// How far the peer's half is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remote {
    Open,
    /// close_notify was received, and everything before it was read.
    Closed,
    /// The transport ended without close_notify, and the policy accepts that as the end.
    Ended,
    /// Application data is there, and the policy rejects it. It was left in place.
    Unread,
    /// Nothing more will be read, for this reason.
    Failed(Ending),
}

/// What the driver has to do next.
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
    /// Read what has already arrived, without waiting: the peer may have said why our write failed.
    Salvage,
    /// Nothing: this is how it ended.
    End(Ending),
}

/// Which limit of the policy bounds a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// The stall limit, restarted by each byte that the transport accepts.
    Stall,
    /// The deadline, which nothing restarts.
    Deadline,
}

impl Step {
    /// The limit that bounds this step, or `None` where it does not wait.
    pub(crate) fn limit(self) -> Option<Limit> {
        match self {
            Self::FlushData | Self::WriteCloseNotify => Some(Limit::Stall),
            // A salvage does not wait, but a peer that floods could keep it busy.
            Self::FlushTransport | Self::Finish | Self::Drain | Self::Salvage => Some(Limit::Deadline),
            Self::QueueCloseNotify | Self::End(_) => None,
        }
    }
}

/// What came of a step, or passed by in the application's own reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The step was carried out.
    Done,
    /// The TLS handshake was completed.
    HandshakeDone,
    /// The peer's close_notify, with everything before it read.
    ZeroReturn,
    /// The transport ended without close_notify.
    TransportEnd,
    /// Reading failed: `Reset`, `Transport`, `PeerAlert`, `ProtocolError`, `NotTls`, `DrainLimit`.
    ReadFailed(Ending),
    /// Writing failed: `Reset`, `Transport`, or `Refused` where rustls would not say close_notify, having ended itself before.
    WriteFailed(Ending),
    /// Application data that the policy rejects.
    PeerData,
    /// Nothing more has arrived.
    NothingToRead,
    /// As many tickets are kept as the policy asks for.
    TicketsKept,
    /// The stall limit passed.
    StallLimit,
    /// The deadline passed.
    Deadline,
}

/// What a transport that ends without close_notify means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnexpectedEof {
    /// Truncation: the closing has failed, and close_notify is not sent any more.
    Truncates,
    /// The end of reading, as OpenSSL's `SSL_OP_IGNORE_UNEXPECTED_EOF` has it; our close_notify is still sent.
    Ends,
}

/// The state of one closing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closing {
    pub(crate) goal: Goal,
    pub(crate) unexpected_eof: UnexpectedEof,
    pub(crate) local: Local,
    pub(crate) remote: Remote,
}

/// Whether [`Closing::begin`] asked for something new, so that the policy in force and its deadline are new too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    Anew,
    Continued,
}

impl Closing {
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
                Remote::Failed(Ending::PeerAlert(_) | Ending::ProtocolError | Ending::NotTls) => {
                    Local::Withheld(Ending::Refused)
                }
                _ => Local::Handshaking,
            };
        } else if self.remote == Remote::Unread {
            // The application may have read what was in the way.
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

    /// Gives the connection up. What had failed before has failed, and a close_notify that is out cannot be taken back.
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

    /// Whether TLS has said its last word, or none: nothing that it queues may be written from then on.
    pub(crate) fn is_muted(&self) -> bool {
        let notified = matches!(self.local, Local::Notifying | Local::Broken(Unsent::CloseNotify, _));
        notified || self.sent() || matches!(self.local, Local::Withheld(_))
    }

    /// Whether a write has failed, and the peer's last words, which may say why, are not read.
    pub(crate) fn lacks_last_words(&self) -> bool {
        matches!((self.local, self.remote), (Local::Broken(..), Remote::Open | Remote::Unread))
    }

    /// Whether TLS is to be taken off, and our close_notify, which may be none at all, is not out.
    pub(crate) fn is_unwrapping(&self) -> bool {
        let unwraps = self.goal.keeps_transport() && self.goal.waits_for_peer();
        unwraps && !self.sent()
    }

    /// Whether the goal has application data discarded. Otherwise it is left to the application.
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
            // What is behind the data may say more, but the data is the application's.
            (Local::Broken(_, ending), Remote::Unread) => Step::End(ending),
            (_, Remote::Unread) => Step::End(Ending::PeerData),
            (Local::Open, _) => Step::End(Ending::Aborted),

            // The peer may have closed, or sent an alert, before our write failed; that says more than EPIPE.
            (Local::Broken(..), Remote::Open) => Step::Salvage,
            (Local::Broken(Unsent::Data, ending), _) => Step::End(ending),
            // What follows on the transport would meet a part of a record.
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

    /// Takes note of an event. One that means nothing in this state changes nothing.
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
            Event::StallLimit => match self.local {
                Local::Handshaking => self.writing_fails(Ending::NotStarted),
                _ => self.writing_fails(Ending::TimedOut),
            },
            Event::Deadline => match self.remote {
                Remote::Open | Remote::Unread => self.reading_fails(Ending::TimedOut),
                // All that matters is known; FIN comes with the drop of the transport.
                _ => self.local = Local::Finished,
            },
        }
    }

    fn remote_ends(&mut self, end: Remote) {
        if matches!(self.remote, Remote::Open | Remote::Unread) {
            self.remote = end;
        }
    }

    /// No more can be read. What a failed write has found before, or what was good enough already, is the ending.
    fn reading_fails(&mut self, ending: Ending) {
        match (self.local, ending) {
            (Local::Handshaking, _) if !matches!(self.remote, Remote::Open | Remote::Unread) => {
                self.writing_fails(ending)
            }
            (Local::Handshaking, Ending::Truncated) => self.remote_ends(Remote::Failed(Ending::NotStarted)),
            (Local::Broken(..), Ending::PeerAlert(_)) => self.remote_ends(Remote::Failed(ending)),
            (Local::Broken(_, first), _) => self.remote_ends(Remote::Failed(first)),
            (Local::Finished, Ending::Reset | Ending::PeerAlert(_)) => self.remote_ends(Remote::Failed(ending)),
            (Local::Finished, _) if self.goal == Goal::Hear => self.remote_ends(Remote::Failed(Ending::Sent)),
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
