//! What other projects' types are given, by the public API of this crate alone.

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(all(feature = "systemd", unix))]
pub mod systemd;
#[cfg(feature = "tonic")]
pub mod tonic;
