//! A tonic gRPC server over `TlsListener`. With a `.proto` file, pass the generated service to `add_service` instead.
//!
//! `cargo run --bin tonic_server 127.0.0.1:8443 cert.pem`

use std::{convert::Infallible, error::Error};

use axum::{Router, body::Body, http, routing::post_service};
use tls_shutdown::{
    integrations::tonic::TlsConnectInfo,
    server::{ServerDrain, TlsListener},
};
use tls_shutdown_examples::{Arguments, server_config};
use tonic::{Request, Response, Status, server::Grpc, service::Routes, transport::Server};
use tonic_prost::ProstCodec;
use tower::service_fn;

/// Takes and returns a `google.protobuf.StringValue`.
async fn greet(request: Request<String>) -> Result<Response<String>, Status> {
    let info = request.extensions().get::<TlsConnectInfo>();
    let peer = info.and_then(|info| info.get_ref().remote_addr()).ok_or_else(|| Status::internal("no address"))?;
    Ok(Response::new(format!("hello {} at {peer}", request.into_inner())))
}

async fn greeter(request: http::Request<Body>) -> Result<http::Response<tonic::body::Body>, Infallible> {
    let mut grpc = Grpc::new(ProstCodec::<String, String>::default());
    Ok(grpc.unary(service_fn(greet), request).await)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { address, cert } = Arguments::parse();
    let drain = ServerDrain::on_terminate_signal()?;
    let handle = drain.handle();
    let listener = TlsListener::bind(address, server_config(cert, &["h2"])?)
        .await?
        .on_end(|end| println!("{end}"))
        .with_drain(&handle);
    println!("listening on https://{}", listener.local_addr()?);

    let routes = Routes::from(Router::new().route("/example.Greeter/Greet", post_service(service_fn(greeter))));
    let serving =
        Server::builder().add_routes(routes).serve_with_incoming_shutdown(listener, handle.last_request_over());
    let (report, served) = drain.run(serving).await;
    println!("{report}");
    Ok(served.unwrap_or(Ok(()))?)
}
