//! hyper-util's client over a connector made by hand: a function from an address to a stream of tokio-rustls.
//!
//! `cargo run --bin own_connector https://localhost:8443/count cert.pem`, where the server is `axum_server`.

use std::{env::args, error::Error, io, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper::{Request, Uri, body::Bytes};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tls_shutdown::ShutdownLayer;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::{ServiceBuilder, service_fn};

const LIMIT: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let [url, cert] = [1, 2].map(|n| args().nth(n).expect("usage: own_connector URL CERT_FILE"));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cert)?)?;
    let config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = TlsConnector::from(Arc::new(config));

    let layer = ShutdownLayer::new().on_end(|report| println!("{report}"));
    let connector = ServiceBuilder::new().map_future(Box::pin).layer(layer.clone()).timeout(LIMIT).service(service_fn(
        move |url: Uri| {
            let tls = tls.clone();
            async move {
                let host = url.host().ok_or(io::ErrorKind::InvalidInput)?;
                let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
                let tcp = TcpStream::connect((host, url.port_u16().unwrap_or(443))).await?;
                tls.connect(name, tcp).await
            }
        },
    ));
    let client = Client::builder(TokioExecutor::new()).build(connector);

    let request = Request::post(url).body(Full::new(Bytes::from(vec![b'.'; 1_000_000])))?;
    let response = client.request(request).await?;
    println!("{} {:?}", response.status(), response.into_body().collect().await?.to_bytes());
    println!("{}", layer.drain().drain(LIMIT).await);
    Ok(())
}
