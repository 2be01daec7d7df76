//! What the report of a connection says of it, in each way to serve.

use std::{convert::Infallible, future::pending, sync::Arc};

use axum::{Router, routing::get as get_method};
use hyper::{Request, Response};
use rustls::{HandshakeKind, ProtocolVersion};
use tls_shutdown::{
    Ending,
    server::{
        ConnectionInfo, ConnectionReport, DrainPhase, Protocol, ResponseDelivery, Server, ServerDrain, TlsListener,
    },
};
use tls_shutdown_tests::{
    End, VERSIONS, client_config, server_config,
    serving::{
        Client, Integration, LONG, Running, ScriptedBody, Site, Step, answer,
        http2::{self, RST_STREAM, get, get_path, hello},
        hyper_body, hyper_http2, hyper_request, listener, offer,
    },
    soon,
    time::turns,
};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::{Notify, mpsc, oneshot},
};
use tower::{Layer, Service, service_fn};

use crate::{
    drain::{asking, start},
    routes::routes,
};

/// The report of a connection that the client closes after one exchange.
async fn report_after_an_exchange(site: &mut Site) -> ConnectionReport {
    let mut client = site.connect().await;
    match site.integration {
        Integration::Tonic => {
            let (mut requests, connection) = hyper_http2(client).await;
            hyper_body(requests.send_request(hyper_request("/"))).await.expect("a response");
            drop(requests);
            soon(connection).await.expect("no panic");
        }
        Integration::AcceptLoop => {
            client.send("hello\n").await;
            client.read_until("\n").await;
            client.close().await;
        }
        _ => {
            client.is_served().await;
            client.close().await;
        }
    }
    soon(site.ends.recv()).await.expect("a report")
}

#[tokio::test]
async fn each_report_says_what_was_negotiated() {
    for integration in Integration::every() {
        let mut site = Site::start(integration).await;
        let report = report_after_an_exchange(&mut site).await;
        let protocol = if integration == Integration::Tonic { Protocol::Http2 } else { Protocol::Http1 };
        assert_eq!(report.protocol(), Some(protocol), "{integration:?}: {report}");
        let tls = (report.server_name(), report.tls_version(), report.handshake_kind());
        let expected = match Integration::tls().contains(&integration) {
            true => (Some("localhost"), Some(ProtocolVersion::TLSv1_3), Some(HandshakeKind::Full)),
            false => (None, None, None),
        };
        assert_eq!(tls, expected, "{integration:?}: {report}");
        assert_eq!((report.handshake_failure(), report.alert_sent()), (None, None), "{integration:?}: {report}");
        if Integration::SERVERS.contains(&integration) {
            assert_eq!((report.requests(), report.delivery()), (1, ResponseDelivery::Delivered), "{report}");
            assert!(report.to_string().ends_with(", 1 request over HTTP/1"), "{report}");
        }
    }
}

#[tokio::test]
async fn the_protocol_is_the_one_that_the_client_speaks() {
    for integration in Integration::SERVERS {
        let mut site = Site::start(integration).await;
        let (mut requests, connection) = hyper_http2(site.connect_http2().await).await;
        hyper_body(requests.send_request(hyper_request("/"))).await.expect("a response");
        drop(requests);
        soon(connection).await.expect("no panic");
        let report = soon(site.ends.recv()).await.expect("a report");
        assert_eq!(report.protocol(), Some(Protocol::Http2), "{integration:?}: {report}");
    }
    // As Envoy's health check does: it negotiates `h2` and speaks HTTP/1.
    let mut site = Site::start(Integration::Server).await;
    let mut client = site.connect_http2().await;
    client.is_served().await;
    client.close().await;
    assert_eq!(soon(site.ends.recv()).await.expect("a report").protocol(), Some(Protocol::Http1));

    // Without ALPN, the first request tells.
    let mut running = Running::start(routes).await;
    let mut client = Client::connect(running.address).await;
    client.close().await;
    assert_eq!(running.end().await.protocol(), None);
    let mut client = Client::connect(running.address).await;
    client.ask("/").await;
    client.read_message().await;
    client.close().await;
    assert_eq!(running.end().await.protocol(), Some(Protocol::Http1));
    let mut client = Client::connect(running.address).await;
    client.send([hello(), get(1)].concat()).await;
    client.frame_of(http2::DATA).await;
    drop(client);
    assert_eq!(running.end().await.protocol(), Some(Protocol::Http2));
}

#[tokio::test]
async fn a_resumed_session_is_told_and_so_is_the_version_of_tls() {
    for version in VERSIONS {
        let listener = TlsListener::bind("127.0.0.1:0", server_config(version)).await;
        let mut running = Running::start_with(listener.expect("a free port"), |server| server, |drain| drain, routes);
        let config = client_config(version);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut client = Client::connect_with(running.address, config.clone()).await;
            client.ask("/").await;
            client.read_message().await;
            client.close().await;
            let report = running.end().await;
            assert_eq!(
                (report.tls_version(), report.handshake_kind()),
                (Some(version.version), Some(kind)),
                "{report}"
            );
        }
    }
}

/// A client that closes TCP alone has lost nothing. Nothing was closed, so that the text has no time.
#[tokio::test]
async fn a_client_that_skips_close_notify_does_not_look_like_a_loss() {
    let mut running = Running::start(|_| async { answer(ScriptedBody::full(10)) }).await;
    let mut client = Client::connect(running.address).await;
    client.ask("/").await;
    client.read_message().await;
    let (tcp, _) = client.stream.into_inner();
    drop(tcp);
    let report = running.end().await;
    assert_eq!((report.ending(), report.delivery()), (Ending::Truncated, ResponseDelivery::Sent));
    let text = report.to_string();
    let expected = " truncated: every response was sent, close_notify not sent, not received, 1 request over HTTP/1";
    assert!(text.ends_with(expected), "{text}");
}

#[tokio::test]
async fn a_response_that_was_cut_comes_first() {
    let mut running = Running::start(|_| async { answer(ScriptedBody::new(&[Step::Data(10), Step::Stop])) }).await;
    let mut client = Client::connect(running.address).await;
    client.ask("/").await;
    client.head().await;
    drop(client);
    let text = running.end().await.to_string();
    assert!(text.contains(": 1 response cut, close_notify "), "{text}");
    assert!(text.ends_with(", 1 request over HTTP/1"), "{text}");
}

#[tokio::test]
async fn nothing_was_closed_so_the_report_has_no_time() {
    let mut listener = listener().await;
    let address = listener.local_addr().expect("an address");
    let (sender, mut ends) = mpsc::unbounded_channel();
    listener = listener.on_end(move |end| sender.send(end.to_string()).expect("a test"));
    let client = tokio::spawn(Client::connect(address));
    drop(soon(listener.accept()).await.expect("a connection"));
    let text = soon(ends.recv()).await.expect("a report");
    assert!(text.ends_with(" aborted: close_notify not sent, not received"), "{text}");
    assert_eq!(soon(client).await.expect("no panic").read_to_end().await.1, End::Truncation);
}

/// The observers of the listener, of the server and of the server again: none replaces another.
#[tokio::test]
async fn observers_of_the_listener_and_of_the_server_are_all_called() {
    let (sender, mut calls) = mpsc::unbounded_channel();
    let observer = |name: &'static str| {
        let sender = sender.clone();
        move |end: &ConnectionReport| sender.send((name, end.requests())).expect("a test")
    };
    let listener = listener().await.on_end(observer("listener")).on_end(|_| panic!("an observer"));
    let address = listener.local_addr().expect("an address");
    let server = Server::new(listener).on_end(observer("server")).on_end(observer("server again"));
    let running = Running::start_server(server, address, |drain| drain, routes);
    let mut client = Client::connect(running.address).await;
    client.ask("/").await;
    client.read_message().await;
    client.close().await;
    for name in ["listener", "server", "server again"] {
        assert_eq!(soon(calls.recv()).await, Some((name, 1)));
    }
}

/// The table has one request, though none came after the signal.
#[tokio::test]
async fn the_drain_counts_the_requests_in_flight_at_the_signal() {
    let mut running = start(|drain: ServerDrain| drain.last_request(LONG)).await;
    let mut client = asking(&running, "/told").await;
    running.signal();
    client.read_message().await;
    client.read_to_end_and_close().await;
    let report = running.report().await;
    assert_eq!((report.in_flight(), report.requests(), report.responses_cut()), (1, 0, 0), "{report}");
    assert!(report.to_string().contains("requests             0 since the signal, and 1 in flight then\n"), "{report}");
}

/// Its connection goes on, and ends with the drain, which has cut nothing.
#[tokio::test]
async fn a_response_that_was_cut_before_the_signal_is_no_loss_of_the_drain() {
    for (failing, cut_by_drain) in [("/body-fail", 0), ("/never", 1)] {
        let mut running = Running::start(routes).await;
        let mut client = Client::connect_http2(running.address).await;
        client.send([hello(), get_path(1, "/body-fail"), get_path(3, failing)].concat()).await;
        client.frame_of(RST_STREAM).await;
        while failing == "/body-fail" && client.next_frame().await.expect("a frame").kind != RST_STREAM {}
        running.signal();
        soon(running.drain.reached(DrainPhase::LastRequest)).await;
        running.force();
        client.frames_to_end().await;
        drop(client);
        assert_eq!(running.end().await.responses_cut(), 2);
        assert_eq!(running.report().await.responses_cut(), cut_by_drain, "{failing}");
    }
}

/// The layer is for other servers. A `Server` counts its requests by itself.
#[tokio::test]
async fn a_request_behind_the_layer_of_a_server_is_counted_once() {
    let listener = listener().await;
    let address = listener.local_addr().expect("an address");
    let (signal, signalled) = oneshot::channel();
    let drain = ServerDrain::on(async { signalled.await.expect("a signal") });
    let handle = drain.handle();
    let gate = Arc::new(Notify::new());
    let opened = gate.clone();
    let app = Router::new().route("/", get_method(async move || opened.notified().await)).layer(handle.layer());
    let report = tokio::spawn(Server::new(listener).drain(drain).serve(app));
    let mut client = Client::connect(address).await;
    client.ask("/").await;
    while handle.in_flight() == 0 {
        turns(1).await;
    }
    signal.send(()).expect("a server");
    soon(handle.reached(DrainPhase::LastRequest)).await;
    gate.notify_one();
    client.read_to_end_and_close().await;
    let report = soon(report).await.expect("no panic");
    assert_eq!((report.in_flight(), report.requests()), (1, 0), "{report}");
}

/// Its reset may have destroyed what it had not read.
#[tokio::test]
async fn a_client_that_resets_behind_its_close_notify_has_confirmed_nothing() {
    let mut running = Running::start(routes).await;
    let tcp = TcpStream::connect(running.address).await.expect("a listener");
    tcp.set_zero_linger().expect("a socket");
    let mut client = Client::over(tcp, offer("http/1.1")).await;
    client.ask("/").await;
    client.read_message().await;
    client.stream.shutdown().await.expect("room");
    drop(client);
    let report = running.end().await;
    assert_eq!((report.ending(), report.shutdown().sent()), (Ending::Complete, false), "{report}");
    assert_eq!(report.delivery(), ResponseDelivery::Sent, "{report}");
}

/// close_notify before the response closes only the client's half, and says nothing of the response.
#[tokio::test]
async fn a_half_closed_client_has_confirmed_nothing() {
    let gate = Arc::new(Notify::new());
    let opened = gate.clone();
    let mut running = Running::start(move |_| {
        let opened = opened.clone();
        async move {
            opened.notified().await;
            answer(ScriptedBody::full(10))
        }
    })
    .await;
    let http2 = [&hello()[..], &get(1)].concat();
    for (mut client, request) in [
        (Client::connect(running.address).await, &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..]),
        (Client::connect_http2(running.address).await, &http2),
    ] {
        client.send(request).await;
        client.stream.shutdown().await.expect("sent");
        // The server reads it meanwhile.
        turns(100).await;
        gate.notify_one();
        assert_eq!(client.read_to_end().await.1, End::CloseNotify);
        drop(client);
        let report = running.end().await;
        let (ending, cut) = (report.ending(), report.responses_cut());
        assert_eq!((ending, cut, report.delivery()), (Ending::Complete, 0, ResponseDelivery::Sent), "{report}");
    }
}

/// Another server counts nothing, also if its requests carry the same [`ConnectionInfo`] as those of a `Server`.
#[tokio::test]
async fn a_request_behind_the_layer_of_another_server_is_counted() {
    let drain = ServerDrain::on(pending());
    let handle = drain.handle();
    let mut listener = listener().await.with_drain(&handle);
    let address = listener.local_addr().expect("an address");
    let (_client, accepted) = tokio::join!(Client::connect(address), listener.accept());
    let (stream, _) = accepted.expect("a connection");
    let mut request = Request::new(());
    request.extensions_mut().insert(ConnectionInfo::from(&stream));
    let respond = |_: Request<()>| async { Ok::<_, Infallible>(Response::new(String::new())) };
    let mut service = handle.layer().layer(service_fn(respond));
    let response = service.call(request);
    assert_eq!(handle.in_flight(), 1);
    drop(response);
}
