//! HTTP clients: a tower layer by which every connection ends as one policy says, and what ends them all.

mod drain;
mod exchange;
mod layer;
mod stream;

pub use drain::{ClientDrain, ClientDrainReport};
pub use layer::{Connecting, Draining, IntoTls, MaybeTls, ShutdownLayer, ShutdownService};
pub use stream::ClientStream;
