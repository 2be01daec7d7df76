//! The examples of servers.

use std::{io::ErrorKind, net::TcpListener, time::Duration};

use bytes::Bytes;
use command_fds::{CommandFdExt, FdMapping};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, sink},
    net::{TcpStream, UnixDatagram},
    process::Command,
    time::Instant,
};

use crate::harness::{Example, file, run, within};

#[tokio::test]
async fn the_client_is_served_and_both_sides_end_completely() {
    let server = Example::start(env!("CARGO_BIN_EXE_server"), "server.pem").await;
    for _ in 0..2 {
        let mut client = Command::new(env!("CARGO_BIN_EXE_client"));
        let printed = run(client.arg(&server.address).arg(&server.cert)).await;
        assert!(printed.contains("200 OK") && printed.contains("1000000 bytes"), "{printed}");
        assert!(printed.contains("complete: close_notify sent, received"), "{printed}");
    }
    let mut idle = server.client(None).connect().await;
    assert_eq!(idle.get("/ready").await.body, "ready\n");
    server.signal(Signal::TERM);
    idle.wait_for_close().await;
    let printed = server.wait_for_exit().await;
    assert_eq!(printed.matches(" complete: close_notify sent, received").count(), 3, "{printed}");
    assert!(printed.contains("drained in ") && printed.contains("1 complete"), "{printed}");
}

/// The health port answers during the notice, and both sockets end in one drain.
#[tokio::test]
async fn a_health_port_without_tls_ends_in_the_drain_of_https() {
    let mut server = Example::start(env!("CARGO_BIN_EXE_plain"), "plain.pem").await;
    let line = server.next_line().await;
    let address = line.trim().strip_prefix("health on http://").and_then(|line| line.strip_suffix("/health")).unwrap();
    let mut idle = server.client(Some("http/1.1")).connect().await;
    assert_eq!(idle.get("/").await.body, "hello\n");
    let probe = async || {
        let mut tcp = within(TcpStream::connect(address)).await.unwrap();
        within(tcp.write_all(b"GET /health HTTP/1.0\r\n\r\n")).await.unwrap();
        let mut answer = String::new();
        within(tcp.read_to_string(&mut answer)).await.unwrap();
        answer
    };
    assert!(probe().await.starts_with("HTTP/1.0 200"));
    server.signal(Signal::TERM);
    while probe().await.starts_with("HTTP/1.0 200") {}
    assert!(probe().await.starts_with("HTTP/1.0 503"));
    idle.wait_for_close().await;
    let printed = server.wait_for_exit().await;
    assert!(printed.contains("complete: FIN sent, received") && printed.contains("drained in "), "{printed}");
}

#[tokio::test]
async fn queued_jobs_are_done_before_the_exit() {
    let server = Example::start(env!("CARGO_BIN_EXE_worker"), "worker.pem").await;
    let mut client = server.client(Some("http/1.1")).connect().await;
    for job in ["first", "second", "third"] {
        let head = format!("POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", job.len());
        client.send(&[&head, job].concat()).await;
        assert_eq!(client.response().await.body, "queued\n");
    }
    server.signal(Signal::TERM);
    client.wait_for_close().await;
    let printed = server.wait_for_exit().await;
    let order = ["done: first", "done: second", "done: third", "drained in "].map(|line| printed.find(line));
    assert!(order.is_sorted() && order[0].is_some(), "{printed}");
}

#[tokio::test]
async fn axum_serve_announces_the_close_and_closes() {
    let server = Example::start(env!("CARGO_BIN_EXE_axum_serve"), "axum.pem").await;
    let client = server.client(None);
    let (mut first, mut second) = (client.connect().await, client.connect().await);
    let response = first.get("/").await;
    assert!(response.body.starts_with("you are 127.0.0.1:") && !response.is_last(), "{}", response.head);
    second.get("/").await;
    server.signal(Signal::TERM);
    first.wait_for_close().await;
    second.wait_for_close().await;
    let printed = server.wait_for_exit().await;
    assert!(printed.contains("drained in ") && printed.contains("2 complete"), "{printed}");
}

#[tokio::test]
async fn the_tonic_server_responds_and_drains() {
    let server = Example::start(env!("CARGO_BIN_EXE_tonic_server"), "tonic.pem").await;
    let tls = server.client(Some("h2")).connect().await.0.into_inner();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls));
    let (mut calls, connection) = within(handshake).await.unwrap();
    let connection = tokio::spawn(connection);
    // A gRPC message that is not compressed: StringValue { value: "you" }.
    let message = Bytes::from_static(b"\0\0\0\0\x05\x0a\x03you");
    let request = hyper::Request::post("https://localhost/example.Greeter/Greet")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(message))
        .unwrap();
    let response = within(calls.send_request(request)).await.unwrap();
    let response = within(response.into_body().collect()).await.unwrap();
    assert_eq!(response.trailers().and_then(|trailers| trailers.get("grpc-status")).unwrap(), "0");
    assert!(String::from_utf8_lossy(&response.to_bytes()).contains("hello you at 127.0.0.1:"));
    let mut health = async || {
        // HealthCheckRequest { service: "" }.
        let request = hyper::Request::post("https://localhost/grpc.health.v1.Health/Check")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::from_static(b"\0\0\0\0\0")))
            .unwrap();
        let response = within(calls.send_request(request)).await.unwrap();
        within(response.into_body().collect()).await.unwrap().to_bytes()
    };
    let [serving, not_serving] = [1, 2].map(|status| Bytes::from(vec![0, 0, 0, 0, 2, 8, status]));
    assert_eq!(health().await, serving);
    server.signal(Signal::TERM);
    // The drain gives those who check the time to see it twice.
    let mut answer = health().await;
    while answer == serving {
        answer = health().await;
    }
    assert_eq!((&answer, &health().await), (&not_serving, &not_serving));
    within(connection).await.unwrap().unwrap();
    let printed = server.wait_for_exit().await;
    assert!(printed.contains("drained in ") && printed.contains("1 complete"), "{printed}");
}

#[tokio::test]
async fn the_accept_loop_sends_farewell() {
    let server = Example::start(env!("CARGO_BIN_EXE_accept_loop"), "loop.pem").await;
    let mut client = server.client(None).connect().await;
    client.send("hello\n").await;
    assert_eq!(client.next_line().await, "hello\n");
    server.signal(Signal::TERM);
    assert_eq!(client.next_line().await, "farewell\n");
    client.wait_for_close().await;
    let printed = server.wait_for_exit().await;
    assert!(printed.contains("drained in ") && printed.contains("1 complete"), "{printed}");
}

/// The end of the connection is the end of the answer: only a complete one may end with close_notify.
#[tokio::test]
async fn the_line_server_ends_truthfully() {
    let server = Example::start(env!("CARGO_BIN_EXE_line_server"), "lines.pem").await;
    let mut complete = server.client(None).connect().await;
    complete.send("2\n").await;
    assert_eq!((complete.next_line().await, complete.next_line().await), ("line 1\n".into(), "line 2\n".into()));
    complete.wait_for_close().await;
    let mut cut = server.client(None).connect().await;
    cut.send("1000000000\n").await;
    assert_eq!(cut.next_line().await, "line 1\n");
    let idle = server.client(None).connect().await;
    server.signal(Signal::INT);
    let error = within(copy(&mut cut.0, &mut sink())).await.expect_err("a cut answer");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    idle.wait_for_close().await;
    let printed = server.wait_for_exit().await;
    assert!(printed.contains("aborted: ") && printed.contains("0 connections did not end in time"), "{printed}");
}

#[tokio::test]
async fn the_metrics_count_connections_by_their_ending() {
    let server = Example::start(env!("CARGO_BIN_EXE_metrics"), "metrics.pem").await;
    let client = server.client(None);
    let mut first = client.connect().await;
    first.get("/metrics").await;
    within(first.0.shutdown()).await.unwrap();
    first.wait_for_close().await;
    let mut second = client.connect().await;
    // The server counts a connection after its socket is closed, so the client can be the first to know.
    let counted = async {
        while !second
            .get("/metrics")
            .await
            .body
            .contains(r#"tls_connections_ended_total{ending="complete",handshake="finished"} 1"#)
        {}
    };
    within(counted).await;
    server.signal(Signal::TERM);
    second.wait_for_close().await;
    let printed = server.wait_for_exit().await;
    assert!(printed.contains(r#"tls_connections_ended_total{ending="complete",handshake="finished"} 2"#), "{printed}");
    assert!(printed.contains("tls_connection_age_seconds_count 2"), "{printed}");
}

/// The test does what systemd does: it opens the socket, and passes it as descriptor 3 to the process that `LISTEN_PID` names.
#[tokio::test]
async fn a_service_uses_its_socket_and_reports_to_systemd() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let (cert, notifications) = (file("systemd.pem"), file("notify"));
    let systemd = UnixDatagram::bind(&notifications).unwrap();
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", r#"LISTEN_PID=$$ exec "$0" "$1""#, env!("CARGO_BIN_EXE_systemd_service")])
        .arg(&cert)
        .env("LISTEN_FDS", "1")
        .env("NOTIFY_SOCKET", &notifications)
        .fd_mappings(vec![FdMapping { parent_fd: socket.into(), child_fd: 3 }])
        .unwrap();
    // The system queues this connection before the service starts.
    let early = TcpStream::connect(address);
    let (service, early) = tokio::join!(Example::spawn(command.into(), cert), early);
    assert_eq!(service.address, address.to_string());
    drop(early.unwrap());

    let notification = async || {
        let mut message = [0; 1000];
        let length = within(systemd.recv(&mut message)).await.unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    assert!(notification().await.contains("READY=1\n"));
    let mut upload = service.client(None).connect().await;
    upload.send("POST /count HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf.").await;
    service.signal(Signal::TERM);
    assert_eq!(notification().await.trim(), "STOPPING=1");
    // Each extension must last until the next one.
    let (mut status, mut ends) = (Vec::new(), None);
    while status.len() < 4 {
        let message = notification().await;
        let now = Instant::now();
        assert!(ends.is_none_or(|ends| now < ends), "{status:?}");
        let extension = message.lines().find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC=")).unwrap();
        ends = Some(now + Duration::from_micros(extension.parse().unwrap()));
        status.push(message.lines().find_map(|line| line.strip_prefix("STATUS=")).unwrap().to_owned());
    }
    assert!(status.iter().all(|status| status.contains(", 1 connections left, ")), "{status:?}");
    upload.send("half.").await;
    assert_eq!(upload.response().await.body, "10 bytes\n");
    upload.wait_for_close().await;
    assert!(service.wait_for_exit().await.contains("drained in "));
    let mut last = notification().await;
    while last.contains("EXTEND_TIMEOUT_USEC=") {
        last = notification().await;
    }
    assert_eq!(last.trim(), "STATUS=drained");
}

#[tokio::test]
async fn a_service_whose_notifications_are_not_read_serves_and_ends() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let (cert, notifications) = (file("unread.pem"), file("unread"));
    let _systemd = UnixDatagram::bind(&notifications).unwrap();
    let other = std::os::unix::net::UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    other.connect(&notifications).unwrap();
    while other.send(b"STATUS=the queue is full").is_ok() {}
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_systemd_service"));
    command
        .arg(&cert)
        .env("LISTEN_FDS", "1")
        .env("NOTIFY_SOCKET", &notifications)
        .fd_mappings(vec![FdMapping { parent_fd: socket.into(), child_fd: 3 }])
        .unwrap();
    let service = Example::spawn(command.into(), cert).await;
    let mut client = service.client(None).connect().await;
    client.send("POST /count HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nwhole").await;
    assert_eq!(client.response().await.body, "5 bytes\n");
    service.signal(Signal::TERM);
    client.wait_for_close().await;
    assert!(service.wait_for_exit().await.contains("drained in "));
}
