//! [`ServerListener`]: what a server accepts connections from.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tokio::sync::Semaphore;

use super::{
    TlsListener,
    listening_socket::Listener,
    plain::{AnyPlainListener, PlainListener},
};
use crate::server::accepted_stream::AcceptedStream;
use crate::server::connection::OnConnectionEnd;
use crate::server::drain::DrainHandle;

/// A listener of a [`Server`](crate::server::Server): a [`TlsListener`], or any [`Listener`] without TLS.
///
/// You need not name it: [`Server::new`](crate::server::Server::new) and [`Server::add_listener`](crate::server::Server::add_listener)
/// convert what you pass.
#[derive(Debug)]
#[must_use = "dropping the listener closes its socket and resets the connections in its queue"]
pub struct ServerListener(Kind);

#[derive(Debug)]
enum Kind {
    Tls(Box<TlsListener>),
    Plain(Box<dyn AnyPlainListener>),
}

impl From<TlsListener> for ServerListener {
    fn from(listener: TlsListener) -> Self {
        Self(Kind::Tls(Box::new(listener)))
    }
}

impl<L: Listener> From<L> for ServerListener {
    fn from(listener: L) -> Self {
        Self(Kind::Plain(Box::new(PlainListener::new(listener))))
    }
}

impl ServerListener {
    /// Limits the connections, also those of other listeners that have the same places.
    pub(in crate::server) fn limit(&mut self, places: Arc<Semaphore>) {
        match &mut self.0 {
            Kind::Tls(listener) => listener.limit(places),
            Kind::Plain(listener) => listener.limit(places),
        }
    }

    /// Joins a server drain, and reports the connections to `on_end`.
    pub(in crate::server) fn join(mut self, drain: &DrainHandle, on_end: &[OnConnectionEnd]) -> Self {
        match self.0 {
            Kind::Tls(listener) => listener.join(drain, on_end).into(),
            Kind::Plain(ref mut listener) => {
                listener.join(drain, on_end);
                self
            }
        }
    }

    /// The next connection that is ready to be served. `None` once the listener is closed.
    pub(in crate::server) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<AcceptedStream>> {
        match &mut self.0 {
            Kind::Tls(listener) => listener.poll_accept(cx).map(|stream| stream.map(AcceptedStream::from)),
            Kind::Plain(listener) => listener.poll_accept(cx),
        }
    }
}
