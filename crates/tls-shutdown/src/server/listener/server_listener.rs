//! [`ServerListener`]: what a server accepts connections from.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::sync::Semaphore;

use crate::server::{accepted_stream::AcceptedStream, connection::OnConnectionEnd, drain::DrainHandle};

/// A listener of a [`Server`](crate::server::Server): a [`TlsListener`](super::TlsListener), or any [`Listener`](super::Listener) without
/// TLS.
///
/// You need not name it: [`Server::new`](crate::server::Server::new) and [`Server::add_listener`](crate::server::Server::add_listener)
/// convert what you pass.
#[derive(Debug)]
#[must_use = "dropping the listener closes its socket and resets the connections in its queue"]
pub struct ServerListener(pub(in crate::server) Box<dyn AnyListener>);

/// A listener of any type. It is asked once for each connection, not for each byte.
pub(in crate::server) trait AnyListener: fmt::Debug + Send {
    /// Joins a server drain, and reports the connections to `on_end`. `places` limit them, together with those of other listeners.
    fn join(&mut self, drain: &DrainHandle, on_end: &[OnConnectionEnd], places: Option<&Arc<Semaphore>>);

    /// The next connection that is ready to be served. `None` once the listener is closed.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<AcceptedStream>>;
}
