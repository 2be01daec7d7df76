//! Where the handbook explains an ending.

use crate::tls::report::Ending;

/// The URL of a section of the page about endings.
macro_rules! section {
    ($name:literal) => {
        concat!("https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/endings/index.html#", $name)
    };
}

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
        match self {
            Self::Complete => section!("complete"),
            Self::Sent => section!("sent"),
            Self::Quiet => section!("quiet"),
            Self::Truncated => section!("truncated"),
            Self::Reset => section!("reset"),
            Self::Transport(_) => section!("transport"),
            Self::TimedOut => section!("timed_out"),
            Self::DrainLimit => section!("drain_limit"),
            Self::PeerData => section!("peer_data"),
            Self::PeerAlert(_) => section!("peer_alert"),
            Self::ProtocolError => section!("protocol_error"),
            Self::TlsLimit => section!("tls_limit"),
            Self::NotStarted => section!("not_started"),
            Self::Refused => section!("refused"),
            Self::NotTls => section!("not_tls"),
            Self::Aborted => section!("aborted"),
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
