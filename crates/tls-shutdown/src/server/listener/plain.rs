//! [`PlainListener`]: any [`Listener`] in a server, as [`TlsListener`](super::TlsListener) is for TLS.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::sync::Semaphore;

use super::{
    listening_socket::{Arrival, Listener, ListeningSocket},
    server_listener::{AnyListener, ServerListener},
};
use crate::{
    runtime::debug::debug_struct,
    server::{
        accepted_stream::AcceptedStream,
        connection::{Accepted, ConnectionObservers, OnConnectionEnd},
        drain::{Delivery, DrainHandle, ListenerInDrain, ListenerUser},
        peer::Transport,
        plain_stream::{PlainSocket, PlainStream},
    },
    tls::Reaper,
};

/// How long a listener that closes stays open if the system refuses to accept. As the handshakes of a `TlsListener`.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A listener without TLS.
struct PlainListener<L: Listener> {
    socket: ListeningSocket<L>,
    reaper: Reaper,
    observers: ConnectionObservers,
}

impl<L: Listener> PlainListener<L> {
    fn transport() -> Transport {
        Transport::of_stream::<L::Stream>()
    }

    fn delivery(&self) -> Delivery {
        match (Self::transport(), self.socket.get_ref().and_then(Listener::local_addr)) {
            (_, Some(address)) => Delivery::Acknowledged(address),
            (Transport::Unix, None) => Delivery::AtOnce,
            _ => Delivery::Unknown,
        }
    }

    fn stream(&self, Arrival { stream, peer, place }: Arrival<L>) -> AcceptedStream {
        let socket = PlainSocket::new(stream);
        if let PlainSocket::Tcp(tcp) = &socket
            && let Err(error) = tcp.set_nodelay(true)
        {
            // The connection was reset meanwhile. Its first read reports that.
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let connection = Accepted::new(&self.observers, peer.into()).without_tls(Self::transport());
        PlainStream::new(socket, connection, &self.reaper, place).into()
    }
}

impl<L: Listener> From<L> for ServerListener {
    fn from(listener: L) -> Self {
        let socket = ListeningSocket::new(listener);
        Self(Box::new(PlainListener { socket, reaper: Reaper::new(), observers: ConnectionObservers::default() }))
    }
}

impl<L: Listener> AnyListener for PlainListener<L> {
    fn join(&mut self, drain: &DrainHandle, on_end: &[OnConnectionEnd], places: Option<&Arc<Semaphore>>) {
        self.socket.limit(places);
        self.observers.on_end.extend_from_slice(on_end);
        self.observers.drain = Some(drain.clone());
        self.socket.join(drain);
        drain.register(ListenerInDrain {
            delivery: self.delivery(),
            reaper: self.reaper.clone(),
            shed: Arc::default(),
            user: ListenerUser::default(),
        });
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<AcceptedStream>> {
        let accepted = ready!(self.socket.poll_accept(cx, None, CLOSE_TIMEOUT));
        Poll::Ready(accepted.map(|arrival| self.stream(arrival)))
    }
}

debug_struct!({L: Listener} PlainListener<L>, |_| { transport: Self::transport() });
