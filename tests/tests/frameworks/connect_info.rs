//! What handlers under axum-server see of their connection.

use std::{future::pending, net::SocketAddr};

use axum::{Router, extract::ConnectInfo, routing::get};
use rustls::ClientConfig;
use tls_shutdown::{
    integrations::axum_server::TlsAddress,
    server::{ConnectionInfo, ServerDrain, TlsListener},
};
use tls_shutdown_tests::{certificate, mutual_tls, serving::Client};

/// A listener that admits a client with a certificate alone, that client, and a drain that never begins.
async fn start() -> (TlsListener, SocketAddr, ClientConfig, ServerDrain) {
    let (config, client) = mutual_tls();
    let drain = ServerDrain::on(pending());
    let listener = TlsListener::bind("127.0.0.1:0", config).await.expect("a free port").with_drain(&drain.handle());
    let address = listener.local_addr().expect("an address");
    (listener, address, client, drain)
}

fn seen(info: &ConnectionInfo) -> String {
    assert_eq!(info.certificates(), [certificate().0]);
    info.peer().to_string()
}

/// Asserts that the server answers with the client's address.
async fn sees_the_client(address: SocketAddr, config: ClientConfig) {
    let mut client = Client::connect_with(address, config).await;
    client.ask("/").await;
    let local = client.stream.get_ref().0.local_addr().expect("an address");
    assert_eq!(String::from_utf8_lossy(&client.read_message().await.1), local.to_string());
}

#[tokio::test]
async fn handlers_under_axum_server_see_their_connection() {
    let app = Router::new().route("/", get(async |ConnectInfo(info): ConnectInfo<ConnectionInfo>| seen(&info)));
    let (listener, address, client, drain) = start().await;
    let server = axum_server::Server::<TlsAddress>::from_listener(listener.into());
    let service = app.into_make_service_with_connect_info::<ConnectionInfo>();
    let server = tokio::spawn(drain.run(server.serve(service)));
    sees_the_client(address, client).await;
    server.abort();

    let app = Router::new().route("/", get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string()));
    let (listener, address, client, drain) = start().await;
    let server = axum_server::Server::<TlsAddress>::from_listener(listener.into());
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    let server = tokio::spawn(drain.run(server.serve(service)));
    sees_the_client(address, client).await;
    server.abort();
}
