//! [`Draining`]: the error of whatever comes too late for a drain.

use std::{error::Error, fmt};

/// The [`ClientDrain`](super::ClientDrain) has begun: the client makes no new connection, and no new request on an idle one.
///
/// It is the error of a [`ShutdownService`](super::ShutdownService), and is inside the [`io::Error`](std::io::Error) of a
/// [`ClientStream`](super::ClientStream). Clients report it as a source of their own error. h2 keeps only the message, so `downcast` fails
/// there.
///
/// ```
/// use tls_shutdown::client::Draining;
///
/// fn is_draining(mut error: &(dyn std::error::Error + 'static)) -> bool {
///     while !error.is::<Draining>() {
///         let Some(source) = error.source() else { return false };
///         error = source;
///     }
///     true
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draining;

impl Draining {
    /// The text of [`Display`](fmt::Display).
    pub(super) const TEXT: &str = "the client is being drained, its connections are closed";
}

impl fmt::Display for Draining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::TEXT)
    }
}

impl Error for Draining {}
