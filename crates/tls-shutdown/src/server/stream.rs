//! [`ServerStream`]: the stream of an accepted connection.

use std::{net::SocketAddr, sync::Arc};

use tokio::{net::TcpStream, sync::OwnedSemaphorePermit};
use tokio_rustls::server::TlsStream;

use super::connection::ConnectionRecord;
use crate::{
    runtime::{
        debug::debug_struct,
        forward::{forward_reads, forward_socket, forward_writes},
    },
    tls::ShutdownStream,
};

/// The stream of a connection that a [`TlsListener`](super::TlsListener) has accepted: a [`ShutdownStream`], and the peer's address.
///
/// It reads, writes and shuts down as the [`ShutdownStream`] in it. [`get_mut`](Self::get_mut) and [`into_inner`](Self::into_inner) give
/// access to it, for [`shutdown_with`](ShutdownStream::shutdown_with), [`abort`](ShutdownStream::abort) and the rest of its methods. An
/// [`on_end`](ShutdownStream::on_end) that you add is called in addition to the listener's.
///
/// ```
/// use tls_shutdown::{Abort, server::ServerStream};
///
/// fn refuse(stream: ServerStream) {
///     eprintln!("{} is not welcome", stream.peer());
///     stream.into_inner().abort(Abort::Fin);
/// }
/// ```
#[must_use = "dropping the stream aborts the connection"]
pub struct ServerStream {
    inner: ShutdownStream<TlsStream<TcpStream>>,
    connection: Arc<ConnectionRecord>,
    peer: SocketAddr,
    /// Among the connections of a server that limits them.
    _place: Option<OwnedSemaphorePermit>,
}

impl ServerStream {
    /// The stream reports its end to `connection`, which logs it.
    pub(super) fn new(
        stream: ShutdownStream<TlsStream<TcpStream>>,
        connection: Arc<ConnectionRecord>,
        peer: SocketAddr,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let observer = connection.clone();
        let inner = stream.on_end_logging(move |report| observer.report(report));
        Self { inner, connection, peer, _place: place }
    }

    pub(super) fn connection(&self) -> &Arc<ConnectionRecord> {
        &self.connection
    }

    /// The peer's address, or the address that the [hook before TLS](super::TlsListener::before_tls) returned.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The stream without the peer's address.
    pub fn get_ref(&self) -> &ShutdownStream<TlsStream<TcpStream>> {
        &self.inner
    }

    /// The stream without the peer's address.
    pub fn get_mut(&mut self) -> &mut ShutdownStream<TlsStream<TcpStream>> {
        &mut self.inner
    }

    /// Returns the stream without the peer's address. The listener's observers still receive its report.
    pub fn into_inner(self) -> ShutdownStream<TlsStream<TcpStream>> {
        self.inner
    }
}

forward_reads!({} ServerStream => inner);
forward_writes!({} ServerStream => inner);

forward_socket!({} ServerStream, TcpStream, |stream| stream.get_ref());

debug_struct!({} ServerStream, |stream| { peer: stream.peer(), stream: stream.inner });
