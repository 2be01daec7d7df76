//! [`TlsListener`] under `axum::serve`.

use std::{io, net::SocketAddr};

use axum::{
    extract::{ConnectInfo, FromRequestParts, connect_info::Connected},
    http::{StatusCode, request::Parts},
    serve::{IncomingStream, Listener},
};

use crate::server::{ConnectionInfo, ServerStream, TlsListener};

/// `docs/integrations.md` lists what is guaranteed under `axum::serve`, and what only a [`Server`](crate::server::Server) guarantees.
impl Listener for TlsListener {
    type Io = ServerStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (ServerStream, SocketAddr) {
        self.accept_for_framework().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TlsListener::local_addr(self)
    }
}

/// Under `axum::serve`, serve `app.into_make_service_with_connect_info::<ConnectionInfo>()`.
///
/// # Errors
///
/// Status 500 if the request came neither through a [`Server`](crate::server::Server) nor through such a service.
///
/// ```
/// use tls_shutdown::server::ConnectionInfo;
///
/// async fn whoami(connection: ConnectionInfo) -> String {
///     connection.peer().to_string()
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::get(whoami));
/// ```
impl<S: Sync> FromRequestParts<S> for ConnectionInfo {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let of_axum_serve = || parts.extensions.get::<ConnectInfo<Self>>().map(|ConnectInfo(info)| info);
        let info = parts.extensions.get::<Self>().or_else(of_axum_serve).cloned();
        info.ok_or((
            StatusCode::INTERNAL_SERVER_ERROR,
            "the request did not come with a tls_shutdown::server::ConnectionInfo",
        ))
    }
}

/// For `into_make_service_with_connect_info::<ConnectionInfo>()`.
impl Connected<IncomingStream<'_, TlsListener>> for ConnectionInfo {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        Self::from(stream.io())
    }
}

/// The peer's address alone, for `into_make_service_with_connect_info::<PeerAddress>()`. axum implements its trait for `SocketAddr` and its
/// own listeners; Rust lets no other crate do this for another listener.
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
