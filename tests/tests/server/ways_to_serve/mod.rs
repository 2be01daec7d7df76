//! What `docs/integrations.md` promises for each way to serve over a `TlsListener`, with ten connections in each state that a drain can
//! meet.

mod drain;
mod endless_responses;
mod http1;
mod http2;

use std::{future::Future, time::Duration};

use futures_util::future::join_all;

pub(crate) const CONNECTIONS: usize = 10;

/// A short window.
pub(crate) const SHORT: Duration = Duration::from_millis(300);

/// Makes [`CONNECTIONS`] of something, side by side.
pub(crate) async fn each<T, F: Future<Output = T>>(make: impl Fn() -> F) -> Vec<T> {
    join_all((0..CONNECTIONS).map(|_| make())).await
}

/// Does something with all of them, side by side.
pub(crate) async fn all<T, F: Future<Output = ()>>(of: Vec<T>, what: impl Fn(T) -> F) {
    join_all(of.into_iter().map(what)).await;
}
