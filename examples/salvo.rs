//! A salvo application over `TlsListener`. `docs/integrations.md` lists what is missing without `Server`.
//!
//! `cargo run -p tls-shutdown-examples --features frameworks --bin salvo 127.0.0.1:8443 cert.pem`

use std::{error::Error, time::Duration};

use salvo_core::{Depot, FlowCtrl, Handler, Request, Response, Router, Server, async_trait, http::ReqBody};
use salvo_extra::tower_compat::TowerLayerCompat;
use tls_shutdown::server::{ServerDrain, TlsListener};
use tls_shutdown_examples::{Arguments, server_config};

struct WhoAmI;

#[async_trait]
impl Handler for WhoAmI {
    async fn handle(&self, request: &mut Request, _: &mut Depot, response: &mut Response, _: &mut FlowCtrl) {
        response.render(format!("you are {}\n", request.remote_addr()));
    }
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

    // The listener stops by itself. salvo ends its idle connections when their window is over.
    let server = Server::new(listener);
    let (stop, over) = (server.handle(), handle.clone().last_request_over());
    tokio::spawn(async move {
        over.await;
        stop.stop_graceful(None);
    });
    let app = Router::new().hoop(TowerLayerCompat::compat::<ReqBody>(handle.layer())).get(WhoAmI);
    let (report, served) = drain.run(server.try_serve(app)).await;
    println!("{report}");
    Ok(served.unwrap_or(Ok(()))?)
}
