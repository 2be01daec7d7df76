//! [`DrainPhase`]: how far a server drain is.

use std::fmt;

/// How far a server drain is. A later phase is greater.
///
/// ```
/// use tls_shutdown::server::DrainPhase;
///
/// assert!(DrainPhase::Notice < DrainPhase::LastRequest);
/// assert_eq!(DrainPhase::LastRequest.to_string(), "last_request");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DrainPhase {
    /// The signal has not come.
    #[default]
    Serving,
    /// Readiness fails; everything else still works. The balancer has time to notice.
    Notice,
    /// The server closes its sockets. It still accepts the connections in the system's queue, and those of
    /// [handshakes in progress](crate::server::TcpSocket). Each open connection may have one more request.
    LastRequest,
    /// What is still in progress is cut.
    Deadline,
    /// All connections have ended or are given up. The server waits until the peers' systems have received what it sent.
    Exit,
    /// The drain is over, and the process may end.
    Ended,
}

impl fmt::Display for DrainPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Serving => "serving",
            Self::Notice => "notice",
            Self::LastRequest => "last_request",
            Self::Deadline => "deadline",
            Self::Exit => "exit",
            Self::Ended => "ended",
        })
    }
}
