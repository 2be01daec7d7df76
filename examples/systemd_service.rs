//! A systemd service: it uses the socket of its socket unit, and reports when it is ready and how its drain proceeds.
//! The page "Under systemd" of the handbook has the units.
//!
//! `systemd-socket-activate -l 127.0.0.1:8443 target/debug/systemd_service cert.pem`

use std::{env::args, error::Error};

use axum::{Router, body::Bytes, routing::post};
use tls_shutdown::{
    integrations::systemd,
    server::{Server, ServerDrain, TlsListener},
};
use tls_shutdown_examples::server_config;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cert = args().nth(1).ok_or("usage: systemd_service CERT_FILE")?;
    let socket = systemd::listening_sockets()?.pop().ok_or("systemd passed no socket")?;
    let listener = TlsListener::from_std(socket, server_config(cert, &["h2", "http/1.1"])?)?;
    println!("listening on https://{}", listener.local_addr()?);

    let drain = ServerDrain::on_terminate_signal()?;
    let notify = systemd::notify(drain.handle());
    let app = Router::new().route("/count", post(|body: Bytes| async move { format!("{} bytes\n", body.len()) }));
    let (report, ()) = tokio::join!(Server::new(listener).drain(drain).serve(app), notify);
    println!("{report}");
    Ok(())
}
