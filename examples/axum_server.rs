//! An axum application under axum-server, over `TlsListener`. `docs/integrations.md` lists what is missing without `Server`.
//!
//! `cargo run -p tls-shutdown-examples --features frameworks --bin axum_server 127.0.0.1:8443 cert.pem`

use std::{error::Error, time::Duration};

use axum::{Router, extract::ConnectInfo, routing::get};
use axum_server::{Handle, Server};
use tls_shutdown::{
    integrations::axum_server::TlsAddress,
    server::{ConnectionInfo, ServerDrain, TlsListener},
};
use tls_shutdown_examples::{Arguments, server_config};

async fn whoami(ConnectInfo(connection): ConnectInfo<ConnectionInfo>) -> String {
    format!("you are {}\n", connection.peer())
}

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

    // The listener stops by itself. axum-server ends its idle connections when their window is over.
    let (stop, over) = (Handle::new(), handle.clone().last_request_over());
    let server = Server::<TlsAddress>::from_listener(listener.into()).handle(stop.clone());
    tokio::spawn(async move {
        over.await;
        stop.graceful_shutdown(None);
    });
    let app = Router::new().route("/", get(whoami)).layer(handle.layer());
    let service = app.into_make_service_with_connect_info::<ConnectionInfo>();
    let (report, served) = drain.run(server.serve(service)).await;
    println!("{report}");
    Ok(served.unwrap_or(Ok(()))?)
}
