//! One TLS connection, and how it ends.

mod close_notify;
mod close_state;
mod connection;
mod driver;
mod handbook;
mod linger;
mod observers;
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
pub(crate) mod socket;
mod stream;
pub(crate) mod tls_error;
mod undelivered;
mod unwrap;

pub use plaintext::Plaintext;
pub use policy::{Abort, PeerData, ShutdownPolicy, Unwrap};
pub use reaper::Reaper;
pub use reaper_limits::ReaperLimits;
pub use records::Records;
pub use report::{Alert, Ending, ShutdownError, ShutdownReport, ShutdownState};
pub use session::{TlsConnection, TlsSession};
pub use shutdown::AsyncShutdown;
pub use stream::ShutdownStream;
pub use undelivered::Undelivered;
pub use unwrap::UnwrapError;
