//! Connections without TLS: the guarantees that need none. What a drain does with them is in `ways_to_serve`.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::BodyExt;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use tls_shutdown::{
    Ending,
    server::{
        ConnectionInfo, ConnectionReport, DrainPhase, Peer, ResponseDelivery, Server, ServerDrain, TlsListener,
        Transport, UnixSocket,
    },
};
use tls_shutdown_tests::{
    End,
    serving::{
        Client, ClientStream, Running, ScriptedBody,
        Step::{Data, Turn},
        answer, body_of,
        http2::{DATA, GOAWAY, get, hello, is_answered},
        listener, narrow_socket, offering, socket_path,
    },
    soon,
    time::{pass_time, turns},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::Notify,
};

use crate::routes::routes;

/// A window for last requests.
const WINDOW: Duration = Duration::from_millis(200);

async fn plain_listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

async fn start() -> Running {
    start_with(|server| server).await
}

async fn start_with(server: impl FnOnce(Server) -> Server) -> Running {
    let (listener, address) = plain_listener().await;
    Running::start_server(server(Server::new(listener)), address, |drain| drain, routes)
}

fn facts(report: &ConnectionReport) -> (Ending, bool, bool, u64, u64) {
    let shutdown = report.shutdown();
    (report.ending(), shutdown.sent(), shutdown.received(), report.requests(), report.responses_cut())
}

#[tokio::test]
async fn a_client_that_leaves_between_two_messages_has_ended_in_order() {
    let mut running = start().await;
    for requests in 0..3 {
        let mut client = Client::connect_plain(running.address).await;
        for _ in 0..requests {
            client.ask("/").await;
            client.read_message().await;
        }
        let address = client.stream.local_addr().expect("an address");
        drop(client);
        let end = running.end().await;
        assert_eq!(facts(&end), (Ending::Complete, true, true, requests, 0));
        assert_eq!((end.peer(), end.transport()), (Peer::Address(address), Transport::Tcp));
        assert!(end.handshake_finished() && end.to_string().contains("complete: FIN sent, received"), "{end}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_within_a_message_is_truncated() {
    let (listener, address) = plain_listener().await;
    let service = |request: Request<Incoming>| async move {
        let body = request.into_body().collect().await;
        assert!(body.is_err(), "half a body");
        answer(ScriptedBody::full(1))
    };
    let mut running = Running::start_server(Server::new(listener), address, |drain| drain, service);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf.";
    let half_a_frame = [&hello()[..], &get(1)[..12]].concat();
    for sent in [&head.as_bytes()[..20], head.as_bytes(), &half_a_frame, &hello()[..10]] {
        let mut client = Client::connect_plain(running.address).await;
        client.send(sent).await;
        client.stream.shutdown().await.expect("sent");
        let _ = client.read_to_end().await;
        drop(client);
        let end = running.end().await;
        assert_eq!((end.ending(), end.shutdown().received()), (Ending::Truncated, false), "{end}");
    }
}

#[tokio::test]
async fn a_client_that_resets_is_told_so() {
    let mut running = start().await;
    let mut client = Client::connect_plain(running.address).await;
    client.ask("/").await;
    client.read_message().await;
    client.stream.set_zero_linger().expect("an option");
    drop(client);
    assert_eq!(running.end().await.ending(), Ending::Reset);
}

/// A bare hyper server ends each of these with FIN, as if it were whole.
#[tokio::test]
async fn a_cut_response_that_ends_with_the_connection_is_reset() {
    let mut running = start().await;
    for (path, version, expected) in [
        ("/body-fail", "1.0", End::Reset),
        ("/body-panic", "1.0", End::Reset),
        // The framing shows the cut.
        ("/body-fail", "1.1", End::Fin),
        ("/short", "1.0", End::Fin),
        // Nothing of the response was sent.
        ("/fail", "1.0", End::Fin),
        ("/panic", "1.1", End::Fin),
    ] {
        let mut client = Client::connect_plain(running.address).await;
        client.send(format!("GET {path} HTTP/{version}\r\nHost: a\r\n\r\n")).await;
        let (data, end) = client.read_to_end().await;
        drop(client);
        assert_eq!(end, expected, "{path} {version}");
        assert!(!data.ends_with(b"0\r\n\r\n"), "{path} {version}");
        let report = running.end().await;
        assert_eq!((report.requests(), report.responses_cut()), (1, 1), "{path} {version}");
        if expected == End::Reset {
            assert_eq!(report.ending(), Ending::Aborted, "{report}");
        }
    }
    // A whole one ends with FIN.
    let mut client = Client::connect_plain(running.address).await;
    client.send("GET /chunks HTTP/1.0\r\n\r\n").await;
    let (data, end) = client.read_to_end().await;
    assert_eq!((body_of(&data).len(), end), (20, End::Fin));

    let address = bare_hyper(routes).await;
    let mut client = Client::connect_plain(address).await;
    client.send("GET /body-fail HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.read_to_end().await.1, End::Fin, "the control lies");
}

/// hyper alone, over TCP.
async fn bare_hyper<F, R>(service: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = crate::routes::Answer> + Send + 'static,
{
    let (listener, address) = plain_listener().await;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let service = hyper::service::service_fn(service.clone());
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service);
            tokio::spawn(async move { drop(connection.await) });
        }
    });
    address
}

/// Without a linger, the rest of the upload resets the connection, and destroys the answer on its way.
#[tokio::test]
async fn an_early_answer_arrives_whole_without_tls() {
    const UPLOAD: usize = 3_000_000;
    let upload = |address| async move {
        let mut client = Client { stream: narrow_socket(address, 4096).await };
        client.send(format!("POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: {UPLOAD}\r\n\r\n")).await;
        // The client reads only after it has sent everything, or has failed to.
        let _ = client.stream.write_all(&vec![b'.'; UPLOAD]).await;
        let mut data = Vec::new();
        let read = soon(client.stream.read_to_end(&mut data)).await;
        read.is_ok() && data.windows(4).any(|bytes| bytes == b"\r\n\r\n") && body_of(&data).len() == 300_000
    };
    let mut running = start().await;
    for _ in 0..5 {
        assert!(upload(running.address).await);
        let end = running.end().await;
        assert_eq!((end.requests(), end.responses_cut()), (1, 0), "{end}");
    }
    let control = bare_hyper(routes).await;
    let mut lost = 0;
    for _ in 0..5 {
        lost += u32::from(!upload(control).await);
    }
    assert!(lost > 0, "the control loses nothing");
}

#[tokio::test]
async fn a_client_that_closes_its_half_is_answered_without_tls() {
    let (listener, address) = plain_listener().await;
    let gate = Arc::new(Notify::new());
    let opened = gate.clone();
    let service = move |_| {
        let opened = opened.clone();
        async move {
            opened.notified().await;
            answer(ScriptedBody::new(&[Turn, Turn, Data(10)]))
        }
    };
    let mut running = Running::start_server(Server::new(listener), address, |drain| drain, service);
    let mut client = Client::connect_plain(running.address).await;
    client.ask("/").await;
    client.stream.shutdown().await.expect("sent");
    // The server reads it meanwhile.
    turns(100).await;
    gate.notify_one();
    let (data, end) = client.read_to_end().await;
    assert!(data.ends_with(b"0\r\n\r\n") && end == End::Fin);
    // It could as well have left.
    let end = running.end().await;
    assert_eq!(facts(&end), (Ending::Sent, true, true, 1, 0));
    assert_eq!(end.delivery(), ResponseDelivery::Sent);
    let http2 = [&hello()[..], &get(1)].concat();
    for request in [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &http2[..]] {
        for wait in [0, 20] {
            let mut client = Client::connect_plain(running.address).await;
            client.send(request).await;
            turns(wait).await;
            drop(client);
            turns(100).await;
            gate.notify_one();
            let end = running.end().await;
            assert_ne!(end.delivery(), ResponseDelivery::Delivered, "nobody has read it: {end}");
        }
    }
}

/// FIN does not show whether the client has left. Where no client closes its half, hyper may take it so.
#[tokio::test]
async fn a_client_that_has_left_is_not_served_on_without_half_closes() {
    let mut running = start_with(|server| server.http1(|http1| http1.half_close(false))).await;
    for path in ["/never", "/stop"] {
        let mut client = Client::connect_plain(running.address).await;
        client.ask(path).await;
        if path == "/stop" {
            soon(client.stream.read_u8()).await.expect("a response");
        } else {
            turns(50).await;
        }
        drop(client);
        let end = running.end().await;
        assert_eq!((end.requests(), end.responses_cut()), (1, 1), "{path}: {end}");
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_ended_without_tls() {
    let mut running = start_with(|server| server.stall_timeout(Duration::from_secs(1))).await;
    let mut client = Client { stream: narrow_socket(running.address, 4096).await };
    client.send("GET /huge HTTP/1.1\r\nHost: a\r\n\r\n").await;
    turns(100).await;
    pass_time(Duration::from_secs(3)).await;
    let end = running.end().await;
    assert_eq!((end.ending(), end.responses_cut()), (Ending::TimedOut, 1), "{end}");
}

#[tokio::test]
async fn an_idle_connection_ends_with_fin() {
    let mut running = start_with(|server| server.idle_timeout(Duration::from_secs(1))).await;
    let mut client = Client::connect_plain(running.address).await;
    client.ask("/").await;
    client.read_message().await;
    pass_time(Duration::from_secs(2)).await;
    assert_eq!(client.read_to_end().await, (vec![], End::Fin));
    drop(client);
    assert_eq!(facts(&running.end().await), (Ending::Complete, true, true, 1, 0));
}

async fn half_a_head_is_a_request<S: ClientStream>(mut client: Client<S>, mut running: Running) {
    client.send("GET / HTTP/1.1\r\nHo").await;
    turns(20).await;
    running.signal();
    soon(running.drain.reached(DrainPhase::LastRequest)).await;
    // Past the end of the window.
    pass_time(WINDOW * 2).await;
    client.send("st: a\r\n\r\n").await;
    assert!(client.read_message().await.0.contains("connection: close"));
    assert_eq!(client.read_to_end().await, (vec![], End::Fin));
    drop(client);
    let report = running.report().await;
    assert_eq!((report.requests(), report.responses_cut(), report.count(Ending::Complete)), (1, 0, 1), "{report}");
}

#[tokio::test]
async fn half_a_head_in_the_window_is_a_request_without_tls() {
    let (tcp, address) = plain_listener().await;
    let drain = |drain: ServerDrain| drain.last_request(WINDOW);
    let running = Running::start_server(Server::new(tcp), address, drain, routes);
    half_a_head_is_a_request(Client::connect_plain(address).await, running).await;
    let path = socket_path();
    let unix = UnixSocket::bind(&path).await.expect("a free path");
    let running = Running::start_server(Server::new(unix), address, drain, routes);
    let client = Client { stream: UnixStream::connect(&path).await.expect("a server") };
    half_a_head_is_a_request(client, running).await;
}

/// The client's preface shows HTTP/2, with TLS and without, wherever its bytes are cut.
#[tokio::test]
async fn the_first_bytes_choose_the_protocol() {
    let mut plain = start().await;
    for cut in [0, 1, 2, 3, 10, 24] {
        let mut client = Client::connect_plain(plain.address).await;
        let sent = [&hello()[..], &get(1)].concat();
        client.stream.set_nodelay(true).expect("an option");
        client.send(&sent[..cut]).await;
        turns(20).await;
        client.send(&sent[cut..]).await;
        client.stream.shutdown().await.expect("sent");
        let (received, end) = client.frames_to_end().await;
        assert!(is_answered(&received, 1) && end == End::Fin, "{cut}: {received:?}");
        assert_eq!(plain.end().await.requests(), 1, "{cut}");
    }
    for method in ["P", "PUT", "PROPFIND", "GET"] {
        let mut client = Client::connect_plain(plain.address).await;
        client.send(&method[..1]).await;
        turns(20).await;
        client.send(format!("{} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", &method[1..])).await;
        assert!(client.read_message().await.0.starts_with("http/1.1 200"), "{method}");
        drop(client);
        plain.end().await;
    }

    let listener = TlsListener::bind("127.0.0.1:0", offering(&[])).await.expect("a free port");
    let mut tls = Running::start_with(listener, |server| server, |drain| drain, routes);
    for cut in [0, 1, 2, 3] {
        let mut client = Client::connect(tls.address).await;
        let sent = [&hello()[..], &get(1)].concat();
        client.send(&sent[..cut]).await;
        turns(20).await;
        client.send(&sent[cut..]).await;
        client.stream.shutdown().await.expect("sent");
        let (received, end) = client.frames_to_end().await;
        assert!(is_answered(&received, 1) && end == End::CloseNotify, "{cut}: {received:?}");
        assert_eq!(tls.end().await.requests(), 1, "{cut}");
    }
}

/// What a request knows of a connection without TLS.
#[tokio::test]
async fn requests_know_their_connection_without_tls() {
    let (listener, address) = plain_listener().await;
    let server = Server::new(listener).connect_info(|stream| stream.tcp().and_then(|tcp| tcp.local_addr().ok()));
    let service = move |request: Request<Incoming>| async move {
        let info: &ConnectionInfo = request.extensions().get().expect("every request has it");
        assert_eq!((info.transport(), info.protocol(), info.server_name()), (Transport::Tcp, None, None));
        assert!(info.certificates().is_empty() && info.peer().address().is_some());
        let peer = request.extensions().get::<axum::extract::ConnectInfo<SocketAddr>>();
        assert_eq!(info.peer(), peer.expect("for axum").0);
        let tonic = request.extensions().get::<tonic::transport::server::TcpConnectInfo>().expect("for tonic");
        assert_eq!((tonic.remote_addr(), tonic.local_addr()), (info.peer().address(), Some(address)));
        assert_eq!(request.extensions().get::<SocketAddr>(), Some(&address));
        Ok::<_, Infallible>(Response::new(ScriptedBody::full(1)))
    };
    let mut running = Running::start_server(server, address, |drain| drain, service);
    let mut client = Client::connect_plain(running.address).await;
    client.ask("/").await;
    assert!(client.read_message().await.0.starts_with("http/1.1 200"));
    drop(client);
    assert_eq!(running.end().await.responses_cut(), 0);
}

/// Reads to the end, and closes.
async fn end_of<S: ClientStream>(mut client: Client<S>, expected: End) -> (String, End, End) {
    let (text, end) = client.read_to_end_and_close().await;
    (text, end, expected)
}

/// One server, every socket: all of them stop with one drain.
#[tokio::test]
async fn one_drain_ends_every_socket() {
    let (tcp, plain) = plain_listener().await;
    let tls = listener().await;
    let path = socket_path();
    let unix = UnixSocket::bind(&path).await.expect("a free path");
    let address = tls.local_addr().expect("an address");
    let server = Server::new(tls).add_listener(tcp).add_listener(unix);
    let mut running = Running::start_server(server, address, |drain| drain, routes);
    let mut over_tls = Client::connect(address).await;
    let mut over_tcp = Client::connect_plain(plain).await;
    let mut prior_knowledge = Client::connect_plain(plain).await;
    let mut over_unix = Client { stream: UnixStream::connect(&path).await.expect("a server") };
    over_tls.ask("/").await;
    over_tls.read_message().await;
    over_tcp.ask("/").await;
    over_tcp.read_message().await;
    over_unix.ask("/").await;
    over_unix.read_message().await;
    prior_knowledge.send([&hello()[..], &get(1)].concat()).await;
    prior_knowledge.frame_of(DATA).await;
    running.signal();
    soon(running.drain.reached(DrainPhase::LastRequest)).await;
    // Each has its window.
    over_tls.ask("/").await;
    over_tcp.ask("/").await;
    over_unix.ask("/").await;
    for (text, end, expected) in
        [end_of(over_tls, End::CloseNotify).await, end_of(over_tcp, End::Fin).await, end_of(over_unix, End::Fin).await]
    {
        assert!(text.contains("connection: close") && end == expected, "{end:?}: {text}");
    }
    assert_eq!(prior_knowledge.frame_of(GOAWAY).await.payload[..4], [0x7f, 0xff, 0xff, 0xff]);
    drop(prior_knowledge);
    let report = running.report().await;
    assert_eq!((report.connections(), report.responses_cut(), report.left()), (4, 0, 0), "{report}");
    assert!(!path.exists());
    assert!(TcpStream::connect(plain).await.is_err());
}
