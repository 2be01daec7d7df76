//! hyper-util's client sends requests in parallel over pooled connections. All connections end properly before the program exits.
//!
//! `cargo run --bin hyper_client https://127.0.0.1:8443/bytes/1000 --requests 100 --insecure`, with `cargo run -- serve` as the server.
//! With `--http2`, there is one connection. Standard output has one line for each connection, then one for the drain.

mod trust;

use std::{error::Error, time::Duration};

use clap::Parser;
use http_body_util::{BodyExt, Empty};
use hyper::{Uri, body::Bytes};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tls_shutdown::client::ShutdownLayer;
use tls_shutdown_examples::error_chain;
use tokio::{task::JoinSet, time::timeout};
use tower::Layer;
use trust::{Trust, client_config};

const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Parser)]
struct Arguments {
    url: Uri,
    #[arg(long, default_value_t = 1)]
    requests: u32,
    #[command(flatten)]
    trust: Trust,
    #[arg(long)]
    http2: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { url, requests, trust, http2 } = Arguments::parse();
    let https = HttpsConnectorBuilder::new().with_tls_config(client_config(&trust)?).https_only();
    let https = if http2 { https.enable_http2().build() } else { https.enable_http1().build() };
    let layer = ShutdownLayer::new().on_end(|report| println!("{report}"));
    let client = Client::builder(TokioExecutor::new()).http2_only(http2).build::<_, Empty<Bytes>>(layer.layer(https));

    let mut tasks = JoinSet::new();
    for _ in 0..requests {
        let (client, url) = (client.clone(), url.clone());
        tasks.spawn(timeout(TIMEOUT, async move {
            let response = client.get(url).await?;
            let status = response.status();
            let length = response.into_body().collect().await?.to_bytes().len();
            Ok::<_, Box<dyn Error + Send + Sync>>(format!("{status}, {length} bytes"))
        }));
    }
    let results = tasks.join_all().await.into_iter().map(|result| result.unwrap_or_else(|late| Err(late.into())));
    let (answers, errors): (Vec<_>, Vec<_>) = results.partition(Result::is_ok);
    answers.into_iter().flatten().for_each(|answer| eprintln!("{answer}"));
    errors.iter().flat_map(|result| result.as_ref().err()).for_each(|error| eprintln!("{}", error_chain(&**error)));
    println!("{}", layer.drain().run(TIMEOUT).await);
    if errors.is_empty() { Ok(()) } else { Err(format!("{} of {requests} requests failed", errors.len()).into()) }
}
