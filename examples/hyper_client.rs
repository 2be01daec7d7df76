//! Requests at once over pooled connections of hyper-util's client, which all end properly before the program does.
//!
//! `cargo run --bin hyper_client https://127.0.0.1:8443/bytes/1000 --requests 100 --insecure`, and with `--http2` over one
//! connection. The server may be `cargo run -- serve`. Standard output has one line for each connection, then the drain's.

mod trust;

use std::{env::args, error::Error, time::Duration};

use http_body_util::{BodyExt, Empty};
use hyper::{Uri, body::Bytes};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tls_shutdown::ShutdownLayer;
use tokio::task::JoinSet;
use tower::Layer;
use trust::{Trust, client_config};

const LIMIT: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = args().skip(1).collect();
    let place = |flag| args.iter().position(|arg| arg == flag);
    let url: Uri = args.first().expect("usage: hyper_client URL [--requests N] [--insecure] [--http2]").parse()?;
    let requests = place("--requests").and_then(|place| args.get(place + 1)).map_or(Ok(1), |count| count.parse())?;
    let trust = place("--insecure").map_or(Trust::System, |_| Trust::Anything);
    let http2 = place("--http2").is_some();

    let https = HttpsConnectorBuilder::new().with_tls_config(client_config(trust)?).https_only();
    let https = if http2 { https.enable_http2().build() } else { https.enable_http1().build() };
    let layer = ShutdownLayer::new().on_end(|report| println!("{report}"));
    let client = Client::builder(TokioExecutor::new()).http2_only(http2).build::<_, Empty<Bytes>>(layer.layer(https));

    let mut tasks = JoinSet::new();
    for _ in 0..requests {
        let (client, url) = (client.clone(), url.clone());
        tasks.spawn(async move {
            let response = client.get(url).await?;
            let status = response.status();
            let length = response.into_body().collect().await?.to_bytes().len();
            Ok::<_, Box<dyn Error + Send + Sync>>(format!("{status}, {length} bytes"))
        });
    }
    let mut failed = 0;
    for result in tasks.join_all().await {
        match result {
            Ok(answer) => eprintln!("{answer}"),
            Err(error) => {
                failed += 1;
                eprintln!("{error}: {}", error.source().map_or_else(String::new, ToString::to_string));
            }
        }
    }
    println!("{}", layer.drain().drain(LIMIT).await);
    if failed > 0 { Err(format!("{failed} requests failed").into()) } else { Ok(()) }
}
