//! tonic's services and its health checks, with tonic's client.

use std::{future::pending, io, net::SocketAddr};

use axum::{Router, routing::get};
use futures_util::{FutureExt, stream::Pending};
use http_body_util::BodyExt;
use hyper::Uri;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::CertificateDer};
use tls_shutdown::{
    integrations::tonic_health::health_server,
    server::{Notice, Server, ServerDrain, TlsListener},
};
use tls_shutdown_tests::{
    certificate, mutual_tls,
    serving::{Client, listener, offer},
    soon,
};
use tokio::sync::mpsc;
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    service::Routes,
    transport::{Channel, Endpoint},
};
use tonic_health::{
    ServingStatus,
    pb::{
        HealthCheckRequest, HealthCheckResponse,
        health_client::HealthClient,
        health_server::{Health, HealthServer},
    },
    server::HealthReporter,
};
use tower::ServiceExt;

/// A channel over our TLS. Its addresses are sent to the receiver.
async fn connect(address: SocketAddr, mut config: ClientConfig) -> (Channel, mpsc::UnboundedReceiver<SocketAddr>) {
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (sender, locals) = mpsc::unbounded_channel();
    let connector = tower::service_fn(move |_: Uri| {
        let (config, sender) = (config.clone(), sender.clone());
        async move {
            let stream = Client::connect_with(address, config).await.stream;
            sender.send(stream.get_ref().0.local_addr()?).expect("a test");
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    (soon(endpoint.connect_with_connector(connector)).await.expect("a channel"), locals)
}

/// What tonic's accessors return.
#[derive(Debug, PartialEq)]
struct Seen {
    remote: Option<SocketAddr>,
    local: Option<SocketAddr>,
    certificates: Vec<CertificateDer<'static>>,
}

/// A service that tells what it sees of its connection.
#[derive(Clone)]
struct Witness(mpsc::UnboundedSender<Seen>);

#[tonic::async_trait]
impl Health for Witness {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let certificates = request.peer_certs().map(|certificates| certificates.to_vec()).unwrap_or_default();
        let seen = Seen { remote: request.remote_addr(), local: request.local_addr(), certificates };
        self.0.send(seen).expect("a test");
        Ok(Response::new(HealthCheckResponse::default()))
    }

    type WatchStream = Pending<Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }
}

/// Under `Server`, and under tonic's own server over a `TlsListener`.
#[tokio::test]
async fn tonics_accessors_know_the_connection_and_the_clients_certificate() {
    let (mut config, client) = mutual_tls();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = std::sync::Arc::new(config);
    let (sender, mut seen) = mpsc::unbounded_channel();
    for is_ours in [true, false] {
        let listener = TlsListener::bind("127.0.0.1:0", config.clone()).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let routes = Routes::new(HealthServer::new(Witness(sender.clone())));
        let server = match is_ours {
            true => tokio::spawn(Server::new(listener).serve(routes).map(drop)),
            false => {
                let server = tonic::transport::Server::builder().add_routes(routes);
                tokio::spawn(server.serve_with_incoming(listener).map(drop))
            }
        };
        let (channel, mut locals) = connect(address, client.clone()).await;
        soon(HealthClient::new(channel).check(HealthCheckRequest::default())).await.expect("an answer");
        let expected = Seen { remote: locals.recv().await, local: Some(address), certificates: vec![certificate().0] };
        assert_eq!(soon(seen.recv()).await, Some(expected));
        server.abort();
    }
}

const SERVICE: &str = "example.Greeter";

async fn check(health: &mut HealthClient<Channel>, service: &str) -> Result<i32, Code> {
    let answer = soon(health.check(HealthCheckRequest { service: service.to_owned() })).await;
    answer.map(|answer| answer.into_inner().status).map_err(|status| status.code())
}

#[tokio::test]
async fn health_checks_tell_the_notice_while_calls_still_succeed() {
    let (serving, not_serving) = (1, 2);
    let drain = ServerDrain::on(pending());
    let handle = drain.handle();
    let reporter = HealthReporter::new();
    reporter.set_service_status(SERVICE, ServingStatus::Serving).await;
    let app = Router::new().route("/", get("hello"));
    let routes = Routes::from(app).add_service(health_server(&reporter, handle.clone()));
    let listener = listener().await;
    let address = listener.local_addr().expect("an address");
    let server = tokio::spawn(Server::new(listener).drain(drain).serve(routes));
    let (channel, _locals) = connect(address, offer("h2")).await;
    let mut health = HealthClient::new(channel.clone());
    let request = HealthCheckRequest { service: SERVICE.to_owned() };
    let mut watch = soon(health.watch(request)).await.expect("a stream").into_inner();
    let mut next = async || soon(watch.message()).await.expect("no error").map(|answer| answer.status);

    assert_eq!(next().await, Some(serving));
    assert_eq!((check(&mut health, "").await, check(&mut health, SERVICE).await), (Ok(serving), Ok(serving)));
    handle.start();
    assert_eq!(next().await, Some(not_serving));
    assert!(handle.cancel());
    assert_eq!(next().await, Some(serving));
    assert_eq!(check(&mut health, SERVICE).await, Ok(serving));
    handle.start();
    assert_eq!(next().await, Some(not_serving));
    reporter.set_service_status(SERVICE, ServingStatus::Serving).await;
    assert_eq!((check(&mut health, "").await, check(&mut health, SERVICE).await), (Ok(not_serving), Ok(not_serving)));
    assert_eq!(check(&mut health, "unknown").await, Err(Code::NotFound));
    let request = hyper::Request::get("http://localhost/").body(Body::empty()).expect("a request");
    let answer = soon(channel.clone().oneshot(request)).await.expect("an answer");
    assert_eq!(soon(answer.into_body().collect()).await.expect("a body").to_bytes(), "hello");

    // The checks were probes that have seen it. The stream does not hold up the drain.
    assert_eq!(next().await, None);
    drop((health, channel));
    let report = soon(server).await.expect("no panic");
    assert_eq!((report.notice(), report.responses_cut(), report.left()), (Notice::Seen, 0, 0), "{report}");
}
