//! `axum::serve` over `TlsListener`, without `Server`. `docs/integrations.md` lists what is missing then.
//!
//! `cargo run --bin axum_serve 127.0.0.1:8443 cert.pem`

use std::{error::Error, time::Duration};

use axum::{Router, extract::ConnectInfo, routing::get};
use tls_shutdown::{
    integrations::axum::PeerAddress,
    server::{ServerDrain, TlsListener},
};
use tls_shutdown_examples::{Arguments, server_config};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { address, cert } = Arguments::parse();
    let drain = ServerDrain::on_terminate_signal()?.last_request(Duration::from_secs(2));
    let handle = drain.handle();
    let listener = TlsListener::bind(address, server_config(cert, &["h2", "http/1.1"])?)
        .await?
        .on_end(|end| println!("{end}"))
        .with_drain(&handle);
    println!("listening on https://{}", listener.local_addr()?);

    let app = Router::new()
        .route("/", get(|ConnectInfo(peer): ConnectInfo<PeerAddress>| async move { format!("you are {}\n", peer.0) }))
        .layer(handle.layer()) // adds `Connection: close` to the last response of each connection
        .into_make_service_with_connect_info::<PeerAddress>();
    let serving = axum::serve(listener, app).with_graceful_shutdown(handle.last_request_over());
    let (report, served) = drain.run(serving.into_future()).await;
    println!("{report}");
    Ok(served.unwrap_or(Ok(()))?)
}
