//! How a connection ended.

use std::io::{self, ErrorKind};

/// How the read half of a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By close_notify.
    CloseNotify,
    /// By FIN, of a connection without TLS.
    Fin,
    /// By FIN without close_notify.
    Truncation,
    /// By RST.
    Reset,
}

impl End {
    /// The end that a read reports by `error`.
    ///
    /// # Panics
    ///
    /// If the error is no end of the connection.
    pub fn of(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::UnexpectedEof => Self::Truncation,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Self::Reset,
            _ => panic!("{error:?}"),
        }
    }
}
