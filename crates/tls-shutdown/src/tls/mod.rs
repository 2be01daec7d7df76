//! One TLS connection: how it ends, whoever uses it.

mod close_state;
pub(crate) mod driver;
pub(crate) mod policy;
pub(crate) mod reaper;
pub(crate) mod records;
pub(crate) mod report;
pub(crate) mod session;
mod shutdown;
pub(crate) mod socket;
pub(crate) mod stream;

pub use policy::{PeerData, ShutdownPolicy, Unwrap};
pub use reaper::{Reaper, ReaperLimits};
pub use records::{Plaintext, Records};
pub use report::{Alert, Ending, ShutdownError, ShutdownReport};
pub use session::{TlsConnection, TlsSession};
pub use shutdown::{AsyncShutdown, ShutdownTarget};
pub use stream::{Abort, ShutdownState, ShutdownStream, UnwrapError};
