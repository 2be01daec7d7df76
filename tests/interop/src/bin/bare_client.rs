//! A client of hyper-util and hyper-rustls that makes requests at once, and exits with its pool. It is what the drain of a client is
//! held against.
//!
//! `bare_client URL CERT REQUESTS`

use std::{env, error::Error};

use http_body_util::{BodyExt, Empty};
use hyper::{Uri, body::Bytes};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [url, cert, requests] = &arguments[..] else { return Err("URL CERT REQUESTS".into()) };
    let url: Uri = url.parse()?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cert)?)?;
    let config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_only()
        .with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new("localhost".try_into()?))
        .enable_http1()
        .build();
    let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(https);
    let mut tasks = JoinSet::new();
    for _ in 0..requests.parse()? {
        let response = client.get(url.clone());
        tasks.spawn(async move {
            let response = response.await.expect("an answer");
            response.into_body().collect().await.expect("all of it");
        });
    }
    tasks.join_all().await;
    // Dropped before, a client ends its connections if the runtime comes to it in time. Most are kept as long as the process.
    std::process::exit(0)
}
