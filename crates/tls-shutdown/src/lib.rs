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

mod runtime;

mod tls;
pub use tls::*;

#[cfg(any(feature = "server", feature = "tower"))]
mod http;

#[cfg(feature = "server")]
pub mod server;

#[cfg(feature = "tower")]
pub mod client;

#[cfg(feature = "server")]
pub mod integrations;
