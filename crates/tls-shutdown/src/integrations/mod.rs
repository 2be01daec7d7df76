//! Adapters for other projects, by the public API of this library alone. Each has a feature of the project's name.
//!
//! - axum, tonic: handlers find what they look for under [`Server`]; [`TlsListener`](crate::server::TlsListener) under `axum::serve` and under
//!   tonic's server.
//! - tonic-health: health checks of a server that drains.
//! - axum-server, poem, salvo: [`TlsListener`](crate::server::TlsListener) as what these servers accept from.
//! - axum-server, tls-listener: [`TlsAcceptor`](crate::server::TlsAcceptor), for a socket that the server owns.
//! - systemd: notifications, and sockets that it has opened.
//!
//! `docs/integrations.md` lists what each way to serve guarantees.

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "axum-server")]
pub mod axum_server;
#[cfg(feature = "poem")]
mod poem;
#[cfg(feature = "salvo")]
mod salvo;
#[cfg(all(feature = "systemd", unix))]
pub mod systemd;
#[cfg(feature = "tls-listener")]
mod tls_listener;
#[cfg(feature = "tonic")]
pub mod tonic;
#[cfg(feature = "tonic-health")]
pub mod tonic_health;

use crate::server::Server;

/// Inserts what the frameworks look for in a request.
pub(crate) fn add_connect_info(server: Server) -> Server {
    #[cfg(feature = "axum")]
    let server = server
        .connect_info(|stream| stream.peer().address().map(::axum::extract::ConnectInfo))
        .insert_into_requests(|_, info| Some(::axum::extract::ConnectInfo(info.clone())));
    #[cfg(feature = "tonic")]
    let server = server
        .connect_info(tonic::tls_connect_info)
        // `remote_addr()` looks for this one if tonic has no feature for TLS.
        .connect_info(tonic::tcp_connect_info);
    #[cfg(all(feature = "tonic", unix))]
    let server = server.connect_info(tonic::unix_connect_info);
    server
}
