//! What a shutdown has to reach, and within which limits: [`ShutdownPolicy`].

use std::time::Duration;

use crate::tls::close_state::{Goal, UnexpectedEof};

/// How a TLS connection is shut down: what has to be reached, how long that may take, and what happens to late data.
///
/// A policy is a small value. Start from [`quiet`](Self::quiet), [`unidirectional`](Self::unidirectional),
/// [`bidirectional`](Self::bidirectional) or [`receive_first`](Self::receive_first), and change the defaults.
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
/// - A client that has read all it needs, and every client that wants to resume its session: [`bidirectional`](Self::bidirectional).
/// - A server whose stream has a [`Reaper`](crate::Reaper): [`unidirectional`](Self::unidirectional).
/// - A protocol in which the peer closes first: [`receive_first`](Self::receive_first).
///
/// All of them are safe with `tokio::io::split` and `copy_bidirectional`: [`poll_shutdown`](crate::ShutdownStream#method.poll_shutdown)
/// ends the write half, and discards no data of a stream that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct ShutdownPolicy {
    /// `None` for a quiet shutdown.
    goal: Option<Goal>,
    stall_timeout: Duration,
    close_timeout: Duration,
    max_drain_bytes: u64,
    peer_data: PeerData,
    unexpected_eof: UnexpectedEof,
    tickets: Option<u32>,
}

/// What happens to unread application data when a shutdown drains the connection.
///
/// That is the data that is unread when the shutdown begins, and the data that arrives later. Reads fail after data was discarded. To
/// *read* that data, call [`close_notify`](crate::ShutdownStream::close_notify) or
/// [`poll_shutdown`](crate::ShutdownStream#method.poll_shutdown), and read the stream to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PeerData {
    /// Discard it, up to the [drain limit](ShutdownPolicy::with_max_drain_bytes), and count it in the report.
    Discard,
    /// Fail with [`Ending::PeerData`](crate::Ending::PeerData), as `SSL_shutdown(3)` does, and keep the data. The application can read
    /// it, and shut down again.
    Reject,
}

/// Which side closes first when TLS is taken off a connection. The protocol over TLS defines that. See
/// [`ShutdownStream::into_plaintext`](crate::ShutdownStream::into_plaintext).
///
/// Every variant waits for the peer's close_notify. Without it, the end of the TLS data and the beginning of the plaintext are unknown
/// (RFC 9846 section 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unwrap {
    /// We send close_notify, and wait for the peer's. Use it also if it is unknown who closes first: both sides may.
    Initiate,
    /// We wait for the peer's close_notify, and answer it.
    Reply,
    /// We wait for the peer's close_notify, and do not answer it.
    Silent,
}

/// What [`ShutdownStream::abort`](crate::ShutdownStream::abort) does to TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Abort {
    /// Send FIN, or RST if the kernel holds unread bytes. For a peer that can recognize a cut message by its framing (Content-Length,
    /// chunks, HTTP/2).
    Fin,
    /// Send RST, so that no peer takes the end of the connection for the end of the message: many peers accept FIN without close_notify
    /// as complete. RST also discards what the kernel has not sent yet. A transport without a TCP socket sends FIN.
    Reset,
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
    /// Default [stall timeout](Self::with_stall_timeout).
    pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);
    /// Default [close timeout](Self::with_close_timeout).
    pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
    /// Default [drain limit](Self::with_max_drain_bytes), in bytes.
    pub const MAX_DRAIN_BYTES: u64 = 1024 * 1024;

    const fn new(goal: Option<Goal>) -> Self {
        Self {
            goal,
            stall_timeout: Self::STALL_TIMEOUT,
            close_timeout: Self::CLOSE_TIMEOUT,
            max_drain_bytes: Self::MAX_DRAIN_BYTES,
            peer_data: PeerData::Discard,
            unexpected_eof: UnexpectedEof::Truncates,
            tickets: None,
        }
    }

    /// Sends nothing and reads nothing. The connection is only marked as shut down, which succeeds at once
    /// (`SSL_CTX_set_quiet_shutdown(3)`). Data that was written and not flushed is lost, and the peer sees a truncation.
    pub const fn quiet() -> Self {
        Self::new(None)
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
    /// RFC 9846 section 6.1 requires each side to send close_notify before it closes its write side. This "does not have any effect on its
    /// read side".
    ///
    /// Its limit: data that the peer still sends is lost without notice (a truncation). It also makes the kernel reset the connection
    /// when the stream is dropped, and the reset may destroy *our* last data on its way. TLS 1.3 session tickets alone are enough for
    /// that. A [`Reaper`](crate::Reaper) prevents the reset. A client should use [`bidirectional`](Self::bidirectional).
    ///
    /// This is the default of a server's stream.
    pub const fn unidirectional() -> Self {
        Self::new(Some(Goal::Send))
    }

    //= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
    //# When a client only writes and never reads from the connection, and the
    //# server has sent a session ticket to establish a session, the client
    //# might not be able to resume the session because it did not received
    //# and process the session ticket from the server.
    /// Sends all application data, close_notify, and FIN, then reads until the peer's close_notify.
    ///
    /// A peer that answers our close_notify has read everything that we sent. We have received everything that it sent before its answer,
    /// session tickets included. The cost is one round trip, or the [close timeout](Self::with_close_timeout) if the peer never answers.
    /// Its limit: a peer that closed before us may not have read our last data.
    ///
    /// This is the default of a client's stream.
    pub const fn bidirectional() -> Self {
        Self::new(Some(Goal::Both))
    }

    /// Sends all application data, reads until the peer's close_notify, then sends close_notify and FIN.
    ///
    /// `SSL_shutdown(3)`: "The order of those two steps depends on the application." If the peer's close_notify does not come, ours is not
    /// sent either, unless the policy [accepts](Self::ignore_unexpected_eof) an end without it. The
    /// [close timeout](Self::with_close_timeout) begins when the last application data was sent.
    pub const fn receive_first() -> Self {
        Self::new(Some(Goal::ReceiveFirst))
    }

    /// Limits the time in which the transport accepts no byte of the unsent application data and close_notify. Each accepted byte
    /// restarts it, so that a slow reader is not cut. It also limits a 0-RTT handshake that has to finish first.
    /// Default: [`STALL_TIMEOUT`](Self::STALL_TIMEOUT).
    pub const fn with_stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall_timeout = timeout;
        self
    }

    /// Limits the time from the moment the transport has accepted close_notify to the end. Neither data of the peer nor a new future for
    /// the same shutdown extends it. Default: [`CLOSE_TIMEOUT`](Self::CLOSE_TIMEOUT).
    ///
    /// Accepted does not mean read: a kernel buffers some megabytes for a slow peer, which answers only after it has read them. Allow more
    /// time for such peers.
    pub const fn with_close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// Limits the application data that a drain discards, in bytes. Everything else that it reads (record headers, padding, session
    /// tickets, key updates) may be as much again, plus 64 KiB. Default: [`MAX_DRAIN_BYTES`](Self::MAX_DRAIN_BYTES).
    pub const fn with_max_drain_bytes(mut self, bytes: u64) -> Self {
        self.max_drain_bytes = bytes;
        self
    }

    /// Sets what happens to unread application data. Default: [`PeerData::Discard`].
    pub const fn with_peer_data(mut self, peer_data: PeerData) -> Self {
        self.peer_data = peer_data;
        self
    }

    /// Accepts a transport that ends without close_notify as the peer's end, as `SSL_OP_IGNORE_UNEXPECTED_EOF` does. Our close_notify is
    /// still sent, and the shutdown succeeds. The ending is still [`Ending::Truncated`](crate::Ending::Truncated), and reads of the stream
    /// still fail with `UnexpectedEof`.
    ///
    /// Use it only if the application's own framing distinguishes a complete message from a cut one.
    pub const fn ignore_unexpected_eof(mut self) -> Self {
        self.unexpected_eof = UnexpectedEof::Ends;
        self
    }

    /// Ends a client's wait for the peer's close_notify once the connection has received `tickets` TLS 1.3 session tickets. For servers
    /// that never answer. The ending is then [`Ending::Sent`](crate::Ending::Sent). In TLS 1.2 the tickets come with the handshake, so
    /// the wait ends at once. A server's stream receives no tickets and ignores this.
    ///
    /// Its limit: what the server sends later arrives at a closed socket, as with [`unidirectional`](Self::unidirectional).
    pub const fn until_tickets(mut self, tickets: u32) -> Self {
        self.tickets = Some(tickets);
        self
    }

    /// The longest time without an accepted byte.
    pub const fn stall_timeout(&self) -> Duration {
        self.stall_timeout
    }

    /// The longest time from the accepted close_notify to the end.
    pub const fn close_timeout(&self) -> Duration {
        self.close_timeout
    }

    /// The largest amount of application data that a drain discards, in bytes.
    pub const fn max_drain_bytes(&self) -> u64 {
        self.max_drain_bytes
    }

    /// What happens to unread application data.
    pub const fn peer_data(&self) -> PeerData {
        self.peer_data
    }

    /// The goal, or `None` for a quiet shutdown.
    pub(crate) const fn goal(&self) -> Option<Goal> {
        self.goal
    }

    /// The same for a shutdown that keeps the transport: data of the peer is in the way of its close_notify, and an end of the transport is
    /// no end of TLS.
    pub(crate) const fn to_unwrap(mut self) -> Self {
        self.peer_data = PeerData::Reject;
        self.unexpected_eof = UnexpectedEof::Truncates;
        self
    }

    pub(crate) const fn tickets(&self) -> Option<u32> {
        self.tickets
    }

    pub(crate) const fn unexpected_eof(&self) -> UnexpectedEof {
        self.unexpected_eof
    }
}
