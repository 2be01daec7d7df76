//! An axum server over TLS, whose connections end properly, at Ctrl-C too.
//!
//! `cargo run --bin axum_server 127.0.0.1:8443 cert.pem` writes its self-signed certificate to `cert.pem`.

use std::{env::args, error::Error, fs, sync::Arc, time::Duration};

use axum::{Router, body::Bytes, routing::post};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use rustls::{ServerConfig, crypto::ring};
use tls_shutdown::{Reaper, ShutdownStream};
use tokio::{net::TcpListener, select, signal::ctrl_c, time::timeout};
use tokio_rustls::TlsAcceptor;

const LIMIT: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let [address, cert] = [1, 2].map(|n| args().nth(n).expect("usage: axum_server HOST:PORT CERT_FILE"));
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    fs::write(cert, certified.cert.pem())?;
    let config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.into()], certified.signing_key.into())?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let app = Router::new().route("/count", post(|body: Bytes| async move { format!("{} bytes\n", body.len()) }));

    let listener = TcpListener::bind(address).await?;
    println!("listening on https://{}", listener.local_addr()?);
    let (reaper, graceful) = (Reaper::new(), GracefulShutdown::new());
    loop {
        let (tcp, peer) = select! {
            accepted = listener.accept() => accepted?,
            _ = ctrl_c() => break,
        };
        let (acceptor, app, reaper, watcher) = (acceptor.clone(), app.clone(), reaper.clone(), graceful.watcher());
        tokio::spawn(async move {
            let Ok(Ok(tls)) = timeout(LIMIT, acceptor.accept(tcp)).await else { return };
            let stream =
                ShutdownStream::new(tls).with_reaper(&reaper).on_end(move |report| println!("{peer} {report}"));
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new());
            let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
            if let Err(error) = watcher.watch(connection).await {
                eprintln!("{peer} {error}");
            }
        });
    }
    drop(listener);
    let _ = timeout(LIMIT, graceful.shutdown()).await;
    reaper.wait_idle(LIMIT).await;
    Ok(())
}
