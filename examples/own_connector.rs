//! hyper-util's client over your own connector: a function that takes a URL and returns a tokio-rustls stream.
//!
//! `cargo run --bin own_connector https://localhost:8443/count cert.pem`, with the example `server` as the server.

use clap::Parser;
use std::{error::Error, io, path::PathBuf, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper::{Request, Uri, body::Bytes};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rustls::pki_types::ServerName;
use tls_shutdown::client::ShutdownLayer;
use tls_shutdown_examples::client_config;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::{ServiceBuilder, service_fn};

const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Parser)]
struct Arguments {
    url: Uri,
    /// The file with the certificate to trust
    cert: PathBuf,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { url, cert } = Arguments::parse();
    let config = client_config(cert)?;
    let tls = TlsConnector::from(Arc::new(config));

    let layer = ShutdownLayer::new().on_end(|report| println!("{report}"));
    let connector = ServiceBuilder::new().map_future(Box::pin).layer(layer.clone()).timeout(TIMEOUT).service(
        service_fn(move |url: Uri| {
            let tls = tls.clone();
            async move {
                let host = url.host().ok_or(io::ErrorKind::InvalidInput)?;
                let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
                let tcp = TcpStream::connect((host, url.port_u16().unwrap_or(443))).await?;
                tls.connect(name, tcp).await
            }
        }),
    );
    let client = Client::builder(TokioExecutor::new()).build(connector);

    let request = Request::post(url).body(Full::new(Bytes::from(vec![b'.'; 1_000_000])))?;
    let upload = async {
        let response = client.request(request).await?;
        println!("{} {:?}", response.status(), response.into_body().collect().await?.to_bytes());
        Ok(())
    };
    let result = upload.await;
    // Also if the upload has failed.
    println!("{}", layer.drain().run(TIMEOUT).await);
    result
}
