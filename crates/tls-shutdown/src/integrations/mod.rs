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
    let server = server.connect_info(|stream| ::axum::extract::ConnectInfo(stream.peer()));
    #[cfg(feature = "tonic")]
    let server = {
        use ::tonic::transport::server::Connected;
        // `remote_addr()` looks for the second one if tonic has no feature for TLS.
        server.connect_info(Connected::connect_info).connect_info(|stream| stream.connect_info().get_ref().clone())
    };
    server
}
