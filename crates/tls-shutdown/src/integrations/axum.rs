//! [`TlsListener`] under `axum::serve`.

use std::{io, net::SocketAddr};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};

use crate::server::{ServerStream, TlsListener};

/// `docs/integrations.md` lists what is guaranteed under `axum::serve`, and what only a [`Server`](crate::server::Server) guarantees.
impl Listener for TlsListener {
    type Io = ServerStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (ServerStream, SocketAddr) {
        match TlsListener::accept(self.serve_framework()).await {
            Some(accept) => accept,
            // axum stops when the future of `with_graceful_shutdown` resolves, and not when its listener ends.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TlsListener::local_addr(self)
    }
}

/// The peer's address, for `into_make_service_with_connect_info::<PeerAddress>()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(
    /// The address.
    pub SocketAddr,
);

impl Connected<IncomingStream<'_, TlsListener>> for PeerAddress {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        Self(*stream.remote_addr())
    }
}
