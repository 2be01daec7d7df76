//! How single connections of `serve` end, on the wire and in the events.

use std::{io::ErrorKind, time::Duration};

use http_body_util::{BodyExt, Empty};
use hyper::{Request, body::Bytes, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use serde_json::Value;
use tls_shutdown::ShutdownStream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    client::{Response, Trust, connect, handshake, read_to_end, request, response},
    process::{Serve, within},
};

#[tokio::test]
async fn a_response_arrives_whole_and_its_connection_is_complete() {
    let mut server = Serve::start(&[]).await;
    let mut stream = connect(server.address).await;
    request(&mut stream, "GET /bytes/1000000").await;
    let response = response(&mut stream).await;
    assert!(response.head.starts_with("http/1.1 200"), "{}", response.head);
    assert_eq!(response.body.len(), 1_000_000);

    stream.shutdown().await.unwrap();
    let (rest, end) = read_to_end(&mut stream).await;
    assert!(rest.is_empty() && end.is_ok(), "{end:?}");
    let event = server.next_closed().await;
    assert_eq!(event["ending"], "complete");
    assert_eq!(event["peer"], stream.get_ref().0.local_addr().unwrap().to_string());
    assert_eq!((&event["sent"], &event["received"]), (&true.into(), &true.into()));
    assert!(event["elapsed_ms"].is_f64() && event["discarded"] == 0, "{event}");
}

#[tokio::test]
async fn http2_is_chosen_by_alpn_and_ends_properly() {
    let mut server = Serve::start(&[]).await;
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let stream = handshake(tcp, "h2", Trust::TheCertificate).await.unwrap();
    // hyper's client closes its socket at the first GOAWAY. Without this stream, the next data of the server would cause a reset.
    let stream = TokioIo::new(ShutdownStream::new(stream));
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let uri = format!("https://{}/bytes/1000000", server.address);
    let get = Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
    let answer = within(sender.send_request(get)).await.unwrap();
    assert_eq!(within(answer.into_body().collect()).await.unwrap().to_bytes().len(), 1_000_000);

    server.signal(Signal::TERM);
    within(connection).await.unwrap().unwrap();
    assert_eq!(server.next_closed().await["ending"], "complete");
    let (status, events) = server.wait_for_exit().await;
    assert!(status.success());
    assert_eq!(events[0]["endings"], serde_json::json!({ "complete": 1 }));
}

#[tokio::test]
async fn every_accepted_connection_is_reported_exactly_once() {
    let mut server = Serve::start(&[]).await;

    let mut plain = TcpStream::connect(server.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert_eq!(server.next_closed().await["ending"], "not_tls");

    let tcp = TcpStream::connect(server.address).await.unwrap();
    handshake(tcp, "http/1.1", Trust::Nothing).await.unwrap_err();
    let event = server.next_closed().await;
    assert_eq!((&event["ending"], &event["alert"]), (&"peer_alert".into(), &"unknown_ca".into()));

    drop(TcpStream::connect(server.address).await.unwrap());
    assert_eq!(server.next_closed().await["ending"], "not_started");

    let tcp = TcpStream::connect(server.address).await.unwrap();
    tcp.set_zero_linger().unwrap();
    drop(tcp);
    assert_eq!(server.next_closed().await["ending"], "reset");

    let mut stream = connect(server.address).await;
    stream.shutdown().await.unwrap();
    read_to_end(&mut stream).await.1.unwrap();
    assert_eq!(server.next_closed().await["ending"], "complete");

    server.signal(Signal::TERM);
    let (status, events) = server.wait_for_exit().await;
    assert!(status.success());
    let [drained] = &events[..] else { panic!("too many events: {events:?}") };
    assert_eq!((&drained["event"], &drained["connections"]), (&"drained".into(), &0.into()));
}

#[tokio::test]
async fn each_closed_event_says_what_was_negotiated_or_why_the_handshake_failed() {
    let mut server = Serve::start(&["--explain", "--plain", "127.0.0.1:0"]).await;
    let plain = server.next_event().await["addr"].as_str().unwrap().to_owned();
    let tcp = TcpStream::connect(server.address).await.unwrap();
    handshake(tcp, "http/1.1", Trust::Nothing).await.unwrap_err();
    let event = server.next_closed().await;
    assert_eq!((&event["handshake_failure"], &event["alert"]), (&"alert_received".into(), &"unknown_ca".into()));
    assert_eq!((&event["server_name"], &event["tls_version"]), (&"localhost".into(), &Value::Null));
    let explanation = event["explanation"].as_str().unwrap();
    assert!(explanation.contains("alert unknown_ca. It does not accept the server's certificate."), "{explanation}");

    let tcp = TcpStream::connect(server.address).await.unwrap();
    handshake(tcp, "nothing", Trust::TheCertificate).await.unwrap_err();
    let event = server.next_closed().await;
    assert_eq!(event["handshake_failure"], "no_common_protocol", "{event}");
    assert_eq!(event["alert_sent"], "no_application_protocol", "{event}");
    assert!(event["handshake_error"].is_string(), "{event}");

    let mut stream = connect(server.address).await;
    request(&mut stream, "GET /health").await;
    response(&mut stream).await;
    stream.shutdown().await.unwrap();
    let event = server.next_closed().await;
    let negotiated =
        ["protocol", "server_name", "tls_version", "resumed", "handshake_failure"].map(|name| &event[name]);
    assert_eq!(
        negotiated,
        [&"http1".into(), &"localhost".into(), &"1.3".into(), &false.into(), &Value::Null],
        "{event}"
    );

    let mut tcp = TcpStream::connect(plain).await.unwrap();
    tcp.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    within(tcp.read_to_end(&mut Vec::new())).await.unwrap();
    drop(tcp);
    let event = server.next_closed().await;
    let negotiated =
        ["protocol", "server_name", "tls_version", "resumed", "handshake_failure"].map(|name| &event[name]);
    assert_eq!(negotiated, [&"http1".into(), &Value::Null, &Value::Null, &Value::Null, &Value::Null], "{event}");
}

#[tokio::test]
async fn a_client_that_leaves_without_close_notify_is_truncated_and_has_lost_nothing() {
    let mut server = Serve::start(&["--explain"]).await;
    let mut stream = connect(server.address).await;
    request(&mut stream, "GET /health").await;
    assert_eq!(response(&mut stream).await.body, b"ready\n");
    let (mut tcp, _) = stream.into_inner();
    tcp.shutdown().await.unwrap();
    let event = server.next_closed().await;
    assert_eq!((&event["ending"], &event["sent"]), (&"truncated".into(), &false.into()));
    assert_eq!((&event["delivery"], &event["responses_cut"]), (&"sent".into(), &0.into()));
    let explanation = event["explanation"].as_str().unwrap();
    assert!(explanation.contains("without closing TLS") && explanation.contains("sent to its end"), "{explanation}");
    assert!(explanation.ends_with("/guide/endings/index.html#truncated"), "{explanation}");
    // In the middle of a response.
    let mut stream = connect(server.address).await;
    request(&mut stream, "GET /drip/1000/1000").await;
    response(&mut stream).await;
    let (mut tcp, _) = stream.into_inner();
    tcp.shutdown().await.unwrap();
    let event = server.next_closed().await;
    assert_eq!((&event["delivery"], &event["responses_cut"]), (&"cut".into(), &1.into()));
    let explanation = event["explanation"].as_str().unwrap();
    assert!(explanation.contains("Responses that were not sent to their end: 1."), "{explanation}");
}

#[tokio::test]
async fn a_client_that_closes_its_half_after_the_request_is_answered() {
    let mut server = Serve::start(&[]).await;
    let mut stream = connect(server.address).await;
    request(&mut stream, "GET /delay/100").await;
    stream.shutdown().await.unwrap();
    let (received, end) = read_to_end(&mut stream).await;
    end.unwrap();
    assert_eq!(Response::parse(&received).unwrap().body, b"after 100 ms\n");
    assert_eq!(server.next_closed().await["ending"], "complete");
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_ends_with_close_notify() {
    let mut server = Serve::start(&[]).await;
    let mut stream = connect(server.address).await;
    request(&mut stream, "GET /close/100000").await;
    let (received, end) = read_to_end(&mut stream).await;
    end.unwrap();
    let response = Response::parse(&received).unwrap();
    assert!(!response.head.contains("content-length") && !response.head.contains("chunked"), "{}", response.head);
    assert_eq!(response.body.len(), 100_000);
    stream.shutdown().await.unwrap();
    assert_eq!(server.next_closed().await["ending"], "complete");
}

#[tokio::test]
async fn a_body_that_is_cut_is_reset_and_never_looks_complete() {
    let mut server = Serve::start(&[]).await;
    for length in [0, 1, 1000, 100_000, 3_000_000] {
        let mut stream = connect(server.address).await;
        request(&mut stream, &format!("GET /abort/{length}")).await;
        let (_, end) = read_to_end(&mut stream).await;
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset, "after {length} bytes");
        let event = server.next_closed().await;
        assert_eq!((&event["ending"], &event["sent"]), (&"aborted".into(), &false.into()));
    }
}

#[tokio::test]
async fn an_early_answer_arrives_whole_although_the_upload_pauses_and_goes_on() {
    const UPLOAD: usize = 1_000_000;
    let mut server = Serve::start(&[]).await;
    let mut stream = connect(server.address).await;
    let head = format!("POST /reject/300000 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {UPLOAD}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[0; UPLOAD / 2]).await.unwrap();
    stream.flush().await.unwrap();
    // Nothing reports this wait: a server that does not linger closes its socket during the pause.
    tokio::time::sleep(Duration::from_secs(3)).await;
    within(stream.write_all(&[0; UPLOAD / 2])).await.unwrap();
    within(stream.flush()).await.unwrap();

    let (received, end) = read_to_end(&mut stream).await;
    end.unwrap();
    let response = Response::parse(&received).unwrap();
    assert!(response.head.starts_with("http/1.1 413"), "{}", response.head);
    assert_eq!(response.body.len(), 300_000);
    stream.shutdown().await.unwrap();
    let event = server.next_closed().await;
    assert_eq!(event["ending"], "complete");
    assert!(event["discarded"].as_u64() > Some(UPLOAD as u64 / 2), "{event}");
}

#[tokio::test]
async fn bodies_are_echoed_and_counted() {
    let server = Serve::start(&[]).await;
    for (route, answer) in [("echo", "hello"), ("count", "5\n")] {
        let mut stream = connect(server.address).await;
        let post =
            format!("POST /{route} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
        stream.write_all(post.as_bytes()).await.unwrap();
        let (received, end) = read_to_end(&mut stream).await;
        end.unwrap();
        let body = String::from_utf8(Response::parse(&received).unwrap().body).unwrap();
        assert!(body.contains(answer), "{route}: {body:?}");
    }
}

#[tokio::test]
async fn a_quiet_server_sends_no_close_notify() {
    let mut server = Serve::start(&["--policy", "quiet"]).await;
    let mut stream = connect(server.address).await;
    request(&mut stream, "GET /close/10").await;
    let (received, end) = read_to_end(&mut stream).await;
    assert_eq!(Response::parse(&received).unwrap().body.len(), 10);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(server.next_closed().await["ending"], "quiet");
}

#[tokio::test]
async fn a_bidirectional_server_waits_for_the_client_until_the_close_timeout() {
    let mut server = Serve::start(&["--policy", "bidirectional", "--close-timeout", "200ms"]).await;
    let mut stream = connect(server.address).await;
    request(&mut stream, "GET /close/10").await;
    read_to_end(&mut stream).await.1.unwrap();
    let event = server.next_closed().await;
    assert_eq!((&event["ending"], &event["sent"]), (&"timed_out".into(), &true.into()));
    assert!(event["elapsed_ms"].as_f64() >= Some(200.0), "{event}");
    // The client has not closed. The server discards what it sends now.
    stream.write_all(b"late").await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn an_http2_client_that_does_not_speak_http2_is_closed_properly() {
    let mut server = Serve::start(&[]).await;
    let settings_without_preface = b"\0\0\0\x04\0\0\0\0\0";
    for first in [&b""[..], b"PRI * HT", settings_without_preface] {
        let tcp = TcpStream::connect(server.address).await.unwrap();
        let mut stream = handshake(tcp, "h2", Trust::TheCertificate).await.unwrap();
        stream.write_all(first).await.unwrap();
        if first != settings_without_preface {
            stream.shutdown().await.unwrap();
        }
        let (received, end) = read_to_end(&mut stream).await;
        end.unwrap();
        let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(received.windows(goaway.len()).any(|frame| frame == goaway), "{received:?}");
        stream.shutdown().await.unwrap();
        assert_eq!(server.next_closed().await["ending"], "complete");
    }
}
