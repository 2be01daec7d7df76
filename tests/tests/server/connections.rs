//! What requests know of their connection, and how old it may become.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo, http::StatusCode, routing};
use futures_util::FutureExt;
use hyper::{Request, body::Incoming};
use rustls::pki_types::ServerName;
use tls_shutdown::{
    integrations::tonic::TlsConnectInfo,
    server::{ConnectionInfo, Server, ServerDrain, TlsListener, Transport},
};
use tls_shutdown_tests::{
    End, certificate, mutual_tls,
    serving::{
        Client, LONG, Running, ScriptedBody, answer,
        http2::{self, PING, get, goaways, hello, pong},
        listener, offer, offering,
    },
};
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_rustls::TlsConnector;
use tonic::transport::server::TcpConnectInfo;
use tower::ServiceExt;

use crate::routes::routes;

#[tokio::test]
async fn requests_carry_what_is_known_of_their_connection() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = seen.clone();
    let running = Running::start(move |request: Request<Incoming>| {
        let info = request.extensions().get::<ConnectionInfo>().expect("known").clone();
        notes.lock().expect("no panic").push(info);
        async { answer(ScriptedBody::full(1)) }
    })
    .await;
    let mut client = Client::connect(running.address).await;
    client.ask("/").await;
    client.read_message().await;
    let mut other = Client::connect_http2(running.address).await;
    other.send([hello(), get(1)].concat()).await;
    other.frame_of(http2::DATA).await;
    let seen = seen.lock().expect("no panic");
    for (info, client, protocol) in [(&seen[0], &client, None), (&seen[1], &other, Some(&b"h2"[..]))] {
        assert_eq!(info.peer(), client.stream.get_ref().0.local_addr().expect("an address"));
        assert_eq!(info.protocol(), protocol);
        assert_eq!(info.server_name(), Some("localhost"));
        assert!(info.certificates().is_empty());
        assert!(info.drain().is_ready());
    }
}

/// rustls holds early data apart, and tokio-rustls never returns it.
#[tokio::test]
async fn requests_in_early_data_are_answered() {
    for protocol in ["http/1.1", "h2"] {
        let mut config = offering(&[protocol]);
        config.max_early_data_size = 16_384;
        let listener = TlsListener::bind("127.0.0.1:0", config).await.expect("a free port");
        let mut running = Running::start_with(listener, |server| server, |drain| drain, routes);
        let mut config = offer(protocol);
        config.enable_early_data = true;
        let connector = TlsConnector::from(Arc::new(config)).early_data(true);
        for is_early in [false, true] {
            let (name, tcp) = (ServerName::try_from("localhost").expect("a name"), TcpStream::connect(running.address));
            let stream = connector.connect(name, tcp.await.expect("a server")).await.expect("a handshake");
            let mut client = Client { stream };
            if protocol == "h2" {
                client.send([hello(), get(1)].concat()).await;
                client.frame_of(http2::DATA).await;
            } else {
                client.ask("/").await;
                client.read_message().await;
            }
            assert_eq!(client.stream.get_ref().1.is_early_data_accepted(), is_early);
            client.close().await;
            drop(client);
            let end = running.end().await;
            assert_eq!((end.requests(), end.responses_cut()), (1, 0), "{protocol}: {end}");
        }
    }
}

#[tokio::test]
async fn requests_carry_the_clients_certificate() {
    let (config, client) = mutual_tls();
    let listener = TlsListener::bind("127.0.0.1:0", config).await.expect("a free port");
    let service = |request: Request<Incoming>| async move {
        let info = request.extensions().get::<ConnectionInfo>().expect("known");
        assert_eq!(info.certificates(), [certificate().0]);
        // What axum's and tonic's handlers look for.
        let peer = info.peer().address().expect("an address");
        let extensions = request.extensions();
        assert_eq!(extensions.get::<ConnectInfo<SocketAddr>>().expect("axum's").0, peer);
        assert_eq!(extensions.get::<TcpConnectInfo>().expect("tonic's").remote_addr(), Some(peer));
        let tls = extensions.get::<TlsConnectInfo>().expect("tonic's");
        assert_eq!(tls.get_ref().remote_addr(), Some(peer));
        assert_eq!(tls.peer_certs().expect("a chain")[..], [certificate().0]);
        answer(ScriptedBody::full(1))
    };
    let running = Running::start_with(listener, |server| server, |drain| drain, service);
    let mut client = Client::connect_with(running.address, client).await;
    client.ask("/").await;
    assert_eq!(client.read_message().await.1, b"x");
}

#[tokio::test]
async fn old_connections_have_a_last_request() {
    let aged = |server: Server| server.max_connection_age(Duration::from_millis(50));
    let window = |drain: ServerDrain| drain.last_request(LONG);
    let running = Running::start_with(listener().await, aged, window, routes);
    let mut client = Client::connect(running.address).await;
    loop {
        client.ask("/").await;
        if client.read_message().await.0.contains("connection: close") {
            break;
        }
    }
    assert_eq!(client.read_to_end().await, (vec![], End::CloseNotify));

    let mut client = Client::connect_http2(running.address).await;
    client.send(hello()).await;
    assert_eq!(goaways(&[client.frame_of(http2::GOAWAY).await]), [(1 << 31) - 1]);
    let ping = client.frame_of(PING).await;
    client.send(pong(&ping)).await;
    let (frames, end) = client.frames_to_end().await;
    assert_eq!((goaways(&frames), end), (vec![0], End::CloseNotify));
    assert!(running.drain.is_ready());
}

/// A certificate is replaced because its key has leaked: nobody may go on using it.
#[tokio::test]
async fn connections_under_an_old_certificate_are_retired() {
    let listener = listener().await;
    let config = listener.config_handle();
    let window = |drain: ServerDrain| drain.last_request(LONG);
    let running = Running::start_with(listener, |server| server, window, routes);
    let mut old = Client::connect(running.address).await;
    let mut old_http2 = Client::connect_http2(running.address).await;
    old_http2.send([hello(), get(1)].concat()).await;
    old_http2.frame_of(http2::DATA).await;
    // Nobody is retired before the configuration was replaced.
    config.retire_connections(Duration::ZERO);
    config.replace(offering(&["h2", "http/1.1"]));
    let mut new = Client::connect(running.address).await;
    config.retire_connections(Duration::from_secs(3600));
    old.ask("/").await;
    assert!(!old.read_message().await.0.contains("connection: close"), "it has an hour at random");
    // The shorter time counts.
    config.retire_connections(Duration::ZERO);
    config.retire_connections(Duration::from_secs(3600));
    assert_eq!(goaways(&[old_http2.frame_of(http2::GOAWAY).await]), [(1 << 31) - 1]);
    // A TLS 1.3 client of HTTP/1 learns it by its next response.
    old.ask("/").await;
    assert!(old.read_message().await.0.contains("connection: close"));
    assert_eq!(old.read_to_end().await, (vec![], End::CloseNotify));
    new.ask("/").await;
    assert!(!new.read_message().await.0.contains("connection: close"), "it was made under the new one");
}

/// What a handler of axum sees of its connection, one line for each way to ask.
async fn seen(connection: ConnectionInfo, ConnectInfo(info): ConnectInfo<ConnectionInfo>) -> String {
    [connection, info]
        .map(|info| {
            assert_eq!(info.certificates(), [certificate().0]);
            assert_eq!(info.transport(), Transport::Tls);
            format!("{} {:?} {:?}\n", info.peer(), info.server_name().expect("a name"), info.drain().is_ready())
        })
        .concat()
}

/// The same handler, under both servers.
#[tokio::test]
async fn handlers_of_axum_see_one_connection_info_under_both_servers() {
    let app = Router::new().route("/", routing::get(seen));
    let request = Request::get("/").body(Body::empty()).expect("a request");
    let response = app.clone().oneshot(request).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "there is no connection");

    let (config, client) = mutual_tls();
    let config = Arc::new(config);
    let bind = async || TlsListener::bind("127.0.0.1:0", config.clone()).await.expect("a free port");
    let (ours, axums) = (bind().await, bind().await);
    let addresses = [&ours, &axums].map(|listener| listener.local_addr().expect("an address"));
    let drain = ServerDrain::on(std::future::pending());
    let service = app.clone().into_make_service_with_connect_info::<ConnectionInfo>();
    let servers = [
        tokio::spawn(Server::new(ours).serve(app).map(drop)),
        tokio::spawn(axum::serve(axums.with_drain(&drain.handle()), service).into_future().map(drop)),
    ];
    for address in addresses {
        let mut client = Client::connect_with(address, client.clone()).await;
        client.ask("/").await;
        let local = client.stream.get_ref().0.local_addr().expect("an address");
        let body = client.read_message().await.1;
        assert_eq!(String::from_utf8_lossy(&body), format!("{local} \"localhost\" true\n").repeat(2));
    }
    servers.iter().for_each(JoinHandle::abort);
}
