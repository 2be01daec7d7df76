//! A poem application over `TlsListener`. `docs/integrations.md` lists what is missing without `Server`.
//!
//! `cargo run -p tls-shutdown-examples --features frameworks --bin poem 127.0.0.1:8443 cert.pem`

use std::{error::Error, time::Duration};

use poem::{Route, Server, get, handler, web::RemoteAddr};
use tls_shutdown::server::{ServerDrain, TlsListener};
use tls_shutdown_examples::{Arguments, server_config};

#[handler]
fn whoami(peer: &RemoteAddr) -> String {
    format!("you are {peer}\n")
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

    // The listener stops by itself. poem ends its idle connections when their window is over.
    let app = Route::new().at("/", get(whoami));
    let server = Server::new_with_acceptor(listener);
    let serving = server.run_with_graceful_shutdown(app, handle.last_request_over(), None);
    let (report, served) = drain.run(serving).await;
    println!("{report}");
    Ok(served.unwrap_or(Ok(()))?)
}
