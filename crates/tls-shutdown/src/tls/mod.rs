//! One TLS connection, and how it ends.

mod close_notify;
mod close_state;
mod connection;
mod driver;
mod plaintext;
mod policy;
mod reaper;
mod reaper_limits;
mod record_scanner;
mod records;
mod report;
mod session;
mod session_io;
mod shutdown;
mod socket;
mod stream;
mod tls_error;
mod unwrap;

pub use plaintext::Plaintext;
pub use policy::{Abort, PeerData, ShutdownPolicy, Unwrap};
pub use reaper::Reaper;
#[cfg(feature = "server")]
pub(crate) use reaper::Stake;
pub use reaper_limits::ReaperLimits;
pub use records::Records;
pub use report::{Alert, Ending, ShutdownError, ShutdownReport};
pub use session::{TlsConnection, TlsSession};
pub use shutdown::AsyncShutdown;
#[cfg(feature = "server")]
pub(crate) use socket::{deliver_on_close, reset_on_close};
pub use stream::{ShutdownState, ShutdownStream};
pub use unwrap::UnwrapError;
