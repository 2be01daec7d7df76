//! Closes TLS connections without losing data: `SSL_shutdown(3)` for Tokio and rustls.
//!
//! One connection, at the root of the crate:
//!
//! - [`ShutdownStream`] wraps a tokio-rustls stream, reads and writes as that does, and ends by its [`ShutdownPolicy`], also when hyper,
//!   h2 or tonic call `poll_shutdown`.
//! - [`AsyncShutdown`] is the shutdown as a future: it sends close_notify, then reads until the peer's close_notify, within a timeout and
//!   a limit in bytes. It returns a [`ShutdownReport`], in which each [`Ending`] is distinct.
//! - [`Reaper`] finishes the shutdown of dropped streams in the background. Without it, a server that closes first, or that answers before
//!   it has read the request, loses answers by resets over unread data.
//! - [`Records`] under the TLS stream allow you to take TLS off again without losing a byte behind it.
//!
//! HTTP and whole programs:
//!
//! - [`server`] (feature `server`): [`TlsListener`](server::TlsListener) and [`Server`](server::Server) accept and serve,
//!   [`ServerDrain`](server::ServerDrain) ends the server without losing a request. `Server` also serves TCP and Unix sockets without TLS.
//!   A `ServerDrain` also ends `axum::serve`, tonic's server and an accept loop of your own over a `TlsListener`.
//! - [`client`] (feature `tower`): [`ShutdownLayer`](client::ShutdownLayer) for connectors, and [`ClientDrain`](client::ClientDrain), which
//!   ends all connections before the process exits.
//! - [`integrations`]: axum, axum-server, poem, salvo, systemd, tls-listener, tonic and tonic-health (features of the same names).
//!
//! The [handbook](https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/index.html) has quick starts, deployment, migration from other
//! servers, and an index of error messages.
//!
//! # Promises
//!
//! - close_notify is sent once, after all application data and before FIN. Nothing is written after it.
//! - It is not sent after a fatal alert of either side, nor after a truncation that the policy does not accept, nor by the drop of a
//!   [`ShutdownStream`] whose shutdown has not begun. A cut message cannot look complete (RFC 9112 section 9.8).
//! - [`Ending::Complete`] means that the peer's close_notify was read and that no application byte of ours is unsent.
//! - Every wait is bounded, and its outcome is reported: while data is sent, by a time without progress; after that, by a total time.
//! - The stream contains all state. You can drop each future at any point and create it again.
//! - [`on_end`](ShutdownStream::on_end) is called once for each connection, whatever path it takes.
//!
//! The documentation of each item states the limits of its promise.
//!
//! # A shutdown
//!
//! ```text
//!              ┌ quiet ──────────────────────────────────────────────────────────────▶ quiet
//!              │
//! shutdown ────┼ unidirectional ▶ data ▶ close_notify ▶ FIN ─────────────────────────▶ sent
//!              │                                         │  a reaper waits for the peer ▶ complete
//!              ├ bidirectional ─▶ data ▶ close_notify ▶ FIN ▶ peer's close_notify ───▶ complete
//!              │
//!              └ receive-first ─▶ data ▶ peer's close_notify ▶ close_notify ▶ FIN ───▶ complete
//!
//! drop, abort ───────────────────────────────────────────────────────────────────────▶ aborted
//! ```
//!
//! Each failure on the way is an [`Ending`] of its own: truncated, reset, timed_out, peer_alert, and so on.
//!
//! # rustls and its crypto provider
//!
//! [`rustls`] and [`tokio_rustls`] are re-exported in the versions whose types this API takes and returns. Use `tls_shutdown::rustls` if
//! your own dependencies may bring another version.
//!
//! No feature of this crate picks a crypto provider, because the choice would reach every user of rustls in the same build. Choose one in
//! your own `Cargo.toml`, even if no line of yours names rustls:
//!
//! ```toml
//! rustls = { version = "0.23", default-features = false, features = ["ring", "std", "tls12"] }
//! ```
//!
//! With `aws_lc_rs` instead of `ring`, the provider is AWS-LC. Install the provider at the start of the program, so that your choice does not
//! depend on what other crates enable: `rustls::crypto::ring::default_provider().install_default()`. Code that builds a rustls configuration
//! without naming a provider uses the installed one.
#![cfg_attr(docsrs, feature(doc_cfg))]
// The front page links what a feature adds. docs.rs builds it with all features.
#![cfg_attr(not(all(feature = "server", feature = "tower")), allow(rustdoc::broken_intra_doc_links))]
#![warn(missing_debug_implementations)]

#[doc(no_inline)]
pub use rustls;
#[doc(no_inline)]
pub use tokio_rustls;

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

// Its programs need all features, and signals of Unix.
#[cfg(all(doc, unix, feature = "axum", feature = "hyper-rustls", feature = "systemd", feature = "tonic"))]
pub mod guide;
