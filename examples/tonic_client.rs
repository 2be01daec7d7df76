//! A tonic channel whose connection ends properly before the program exits.
//!
//! `cargo run --bin tonic_client https://127.0.0.1:8443 TEXT --insecure` calls `/echo.Echo/Say` with a
//! `google.protobuf.StringValue`. A generated client uses the same channel.

mod trust;

use std::{error::Error, time::Duration};

use clap::Parser;
use hyper::{Uri, http::uri::PathAndQuery};
use hyper_rustls::HttpsConnectorBuilder;
use tls_shutdown::client::ShutdownLayer;
use tls_shutdown_examples::error_chain;
use tonic::{Request, client::Grpc, transport::Endpoint};
use tonic_prost::ProstCodec;
use tower::ServiceBuilder;
use trust::{Trust, client_config};

const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Parser)]
struct Arguments {
    url: Uri,
    text: String,
    #[command(flatten)]
    trust: Trust,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { url, text, trust } = Arguments::parse();

    // The connector does TLS. With its own `tls-` features, tonic refuses https here, so the endpoint's URL is only a placeholder.
    let https =
        HttpsConnectorBuilder::new().with_tls_config(client_config(&trust)?).https_only().enable_http2().build();
    let layer = ShutdownLayer::new().on_end(|report| println!("{report}"));
    let endpoint = Endpoint::from_static("http://placeholder").origin(url.clone());
    let connector = ServiceBuilder::new().map_request(move |_| url.clone()).layer(layer.clone()).service(https);
    let channel = endpoint.connect_with_connector(connector).await;
    let channel = channel.map_err(|error| error_chain(&error))?;

    let mut client = Grpc::new(channel);
    let call = async {
        client.ready().await?;
        let path = PathAndQuery::from_static("/echo.Echo/Say");
        let answer = client.unary(Request::new(text), path, ProstCodec::<String, String>::default()).await?;
        println!("{}", answer.into_inner());
        Ok(())
    };
    let result = call.await;
    // Also if the call has failed.
    println!("{}", layer.drain().run(TIMEOUT).await);
    result
}
