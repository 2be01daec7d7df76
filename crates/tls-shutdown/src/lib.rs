//! Closes TLS connections without losing data, on Tokio, for rustls.
#![doc = include_str!("../../../README.md")]

mod closing;
mod kernel;
mod records;

mod policy;
pub use policy::{PeerData, ShutdownPolicy};

mod report;
pub use report::{Alert, Ending, ShutdownError, ShutdownReport};

mod session;
pub use session::{TlsConnection, TlsSession};

mod shutdown;
pub use shutdown::{AsyncShutdown, ShutdownTarget};

mod stream;
pub use stream::{Abort, ShutdownState, ShutdownStream};

mod reaper;
pub use reaper::{Reaper, ReaperLimits};
