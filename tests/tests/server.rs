//! What clients of a `Server` see, on every path by which a connection can end.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONNECTION, CONTENT_LENGTH, UPGRADE},
};
use hyper_util::rt::TokioIo;
use tls_shutdown::{
    Ending, Reaper, ReaperLimits,
    server::{ConnectionInfo, DrainPhase, Server, ServerDrain, TlsListener, Use},
};
use tls_shutdown_tests::serving::{
    Client, End, KnowsItsEnd, LONG, Running, ScriptedBody,
    Step::{self, Data, Fail, Panic, Stop, Trailers, Turn},
    answer,
    http2::{
        self, CONTINUATION, END_HEADERS, END_STREAM, GET, HEADERS, PADDED, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
        frame, get, goaways, hello, is_answered,
    },
    listener, offering, soon,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    task::yield_now,
};

type Answer = Result<Response<ScriptedBody>, io::Error>;

/// Bodies by path, and what else a service can do.
async fn routes(request: Request<Incoming>) -> Answer {
    let full = || Ok(Response::new(ScriptedBody::full(10)));
    let scripted = |steps: &[Step]| Ok(Response::new(ScriptedBody::new(steps)));
    let sized = |length: &'static str, steps: &[Step]| {
        let mut response = Response::new(ScriptedBody::new(steps));
        response.headers_mut().insert(CONTENT_LENGTH, length.parse().expect("a number"));
        Ok(response)
    };
    match request.uri().path() {
        "/fail" => Err(io::Error::other("no answer")),
        "/panic" => panic!("no answer"),
        "/never" => std::future::pending().await,
        "/stop" => scripted(&[Data(10), Stop]),
        "/body-panic" => scripted(&[Data(10), Turn, Panic]),
        "/body-fail" => scripted(&[Data(10), Turn, Fail]),
        "/chunks" => scripted(&[Data(10), Turn, Data(10)]),
        "/short" => sized("20", &[Data(10)]),
        "/long" => sized("10", &[Data(20)]),
        "/large" => Ok(Response::new(ScriptedBody::full(300_000))),
        "/many" => scripted(&[Data(15_000), Turn].repeat(20)),
        "/no-content" => {
            let mut response = Response::new(ScriptedBody::new(&[]));
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok(response)
        }
        "/not-modified" => {
            let mut response = Response::new(ScriptedBody::new(&[Data(10), Stop]));
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            Ok(response)
        }
        _ => full(),
    }
}

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

fn body_of(data: &[u8]) -> &[u8] {
    let head = data.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    &data[head + 4..]
}

#[tokio::test]
async fn what_is_cut_tells_so() {
    let mut running = Running::start(routes).await;
    for (path, version, expected) in [
        // Nothing of the answer is out.
        ("/fail", "1.1", End::CloseNotify),
        ("/fail", "1.0", End::CloseNotify),
        ("/panic", "1.1", End::CloseNotify),
        // The framing tells.
        ("/body-panic", "1.1", End::CloseNotify),
        ("/body-fail", "1.1", End::CloseNotify),
        ("/short", "1.1", End::CloseNotify),
        ("/short", "1.0", End::CloseNotify),
        // Only the end of the connection does.
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
    let server = |server: Server| server.http1(|http1| http1.header_read_timeout(Duration::from_millis(100)));
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
    // Idle after an answer.
    let mut client = Client::connect(running.address).await;
    client.ask("/").await;
    client.read_message().await;
    assert_eq!(client.read_to_end().await, (vec![], End::CloseNotify));
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
            for _ in 0..50 {
                yield_now().await;
            }
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
    let server = |server: Server| server.http1(|http1| http1.header_read_timeout(Duration::from_millis(50)));
    let listener = listener().await.with_reaper(&reaper);
    let mut running = Running::start_with(listener, server, |drain| drain, routes);
    let mut client = Client::connect(running.address).await;
    assert_eq!(client.read_to_end().await, (vec![], End::CloseNotify));
    drop(client);
    assert_eq!(running.end().await.ending(), Ending::Sent);
    running.signal();
    assert_eq!(running.report().await.left(), 0);
}

/// Every body kind against a server that is dropped at every turn of the runtime: a client that was told that a message is whole has
/// it whole.
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
                    for _ in 0..turns {
                        yield_now().await;
                    }
                    running.cut().await;
                    let (data, end) = client.read_to_end().await;
                    drop(client);
                    let report = running.end().await;
                    let case = format!("{steps:?} {knows_its_end:?} HTTP/{version} after {turns} turns: {report}");
                    let is_whole = match version {
                        _ if data.is_empty() => {
                            // Where nobody has served it yet, nobody has said anything.
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

/// The client does not read, so that bytes wait in the system, in rustls and in hyper when the server is dropped.
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
                for _ in 0..30 {
                    yield_now().await;
                }
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
async fn an_early_answer_arrives_whole() {
    let running = Running::start(|_| async { answer(ScriptedBody::full(300_000)) }).await;
    for _ in 0..10 {
        let mut client = Client::connect(running.address).await;
        let (mut reader, mut writer) = tokio::io::split(client.stream);
        let upload = tokio::spawn(async move {
            let _ = writer.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;
            let _ = writer.write_all(&vec![0; 1_000_000]).await;
            let _ = writer.flush().await;
            writer
        });
        let writer = soon(upload).await.expect("no panic");
        let mut head = vec![0; 1000];
        soon(reader.read_exact(&mut head)).await.expect("an answer");
        client = Client { stream: reader.unsplit(writer) };
        let (rest, end) = client.read_to_end().await;
        assert_eq!(end, End::CloseNotify);
        assert_eq!(body_of(&[head, rest].concat()).len(), 300_000);
    }
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

/// Upgrades to the protocol that the path names; the connection is dropped after a byte, or held.
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
            "read" => while stream.read_u8().await.is_ok() {},
            "discard" => while stream.read(&mut [0; 4096]).await.is_ok() {},
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
        assert_eq!((end.used_as(), end.responses_cut()), (Use::Upgraded, 0), "{path}");
    }
}

/// A tunnel, whose end may be the end of a message of somebody else.
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
    // What the limit for bodies would take for one that does not come.
    let short = |server: Server| server.stall_timeout(Duration::from_millis(50));
    let mut running = Running::start_with(listener().await, short, |drain| drain, tunnelling);
    for (port, expected) in [(1, End::CloseNotify), (2, End::Truncation)] {
        let mut client = Client::connect(running.address).await;
        client.send(format!("CONNECT a:{port} HTTP/1.1\r\nHost: a:{port}\r\n\r\n")).await;
        assert!(client.read_message().await.0.starts_with("http/1.1 200"));
        // It may be idle for as long as it likes.
        tokio::time::sleep(Duration::from_millis(200)).await;
        client.send("hello").await;
        assert_eq!(client.read_to_end().await, (b"hello".to_vec(), expected), "{port}");
        drop(client);
        let end = running.end().await;
        assert_eq!((end.used_as(), end.responses_cut()), (Use::Upgraded, 0), "{port}");
    }
}

#[tokio::test]
async fn upgraded_connections_have_no_more_time_at_the_deadline() {
    for path in ["/other/read", "/other/discard", "/other/write"] {
        let hasty = |drain: ServerDrain| drain.ack_timeout(Duration::ZERO);
        let mut running = Running::start_with(listener().await, |server| server, hasty, upgrading);
        let mut client = upgrade(&running, path).await;
        let drain = running.drain.clone();
        let client = tokio::spawn(async move {
            // Never a pause in what there is to read; where the task writes, its client reads nothing.
            while path.ends_with("discard") && client.stream.write_all(&[0; 4096]).await.is_ok() {}
            drain.reached(DrainPhase::Exit).await;
            client
        });
        // Until the writer waits for room.
        for _ in 0..2_000 {
            yield_now().await;
        }
        running.signal();
        running.force();
        assert_eq!(running.end().await.used_as(), Use::Upgraded, "{path}");
        let report = running.report().await;
        assert_eq!((report.left(), report.upgraded()), (0, 1), "{path}");
        soon(client).await.expect("no panic");
    }
}

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

#[tokio::test]
async fn requests_carry_the_clients_certificate() {
    use rustls::{RootCertStore, ServerConfig, crypto::ring::default_provider, server::WebPkiClientVerifier};
    use tls_shutdown_tests::certificate;
    let provider = Arc::new(default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificate().0).expect("a root");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider.clone())
        .build()
        .expect("a verifier");
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate().0], certificate().1)
        .expect("a certificate");
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate().0], certificate().1)
        .expect("a certificate");
    let listener = TlsListener::bind("127.0.0.1:0", config).await.expect("a free port");
    let service = |request: Request<Incoming>| async move {
        let info = request.extensions().get::<ConnectionInfo>().expect("known");
        assert_eq!(info.certificates(), [certificate().0]);
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
    client.send(frame(PING, 1, 0, &ping.payload)).await;
    let (frames, end) = client.frames_to_end().await;
    assert_eq!((goaways(&frames), end), (vec![0], End::CloseNotify));
    assert!(running.drain.is_ready());
}

// HTTP/2.

fn path(stream: u32, path: &str) -> Vec<u8> {
    let path = [&[0x04, u8::try_from(path.len()).expect("short")], path.as_bytes()].concat();
    let head = [&[0x82, 0x87], &path[..], &[0x41, 0x01, b'a']].concat();
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &head)
}

#[tokio::test]
async fn http2_that_is_dropped_is_told_what_is_cut() {
    let mut running = Running::start(routes).await;
    let mut client = Client::connect_http2(running.address).await;
    client.send([hello(), path(1, "/"), path(3, "/stop"), path(5, "/never")].concat()).await;
    let mut before = Vec::new();
    while !(is_answered(&before, 1) && before.iter().any(|frame| frame.stream == 3 && frame.kind == http2::DATA)) {
        before.push(client.next_frame().await.expect("a frame"));
    }
    running.cut().await;
    let (frames, end) = client.frames_to_end().await;
    let cancelled: Vec<_> = frames
        .iter()
        .filter(|frame| frame.kind == RST_STREAM)
        .map(|frame| (frame.stream, &frame.payload[..]))
        .collect();
    assert_eq!(cancelled, [(3, &[0, 0, 0, 8][..]), (5, &[0, 0, 0, 8])]);
    assert_eq!((goaways(&frames), end), (vec![5], End::CloseNotify));
    drop(client);
    let end = running.end().await;
    assert_eq!((end.requests(), end.responses_cut()), (3, 2));
}

#[tokio::test]
async fn http2_that_is_rubbish_ends_with_close_notify() {
    for rubbish in [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        [hello(), frame(http2::DATA, 0, 1, b"no stream")].concat(),
        [hello(), frame(PING, 0, 0, b"short")].concat(),
        [hello(), frame(HEADERS, END_HEADERS | END_STREAM, 2, GET)].concat(),
        [hello(), frame(HEADERS, 0, 1, GET), frame(PING, 0, 0, &[0; 8])].concat(),
        [hello(), [0xff; 100].to_vec()].concat(),
    ] {
        let mut running = Running::start(routes).await;
        let mut client = Client::connect_http2(running.address).await;
        client.send(&rubbish).await;
        let (_, end) = client.frames_to_end().await;
        drop(client);
        assert_eq!(end, End::CloseNotify, "{rubbish:?}");
        assert_eq!(running.end().await.responses_cut(), 0, "{rubbish:?}");
    }
}

#[tokio::test]
async fn http2_floods_end() {
    let continuations = |count| {
        let mut flood = [hello(), frame(HEADERS, END_STREAM, 1, GET)].concat();
        for _ in 0..count {
            // `x: y` each time, as a literal that is not indexed.
            flood.extend(frame(CONTINUATION, 0, 1, &[0, 1, b'x', 1, b'y'].repeat(2000)));
        }
        flood
    };
    let resets = {
        let mut flood = hello();
        for stream in (1..20_000).step_by(2) {
            flood.extend([get(stream), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat());
        }
        flood
    };
    for flood in [continuations(1000), resets] {
        let mut running = Running::start(routes).await;
        let mut client = Client::connect_http2(running.address).await;
        let _ = soon(client.stream.write_all(&flood)).await;
        let (data, end) = client.read_to_end().await;
        drop(client);
        assert_eq!(end, End::CloseNotify, "{}", data.len());
        running.end().await;
    }
    // PING is answered for as long as it comes, and a server that drains ends it all the same.
    let quick = |drain: ServerDrain| drain.ping_timeout(Duration::from_millis(50));
    let mut running = Running::start_with(listener().await, |server| server, quick, routes);
    let mut client = Client::connect_http2(running.address).await;
    client.send(hello()).await;
    client.frame_of(SETTINGS).await;
    let (mut reader, mut writer) = tokio::io::split(client.stream);
    let flood = tokio::spawn(async move {
        let pings = frame(PING, 0, 0, &[0; 8]).repeat(100);
        while writer.write_all(&pings).await.is_ok() && writer.flush().await.is_ok() {}
    });
    let read = tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        while matches!(reader.read(&mut buffer).await, Ok(1..)) {}
    });
    running.signal();
    soon(read).await.expect("no panic");
    flood.abort();
    running.end().await;
}

/// `:method: POST`, `:scheme: https`, `:path`, `content-length`, `:authority: a`.
fn post(stream: u32, path: &str, length: &str) -> Vec<u8> {
    let literal =
        |name: u8, value: &str| [&[name, u8::try_from(value.len()).expect("short")], value.as_bytes()].concat();
    let head =
        [vec![0x83, 0x87], literal(0x04, path), literal(0x41, "a"), [&[0x0f], &literal(0x0d, length)[..]].concat()];
    frame(HEADERS, END_HEADERS, stream, &head.concat())
}

//= https://www.rfc-editor.org/rfc/rfc9113#section-8.1.1
//# For malformed requests, a server MAY send an HTTP response prior to
//# closing or resetting the stream.
/// curl ends an upload that way once it has seen a status from 400 on. Only a part of the answer fits the first windows.
#[tokio::test]
async fn an_early_answer_over_http2_arrives_whole_though_the_upload_is_cut_short() {
    let mut running = Running::start(routes).await;
    for padding in [None, Some(0), Some(100)] {
        let mut client = Client::connect_http2(running.address).await;
        client.send([hello(), post(1, "/many", "1000000"), frame(http2::DATA, 0, 1, &[0; 1000])].concat()).await;
        client.frame_of(HEADERS).await;
        client.send(end_of_data(1, padding)).await;
        let more = 300_000_u32.to_be_bytes();
        client.send([frame(WINDOW_UPDATE, 0, 1, &more), frame(WINDOW_UPDATE, 0, 0, &more)].concat()).await;
        let mut body = 0;
        let end = loop {
            let frame = client.next_frame().await.expect("a frame");
            assert_ne!(frame.kind, RST_STREAM, "{frame:?} after {body} bytes");
            if frame.kind == http2::DATA {
                body += frame.payload.len();
                if frame.flags & END_STREAM != 0 {
                    break client.frame_of(RST_STREAM).await;
                }
            }
        };
        assert_eq!(body, 300_000, "{padding:?}");
        assert_eq!(end.payload, [0; 4], "the rest of the upload is not wanted, which is no error");
        // The connection is as good as before.
        client.send(path(3, "/")).await;
        assert_eq!(client.frame_of(http2::DATA).await.stream, 3);
        drop(client);
        let end = running.end().await;
        assert_eq!((end.requests(), end.responses_cut()), (2, 0));
    }
}

#[tokio::test]
async fn a_response_that_stands_still_is_reset_if_its_request_was_cut_short() {
    let running = Running::start(routes).await;
    let mut client = Client::connect_http2(running.address).await;
    client.send([hello(), post(1, "/stop", "1000000")].concat()).await;
    client.frame_of(HEADERS).await;
    client.send(end_of_data(1, None)).await;
    let end = client.frame_of(RST_STREAM).await;
    assert_eq!((end.stream, &end.payload[..]), (1, &[0, 0, 0, 1][..]), "PROTOCOL_ERROR");
    client.send(path(3, "/")).await;
    assert_eq!(client.frame_of(http2::DATA).await.stream, 3);
}

/// An empty DATA frame that ends its stream, padded or not.
fn end_of_data(stream: u32, padding: Option<u8>) -> Vec<u8> {
    match padding {
        None => frame(http2::DATA, END_STREAM, stream, &[]),
        Some(length) => {
            let payload = [vec![length], vec![0; usize::from(length)]].concat();
            frame(http2::DATA, END_STREAM | PADDED, stream, &payload)
        }
    }
}

#[tokio::test]
async fn http2_responses_that_the_service_cuts_are_counted() {
    for (failing, cut) in [("/fail", 1), ("/panic", 1), ("/body-fail", 1), ("/body-panic", 1), ("/", 0)] {
        let mut running = Running::start(routes).await;
        let mut client = Client::connect_http2(running.address).await;
        client.send([hello(), path(1, failing)].concat()).await;
        while client.next_frame().await.expect("a frame").stream != 1 {}
        client.send(path(3, "/")).await;
        while client.frame_of(http2::DATA).await.stream != 3 {}
        drop(client);
        let end = running.end().await;
        assert_eq!((end.requests(), end.responses_cut()), (2, cut), "{failing}");
    }
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

#[tokio::test]
async fn a_client_that_keeps_the_server_waiting_is_ended() {
    let short = |server: Server| server.stall_timeout(Duration::from_millis(500));
    let start = async || {
        Running::start_with(
            listener().await,
            short,
            |drain| drain,
            |request: Request<Incoming>| async move {
                match request.uri().path() {
                    "/huge" => answer(ScriptedBody::full(50_000_000)),
                    _ => {
                        let _ = http_body_util::BodyExt::collect(request.into_body()).await;
                        answer(ScriptedBody::full(10))
                    }
                }
            },
        )
    };
    // It takes nothing.
    let mut running = start().await;
    let mut client = Client::connect_narrow(running.address).await;
    client.ask("/").await;
    client.read_message().await;
    client.ask("/huge").await;
    let end = running.end().await;
    assert_eq!((end.ending(), end.requests(), end.responses_cut()), (Ending::TimedOut, 2, 1), "{end}");
    // It does not go on with its body.
    let mut client = Client::connect(running.address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n1234").await;
    // The service hears of it, and may answer.
    let (answer, end) = client.read_to_end().await;
    assert_eq!((body_of(&answer).len(), end), (10, End::CloseNotify));
    drop(client);
    assert_eq!(running.end().await.responses_cut(), 0);
    // A slow one is none of these.
    let mut client = Client::connect(running.address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n").await;
    for _ in 0..20 {
        // So it is slow.
        tokio::time::sleep(Duration::from_millis(40)).await;
        client.send("1").await;
    }
    assert_eq!(client.read_message().await.1.len(), 10);
    // It takes nothing by HTTP/2, whatever its windows allow.
    let mut client = Client::over(narrow(running.address, 4096).await, {
        let mut config = tls_shutdown_tests::client_config(&rustls::version::TLS13);
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    })
    .await;
    let windows =
        [frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]), frame(WINDOW_UPDATE, 0, 0, &[0x70, 0, 0, 0])];
    client.send([http2::PREFACE.to_vec(), windows.concat(), path(1, "/huge")].concat()).await;
    let end = running.end().await;
    assert_eq!((end.ending(), end.responses_cut()), (Ending::TimedOut, 1), "{end}");
}

/// It takes longer than the stall limit for what is in the buffers alone, but not for each piece of it.
#[tokio::test]
async fn a_client_that_reads_slowly_is_none_that_stalls() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_send_buffer_size(4096).expect("an option");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let listener = TlsListener::from_tcp(socket.listen(10).expect("a socket"), offering(&[]));
    // Small windows have pauses of their own.
    let limit = Duration::from_secs(1);
    let slow = |server: Server| server.stall_timeout(limit);
    let mut running =
        Running::start_with(listener, slow, |drain| drain, |_| async { answer(ScriptedBody::full(60_000)) });
    let config = tls_shutdown_tests::client_config(&rustls::version::TLS13);
    let mut client = Client::over(narrow(running.address, 8 * 1024).await, config).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let began = tokio::time::Instant::now();
    let mut data = Vec::new();
    let mut buffer = [0; 1000];
    loop {
        // So it is slow.
        tokio::time::sleep(Duration::from_millis(50)).await;
        match soon(client.stream.read(&mut buffer)).await.expect("not cut") {
            0 => break,
            amount => data.extend_from_slice(&buffer[..amount]),
        }
    }
    assert_eq!(body_of(&data).len(), 60_000);
    assert!(began.elapsed() > limit * 2);
    drop(client);
    assert_eq!(running.end().await.responses_cut(), 0);
}

/// It may still listen, and has to know what became of its requests.
#[tokio::test]
async fn an_http2_client_that_says_close_notify_hears_what_is_unanswered() {
    let mut running = Running::start(routes).await;
    let mut client = Client::connect_http2(running.address).await;
    client.send([hello(), path(1, "/never"), get(3)].concat()).await;
    while client.frame_of(http2::DATA).await.flags & END_STREAM == 0 {}
    client.stream.shutdown().await.expect("sent");
    let (frames, end) = client.frames_to_end().await;
    let reset: Vec<_> = frames.iter().filter(|frame| frame.kind == RST_STREAM).map(|frame| frame.stream).collect();
    assert_eq!((&reset[..], &goaways(&frames)[..], end), (&[1][..], &[3][..], End::CloseNotify));
    drop(client);
    let end = running.end().await;
    assert_eq!((end.ending(), end.requests(), end.responses_cut()), (Ending::Complete, 2, 1), "{end}");
}

//= https://www.rfc-editor.org/rfc/rfc9113#section-3.4
//# Clients and servers MUST treat an invalid connection preface as a
//# connection error (Section 5.4.1) of type PROTOCOL_ERROR.
#[tokio::test]
async fn an_invalid_preface_is_a_protocol_error() {
    let mut running = Running::start(routes).await;
    for preface in ["PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut client = Client::connect_http2(running.address).await;
        client.send(preface).await;
        let (frames, end) = client.frames_to_end().await;
        let goaway = frames.iter().find(|frame| frame.kind == http2::GOAWAY).expect("told");
        assert_eq!((&goaway.payload[..], end), (&[0, 0, 0, 0, 0, 0, 0, 1][..], End::CloseNotify));
        drop(client);
        running.end().await;
    }
}

/// The windows of HTTP/2 are the client's to open.
#[tokio::test]
async fn an_http2_client_that_lets_nothing_through_is_ended() {
    let limit = Duration::from_millis(500);
    let short = |server: Server| server.stall_timeout(limit / 5);
    let routes = |request: Request<Incoming>| async move {
        match request.uri().path() {
            "/never" => std::future::pending().await,
            _ => answer(ScriptedBody::full(100_000)),
        }
    };
    let mut running = Running::start_with(listener().await, short, |drain| drain, routes);
    // It reads, and answers PING.
    let mut client = Client::connect_http2(running.address).await;
    client.send([hello(), get(1), get(3)].concat()).await;
    let began = tokio::time::Instant::now();
    let (frames, end) = client.frames_to_end().await;
    assert!(began.elapsed() >= limit, "{:?}", began.elapsed());
    let reset: Vec<_> = frames.iter().filter(|frame| frame.kind == RST_STREAM).map(|frame| frame.stream).collect();
    assert_eq!((&reset[..], &goaways(&frames)[..], end), (&[1, 3][..], &[3][..], End::CloseNotify));
    let sent: usize = frames.iter().filter(|frame| frame.kind == http2::DATA).map(|frame| frame.payload.len()).sum();
    assert_eq!(sent, 65_535);
    drop(client);
    assert_eq!(running.end().await.responses_cut(), 2);

    // It takes several times the limit, but not without a byte.
    let mut client = Client::connect_http2(running.address).await;
    client.send([hello(), get(1)].concat()).await;
    let opens = |stream| frame(WINDOW_UPDATE, 0, stream, &3_500_u32.to_be_bytes());
    for _ in 0..10 {
        // So it is slow.
        tokio::time::sleep(limit / 4).await;
        client.send([opens(0), opens(1)].concat()).await;
    }
    while client.frame_of(http2::DATA).await.flags & END_STREAM == 0 {}
    // Neither is a connection ended on which something else waits for the server.
    client.send([path(3, "/never"), get(5)].concat()).await;
    tokio::time::sleep(limit * 2).await;
    client.send(frame(PING, 0, 0, &[7; 8])).await;
    while client.frame_of(PING).await.payload != [7; 8] {}
    drop(client);
    running.end().await;
}

async fn narrow(address: std::net::SocketAddr, buffer: u32) -> tokio::net::TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(buffer).expect("an option");
    soon(socket.connect(address)).await.expect("a server")
}

#[tokio::test]
async fn clients_that_reset_a_stream_have_not_lost_a_response() {
    let mut running = Running::start(routes).await;
    let mut client = Client::connect_http2(running.address).await;
    client.send([hello(), path(1, "/never"), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), path(3, "/")].concat()).await;
    while client.frame_of(http2::DATA).await.flags & END_STREAM == 0 {}
    running.cut().await;
    assert_eq!(client.frames_to_end().await.1, End::CloseNotify);
    drop(client);
    assert_eq!(running.end().await.responses_cut(), 0);
}
