//! How other projects see the types of this library, by its public API alone.

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(all(feature = "systemd", unix))]
pub mod systemd;
#[cfg(feature = "tonic")]
pub mod tonic;

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
