//! What happens to connections after SIGTERM or Ctrl-C.

use std::{fs, io::Read, net::SocketAddr, process::Stdio, time::Duration};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::{Pid, Signal, kill_process},
};
use serde_json::{Value, json};
use tokio::{
    fs::OpenOptions,
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::mpsc::unbounded_channel,
    task::yield_now,
    time::{Instant, timeout},
};

use crate::{
    client::{Response, Trust, connect, handshake, read_to_end, request, response},
    process::{CERTIFICATE, Certificate, Serve, command, open_terminal, within},
};

/// SIGHUP is no reason to end: connections stay, and new ones get the new certificate. Bad files keep the old one.
#[tokio::test]
async fn a_hangup_reads_the_certificate_again() {
    let certificate = Certificate::write("renewed");
    let mut server = Serve::start_with(&certificate, &["--grace", "1h"]).await;
    let presented = async |address| {
        let tcp = TcpStream::connect(address).await.unwrap();
        let stream = handshake(tcp, "http/1.0", Trust::File(certificate.cert())).await;
        stream.map(|stream| stream.get_ref().1.peer_certificates().unwrap()[0].to_vec())
    };
    let first = presented(server.address).await.unwrap();
    server.next_closed().await;

    let renewed = Certificate::write("renewed");
    server.signal(Signal::HUP);
    assert_eq!(server.next_event().await, json!({ "event": "reloaded", "error": null }));
    let second = presented(server.address).await.unwrap();
    assert_ne!(first, second);
    server.next_closed().await;

    fs::write(renewed.key(), "no key").unwrap();
    server.signal(Signal::HUP);
    let event = server.next_event().await;
    assert!(event["error"].as_str().is_some_and(|error| error.contains("contains no private key")), "{event}");
    assert_eq!(presented(server.address).await.unwrap(), second);
    server.signal(Signal::TERM);
    assert!(server.wait_for_exit().await.0.success());
}

/// A file on a network may block whoever reads it, and a pipe does.
#[tokio::test]
async fn a_certificate_that_blocks_its_reader_stops_nothing() {
    let certificate = Certificate::write("piped");
    let mut command = Serve::command(&certificate, &["--last-request", "0s"]);
    let mut server = Serve::spawn(command.env("TOKIO_WORKER_THREADS", "1")).await;
    let pem = fs::read(certificate.cert()).unwrap();
    fs::remove_file(certificate.cert()).unwrap();
    mknodat(CWD, certificate.cert(), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    // Opens it as soon as the server does.
    let pipe = async || within(OpenOptions::new().write(true).open(certificate.cert())).await.unwrap();
    server.signal(Signal::HUP);
    let mut written = pipe().await;
    let tcp = TcpStream::connect(server.address).await.unwrap();
    handshake(tcp, "http/1.1", Trust::Nothing).await.expect_err("it knows no authority");
    assert_eq!(server.next_closed().await["alert"], "unknown_ca");
    written.write_all(&pem).await.unwrap();
    written.shutdown().await.unwrap();
    drop(written);
    assert_eq!(server.next_event().await, json!({ "event": "reloaded", "error": null }));

    server.signal(Signal::HUP);
    let _blocking = pipe().await;
    server.signal(Signal::TERM);
    assert!(server.wait_for_exit().await.0.success());
}

#[tokio::test]
async fn everything_in_progress_is_finished_and_everything_idle_is_closed() {
    let server = Serve::start(&["--last-request", "3s", "--grace", "1h"]).await;
    // Idle after a request, idle before one, waiting for a response, receiving one, and before the handshake.
    let mut used = connect(server.address).await;
    request(&mut used, "GET /bytes/1").await;
    response(&mut used).await;
    let unused = connect(server.address).await;
    let mut waiting = connect(server.address).await;
    request(&mut waiting, "GET /delay/1000").await;
    let mut receiving = connect(server.address).await;
    request(&mut receiving, "GET /drip/20/50").await;
    response(&mut receiving).await;
    let silent = TcpStream::connect(server.address).await.unwrap();
    // The report counts handshakes and requests that the server reads after the signal. It must have read these before.
    wait_until_all_is_read(&server).await;
    // An idle client has half a second to answer, so it has to look at its socket.
    let idle = [used, unused].map(|mut idle| {
        tokio::spawn(async move {
            let (rest, end) = read_to_end(&mut idle).await;
            end.unwrap();
            assert!(rest.is_empty());
            idle.shutdown().await.unwrap();
        })
    });

    server.signal(Signal::TERM);
    wait_until_refused(&server).await;
    let mut late = handshake(silent, "http/1.1", Trust::TheCertificate).await.unwrap();
    request(&mut late, "GET /bytes/100000").await;

    let answered = [(&mut waiting, "after 1000 ms\n".len()), (&mut late, 100_000)];
    for (stream, length) in answered {
        let (received, end) = read_to_end(stream).await;
        end.unwrap();
        let response = Response::parse(&received).unwrap();
        assert!(response.head.contains("connection: close"), "{}", response.head);
        assert_eq!(response.body.len(), length);
        stream.shutdown().await.unwrap();
    }
    let (rest, end) = read_to_end(&mut receiving).await;
    end.unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "the last chunk is missing");
    receiving.shutdown().await.unwrap();
    for idle in idle {
        idle.await.unwrap();
    }

    let (status, events) = server.wait_for_exit().await;
    assert!(status.success());
    let drained = events.last().unwrap();
    assert_eq!(drained["event"], "drained");
    assert_eq!(drained["endings"]["complete"], 5);
    assert_eq!((&drained["responses_cut"], &drained["lingering"]), (&0.into(), &0.into()));
    assert_eq!((&drained["handshakes_finished"], &drained["requests"]), (&1.into(), &1.into()));
    let complete = events.iter().filter(|event| event["ending"] == "complete");
    assert_eq!(complete.count(), 5, "each connection once: {events:?}");
}

#[tokio::test]
async fn an_idle_connection_has_time_for_a_last_request() {
    let server = Serve::start(&["--last-request", "60s", "--grace", "90s"]).await;
    let mut idle = connect(server.address).await;
    request(&mut idle, "GET /bytes/1").await;
    response(&mut idle).await;
    server.signal(Signal::INT);
    wait_until_refused(&server).await;
    request(&mut idle, "GET /bytes/10").await;
    let (received, end) = read_to_end(&mut idle).await;
    end.unwrap();
    let response = Response::parse(&received).unwrap();
    assert!(response.head.contains("connection: close"), "{}", response.head);
    assert_eq!(response.body.len(), 10);
    idle.shutdown().await.unwrap();
    // No connection is left, so the exit does not wait for the end of the window.
    let (status, events) = server.wait_for_exit().await;
    assert!(status.success());
    assert_eq!(events.last().unwrap()["endings"]["complete"], 1);
}

#[tokio::test]
async fn what_the_system_has_accepted_is_served() {
    // Whether the server sees the signal or the connections first is up to chance.
    const ROUNDS: usize = 6;
    const CONNECTIONS: usize = 10;
    for _ in 0..ROUNDS {
        let server = Serve::start(&["--last-request", "20s", "--grace", "1h"]).await;
        server.signal(Signal::STOP);
        let mut waiting = Vec::new();
        for _ in 0..CONNECTIONS {
            waiting.push(TcpStream::connect(server.address).await.unwrap());
        }
        server.signal(Signal::TERM);
        server.signal(Signal::CONT);
        wait_until_refused(&server).await;
        for tcp in waiting {
            let mut stream = handshake(tcp, "http/1.1", Trust::TheCertificate).await.expect("accepted");
            request(&mut stream, "GET /bytes/10").await;
            let (received, end) = read_to_end(&mut stream).await;
            end.unwrap();
            assert_eq!(Response::parse(&received).unwrap().body.len(), 10);
            stream.shutdown().await.unwrap();
        }
        let (status, events) = server.wait_for_exit().await;
        assert!(status.success());
        assert_eq!(events.iter().filter(|event| event["ending"] == "complete").count(), CONNECTIONS);
    }
}

#[tokio::test]
async fn an_http2_client_that_never_speaks_is_closed_at_the_end_of_the_window() {
    let server = Serve::start(&["--last-request", "100ms", "--grace", "1h"]).await;
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let mut silent = handshake(tcp, "h2", Trust::TheCertificate).await.unwrap();
    server.signal(Signal::TERM);
    read_to_end(&mut silent).await.1.unwrap();
    silent.shutdown().await.unwrap();
    let (status, events) = server.wait_for_exit().await;
    assert!(status.success());
    assert_eq!(events.last().unwrap()["endings"], json!({ "complete": 1 }));
}

#[tokio::test]
async fn under_notice_the_server_is_not_ready_but_still_serves() {
    let server = Serve::start(&["--notice", "1h", "--grace", "2h"]).await;
    server.signal(Signal::TERM);
    loop {
        let mut stream = connect(server.address).await;
        request(&mut stream, "GET /health").await;
        let health = response(&mut stream).await;
        assert!(!health.head.contains("connection: close"), "{}", health.head);
        if health.head.starts_with("http/1.1 503") {
            assert_eq!(health.body, b"draining\n");
            break;
        }
        assert_eq!(health.body, b"ready\n");
    }
    server.signal(Signal::TERM);
    let (status, _) = server.wait_for_exit().await;
    assert!(status.success());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let server = Serve::start(&["--last-request", "1h", "--grace", "2h"]).await;
    let mut idle = connect(server.address).await;
    request(&mut idle, "GET /bytes/1").await;
    response(&mut idle).await;
    let mut waiting = connect(server.address).await;
    request(&mut waiting, "GET /delay/3600000").await;
    server.signal(Signal::INT);
    wait_until_refused(&server).await;
    server.signal(Signal::INT);

    let (answer, end) = read_to_end(&mut waiting).await;
    end.expect("no byte of the response was sent");
    assert!(answer.is_empty());
    waiting.shutdown().await.unwrap();
    read_to_end(&mut idle).await.1.expect("an idle connection is closed, not cut");
    idle.shutdown().await.unwrap();
    let (status, events) = server.wait_for_exit().await;
    assert!(status.success());
    let drained = events.last().unwrap();
    assert_eq!(drained["responses_cut"], 1);
    assert_eq!(drained["endings"]["complete"], 2);
}

#[tokio::test]
async fn the_grace_time_includes_everything() {
    let server = Serve::start(&["--last-request", "0s", "--grace", "1s"]).await;
    let mut waiting = connect(server.address).await;
    request(&mut waiting, "GET /delay/3600000").await;
    // The server has closed this connection and lingers, because the client does not close.
    let mut lingering = connect(server.address).await;
    request(&mut lingering, "GET /close/10").await;
    read_to_end(&mut lingering).await.1.unwrap();

    let signalled = Instant::now();
    server.signal(Signal::TERM);
    let (status, events) = server.wait_for_exit().await;
    let elapsed = signalled.elapsed();
    assert!(status.success());
    assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
    let drained = events.last().unwrap();
    assert_eq!((&drained["responses_cut"], &drained["lingering"]), (&1.into(), &2.into()));
    assert_eq!(drained["endings"], json!({ "sent": 2 }));
    assert_eq!(events.len(), 3, "each connection once: {events:?}");
    drop((waiting, lingering));
}

#[tokio::test]
async fn a_reader_of_its_events_that_goes_away_does_not_stop_it() {
    let mut server = Serve::start(&[]).await;
    server.stop_reading().await;
    let mut stream = connect(server.address).await;
    stream.shutdown().await.unwrap();
    read_to_end(&mut stream).await.1.unwrap();
    connect(server.address).await.shutdown().await.unwrap();
    server.signal(Signal::TERM);
    assert!(server.wait_for_status().await.success());
}

#[tokio::test]
async fn a_reader_of_its_events_that_does_not_read_does_not_stop_it() {
    // Their events are more than a pipe holds.
    const CONNECTIONS: usize = 800;
    let (cert, key) = (CERTIFICATE.cert(), CERTIFICATE.key());
    let mut command = command(&["serve", "--json", "--listen", "127.0.0.1:0", "--cert", cert, "--key", key]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    within(output.read_line(&mut line)).await.unwrap();
    let listening: Value = serde_json::from_str(&line).unwrap();
    let address: SocketAddr = listening["addr"].as_str().unwrap().parse().unwrap();
    for _ in 0..CONNECTIONS {
        let mut tcp = within(TcpStream::connect(address)).await.unwrap();
        tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        // The server sends an alert after it has read the request.
        let _ = within(tcp.read_to_end(&mut Vec::new())).await;
    }
    let mut stream = connect(address).await;
    request(&mut stream, "GET /bytes/5").await;
    assert_eq!(within(response(&mut stream)).await.body, b".....");
    kill_process(Pid::from_raw(child.id().unwrap() as i32).unwrap(), Signal::TERM).unwrap();
    assert_eq!(within(child.wait()).await.unwrap().code(), Some(1), "reports are lost");
}

#[tokio::test]
async fn connections_that_are_open_at_the_exit_are_reported_too() {
    const CONNECTIONS: usize = 300;
    let mut server = Serve::start(&["--grace", "0s"]).await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    // The server accepts in order. When it has served this connection, it has accepted all others.
    let mut stream = connect(server.address).await;
    stream.shutdown().await.unwrap();
    assert_eq!(server.next_closed().await["ending"], "complete");
    server.signal(Signal::TERM);
    let (status, mut events) = server.wait_for_exit().await;
    assert!(status.success());
    let drained = events.pop().unwrap();
    assert_eq!((&drained["event"], &drained["connections"]), (&"drained".into(), &CONNECTIONS.into()));
    assert_eq!(drained["endings"], json!({ "not_started": CONNECTIONS }));
    assert_eq!(events.len(), CONNECTIONS);
}

#[tokio::test]
async fn on_a_terminal_it_shows_how_the_drain_goes() {
    let (screen, terminal) = open_terminal();
    let (cert, key) = (CERTIFICATE.cert(), CERTIFICATE.key());
    let mut command = command(&["serve", "--listen", "127.0.0.1:0", "--cert", cert, "--key", key]);
    command.args(["--last-request", "1h", "--grace", "2h"]);
    let mut child = command.stdout(screen.try_clone().unwrap()).stderr(screen).spawn().unwrap();
    drop(command);
    let (sender, mut shown) = unbounded_channel();
    std::thread::spawn(move || {
        let mut terminal = fs::File::from(terminal);
        let mut bytes = [0; 1024];
        // The read fails when no process has the terminal open.
        while let Ok(amount @ 1..) = terminal.read(&mut bytes) {
            let _ = sender.send(String::from_utf8_lossy(&bytes[..amount]).into_owned());
        }
    });
    let mut screen = String::new();
    let mut shows = async |text: &str| {
        while !screen.contains(text) {
            screen += &within(shown.recv()).await.unwrap_or_else(|| panic!("no {text}"));
        }
        screen.clone()
    };
    let listening = shows(" (certificate").await;
    let address = listening.split_once("https://").unwrap().1.split_once(' ').unwrap().0.parse().unwrap();
    let mut idle = connect(address).await;
    request(&mut idle, "GET /bytes/1").await;
    response(&mut idle).await;
    let id = Pid::from_raw(child.id().unwrap() as i32).unwrap();
    kill_process(id, Signal::TERM).unwrap();
    shows("last_request: 1 open, 0 in flight, ").await;
    kill_process(id, Signal::TERM).unwrap();
    read_to_end(&mut idle).await.1.unwrap();
    idle.shutdown().await.unwrap();
    shows("complete: close_notify sent, received").await;
    shows("drained in ").await;
    assert!(within(child.wait()).await.unwrap().success());
}

/// Waits until the server has read everything that its system has received.
async fn wait_until_all_is_read(server: &Serve) {
    let port = format!(":{:04X}", server.address.port());
    let is_unread = |line: &str| {
        // A line has: its number, the local address, the remote address, the state, and the bytes to send and to read.
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|local| local.ends_with(&port))
            && words.nth(2).is_some_and(|queues| !queues.ends_with(":00000000"))
    };
    let has_unread = || fs::read_to_string("/proc/net/tcp").unwrap().lines().any(is_unread);
    within(async {
        while has_unread() {
            yield_now().await
        }
    })
    .await;
}

/// Waits until the server accepts nobody any more. Connections that it accepts until then end as `not_started`. While the socket closes,
/// nobody answers, and the client's system tries again after a second.
async fn wait_until_refused(server: &Serve) {
    let connect = || timeout(Duration::from_millis(100), TcpStream::connect(server.address));
    within(async { while let Ok(Ok(_)) = connect().await {} }).await;
}
