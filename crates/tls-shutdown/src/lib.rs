//! Closes TLS connections without losing data: `SSL_shutdown(3)` for Tokio and rustls.
//!
//! - [`ShutdownStream`] wraps a tokio-rustls stream, reads and writes as that does, and ends as its [`ShutdownPolicy`] says, also
//!   where hyper, h2 or tonic end it, by `poll_shutdown`.
//! - [`AsyncShutdown`] is the closing as a future, with a [`ShutdownReport`]: it sends close_notify, then reads on to the peer's,
//!   within a deadline and a limit in bytes. Each [`Ending`] can be told from the others.
//! - [`Reaper`] finishes what a dropped stream still owes, so that a server that closes first, or answers early, is not reset over
//!   data that nobody reads.
//! - [`Records`] under the TLS stream let TLS be taken off again, and no byte behind it be lost.
//! - `ShutdownLayer` (feature `tower`, and `hyper-rustls` for its `HttpsConnector`) does the same for each connection of a client, and
//!   `ClientDrain` ends them all before the process does.
//! - `TlsListener` and `Server` (feature `server`) accept and serve, so that each connection ends truthfully, and `ServerDrain` ends the
//!   server without losing a request; also `axum::serve` (feature `axum`), tonic (feature `tonic`) and a plain accept loop. Feature
//!   `systemd` tells systemd.
//!
//! # Promises
//!
//! - close_notify is said once, after all application data, before FIN, and nothing is written after it.
//! - It is never said after a fatal alert of either side, after a truncation, or by a drop: what was cut cannot look complete
//!   (RFC 9112 section 9.8).
//! - [`Ending::Complete`] means that the peer's close_notify was read and no byte of ours is unsent.
//! - Every wait is bounded, whatever the peer does, and tells how it ended.
//! - All state lives in the stream: each future may be dropped at any point, and made again.
//! - [`on_end`](ShutdownStream::on_end) is called once for each connection, whatever path it took.
//!
//! Each holds within limits that are said where the promise is documented.
//!
//! # A closing
//!
//! ```text
//!              ┌ quiet ──────────────────────────────────────────────────────────────▶ quiet
//!              │
//! shutdown ────┼ unidirectional ▶ data ▶ close_notify ▶ FIN ─────────────────────────▶ sent
//!              │                                         │  a reaper hears the peer ──▶ complete
//!              ├ bidirectional ─▶ data ▶ close_notify ▶ FIN ▶ peer's close_notify ───▶ complete
//!              │
//!              └ receive-first ─▶ data ▶ peer's close_notify ▶ close_notify ▶ FIN ───▶ complete
//!
//! drop, abort ───────────────────────────────────────────────────────────────────────▶ aborted
//! ```
//!
//! Whatever goes wrong on the way is an [`Ending`] of its own: truncated, reset, timed_out, peer_alert, and so on.

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

mod driver;
mod shutdown;
pub use shutdown::{AsyncShutdown, ShutdownTarget};

mod stream;
pub use stream::{Abort, ShutdownState, ShutdownStream, UnwrapError};

mod reaper;
pub use reaper::{Reaper, ReaperLimits};

#[cfg(feature = "server")]
mod connection;
#[cfg(feature = "server")]
pub use connection::{ConnectionReport, Handshake, Use};

#[cfg(any(feature = "server", feature = "tower"))]
mod frames;
#[cfg(any(feature = "server", feature = "tower"))]
mod messages;

#[cfg(feature = "server")]
mod listener;
#[cfg(feature = "server")]
pub use listener::{ConfigHandle, ServerStream, TlsListener};

#[cfg(feature = "server")]
mod tickets;
#[cfg(feature = "server")]
pub use tickets::{NoAead, TicketKey, TicketKeys};

#[cfg(feature = "server")]
mod drain;
#[cfg(feature = "server")]
pub use drain::{
    Acknowledgement, DrainBody, DrainHandle, DrainLayer, DrainPhase, DrainReport, DrainResponse, DrainService,
    Readiness, ServerDrain,
};

#[cfg(feature = "server")]
mod unacknowledged;

#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
pub use server::{ConnectionInfo, HttpStream, ServedBody, Server};

#[cfg(feature = "axum")]
mod axum;
#[cfg(feature = "axum")]
pub use self::axum::PeerAddress;
#[cfg(feature = "tonic")]
mod tonic;
#[cfg(feature = "tonic")]
pub use self::tonic::TlsConnectInfo;

#[cfg(feature = "tower")]
mod layer;
#[cfg(all(feature = "systemd", unix))]
pub mod systemd;
#[cfg(feature = "tower")]
pub use layer::{
    ClientDrain, ClientDrainReport, Connecting, Draining, IntoTls, LayerStream, MaybeTls, ShutdownLayer,
    ShutdownService,
};
