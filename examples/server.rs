//! An HTTPS server that exits gracefully: after Ctrl-C or SIGTERM, it answers within its grace period, and every connection gets a
//! close_notify.
//!
//! `cargo run --bin server 127.0.0.1:8443 cert.pem` creates `cert.pem`, with a self-signed certificate, if it does not exist.

use std::{error::Error, time::Duration};

use axum::{Router, body::Bytes, routing::post};
use tls_shutdown::server::{Server, ServerDrain, TlsListener};
use tls_shutdown_examples::{Arguments, server_config};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { address, cert } = Arguments::parse();
    let listener = TlsListener::bind(address, server_config(cert, &["h2", "http/1.1"])?).await?;
    println!("listening on https://{}", listener.local_addr()?);

    let drain = ServerDrain::on_terminate_signal()?.last_request(Duration::from_secs(2));
    let app = Router::new()
        .route("/count", post(|body: Bytes| async move { format!("{} bytes\n", body.len()) }))
        .route_service("/ready", drain.handle().readiness());
    let report = Server::new(listener).on_end(|end| println!("{end}")).drain(drain).serve(app).await;
    println!("{report}");
    Ok(())
}
