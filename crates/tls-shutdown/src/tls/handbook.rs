//! What there is to say about an ending: its name, its section of the handbook, and its error.

use std::io::ErrorKind;

use crate::tls::report::Ending;

pub(crate) struct About {
    pub(crate) name: &'static str,
    /// The URL of a section of the handbook's page about endings.
    page: &'static str,
    /// The kind of the error of a shutdown that ended so, and why it has failed.
    pub(crate) kind: ErrorKind,
    pub(crate) reason: &'static str,
}

macro_rules! about {
    ($name:literal, $kind:expr, $reason:expr) => {
        About {
            name: $name,
            page: concat!("https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/endings/index.html#", $name),
            kind: $kind,
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
        self.about().page
    }

    pub(crate) const fn about(self) -> About {
        use ErrorKind::{
            ConnectionAborted, ConnectionReset, InvalidData, NotConnected, Other, TimedOut, UnexpectedEof,
        };

        match self {
            Self::Complete => about!("complete", Other, STOPPED_SHORT),
            Self::Sent => about!("sent", Other, STOPPED_SHORT),
            Self::Quiet => about!("quiet", Other, STOPPED_SHORT),
            Self::Truncated => about!("truncated", UnexpectedEof, "the transport ended before the peer's close_notify"),
            Self::Reset => about!("reset", ConnectionReset, "the peer reset the connection"),
            Self::Transport(kind) => about!("transport", kind, "the transport failed"),
            Self::TimedOut => about!("timed_out", TimedOut, "the peer did not answer or read our data in time"),
            Self::DrainLimit => about!("drain_limit", InvalidData, "the peer sent more than the drain limit"),
            Self::PeerData => about!("peer_data", InvalidData, "application data of the peer is still unread"),
            Self::PeerAlert(_) => about!("peer_alert", InvalidData, "the peer ended the connection with an alert"),
            Self::ProtocolError => about!("protocol_error", InvalidData, "the peer violated the TLS protocol"),
            Self::TlsLimit => about!("tls_limit", InvalidData, "the peer sent more than the TLS library accepts"),
            Self::NotStarted => about!("not_started", NotConnected, "the TLS handshake is not finished"),
            Self::Refused => {
                about!("refused", ConnectionAborted, "the connection failed before, and close_notify must not follow")
            }
            Self::NotTls => about!("not_tls", InvalidData, "the peer sent bytes that are not TLS"),
            Self::Aborted => about!("aborted", ConnectionAborted, "the connection was aborted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::Ending;
    use crate::tls::report::{Alert, ShutdownError, ShutdownReport};

    #[test]
    fn each_ending_has_a_section_of_its_name_and_its_error_prints_the_url() {
        let page = include_str!("../../guide/src/endings.md");
        let endings = [
            Ending::Complete,
            Ending::Sent,
            Ending::Quiet,
            Ending::Truncated,
            Ending::Reset,
            Ending::Transport(io::ErrorKind::Other),
            Ending::TimedOut,
            Ending::DrainLimit,
            Ending::PeerData,
            Ending::PeerAlert(Alert(80)),
            Ending::ProtocolError,
            Ending::TlsLimit,
            Ending::NotStarted,
            Ending::Refused,
            Ending::NotTls,
            Ending::Aborted,
        ];
        assert_eq!(
            page.matches("\n| [`").count(),
            endings.len(),
            "the table of the page has another number of endings"
        );
        for ending in endings {
            let name = ending.name();
            assert!(page.contains(&format!("\n## {name}\n")), "{name}");
            assert_eq!(ending.page().split_once('#').map(|(_, anchor)| anchor), Some(name));
            let error = ShutdownError::new(ShutdownReport::new(ending), None).to_string();
            assert!(error.ends_with(&format!("; see {}", ending.page())), "{error}");
        }
    }
}
