//! A health port without TLS beside HTTPS, in one drain: probes see "not ready" at the signal, and both sockets end together.
//!
//! `cargo run --bin plain 127.0.0.1:8443 cert.pem` creates `cert.pem`, with a self-signed certificate, if it does not exist.

use std::{error::Error, time::Duration};

use axum::{Router, routing::get};
use rustls::crypto::ring;
use tls_shutdown::server::{Server, ServerDrain, TcpSocket, TlsListener};
use tls_shutdown_examples::{Arguments, server_config};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { address, cert } = Arguments::parse();
    server_config(&cert, &[])?; // creates the file
    ring::default_provider().install_default().map_err(|_| "there is a provider already")?;
    let tls = TlsListener::bind_pem(address, &cert, &cert).await?;
    let plain = TcpSocket::bind("127.0.0.1:0").await?;
    println!("listening on https://{}", tls.local_addr()?);
    println!("health on http://{}/health", plain.local_addr()?);

    let drain = ServerDrain::on_terminate_signal()?.notice(Duration::from_secs(1));
    let handle = drain.handle();
    let app = Router::new().route("/", get(|| async { "hello\n" }));
    let health = Router::new().route_service("/health", handle.readiness());
    let (tls, plain) = (Server::new(tls), Server::new(plain).on_end(|end| println!("{end}")));
    let serving = async {
        tokio::join!(tls.serve_in(&handle, app), plain.serve_in(&handle, health));
    };
    let (report, _) = drain.run(serving).await;
    println!("{report}");
    Ok(())
}
