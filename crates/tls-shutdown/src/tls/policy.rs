//! What a closing is to reach, and within which bounds: [`ShutdownPolicy`].

use std::time::Duration;

use crate::tls::close_state::{Goal, UnexpectedEof};

/// How a TLS connection is closed: what has to be reached, how long that may take, and what happens to data that comes late.
///
/// A policy is a small value: start from [`quiet`](Self::quiet), [`unidirectional`](Self::unidirectional),
/// [`bidirectional`](Self::bidirectional) or [`receive_first`](Self::receive_first), and change what differs from the defaults.
///
/// ```
/// use std::time::Duration;
/// use tls_shutdown::{PeerData, ShutdownPolicy};
///
/// const CAREFUL: ShutdownPolicy = ShutdownPolicy::bidirectional()
///     .with_close_timeout(Duration::from_secs(2))
///     .with_peer_data(PeerData::Reject);
/// ```
///
/// # Which one
///
/// - A client that has read all it wants, and every client that wants to resume its session: [`bidirectional`](Self::bidirectional).
/// - A server, whose stream has a [`Reaper`](crate::Reaper): [`unidirectional`](Self::unidirectional).
/// - A protocol in which the peer has to close first: [`receive_first`](Self::receive_first).
/// - `tokio::io::copy_bidirectional` and every other use in which data is still to be read after our close_notify:
///   [`unidirectional`](Self::unidirectional), since the other policies discard that data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct ShutdownPolicy {
    direction: Direction,
    stall_timeout: Duration,
    close_timeout: Duration,
    max_drain_bytes: u64,
    peer_data: PeerData,
    unexpected_eof: UnexpectedEof,
    tickets: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Quiet,
    Unidirectional,
    Bidirectional,
    ReceiveFirst,
}

/// What happens to application data that is still to be read when a closing drains the connection.
///
/// Both the data that is unread when the closing begins and the data that comes later are meant. To *have* that data, do not
/// drain: call [`close_notify`](crate::ShutdownStream::close_notify), and read the stream to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PeerData {
    /// Discard it, up to the [drain limit](ShutdownPolicy::with_max_drain_bytes), and count it in the report.
    Discard,
    /// Fail with [`Ending::PeerData`](crate::Ending::PeerData), as `SSL_shutdown(3)` does, and leave the data in place: it can
    /// be read, and the shutdown be asked for again.
    Reject,
}

/// Who closes first when TLS is taken off a connection, which the protocol over it defines. See
/// [`ShutdownStream::into_plaintext`](crate::ShutdownStream::into_plaintext).
///
/// There is no way to send close_notify and not to wait for the peer's: the end of its TLS data, and the beginning of what
/// follows, would not be known (RFC 9846 section 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unwrap {
    /// We send close_notify, and wait for the peer's. Also where it is not known who closes first: both sides may.
    Initiate,
    /// We wait for the peer's close_notify, and answer it.
    Reply,
    /// We wait for the peer's close_notify, and do not answer it.
    Silent,
}

impl Unwrap {
    pub(crate) const fn goal(self) -> Goal {
        match self {
            Self::Initiate => Goal::UnwrapInitiate,
            Self::Reply => Goal::UnwrapReply,
            Self::Silent => Goal::UnwrapSilent,
        }
    }
}

impl ShutdownPolicy {
    /// Default [stall limit](Self::with_stall_timeout).
    pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);
    /// Default [deadline](Self::with_close_timeout).
    pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
    /// Default [drain limit](Self::with_max_drain_bytes), in bytes.
    pub const MAX_DRAIN_BYTES: u64 = 1024 * 1024;

    const fn new(direction: Direction) -> Self {
        Self {
            direction,
            stall_timeout: Self::STALL_TIMEOUT,
            close_timeout: Self::CLOSE_TIMEOUT,
            max_drain_bytes: Self::MAX_DRAIN_BYTES,
            peer_data: PeerData::Discard,
            unexpected_eof: UnexpectedEof::Truncates,
            tickets: None,
        }
    }

    /// Sends nothing and reads nothing: the connection is only marked as shut down, and that always succeeds, at once
    /// (`SSL_CTX_set_quiet_shutdown(3)`). Data that was written and not flushed is lost, and the peer sees a truncation.
    pub const fn quiet() -> Self {
        Self::new(Direction::Quiet)
    }

    //= https://www.rfc-editor.org/rfc/rfc8446#section-6.1
    //# Both parties need not wait to receive a "close_notify" alert before
    //# closing their read side of the connection, though doing so would
    //# introduce the possibility of truncation.
    //= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
    //# It is acceptable for an application to only send its shutdown alert
    //# and then close the underlying connection without waiting for the
    //# peer's response.
    /// Sends all application data, close_notify, and FIN, and does not wait for the peer.
    ///
    /// This is what RFC 9846 section 6.1 asks of each side: closing the write side "does not have any effect on its read side".
    ///
    /// Its limit: unless it is known that the peer has nothing more to say, what it still sends is lost without notice (a
    /// truncation), and makes the kernel reset the connection when the stream is dropped, which may destroy *our* last data on
    /// its way. TLS 1.3 session tickets alone are enough for that. A stream with a [`Reaper`](crate::Reaper) is safe from the
    /// reset; a client should use [`bidirectional`](Self::bidirectional).
    ///
    /// The default of a server's stream.
    pub const fn unidirectional() -> Self {
        Self::new(Direction::Unidirectional)
    }

    //= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
    //# When a client only writes and never reads from the connection, and the
    //# server has sent a session ticket to establish a session, the client
    //# might not be able to resume the session because it did not received
    //# and process the session ticket from the server.
    /// Sends all application data, close_notify, and FIN, then reads on until the peer's close_notify.
    ///
    /// A peer that answers our close_notify has read all that we have sent, and what it sent before its own, session tickets
    /// among it, has been received. It costs a round trip, and against a peer that never answers, the
    /// [deadline](Self::with_close_timeout). Its limit: a peer that had closed before we did may not have read on.
    ///
    /// The default of a client's stream.
    pub const fn bidirectional() -> Self {
        Self::new(Direction::Bidirectional)
    }

    /// Sends all application data, reads on until the peer's close_notify, and only then sends close_notify and FIN.
    ///
    /// `SSL_shutdown(3)`: "The order of those two steps depends on the application." If the peer's does not come, ours is not
    /// sent either. The [deadline](Self::with_close_timeout) counts from the moment the last application data is out.
    pub const fn receive_first() -> Self {
        Self::new(Direction::ReceiveFirst)
    }

    /// Limits the time in which the transport accepts no byte of ours: application data that is still unsent, or close_notify.
    /// Each accepted byte restarts it, so that a peer which reads slowly, but reads, is not cut. It also bounds a 0-RTT
    /// handshake that has to be finished first. Default: [`STALL_TIMEOUT`](Self::STALL_TIMEOUT).
    pub const fn with_stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall_timeout = timeout;
        self
    }

    /// Limits the whole time from the moment the transport has accepted close_notify to the end. Nothing that the peer sends
    /// prolongs it, and neither does a new future for the same shutdown. Default: [`CLOSE_TIMEOUT`](Self::CLOSE_TIMEOUT).
    ///
    /// Accepted is not read: a kernel takes some megabytes ahead of a slow peer, which answers when it has read them. Where
    /// that may take longer, allow more.
    pub const fn with_close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// Limits the application data that is discarded while waiting for the peer's close_notify, in bytes. What is read beside
    /// it (record headers, padding, session tickets, key updates) may be as much again and 64 KiB.
    /// Default: [`MAX_DRAIN_BYTES`](Self::MAX_DRAIN_BYTES).
    pub const fn with_max_drain_bytes(mut self, bytes: u64) -> Self {
        self.max_drain_bytes = bytes;
        self
    }

    /// Chooses what happens to application data that is still to be read. Default: [`PeerData::Discard`].
    pub const fn with_peer_data(mut self, peer_data: PeerData) -> Self {
        self.peer_data = peer_data;
        self
    }

    /// Accepts a transport that ends without close_notify as the peer's end, as `SSL_OP_IGNORE_UNEXPECTED_EOF` does: our
    /// close_notify is still sent, and the shutdown succeeds. The ending is [`Ending::Truncated`](crate::Ending::Truncated) all
    /// the same, never complete, and reads of the stream still fail with `UnexpectedEof`.
    ///
    /// Use it only where the application's own framing tells a whole message from a cut one.
    pub const fn ignore_unexpected_eof(mut self) -> Self {
        self.unexpected_eof = UnexpectedEof::Ends;
        self
    }

    /// Lets a client stop waiting for the peer's close_notify once the connection has received `tickets` TLS 1.3 session
    /// tickets, for servers that never answer: the ending is then [`Ending::Sent`](crate::Ending::Sent). In TLS 1.2, where
    /// tickets come with the handshake, that is at once. A server's stream receives none and ignores it.
    ///
    /// Its limit: what the server sends later meets a closed socket, as with [`unidirectional`](Self::unidirectional).
    pub const fn until_tickets(mut self, tickets: u32) -> Self {
        self.tickets = Some(tickets);
        self
    }

    /// The goal, or `None` for a quiet shutdown.
    pub(crate) const fn goal(&self) -> Option<Goal> {
        match self.direction {
            Direction::Quiet => None,
            Direction::Unidirectional => Some(Goal::Send),
            Direction::Bidirectional => Some(Goal::Both),
            Direction::ReceiveFirst => Some(Goal::ReceiveFirst),
        }
    }

    pub(crate) const fn limits(&self) -> Limits {
        Limits {
            stall: self.stall_timeout,
            deadline: self.close_timeout,
            drain: self.max_drain_bytes,
            peer_data: self.peer_data,
            tickets: self.tickets,
        }
    }

    pub(crate) const fn unexpected_eof(&self) -> UnexpectedEof {
        self.unexpected_eof
    }
}

/// The bounds of a policy, apart from its goal, which the table keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) stall: Duration,
    pub(crate) deadline: Duration,
    pub(crate) drain: u64,
    pub(crate) peer_data: PeerData,
    pub(crate) tickets: Option<u32>,
}
