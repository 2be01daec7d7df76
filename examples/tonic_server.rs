//! A tonic gRPC server by `Server`, with gRPC's health checks. With a `.proto` file, pass the generated service to `add_service` instead.
//!
//! `cargo run --bin tonic_server 127.0.0.1:8443 cert.pem`

use std::{convert::Infallible, error::Error};

use axum::{Router, body::Body, http, routing::post_service};
use tls_shutdown::{
    integrations::tonic_health::health_server,
    server::{Server, ServerDrain, TlsListener},
};
use tls_shutdown_examples::{Arguments, server_config};
use tonic::{Request, Response, Status, server::Grpc, service::Routes};
use tonic_health::{ServingStatus::Serving, server::HealthReporter};
use tonic_prost::ProstCodec;
use tower::service_fn;

/// Takes and returns a `google.protobuf.StringValue`.
async fn greet(request: Request<String>) -> Result<Response<String>, Status> {
    let peer = request.remote_addr().ok_or_else(|| Status::internal("no address"))?;
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
    let listener = TlsListener::bind(address, server_config(cert, &["h2"])?).await?;
    println!("listening on https://{}", listener.local_addr()?);

    // From the drain's notice on, health checks are told that no service is serving.
    let reporter = HealthReporter::new();
    reporter.set_service_status("example.Greeter", Serving).await;
    let routes = Routes::from(Router::new().route("/example.Greeter/Greet", post_service(service_fn(greeter))))
        .add_service(health_server(&reporter, drain.handle()));
    let server = Server::new(listener).on_end(|end| println!("{end}")).drain(drain);
    println!("{}", server.serve(routes).await);
    Ok(())
}
