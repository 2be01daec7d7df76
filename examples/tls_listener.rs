//! `axum::serve` over the listener of the crate tls-listener, with `TlsAcceptor`. Prefer `TlsListener`: it loses no connection in the queue
//! of the system. `docs/integrations.md` compares both.
//!
//! `cargo run -p tls-shutdown-examples --features frameworks --bin tls_listener 127.0.0.1:8443 cert.pem`

use std::{error::Error, time::Duration};

use axum::{Router, routing::get};
use tls_listener::TlsListener;
use tls_shutdown::server::{ServerDrain, TlsAcceptor};
use tls_shutdown_examples::{Arguments, server_config};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { address, cert } = Arguments::parse();
    let drain = ServerDrain::on_terminate_signal()?.last_request(Duration::from_secs(2));
    let handle = drain.handle();
    let tcp = TcpListener::bind(address).await?;
    let acceptor = TlsAcceptor::new(server_config(cert, &["h2", "http/1.1"])?)
        .on_end(|end| println!("{end}"))
        .with_drain(&handle, tcp.local_addr()?);
    println!("listening on https://{}", tcp.local_addr()?);

    let app = Router::new().route("/", get("you are welcome\n")).layer(handle.layer());
    let serving = axum::serve(TlsListener::new(acceptor, tcp), app).with_graceful_shutdown(handle.last_request_over());
    let (report, served) = drain.run(serving.into_future()).await;
    println!("{report}");
    Ok(served.unwrap_or(Ok(()))?)
}
