//! `ClientDrain`: which connections it ends, and when.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hyper::Uri;
use rustls::version::TLS13;
use tls_shutdown::{
    Ending, ShutdownPolicy,
    client::{Draining, ShutdownLayer},
};
use tls_shutdown_tests::{End, client_config, soon, witness::WitnessServer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, mpsc},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client};
use tower::{Layer, Service, ServiceExt};

use crate::{ANSWER, LIMIT, by_hand, deaf_server, get, get_at_once, https, is_draining, pooled, recorder};

#[tokio::test]
async fn a_hundred_pooled_connections_are_drained() {
    const COUNT: usize = 100;
    let mut server = WitnessServer::new("http/1.1", COUNT).await;
    let (record, mut reports) = recorder();
    let layer = ShutdownLayer::new().on_end(record);
    let client = pooled(layer.layer(https("http/1.1")));
    get_at_once(&client, &server.uri("/meet"), COUNT).await;
    assert_eq!(layer.drain().open(), COUNT, "pooled, and nothing else ends them");

    let report = layer.drain().run(LIMIT).await;
    assert_eq!(
        (report.connections(), report.count(Ending::Complete), report.left()),
        (COUNT as u64, COUNT as u64, 0),
        "{report}"
    );
    assert_eq!(report.tickets(), 2 * COUNT as u64, "what rustls sends");
    assert_eq!(server.ends(COUNT).await, [Some(End::CloseNotify); COUNT]);
    for _ in 0..COUNT {
        assert!(reports.try_recv().unwrap().received());
    }
    assert!(reports.try_recv().is_err(), "once for each");
    let line = report.to_string();
    assert!(line.starts_with("100 ended: 100 complete; 200 tickets, 0 left, ") && line.ends_with(" ms"), "{line}");

    let error = get(&client, server.uri("/")).await.unwrap_err();
    assert!(is_draining(&*error), "{error:?}");
}

#[tokio::test]
async fn an_http2_connection_is_drained() {
    const COUNT: usize = 8;
    let mut server = WitnessServer::new("h2", COUNT).await;
    let layer = ShutdownLayer::new();
    let client = pooled(layer.layer(https("h2")));
    get(&client, server.uri("/")).await.unwrap();
    get_at_once(&client, &server.uri("/meet"), COUNT).await;
    assert_eq!(layer.drain().open(), 1, "ALPN is seen, and its streams share it");

    let report = layer.drain().run(LIMIT).await;
    assert_eq!((report.connections(), report.count(Ending::Complete), report.left()), (1, 1, 0), "{report}");
    assert_eq!(server.ends(1).await, [Some(End::CloseNotify)]);
    let error = get(&client, server.uri("/")).await.unwrap_err();
    assert!(is_draining(&*error), "{error:?}");
}

#[tokio::test]
async fn what_is_in_flight_is_finished_first() {
    for (protocol, path, expected) in [
        ("http/1.1", "/hold", "held"),
        ("http/1.1", "/body", "first last"),
        ("h2", "/hold", "held"),
        ("h2", "/body", "first last"),
    ] {
        let mut server = WitnessServer::new(protocol, 1).await;
        let layer = ShutdownLayer::new();
        let client = pooled(layer.layer(https(protocol)));
        let request = tokio::spawn({
            let (client, uri) = (client.clone(), server.uri(path));
            async move { get(&client, uri).await }
        });
        server.request_has_arrived().await;
        let drain = layer.drain();
        let drained = tokio::spawn({
            let drain = drain.clone();
            async move { drain.run(LIMIT).await }
        });
        drain.begun().await;
        let error = get(&client, server.uri("/")).await.unwrap_err();
        assert!(is_draining(&*error), "{protocol}{path}: {error:?}");
        assert_eq!(drain.open(), 1, "{protocol}{path}");

        server.gates.release.notify_one();
        assert_eq!(request.await.unwrap().unwrap(), expected, "{protocol}{path}");
        let report = drained.await.unwrap();
        assert_eq!((report.count(Ending::Complete), report.left()), (1, 0), "{protocol}{path}: {report}");
        assert_eq!(server.ends(1).await, [Some(End::CloseNotify)], "{protocol}{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_race_with_the_drain_are_answered_or_refused() {
    for protocol in ["http/1.1", "h2"] {
        let mut server = WitnessServer::new(protocol, 1).await;
        let (record, mut reports) = recorder();
        let layer = ShutdownLayer::new().on_end(record);
        let client = pooled(layer.layer(https(protocol)));
        let (sender, mut answers) = mpsc::unbounded_channel();
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let (client, uri, sender) = (client.clone(), server.uri("/"), sender.clone());
                tokio::spawn(async move {
                    loop {
                        match get(&client, uri.clone()).await {
                            Ok(_) => sender.send(()).unwrap(),
                            Err(error) => return error,
                        }
                    }
                })
            })
            .collect();
        for _ in 0..200 {
            answers.recv().await.unwrap();
        }
        let report = layer.drain().run(LIMIT).await;
        assert_eq!((report.count(Ending::Complete), report.left()), (report.connections(), 0), "{protocol}: {report}");
        for task in tasks {
            let error = task.await.unwrap();
            assert!(is_draining(&*error), "{protocol}: {error:?}");
        }
        let answers = 200 + std::iter::from_fn(|| answers.try_recv().ok()).count();
        let lost = server.gates.requests.load(Ordering::SeqCst) - answers;
        // hyper gives up a stream that it opens while a GOAWAY arrives, although it sends the request.
        assert!(lost <= if protocol == "h2" { 16 } else { 0 }, "{protocol}: {lost} requests were lost");
        let connections = std::iter::from_fn(|| reports.try_recv().ok()).count();
        assert_eq!(server.ends(connections).await, vec![Some(End::CloseNotify); connections], "{protocol}");
    }
}

#[tokio::test]
async fn what_is_in_flight_at_the_limit_is_cut() {
    for protocol in ["http/1.1", "h2"] {
        let mut server = WitnessServer::new(protocol, 1).await;
        let layer = ShutdownLayer::new();
        let client = pooled(layer.layer(https(protocol)));
        let request = tokio::spawn({
            let uri = server.uri("/hold");
            async move { get(&client, uri).await }
        });
        server.request_has_arrived().await;
        let report = layer.drain().run(Duration::from_millis(50)).await;
        assert_eq!((report.count(Ending::Aborted), report.left()), (1, 0), "{protocol}: {report}");
        let error = request.await.unwrap().unwrap_err();
        assert!(is_draining(&*error), "{protocol}: {error:?}");
        server.gates.release.notify_one();
        assert_ne!(server.ends(1).await, [Some(End::CloseNotify)], "{protocol}: a cut does not look like an end");
    }
}

#[tokio::test]
async fn a_silent_server_costs_the_deadline() {
    let deadline = Duration::from_millis(200);
    for (limit, ending) in [(LIMIT, Some(Ending::TimedOut)), (deadline / 10, None)] {
        let (address, server) = deaf_server(ANSWER).await;
        let layer = ShutdownLayer::new().with_policy(ShutdownPolicy::bidirectional().with_close_timeout(deadline));
        let client = pooled(layer.layer(https("http/1.1")));
        let uri: Uri = format!("https://{address}/").parse().unwrap();
        assert_eq!(get(&client, uri).await.unwrap(), "ok");
        let report = layer.drain().run(limit).await;
        assert_eq!(report.left(), usize::from(ending.is_none()), "{report}");
        assert_eq!(report.connections(), ending.map_or(0, |ending| report.count(ending)), "{report}");
        assert!(report.elapsed() >= limit.min(deadline) && report.elapsed() < LIMIT, "{report}");

        // The connections that were left go on.
        let report = layer.drain().run(LIMIT).await;
        assert_eq!((report.count(Ending::TimedOut), report.left()), (1, 0), "{report}");
        drop(server.await.unwrap());
    }
}

#[tokio::test]
async fn a_drain_keeps_the_tickets_of_what_was_never_read() {
    let server = WitnessServer::new("http/1.1", 1).await;
    let tls = TlsConnector::from(Arc::new(client_config(&TLS13)));

    // The control: nobody reads the tickets.
    for _ in 0..2 {
        let mut bare = by_hand(tls.clone()).oneshot(server.uri("/")).await.unwrap();
        bare.shutdown().await.unwrap();
    }
    assert_eq!(server.resumed(), 0);

    for resumed in [0, 1] {
        let layer = ShutdownLayer::new();
        let stream = layer.layer(by_hand(tls.clone())).oneshot(server.uri("/")).await.unwrap();
        let report = layer.drain().run(LIMIT).await;
        assert_eq!((report.count(Ending::Complete), report.tickets()), (1, 2), "{report}");
        assert_eq!(server.resumed(), resumed);
        assert_eq!(stream.with_session(|_| ()), None, "the drain has taken it");
    }
}

#[tokio::test]
async fn a_client_that_wants_tickets_only_does_not_wait_for_silence() {
    let (address, server) = deaf_server(b"").await;
    let layer =
        ShutdownLayer::new().with_policy(ShutdownPolicy::bidirectional().with_close_timeout(LIMIT).until_tickets(2));
    let tls = TlsConnector::from(Arc::new(client_config(&TLS13)));
    let uri: Uri = format!("https://{address}/").parse().unwrap();
    let mut stream = layer.layer(by_hand(tls)).oneshot(uri).await.unwrap();
    timeout(LIMIT / 2, stream.shutdown()).await.expect("no wait").unwrap();
    drop(stream);
    drop(server.await.unwrap());
    let report = layer.drain().run(LIMIT).await;
    assert_eq!((report.connections(), report.left()), (1, 0), "{report}");
    assert_eq!((report.count(Ending::TimedOut), report.tickets()), (0, 2), "{report}");
}

#[tokio::test]
async fn a_connection_that_is_being_made_is_waited_for_refused_and_ended() {
    let mut server = WitnessServer::new("http/1.1", 1).await;
    let layer = ShutdownLayer::new();
    let tls = TlsConnector::from(Arc::new(client_config(&TLS13)));
    let gate = Arc::new(Notify::new());
    let late = {
        let gate = gate.clone();
        tower::service_fn(move |uri: Uri| {
            let (gate, inner) = (gate.clone(), by_hand(tls.clone()));
            async move {
                gate.notified().await;
                inner.oneshot(uri).await
            }
        })
    };
    let mut connector = layer.layer(late);
    let connecting = connector.call(server.uri("/"));
    let report = layer.drain().run(Duration::from_millis(50)).await;
    assert_eq!((report.connections(), report.left()), (0, 1), "{report}");
    gate.notify_one();
    let drain = layer.drain();
    let (error, report) = tokio::join!(connecting, drain.run(LIMIT));
    assert!(error.unwrap_err().is::<Draining>());
    assert_eq!((report.count(Ending::Complete), report.left()), (1, 0), "{report}");
    assert_eq!(server.ends(1).await, [Some(End::CloseNotify)]);
    // A drain does not wait for a connector that is dropped.
    let layer = ShutdownLayer::new();
    let mut connector =
        layer.layer(tower::service_fn(|_| std::future::pending::<io::Result<client::TlsStream<TcpStream>>>()));
    let connecting = connector.call(server.uri("/"));
    let drain = layer.drain();
    let (report, ()) = tokio::join!(drain.run(LIMIT), async { drop(connecting) });
    assert_eq!((report.connections(), report.left()), (0, 0), "{report}");
    assert!(connector.call(server.uri("/")).await.unwrap_err().is::<Draining>());
}

#[tokio::test]
async fn what_is_cut_can_be_neither_flushed_nor_shut_down() {
    let (address, server) = deaf_server(b"").await;
    let layer = ShutdownLayer::new();
    let connector = layer.layer(by_hand(TlsConnector::from(Arc::new(client_config(&TLS13)))));
    let mut stream = connector.oneshot(format!("https://{address}/").parse().unwrap()).await.unwrap();
    stream.write_all(b"another protocol\r\n").await.unwrap();
    let _open = server.await.unwrap();
    let report = layer.drain().run(Duration::from_millis(50)).await;
    assert_eq!((report.count(Ending::Aborted), report.left()), (1, 0), "{report}");
    for result in [stream.flush().await, stream.shutdown().await, stream.read(&mut [0; 9]).await.map(drop)] {
        let error = result.expect_err("it is cut");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        assert!(is_draining(&error), "{error:?}");
    }
}

#[tokio::test]
async fn a_request_that_is_answered_early_is_written_to_its_end() {
    let (address, server) = deaf_server(ANSWER).await;
    let policy = ShutdownPolicy::bidirectional().with_close_timeout(Duration::from_millis(50));
    let layer = ShutdownLayer::new().with_policy(policy);
    let tls = TlsConnector::from(Arc::new(client_config(&TLS13)));
    let uri: Uri = format!("https://{address}/").parse().unwrap();
    let mut stream = layer.layer(by_hand(tls)).oneshot(uri).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n12").await.unwrap();
    let mut answer = [0; ANSWER.len()];
    stream.read_exact(&mut answer).await.unwrap();
    let drain = layer.drain();
    let drained = tokio::spawn({
        let drain = drain.clone();
        async move { drain.run(LIMIT).await }
    });
    drain.begun().await;
    assert!(stream.with_session(|_| ()).is_some());
    stream.write_all(b"34").await.unwrap();
    assert!(stream.with_session(|_| ()).is_none(), "it has left with the last byte");
    let error = stream.write(b"GET").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert!(is_draining(&error));
    assert_eq!(stream.read(&mut answer).await.unwrap(), 0);
    let report = drained.await.unwrap();
    assert_eq!((report.count(Ending::TimedOut), report.left()), (1, 0), "{report}");
    drop(server.await.unwrap());
}

/// The owner has closed its half and reads on: it has no shutdown in progress that would end the connection.
#[tokio::test]
async fn a_half_closed_stream_is_closed_when_it_is_idle_and_cut_at_the_limit() {
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
    let tls = TlsConnector::from(Arc::new(client_config(&TLS13)));
    // A bidirectional half-close returns when the server's data comes, a unidirectional one at once.
    for policy in [ShutdownPolicy::bidirectional(), ShutdownPolicy::unidirectional()] {
        for (answer, ending) in [(&ANSWER[..ANSWER.len() - 1], Ending::Aborted), (ANSWER, Ending::Complete)] {
            let (address, server) = deaf_server(answer).await;
            let layer = ShutdownLayer::new().with_policy(policy);
            let uri: Uri = format!("https://{address}/").parse().unwrap();
            let mut stream = layer.layer(by_hand(tls.clone())).oneshot(uri).await.unwrap();
            stream.write_all(REQUEST).await.unwrap();
            stream.read_exact(&mut [0; 1]).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut server = server.await.unwrap();
            let drain = layer.drain();
            let read = tokio::spawn(async move {
                let mut received = Vec::new();
                (stream.read_to_end(&mut received).await, received)
            });
            let drained = match ending {
                Ending::Aborted => tokio::spawn(async move { drain.run(Duration::from_millis(50)).await }),
                _ => tokio::spawn(async move { drain.run(LIMIT).await }),
            };
            let (result, received) = soon(read).await.unwrap();
            assert_eq!(received, answer[1..]);
            match ending {
                Ending::Aborted => {
                    let error = result.unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
                    assert!(is_draining(&error), "{error:?}");
                }
                _ => {
                    result.unwrap();
                    server.shutdown().await.unwrap();
                }
            }
            let report = soon(drained).await.unwrap();
            assert_eq!((report.count(ending), report.left()), (1, 0), "{report}");
        }
    }
}

/// A request is told at once, although the connector under the layer is not ready.
#[tokio::test]
async fn a_request_that_waits_for_a_busy_connector_is_refused_at_once() {
    let never = tower::service_fn(|_| std::future::pending::<io::Result<client::TlsStream<TcpStream>>>());
    let layer = ShutdownLayer::new();
    let mut connector = layer.layer(tower::limit::ConcurrencyLimit::new(never, 1));
    let uri = Uri::from_static("https://localhost");
    let connecting = connector.ready().await.unwrap().call(uri.clone());
    let mut waiting = connector.clone();
    let waiting = tokio::spawn({
        let uri = uri.clone();
        async move { waiting.ready().await?.call(uri).await.map(drop) }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    layer.drain().run(Duration::ZERO).await;
    assert!(soon(waiting).await.unwrap().unwrap_err().is::<Draining>());
    let later = async { connector.ready().await?.call(uri).await.map(drop) };
    assert!(soon(later).await.unwrap_err().is::<Draining>());
    drop(connecting);
}

/// They have nothing more to do. Their callbacks wait for the drop.
#[tokio::test]
async fn streams_that_their_owners_hold_after_the_end_have_ended() {
    let tls = TlsConnector::from(Arc::new(client_config(&TLS13)));
    let server = WitnessServer::new("http/1.1", 1).await;
    let (address, deaf) = deaf_server(b"").await;
    let silent: Uri = format!("https://{address}/").parse().unwrap();
    for (uri, ending) in [(server.uri("/"), Ending::Complete), (silent, Ending::TimedOut)] {
        let (record, mut reports) = recorder();
        let policy = ShutdownPolicy::bidirectional().with_close_timeout(Duration::from_millis(50));
        let layer = ShutdownLayer::new().with_policy(policy).on_end(record);
        let mut stream = layer.layer(by_hand(tls.clone())).oneshot(uri).await.unwrap();
        assert_eq!(layer.drain().open(), 1);
        assert_eq!(stream.shutdown().await.is_ok(), ending == Ending::Complete);
        assert_eq!(layer.drain().open(), 0);
        assert!(reports.try_recv().is_err());
        drop(stream);
        assert_eq!(reports.recv().await.unwrap().ending(), ending);
    }
    drop(deaf.await.unwrap());
}

/// The drain has begun before the end, and counts it once.
#[tokio::test]
async fn a_stream_that_is_held_after_its_end_delays_a_drain_by_little() {
    let (address, server) = deaf_server(b"").await;
    let layer = ShutdownLayer::new();
    let tls = TlsConnector::from(Arc::new(client_config(&TLS13)));
    let uri: Uri = format!("https://{address}/").parse().unwrap();
    let mut stream = layer.layer(by_hand(tls)).oneshot(uri).await.unwrap();
    stream.write_all(b"another protocol\r\n").await.unwrap();
    let drain = layer.drain();
    let drained = tokio::spawn(async move { drain.run(LIMIT * 10).await });
    layer.drain().begun().await;
    let mut server = server.await.unwrap();
    server.shutdown().await.unwrap();
    soon(stream.shutdown()).await.unwrap();
    let report = soon(drained).await.unwrap();
    assert_eq!((report.count(Ending::Complete), report.tickets(), report.left()), (1, 2, 0), "{report}");
    drop(stream);
    let report = layer.drain().run(LIMIT).await;
    assert_eq!((report.connections(), report.tickets(), report.left()), (1, 2, 0), "{report}");
}

/// The end of the drain may be that of the process.
#[tokio::test]
async fn callbacks_come_before_the_end_of_the_drain() {
    let server = WitnessServer::new("http/1.1", 1).await;
    let (record, mut reports) = recorder();
    let layer = ShutdownLayer::new().on_end(record);
    let tls = TlsConnector::from(Arc::new(client_config(&TLS13)));
    let mut stream = layer.layer(by_hand(tls)).oneshot(server.uri("/")).await.unwrap();
    stream.shutdown().await.unwrap();
    let drain = layer.drain().clone();
    let drained = tokio::spawn({
        let drain = drain.clone();
        async move { drain.run(LIMIT).await }
    });
    drain.begun().await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!drained.is_finished(), "the owner still holds it");
    drop(stream);
    assert_eq!(drained.await.unwrap().left(), 0);
    assert_eq!(reports.try_recv().unwrap().ending(), Ending::Complete);
}
