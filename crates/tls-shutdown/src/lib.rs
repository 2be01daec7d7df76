//! Closes TLS connections without losing data, on Tokio, for rustls.
#![doc = include_str!("../../../README.md")]

mod closing;
mod kernel;

mod policy;
pub use policy::{PeerData, ShutdownPolicy, Unwrap};

mod report;
pub use report::{Alert, Ending, ShutdownError, ShutdownReport};

mod records;
pub use records::{Plaintext, Records};

mod session;
pub use session::{TlsConnection, TlsSession};

mod shutdown;
pub use shutdown::{AsyncShutdown, ShutdownTarget};

mod stream;
pub use stream::{Abort, ShutdownState, ShutdownStream, UnwrapError};

mod reaper;
pub use reaper::{Reaper, ReaperLimits};
