//! An HTTPS server of axum-server, as its documentation shows it. It answers `POST /` without reading the body.
//!
//! `bare_axum_server CERT KEY` prints the port.

use std::{env, error::Error, net::SocketAddr};

use axum::{Router, http::StatusCode, routing::get};
use axum_server::{Handle, tls_rustls::RustlsConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [cert, key] = &arguments[..] else { return Err("CERT KEY".into()) };
    rustls::crypto::ring::default_provider().install_default().map_err(|_| "there is a provider")?;
    let config = RustlsConfig::from_pem_file(cert, key).await?;
    let handle = Handle::<SocketAddr>::new();
    let listening = handle.clone();
    tokio::spawn(async move {
        if let Some(address) = listening.listening().await {
            println!("port {}", address.port());
        }
    });
    let app = Router::new().route("/", get(|| async { "hello" }).post(|| async { StatusCode::PAYLOAD_TOO_LARGE }));
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    Ok(axum_server::bind_rustls(address, config).handle(handle).serve(app.into_make_service()).await?)
}
