//! HTTP on the wire, scanned in bytes that may be cut anywhere. The server and the client decide what a message means.

pub(crate) mod h1_chunks;
pub(crate) mod h1_scanner;
pub(crate) mod h2_scanner;

/// The error of a service, as tower calls it.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
