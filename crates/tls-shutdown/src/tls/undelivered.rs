//! [`Undelivered`]: what a peer may not have received yet.

use std::{fmt, sync::Arc};

/// What the peer of a connection that a [`Reaper`](crate::Reaper) finishes may not have received yet. A reset would destroy it.
///
/// A reaper waits for every peer alike. The difference counts only if time or room is short: [`Reaper::hurry`](crate::Reaper::hurry)
/// ends the closings without an answer early, and [`Reaper::shed_one`](crate::Reaper::shed_one) and the
/// [limit](crate::ReaperLimits::with_max_closings) end them first.
///
/// ```
/// use std::sync::Arc;
/// use tls_shutdown::{ShutdownStream, TlsSession, Undelivered};
///
/// /// For a peer that has been idle since it acknowledged the last answer.
/// fn mark_idle<S: TlsSession>(stream: &mut ShutdownStream<S>) {
///     stream.set_undelivered(Undelivered::CloseNotify(Arc::new(|| true)));
/// }
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Undelivered {
    /// An answer, or a part of one.
    #[default]
    Answer,
    /// close_notify alone: the peer was idle, and has read the last answer. The function returns whether the peer's system has acknowledged
    /// everything. If that cannot be known, let it return `true`.
    CloseNotify(Arc<dyn Fn() -> bool + Send + Sync>),
    /// The alert of a handshake that failed.
    Alert,
}

impl fmt::Debug for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answer => "Answer",
            Self::CloseNotify(_) => "CloseNotify",
            Self::Alert => "Alert",
        })
    }
}
