//! What an ending is called, where the handbook explains it, and what its error says.

use crate::tls::report::Ending;

pub(crate) struct Texts {
    pub(crate) name: &'static str,
    /// The URL of a section of the handbook's page about endings.
    page: &'static str,
    /// Why a shutdown that ended so has failed.
    pub(crate) reason: &'static str,
}

macro_rules! texts {
    ($name:literal, $reason:expr) => {
        Texts {
            name: $name,
            page: concat!("https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/endings/index.html#", $name),
            reason: $reason,
        }
    };
}

const STOPPED_SHORT: &str = "the shutdown stopped short of the requested goal";

impl Ending {
    /// The URL of the section of the handbook that explains this ending: its causes, and what to do about it.
    /// [`ShutdownError`](crate::ShutdownError) prints it.
    ///
    /// ```
    /// use tls_shutdown::Ending;
    ///
    /// assert!(Ending::Truncated.page().ends_with("/guide/endings/index.html#truncated"));
    /// ```
    pub const fn page(self) -> &'static str {
        self.texts().page
    }

    pub(crate) const fn texts(self) -> Texts {
        match self {
            Self::Complete => texts!("complete", STOPPED_SHORT),
            Self::Sent => texts!("sent", STOPPED_SHORT),
            Self::Quiet => texts!("quiet", STOPPED_SHORT),
            Self::Truncated => texts!("truncated", "the transport ended before the peer's close_notify"),
            Self::Reset => texts!("reset", "the peer reset the connection"),
            Self::Transport(_) => texts!("transport", "the transport failed"),
            Self::TimedOut => texts!("timed_out", "the peer did not answer or read our data in time"),
            Self::DrainLimit => texts!("drain_limit", "the peer sent more than the drain limit"),
            Self::PeerData => texts!("peer_data", "application data of the peer is still unread"),
            Self::PeerAlert(_) => texts!("peer_alert", "the peer ended the connection with an alert"),
            Self::ProtocolError => texts!("protocol_error", "the peer violated the TLS protocol"),
            Self::TlsLimit => texts!("tls_limit", "the peer sent more than the TLS library accepts"),
            Self::NotStarted => texts!("not_started", "the TLS handshake is not finished"),
            Self::Refused => texts!("refused", "the connection failed before, and close_notify must not follow"),
            Self::NotTls => texts!("not_tls", "the peer sent bytes that are not TLS"),
            Self::Aborted => texts!("aborted", "the connection was aborted"),
        }
    }
}
