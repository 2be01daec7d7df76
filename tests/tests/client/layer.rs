//! `ShutdownLayer`: what it wraps, and what the wrapped streams do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper::Uri;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::connect::{Connection, HttpInfo},
    rt::TokioIo,
};
use rustls::version::TLS13;
use tls_shutdown::{
    Ending, Reaper, Records, ShutdownPolicy, TlsSession,
    client::{ClientStream, HttpsSession, ShutdownLayer},
};
use tls_shutdown_tests::{End, client_config, server_config, witness::WitnessServer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

use crate::{ANSWER, LIMIT, by_hand, deaf_server, get, get_at_once, https, next, pooled, recorder};

#[tokio::test]
async fn what_the_client_asks_of_a_connection_is_kept() {
    for protocol in ["h2", "http/1.1"] {
        let server = WitnessServer::new(protocol, 1).await;
        let layer = ShutdownLayer::new();
        let connector = layer.layer(https(protocol));
        let stream = connector.clone().oneshot(server.uri("/")).await.unwrap();
        assert_eq!(stream.connected().is_negotiated_h2(), protocol == "h2");
        let alpn = stream.with_session(|https| https.get_ref().get_ref().1.alpn_protocol().map(<[u8]>::to_vec));
        assert_eq!(alpn, Some((protocol == "h2").then(|| protocol.into())), "hyper-rustls offers nothing for HTTP/1");

        let has_socket = stream.with_session(|https| HttpsSession::socket(https.transport()).is_some());
        assert_eq!(has_socket, Some(true), "what a linger needs");

        let response = pooled(connector).get(server.uri("/")).await.unwrap();
        let info = response.extensions().get::<HttpInfo>().expect("what HttpConnector tells");
        assert_eq!(info.remote_addr(), server.address);
    }
}

#[tokio::test]
async fn the_layer_sets_policy_reaper_and_on_end() {
    let mut server = WitnessServer::new("http/1.1", 1).await;
    let reaper = Reaper::new();
    let (record, mut reports) = recorder();
    let quiet = ShutdownLayer::new().with_policy(ShutdownPolicy::quiet()).with_reaper(&reaper).on_end(record);
    let tls = TlsConnector::from(Arc::new(client_config(&TLS13)));
    let mut stream = quiet.layer(by_hand(tls.clone())).oneshot(server.uri("/")).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    assert_eq!(next(&mut reports).await.ending(), Ending::Quiet);
    assert_ne!(server.ends(1).await, [Some(End::CloseNotify)]);

    let (record, mut reports) = recorder();
    let unidirectional =
        ShutdownLayer::new().with_policy(ShutdownPolicy::unidirectional()).with_reaper(&reaper).on_end(record);
    let mut stream = unidirectional.layer(by_hand(tls)).oneshot(server.uri("/")).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    assert_eq!(reaper.closings(), 1, "handed over");
    assert_eq!(next(&mut reports).await.ending(), Ending::Complete, "the reaper has received the answer");
    assert_eq!(server.ends(1).await, [Some(End::CloseNotify)]);
}

#[tokio::test]
async fn an_acceptor_is_wrapped_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (record, mut reports) = recorder();
    let layer = ShutdownLayer::new().on_end(record);
    let acceptor = TlsAcceptor::from(Arc::new(server_config(&TLS13)));
    let mut accept = layer.layer(tower::service_fn(move |tcp: TcpStream| acceptor.accept(tcp)));
    let server = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream = accept.ready().await.unwrap().call(tcp).await.unwrap();
        let mut told = Vec::new();
        stream.read_to_end(&mut told).await.unwrap();
        stream.write_all(&told).await.unwrap();
        stream.shutdown().await.unwrap();
        drop(stream);
        assert_eq!(next(&mut reports).await.ending(), Ending::Complete);
    });
    let tls = TlsConnector::from(Arc::new(client_config(&TLS13)));
    let tcp = TcpStream::connect(address).await.unwrap();
    let mut client = tls.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    client.write_all(b"echo").await.unwrap();
    client.shutdown().await.unwrap();
    let mut told = Vec::new();
    client.read_to_end(&mut told).await.unwrap();
    assert_eq!(told, b"echo");
    server.await.unwrap();
}

#[derive(Clone)]
struct Twice;

impl<Response> tower::retry::Policy<Uri, Response, tower::BoxError> for Twice {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut Uri, result: &mut Result<Response, tower::BoxError>) -> Option<Self::Future> {
        result.is_err().then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, uri: &Uri) -> Option<Uri> {
        Some(uri.clone())
    }
}

#[tokio::test]
async fn it_composes_with_the_layers_of_tower() {
    let mut server = WitnessServer::new("http/1.1", 3).await;
    let attempts = Arc::new(AtomicUsize::new(0));
    let flaky = {
        let (attempts, https) = (attempts.clone(), https("http/1.1"));
        tower::service_fn(move |uri: Uri| {
            let (attempt, https) = (attempts.fetch_add(1, Ordering::SeqCst), https.clone());
            async move {
                match attempt {
                    0 => Err("the first attempt fails".into()),
                    _ => https.oneshot(uri).await,
                }
            }
        })
    };
    let layer = ShutdownLayer::new();
    let connector = ServiceBuilder::new()
        .map_future(Box::pin)
        .timeout(LIMIT)
        .layer(layer.clone())
        .retry(Twice)
        .concurrency_limit(3)
        .timeout(LIMIT)
        .service(flaky);
    let client = pooled(connector);
    get_at_once(&client, &server.uri("/meet"), 3).await;
    assert_eq!(attempts.load(Ordering::SeqCst), 4);
    let report = layer.drain().run(LIMIT).await;
    assert_eq!((report.count(Ending::Complete), report.left()), (3, 0), "{report}");
    assert_eq!(server.ends(3).await, [Some(End::CloseNotify); 3]);
}

#[test]
fn futures_and_streams_are_what_clients_ask_for() {
    fn is_unpin<T: Unpin + Send>(_: &T) {}
    let mut connector = ShutdownLayer::new().layer(https("http/1.1"));
    is_unpin(&connector.call(Uri::from_static("https://localhost")));
    fn is_shared<T: Send + Sync + Unpin + 'static>() {}
    is_shared::<ClientStream<client::TlsStream<TcpStream>>>();
    fn is_connection<T: Connection>() {}
    is_connection::<ClientStream<client::TlsStream<Records<TcpStream>>>>();
}

#[tokio::test]
async fn a_connection_whose_callback_panics_is_told_all_the_same() {
    let server = WitnessServer::new("http/1.1", 1).await;
    let layer = ShutdownLayer::new().on_end(|report| panic!("as a closed standard output makes println: {report}"));
    let client = pooled(layer.layer(https("http/1.1")));
    get(&client, server.uri("/")).await.unwrap();
    let report = layer.drain().run(LIMIT).await;
    assert_eq!((report.count(Ending::Complete), report.left()), (1, 0), "{report}");
}

#[tokio::test]
async fn what_the_server_says_unasked_is_no_reason_to_wait_or_to_abort() {
    let (address, server) = deaf_server(b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok").await;
    let (record, mut reports) = recorder();
    let policy = ShutdownPolicy::bidirectional().with_close_timeout(Duration::from_millis(100));
    let layer = ShutdownLayer::new().with_policy(policy).on_end(record);
    let client = pooled(layer.layer(https("http/1.1")));
    get(&client, format!("https://{address}/").parse().unwrap()).await.unwrap();
    let mut server = server.await.unwrap();
    server.write_all(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    server.flush().await.unwrap();
    // hyper drops such a connection.
    let report = next(&mut reports).await;
    assert_eq!((report.ending(), report.sent()), (Ending::TimedOut, true), "{report}");
    assert_eq!(server.read(&mut [0; 9]).await.unwrap(), 0, "close_notify");
}

#[tokio::test]
async fn a_stream_of_hypers_kind_is_wrapped_too() {
    let mut server = WitnessServer::new("http/1.1", 1).await;
    let layer = ShutdownLayer::new();
    let tls = TlsConnector::from(Arc::new(client_config(&TLS13)));
    let connector = by_hand(tls).map_response(TokioIo::new);
    let stream = layer.layer(connector).oneshot(server.uri("/")).await.unwrap();
    let report = layer.drain().run(LIMIT).await;
    assert_eq!((report.count(Ending::Complete), report.left()), (1, 0), "{report}");
    assert_eq!(server.ends(1).await, [Some(End::CloseNotify)]);
    drop(stream);
}

#[tokio::test]
async fn what_is_dropped_between_two_messages_is_closed_and_what_is_cut_is_aborted() {
    let mut server = WitnessServer::new("http/1.1", 1).await;
    let tls = TlsConnector::from(Arc::new(client_config(&TLS13)));
    for (message, ending) in [("", Ending::Complete), ("GET / HTTP", Ending::Aborted)] {
        let (record, mut reports) = recorder();
        let layer = ShutdownLayer::new().on_end(record);
        let mut stream = layer.layer(by_hand(tls.clone())).oneshot(server.uri("/")).await.unwrap();
        stream.write_all(message.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        drop(stream);
        assert_eq!(next(&mut reports).await.ending(), ending, "{message:?}");
        // The kernel may reset the connection, since the client has not read its tickets when it aborts.
        assert_eq!(server.ends(1).await == [Some(End::CloseNotify)], ending == Ending::Complete, "{message:?}");
    }
}

/// Its end is close_notify, and that was read.
#[tokio::test]
async fn a_response_that_ends_with_the_connection_is_whole_at_its_end() {
    let tls = TlsConnector::from(Arc::new(client_config(&TLS13)));
    for (answer, ending) in [
        (&b"HTTP/1.0 200 OK\r\n\r\nto the end"[..], Ending::Complete),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nto the end", Ending::Aborted),
    ] {
        let (address, server) = deaf_server(answer).await;
        let (record, mut reports) = recorder();
        let layer = ShutdownLayer::new().on_end(record);
        let uri: Uri = format!("https://{address}/").parse().unwrap();
        let mut stream = layer.layer(by_hand(tls.clone())).oneshot(uri).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut server = server.await.unwrap();
        server.shutdown().await.unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, answer);
        drop(stream);
        assert_eq!(next(&mut reports).await.ending(), ending);
    }
}

#[tokio::test]
async fn a_connection_without_tls_passes_as_it_is() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        assert_ne!(tcp.read(&mut [0; 1024]).await.unwrap(), 0);
        tcp.write_all(ANSWER).await.unwrap();
        tcp.read_to_end(&mut Vec::new()).await
    });
    let https = HttpsConnectorBuilder::new().with_tls_config(client_config(&TLS13)).https_or_http();
    let layer = ShutdownLayer::new();
    let client = pooled(layer.layer(https.enable_http1().build()));
    let uri: Uri = format!("http://{address}/").parse().unwrap();
    assert_eq!(get(&client, uri).await.unwrap(), "ok");
    assert_eq!(layer.drain().open(), 0);
    assert_eq!(layer.drain().run(LIMIT).await.connections(), 0);
}
