//! HTTP clients: a tower layer by which every connection ends as one policy says, and what ends them all.

mod drain;
mod draining;
mod exchange;
mod into_tls;
mod layer;
mod report;
mod retirement;
mod shared_stream;
mod stream;

pub use drain::ClientDrain;
pub use draining::Draining;
#[cfg(feature = "hyper-rustls")]
pub use into_tls::HttpsSession;
pub use into_tls::{IntoTls, MaybeTls};
pub use layer::{Connecting, ShutdownLayer, ShutdownService};
pub use report::ClientDrainReport;
pub use stream::ClientStream;
