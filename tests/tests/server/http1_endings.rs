//! How HTTP/1 connections end, on every path.

use std::{convert::Infallible, time::Duration};

use http_body_util::BodyExt;
use hyper::{
    Method, Request, Response,
    body::Incoming,
    header::{CONNECTION, HeaderValue},
};
use tls_shutdown::{
    Ending, Reaper, ReaperLimits,
    server::{Server, TlsListener},
};
use tls_shutdown_tests::{
    End,
    serving::{
        Client, KnowsItsEnd, Running, ScriptedBody,
        Step::{self, Data, Fail, Trailers, Turn},
        answer, body_of, listener, offering,
    },
    soon,
    time::turns,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};

use crate::routes::routes;

const SHORT: Duration = Duration::from_millis(100);
const CLOSE: &str = "Connection: close\r\n";

async fn exchange(running: &Running, method: &str, path: &str, version: &str, headers: &str) -> (Vec<u8>, End) {
    let mut client = Client::connect(running.address).await;
    client.send(format!("{method} {path} HTTP/{version}\r\nHost: localhost\r\n{headers}\r\n")).await;
    client.read_to_end().await
}

#[tokio::test]
async fn whole_answers_end_with_close_notify() {
    let mut running = Running::start(routes).await;
    for (method, path, version, body) in [
        ("GET", "/", "1.1", 10),
        ("GET", "/", "1.0", 10),
        ("GET", "/chunks", "1.0", 20),
        ("GET", "/large", "1.1", 300_000),
        ("HEAD", "/", "1.1", 0),
        ("HEAD", "/stop", "1.1", 0),
        ("HEAD", "/stop", "1.0", 0),
        ("GET", "/no-content", "1.1", 0),
        ("GET", "/not-modified", "1.1", 0),
        ("GET", "/not-modified", "1.0", 0),
        ("GET", "/long", "1.1", 10),
    ] {
        let (data, end) = exchange(&running, method, path, version, CLOSE).await;
        assert_eq!(end, End::CloseNotify, "{method} {path} {version}");
        assert_eq!(body_of(&data).len(), body, "{method} {path} {version}");
        let end = running.end().await;
        assert_eq!((end.requests(), end.responses_cut()), (1, 0), "{method} {path} {version}");
    }
}

#[tokio::test]
async fn what_is_cut_tells_so() {
    let mut running = Running::start(routes).await;
    for (path, version, expected) in [
        // Nothing of the answer was sent.
        ("/fail", "1.1", End::CloseNotify),
        ("/fail", "1.0", End::CloseNotify),
        ("/panic", "1.1", End::CloseNotify),
        // The framing shows the cut.
        ("/body-panic", "1.1", End::CloseNotify),
        ("/body-fail", "1.1", End::CloseNotify),
        ("/short", "1.1", End::CloseNotify),
        ("/short", "1.0", End::CloseNotify),
        // Only the end of the connection shows it.
        ("/body-panic", "1.0", End::Reset),
        ("/body-fail", "1.0", End::Reset),
    ] {
        let (data, end) = exchange(&running, "GET", path, version, "").await;
        assert_eq!(end, expected, "{path} {version}");
        assert!(!data.ends_with(b"0\r\n\r\n"), "{path} {version}");
        assert_eq!(running.end().await.responses_cut(), 1, "{path} {version}");
    }
}

#[tokio::test]
async fn what_is_no_request_ends_with_close_notify() {
    let server = |server: Server| server.header_timeout(SHORT).idle_timeout(SHORT);
    let mut running = Running::start_with(listener().await, server, |drain| drain, routes);
    for (sent, received) in [("", ""), ("GET / HT", ""), ("rubbish\r\n\r\n", "HTTP/1.1 400 Bad Request")] {
        let mut client = Client::connect(running.address).await;
        client.send(sent).await;
        let (data, end) = client.read_to_end().await;
        assert_eq!(end, End::CloseNotify, "{sent:?}");
        drop(client);
        assert!(String::from_utf8_lossy(&data).starts_with(received), "{sent:?}");
        assert_eq!(running.end().await.responses_cut(), 0);
    }
    // The client is idle after an answer.
    let mut client = Client::connect(running.address).await;
    client.ask("/").await;
    client.read_message().await;
    assert_eq!(client.read_to_end().await, (vec![], End::CloseNotify));
}

//= https://www.rfc-editor.org/rfc/rfc9112#section-9.6
//# A sender SHOULD send a Connection header field (Section 7.6.1 of
//# [HTTP]) containing the "close" connection option when it intends to
//# close a connection.
/// hyper answers these requests itself. No handler and no layer sees them.
#[tokio::test]
async fn hypers_own_answers_say_that_the_connection_ends() {
    let mut running = Running::start(routes).await;
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(66_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(101));
    for (sent, status) in [("rubbish\r\n\r\n", "400 Bad Request"), (&long, "414 URI Too Long"), (&many, "431 ")] {
        let mut client = Client::connect(running.address).await;
        client.send(sent).await;
        let (answer, end) = client.read_to_end().await;
        let answer = String::from_utf8_lossy(&answer).to_lowercase();
        assert!(answer.starts_with(&format!("http/1.1 {}", status.to_lowercase())), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        assert_eq!(end, End::CloseNotify, "{status}");
        drop(client);
        assert_eq!(running.end().await.responses_cut(), 0, "{status}");
    }
}

/// A client of HTTP/1.0 may look for `keep-alive` alone.
#[tokio::test]
async fn a_service_that_closes_says_nothing_else_to_http_1_0() {
    let answer = |_| async {
        let mut response = Response::new(ScriptedBody::full(10));
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        Ok::<_, Infallible>(response)
    };
    let running = Running::start(answer).await;
    let (data, end) = exchange(&running, "GET", "/", "1.0", "Connection: keep-alive\r\n").await;
    let answer = String::from_utf8_lossy(&data).to_ascii_lowercase();
    assert!(answer.starts_with("http/1.0 200") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert_eq!((body_of(&data).len(), end), (10, End::CloseNotify));
}

#[tokio::test]
async fn a_server_that_is_dropped_tells_the_truth() {
    for (path, version, is_body, expected, cut) in [
        ("/", "1.1", true, End::CloseNotify, 0),
        ("/never", "1.1", false, End::CloseNotify, 1),
        ("/stop", "1.1", true, End::CloseNotify, 1),
        ("/stop", "1.0", true, End::Reset, 1),
    ] {
        let mut running = Running::start(routes).await;
        let mut client = Client::connect(running.address).await;
        client.send(format!("GET {path} HTTP/{version}\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")).await;
        if is_body {
            let mut head = Vec::new();
            while !head.ends_with(b"xxxxxxxxxx") {
                head.push(soon(client.stream.read_u8()).await.expect("an answer"));
            }
        } else {
            turns(50).await;
        }
        running.cut().await;
        let (rest, end) = client.read_to_end().await;
        drop(client);
        assert_eq!(end, expected, "{path} {version} {}", String::from_utf8_lossy(&rest));
        assert_eq!(running.end().await.responses_cut(), cut, "{path} {version}");
    }
}

#[test]
fn a_runtime_that_is_dropped_still_says_close_notify() {
    let server = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut running = server.block_on(Running::start(routes));
    let mut idle = client.block_on(Client::connect(running.address));
    client.block_on(async {
        idle.ask("/").await;
        idle.read_message().await;
    });
    server.shutdown_background();
    assert_eq!(client.block_on(idle.read_to_end()), (vec![], End::CloseNotify));
    assert_eq!(client.block_on(running.end()).requests(), 1);
}

#[tokio::test]
async fn a_reaper_that_takes_nothing_still_lets_close_notify_out() {
    let reaper = Reaper::with_limits(ReaperLimits::new().with_max_closings(0));
    let server = |server: Server| server.idle_timeout(SHORT);
    let listener = listener().await.with_reaper(&reaper);
    let mut running = Running::start_with(listener, server, |drain| drain, routes);
    let mut client = Client::connect(running.address).await;
    assert_eq!(client.read_to_end().await, (vec![], End::CloseNotify));
    drop(client);
    assert_eq!(running.end().await.ending(), Ending::Sent);
    running.signal();
    assert_eq!(running.report().await.left(), 0);
}

/// Every kind of body, and a server that is dropped after every turn of the runtime. A client that sees the end of a message has all of
/// it.
#[tokio::test]
async fn close_notify_is_never_a_lie_whenever_the_server_is_dropped() {
    const BODIES: [&[Step]; 9] = [
        &[],
        &[Data(1)],
        &[Data(3), Data(3)],
        &[Data(3), Turn, Data(3)],
        &[Turn, Data(3), Turn, Turn, Data(3), Turn],
        &[Data(100_000)],
        &[Data(20_000), Turn, Data(20_000)],
        &[Data(3), Turn, Trailers],
        &[Data(3), Turn, Fail],
    ];
    let (mut whole, mut cut) = (0, 0);
    for steps in BODIES {
        for knows_its_end in [KnowsItsEnd::Yes, KnowsItsEnd::No] {
            for version in ["1.0", "1.1"] {
                let length: usize = steps.iter().map(|step| if let Data(length) = step { *length } else { 0 }).sum();
                for turns in 0..24 {
                    let mut running = Running::start(move |_| async move {
                        answer(ScriptedBody::new(steps).knows_its_end(knows_its_end))
                    })
                    .await;
                    let mut client = Client::connect(running.address).await;
                    client.send(format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n")).await;
                    tls_shutdown_tests::time::turns(turns).await;
                    running.cut().await;
                    let (data, end) = client.read_to_end().await;
                    drop(client);
                    let report = running.end().await;
                    let case = format!("{steps:?} {knows_its_end:?} HTTP/{version} after {turns} turns: {report}");
                    let is_whole = match version {
                        _ if data.is_empty() => {
                            // Only a connection that was not served yet may end without close_notify.
                            assert!(end != End::Truncation || report.requests() == 0, "{case}");
                            continue;
                        }
                        "1.0" => body_of(&data).len() == length && !steps.contains(&Fail),
                        _ => data.ends_with(b"\r\n0\r\n\r\n") || data.ends_with(b"content-length: 0\r\n\r\n"),
                    };
                    match (end, version) {
                        (End::CloseNotify, "1.0") => assert!(is_whole, "{case}"),
                        (End::CloseNotify, _) => {}
                        (_, "1.0") => assert_eq!(report.responses_cut(), 1, "{case}"),
                        _ => panic!("{case}: {end:?}"),
                    }
                    if report.responses_cut() == 0 && report.requests() == 1 {
                        assert!(end == End::CloseNotify && (is_whole || version == "1.1"), "{case}");
                    }
                    if is_whole { whole += 1 } else { cut += 1 }
                }
            }
        }
    }
    assert!(whole > 50 && cut > 10, "{whole} whole, {cut} cut");
}

/// The client does not read. When the server is dropped, bytes wait in the system, in rustls and in hyper.
#[tokio::test]
async fn close_notify_is_never_a_lie_wherever_the_bytes_wait() {
    for length in [20_000, 200_000, 1_000_000] {
        for pieces in [1, 50] {
            for read in [0, 20_000] {
                let socket = TcpSocket::new_v4().expect("a socket");
                socket.set_send_buffer_size(16 * 1024).expect("an option");
                socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
                let listener = TlsListener::from_tcp(socket.listen(1).expect("a socket"), offering(&[]));
                let service = move |_| async move { answer(ScriptedBody::new(&vec![Data(length / pieces); pieces])) };
                let mut running = Running::start_with(listener, |server| server, |drain| drain, service);
                let mut client = Client::connect_narrow(running.address).await;
                client.send("GET / HTTP/1.0\r\n\r\n").await;
                let mut first = vec![0; read + 1];
                soon(client.stream.read_exact(&mut first)).await.expect("an answer");
                turns(30).await;
                running.cut().await;
                let (rest, end) = client.read_to_end().await;
                drop(client);
                let data = [first, rest].concat();
                let is_whole = body_of(&data).len() == length;
                let case = format!("{length} {pieces} {read}: {}", running.end().await);
                match end {
                    End::CloseNotify => assert!(is_whole, "{case}"),
                    end => assert_eq!(end, End::Reset, "{case}"),
                }
            }
        }
    }
}

/// hyper reads nothing behind a body that it cannot read to its end, and its connection ends with the response. A response before that does
/// not say so.
#[tokio::test]
async fn a_response_to_a_request_that_fails_says_that_the_connection_ends() {
    let read = |request: Request<Incoming>| async {
        let has_broken_body = request.method() == Method::POST;
        assert_eq!(request.into_body().collect().await.is_err(), has_broken_body);
        answer(ScriptedBody::full(10))
    };
    let server = |server: Server| server.stall_timeout(SHORT);
    let running = Running::start_with(listener().await, server, |drain| drain, read);
    for body in ["Content-Length: 5\r\n\r\nhel", "Transfer-Encoding: chunked\r\n\r\nno chunk\r\n"] {
        let mut client = Client::connect(running.address).await;
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nHost: localhost\r\n{body}")).await;
        let (head, _) = client.read_message().await;
        assert!(!head.contains("connection: close"), "{head}");
        client.is_answered_last("xxxxxxxxxx").await;
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let mut running = Running::start(routes).await;
    let mut client = Client::connect(running.address).await;
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20) + "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    let (data, end) = client.read_to_end().await;
    assert_eq!(end, End::CloseNotify);
    assert_eq!(String::from_utf8_lossy(&data).matches("200 OK").count(), 21);
    assert_eq!(running.end().await.requests(), 21);
}

#[tokio::test]
async fn a_client_that_closes_its_half_first_is_answered() {
    let mut running = Running::start(|_| async { answer(ScriptedBody::new(&[Turn, Turn, Data(10)])) }).await;
    let mut client = Client::connect(running.address).await;
    client.ask("/").await;
    client.stream.shutdown().await.expect("sent");
    let (data, end) = client.read_to_end().await;
    assert_eq!(end, End::CloseNotify);
    assert!(data.ends_with(b"0\r\n\r\n"));
    assert_eq!(running.end().await.ending(), Ending::Complete);
}

#[tokio::test]
async fn a_client_that_is_gone_is_not_served_on() {
    for (path, is_reset) in [("/never", false), ("/never", true), ("/stop", false), ("/stop", true)] {
        let mut running = Running::start(routes).await;
        let mut client = Client::connect(running.address).await;
        client.ask("/").await;
        client.read_message().await;
        client.ask(path).await;
        if path == "/stop" {
            soon(client.stream.read_u8()).await.expect("an answer");
        }
        if is_reset {
            client.stream.get_ref().0.set_zero_linger().expect("an option");
        }
        drop(client);
        let end = running.end().await;
        assert!(matches!(end.ending(), Ending::Truncated | Ending::Reset), "{path}: {end}");
        assert_eq!((end.requests(), end.responses_cut()), (2, 1), "{path}");
    }
}
