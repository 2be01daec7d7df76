//! Connections that are upgraded to another protocol.

use std::time::Duration;

use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONNECTION, UPGRADE},
};
use hyper_util::rt::TokioIo;
use tls_shutdown::{
    Ending,
    server::{DrainPhase, ResponseDelivery, Server, ServerDrain},
};
use tls_shutdown_tests::{
    End,
    serving::{Client, LONG, Running, ScriptedBody, listener},
    soon,
    time::{pass_time, turns},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::routes::Answer;

/// Upgrades to the protocol that the path names, and sends a byte. Then it does what the rest of the path names.
async fn upgrading(mut request: Request<Incoming>) -> Answer {
    let mut response = Response::new(ScriptedBody::new(&[]));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, "upgrade".parse().expect("a value"));
    let (protocol, task) = request.uri().path()[1..].split_once('/').expect("two parts");
    response.headers_mut().insert(UPGRADE, protocol.parse().expect("a value"));
    let task = task.to_owned();
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(&mut request).await.expect("an upgrade");
        let mut stream = TokioIo::new(upgraded);
        stream.write_all(b"!").await.expect("sent");
        stream.flush().await.expect("sent");
        match task.as_str() {
            "drop" => {}
            "shutdown" => stream.shutdown().await.expect("sent"),
            "goodbye" => {
                stream.shutdown().await.expect("sent");
                let _ = stream.read_u8().await;
            }
            "read" => while stream.read_u8().await.is_ok() {},
            "discard" => while stream.read(&mut [0; 4096]).await.is_ok() {},
            "fill" => {
                let blocked = turns(50);
                tokio::select! {
                    biased;
                    () = async { while stream.write_all(&[0; 4096]).await.is_ok() {} } => {}
                    () = blocked => {}
                }
            }
            "write" => while stream.write_all(&[0; 4096]).await.is_ok() {},
            _ => std::future::pending().await,
        }
    });
    Ok(response)
}

async fn upgrade(running: &Running, path: &str) -> Client {
    let mut client = Client::connect_narrow(running.address).await;
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")).await;
    let (head, _) = client.read_message().await;
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert_eq!(soon(client.stream.read_u8()).await.expect("a byte"), b'!');
    client
}

#[tokio::test]
async fn upgraded_connections_end_as_their_protocol_can_bear() {
    let mut running = Running::start(upgrading).await;
    for (path, expected) in [
        ("/websocket/drop", End::CloseNotify),
        ("/WebSocket/drop", End::CloseNotify),
        ("/other/drop", End::Truncation),
        ("/other/shutdown", End::CloseNotify),
    ] {
        let mut client = upgrade(&running, path).await;
        assert_eq!(client.read_to_end().await, (vec![], expected), "{path}");
        drop(client);
        let end = running.end().await;
        assert_eq!((end.was_upgraded(), end.responses_cut()), (true, 0), "{path}");
    }
}

/// A tunnel. Its end may be the end of a message of another protocol.
async fn tunnelling(mut request: Request<Incoming>) -> Answer {
    assert_eq!(request.method(), hyper::Method::CONNECT);
    let ends_well = request.uri().port_u16() == Some(1);
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(&mut request).await.expect("a tunnel");
        let mut stream = TokioIo::new(upgraded);
        let mut echo = [0; 5];
        stream.read_exact(&mut echo).await.expect("something");
        stream.write_all(&echo).await.expect("sent");
        stream.flush().await.expect("sent");
        if ends_well {
            stream.shutdown().await.expect("sent");
        }
    });
    Ok(Response::new(ScriptedBody::new(&[])))
}

#[tokio::test]
async fn a_tunnel_ends_as_its_owner_says() {
    // With this limit a request without its body would be ended.
    let short = |server: Server| server.stall_timeout(Duration::from_millis(50));
    let mut running = Running::start_with(listener().await, short, |drain| drain, tunnelling);
    for (port, expected) in [(1, End::CloseNotify), (2, End::Truncation)] {
        let mut client = Client::connect(running.address).await;
        client.send(format!("CONNECT a:{port} HTTP/1.1\r\nHost: a:{port}\r\n\r\n")).await;
        assert!(client.read_message().await.0.starts_with("http/1.1 200"));
        // It may be idle for any time.
        pass_time(Duration::from_millis(200)).await;
        client.send("hello").await;
        assert_eq!(client.read_to_end().await, (b"hello".to_vec(), expected), "{port}");
        drop(client);
        let end = running.end().await;
        assert_eq!((end.was_upgraded(), end.responses_cut()), (true, 0), "{port}");
    }
}

/// A client that does not wait for the tunnel. What it sends through it looks like a request, and is none of this server.
#[tokio::test]
async fn what_passes_through_a_tunnel_is_no_request() {
    let mut running = Running::start(tunnelling).await;
    let mut client = Client::connect(running.address).await;
    client.send("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nG / HTTP/1.1\r\n\r\n").await;
    assert!(client.read_message().await.0.starts_with("http/1.1 200"));
    assert_eq!(client.read_to_end().await, (b"G / H".to_vec(), End::CloseNotify));
    drop(client);
    let end = running.end().await;
    assert_eq!((end.was_upgraded(), end.requests(), end.responses_cut()), (true, 1, 0), "{end}");
}

/// The response does not end the connection, and must not say so.
#[tokio::test]
async fn a_tunnel_may_be_the_last_exchange() {
    let patient = |drain: ServerDrain| drain.grace_period(LONG).last_request(LONG);
    let mut running = Running::start_with(listener().await, |server| server, patient, tunnelling);
    let mut client = Client::connect(running.address).await;
    running.signal();
    soon(running.drain.reached(DrainPhase::LastRequest)).await;
    turns(200).await;
    client.send("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n").await;
    let head = client.head().await;
    assert!(head.starts_with("http/1.1 200") && !head.contains("connection:"), "{head}");
    client.send("hello").await;
    assert_eq!(client.read_to_end().await, (b"hello".to_vec(), End::CloseNotify));
    drop(client);
    let end = running.end().await;
    assert_eq!((end.was_upgraded(), end.requests(), end.responses_cut()), (true, 1, 0), "{end}");
}

#[tokio::test]
async fn upgraded_connections_have_no_more_time_at_the_deadline() {
    for path in ["/other/read", "/other/discard", "/other/write", "/websocket/read", "/websocket/write"] {
        let hasty = |drain: ServerDrain| drain.ack_timeout(Duration::ZERO);
        let mut running = Running::start_with(listener().await, |server| server, hasty, upgrading);
        let mut client = upgrade(&running, path).await;
        let drain = running.drain.clone();
        let client = tokio::spawn(async move {
            // There is always something to read. A task that writes has a client that reads nothing.
            while path.ends_with("discard") && client.stream.write_all(&[0; 4096]).await.is_ok() {}
            drain.reached(DrainPhase::Exit).await;
            client
        });
        // Until the task that writes waits for room.
        turns(2_000).await;
        running.signal();
        running.force();
        let end = running.end().await;
        assert_eq!((end.was_upgraded(), end.delivery()), (true, ResponseDelivery::Cut), "{path}: {end}");
        let report = running.report().await;
        assert_eq!((report.left(), report.upgraded(), report.responses_cut()), (0, 1, 1), "{path}: {report}");
        soon(client).await.expect("no panic");
    }
}

/// Its owner has said everything, and only its client has not.
#[tokio::test]
async fn what_was_shut_down_before_the_deadline_is_not_cut() {
    let mut running = Running::start_with(listener().await, |server| server, |drain| drain, upgrading);
    let mut client = upgrade(&running, "/other/goodbye").await;
    assert_eq!(soon(client.stream.read(&mut [0])).await.expect("close_notify"), 0);
    turns(200).await;
    running.signal();
    running.force();
    let end = running.end().await;
    assert_eq!((end.was_upgraded(), end.responses_cut()), (true, 0), "{end}");
    assert_eq!(running.report().await.responses_cut(), 0);
}

/// A client that reads nothing, and an owner that leaves in order. TLS holds the end of what it has written.
#[tokio::test]
async fn what_the_owner_wrote_and_tls_has_not_sent_is_cut() {
    for path in ["/websocket/fill", "/other/fill"] {
        let mut running = Running::start(upgrading).await;
        let client = upgrade(&running, path).await;
        turns(2_000).await;
        // The reaper waits for the client.
        pass_time(Duration::from_secs(100)).await;
        let end = running.end().await;
        assert_eq!((end.was_upgraded(), end.delivery()), (true, ResponseDelivery::Cut), "{path}: {end}");
        assert_ne!(end.ending(), Ending::Complete);
        drop(client);
    }
}
