//! The window for a last request, and the grace period.

use std::{io::Read, pin::pin, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt};
use rustls::{ClientConnection, StreamOwned};
use tls_shutdown::{
    Ending,
    server::{DrainPhase, ServerDrain},
};
use tls_shutdown_tests::{
    End,
    serving::{
        Client, LONG, Running,
        http2::{self, END_HEADERS, GET, HEADERS, frame, get, hello},
        listener, offer,
    },
    soon,
    time::{leap, pass_time, real_time, turns},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::{spawn_blocking, yield_now},
    time::Instant,
};

use crate::drain::{SHORT, asking, idle, routes, start};

#[tokio::test]
async fn half_a_head_in_the_window_is_a_request() {
    for first in ["", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let running = start(|drain| drain.last_request(SHORT)).await;
        let mut client = Client::connect(running.address).await;
        if !first.is_empty() {
            client.send(first).await;
            client.read_message().await;
        }
        client.send("GET / HTTP/1.1\r\nHo").await;
        assert_half_a_head_is_a_request(running, client).await;
    }
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\r\n\r\n";
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
    for first in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", post, chunked] {
        let running = start(|drain| drain.last_request(SHORT)).await;
        let mut client = Client::connect(running.address).await;
        // In one segment with the request before it.
        client.send(format!("{first}GET / HTTP/1.1\r\nHo")).await;
        client.read_message().await;
        assert_half_a_head_is_a_request(running, client).await;
    }
}

async fn assert_half_a_head_is_a_request(mut running: Running, mut client: Client) {
    running.signal();
    soon(running.drain.reached(DrainPhase::LastRequest)).await;
    // Past the end of the window, of which a client sees nothing.
    pass_time(SHORT + SHORT / 2).await;
    client.send("st: a\r\n\r\n").await;
    assert!(client.read_message().await.0.contains("connection: close"));
    assert_eq!(client.read_to_end().await, (vec![], End::CloseNotify));
    drop(client);
    assert_eq!(running.report().await.responses_cut(), 0);
}

/// The client was never told to send nothing, so it has a window of its own behind the response.
#[tokio::test]
async fn a_request_behind_a_response_that_outlasts_the_window_is_answered() {
    // The client needs some time for what is in the buffers.
    let window = SHORT * 20;
    for pipelined in ["", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut running = start(|drain| drain.last_request(window)).await;
        let mut client = Client::connect_narrow(running.address).await;
        client.ask("/large").await;
        client.send(pipelined).await;
        // Its head is out.
        assert!(!client.head().await.contains("connection: close"));
        running.signal();
        soon(running.drain.reached(DrainPhase::LastRequest)).await;
        pass_time(window + SHORT).await;
        let mut body = vec![0; 50_000_000];
        soon(client.stream.read_exact(&mut body)).await.expect("a body");
        if pipelined.is_empty() {
            pass_time(SHORT / 2).await;
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd").await;
        }
        assert!(client.read_message().await.0.contains("connection: close"));
        assert_eq!(client.read_to_end().await, (vec![], End::CloseNotify));
        drop(client);
        assert_eq!(running.report().await.responses_cut(), 0);
    }
}

/// Also one that no handler has seen is lost, so it is counted.
#[tokio::test]
async fn whole_requests_behind_a_response_that_is_cut_are_counted() {
    for (path, cut) in [("/stop", 3), ("/never", 3)] {
        let mut running = start(|drain| drain.last_request(SHORT)).await;
        let mut client = asking(&running, path).await;
        client.ask("/").await;
        client.ask("/").await;
        client.send("GET / HTTP/1.1\r\nHo").await;
        turns(50).await;
        running.signal();
        soon(running.drain.reached(DrainPhase::LastRequest)).await;
        running.force();
        let report = running.report().await;
        assert_eq!(report.responses_cut(), cut, "{path}: {report}");
        drop(client);
    }
}

/// A client that was told to send nothing more has lost nothing (RFC 9112 section 9.6).
#[tokio::test]
async fn requests_behind_connection_close_are_not_counted() {
    let mut running = start(|drain| drain.last_request(SHORT)).await;
    let mut client = asking(&running, "/told").await;
    client.ask("/").await;
    turns(50).await;
    running.signal();
    assert!(client.read_message().await.0.contains("connection: close"));
    assert_eq!(client.read_to_end().await, (vec![], End::CloseNotify));
    drop(client);
    let report = running.report().await;
    assert_eq!(report.responses_cut(), 0, "{report}");
}

/// Many clients of HTTP/1.0 look for `keep-alive` alone (RFC 9112 appendix C.2.2).
#[tokio::test]
async fn the_last_response_of_http_1_0_says_close_and_not_keep_alive() {
    const KEEP_ALIVE: &str = "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
    let mut running = start(|drain| drain.last_request(LONG)).await;
    let mut client = Client::connect(running.address).await;
    client.send(KEEP_ALIVE).await;
    assert!(client.read_message().await.0.contains("\r\nconnection: keep-alive\r\n"));
    running.signal();
    soon(running.drain.reached(DrainPhase::LastRequest)).await;
    client.send(KEEP_ALIVE).await;
    let (head, body) = client.read_message().await;
    assert!(head.starts_with("http/1.0 200") && head.contains("\r\nconnection: close\r\n"), "{head}");
    assert_eq!((body.len(), client.read_to_end().await), (10, (vec![], End::CloseNotify)));
    drop(client);
    running.report().await;
}

/// As Envoy's health check does by default.
#[tokio::test]
async fn a_client_that_negotiated_http2_and_speaks_http1_has_its_window() {
    let mut running = start(|drain| drain.last_request(LONG)).await;
    let mut client = Client::connect_http2(running.address).await;
    running.signal();
    soon(running.drain.reached(DrainPhase::LastRequest)).await;
    turns(50).await;
    client.ask("/").await;
    assert!(client.read_message().await.0.contains("connection: close"));
    assert_eq!(client.read_to_end().await, (vec![], End::CloseNotify));
    drop(client);
    running.report().await;
}

/// The request is in the system's buffer at the end of the window.
#[tokio::test]
async fn a_client_that_negotiated_http2_and_speaks_http1_at_the_end_of_its_window_is_answered() {
    for _ in 0..20 {
        let mut running = start(|drain| drain.last_request(SHORT)).await;
        let mut client = Client::connect_http2(running.address).await;
        running.signal();
        soon(running.drain.reached(DrainPhase::LastRequest)).await;
        turns(50).await;
        // In one turn of the runtime: nothing polls the server between the request and the end of the window.
        client.ask("/").await;
        leap(SHORT).await;
        assert!(client.read_message().await.0.starts_with("http/1.1 200"));
        drop(client);
        let report = running.report().await;
        assert_eq!((report.requests(), report.responses_cut()), (1, 0), "{report}");
    }
}

/// RFC 9112 section 2.2 requires that servers ignore it.
#[tokio::test]
async fn an_empty_line_is_no_half_head() {
    let mut running = start(|drain| drain.last_request(SHORT)).await;
    let mut client = idle(&running).await;
    client.send("\r\n").await;
    running.signal();
    assert_eq!(client.read_to_end().await, (vec![], End::CloseNotify));
    drop(client);
    assert!(running.report().await.elapsed() < LONG / 2);
}

#[tokio::test]
async fn clients_that_are_gone_do_not_hold_the_drain_up() {
    let mut running = start(|drain| drain).await;
    let mut upload = Client::connect(running.address).await;
    upload.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n1234").await;
    let gone = [asking(&running, "/never").await, asking(&running, "/stop").await, upload];
    let reset = asking(&running, "/never").await;
    reset.stream.get_ref().0.set_zero_linger().expect("an option");
    let kept = asking(&running, "/never").await;
    running.signal();
    drop((gone, reset));
    let endings = [running.end().await, running.end().await, running.end().await, running.end().await];
    let count = |ending| endings.iter().filter(|end| end.ending() == ending).count();
    // If tickets are unread, the end of a client is a reset.
    assert_eq!(count(Ending::Truncated) + count(Ending::Reset), 4, "{endings:?}");
    assert_eq!(running.drain.connections(), 1);
    running.force();
    drop(kept);
    assert_eq!(running.report().await.connections(), 5);
}

#[tokio::test]
async fn a_request_that_the_system_has_at_the_end_of_the_window_is_answered() {
    for _ in 0..20 {
        let mut running = start(|drain| drain.last_request(Duration::ZERO)).await;
        let mut client = idle(&running).await;
        // In one turn of the runtime: nothing polls the server between the signal and the request.
        running.signal();
        client.ask("/").await;
        let (data, end) = client.read_to_end().await;
        assert_eq!(end, End::CloseNotify);
        assert!(data.ends_with(b"xxxxxxxxxx"), "{}", String::from_utf8_lossy(&data));
        drop(client);
        running.report().await;
    }
}

/// As a request in the same place.
#[tokio::test]
async fn a_client_hello_that_the_system_has_at_the_end_of_the_window_is_answered() {
    for _ in 0..20 {
        let mut running = start(|drain| drain.last_request(SHORT)).await;
        let mut tcp = std::net::TcpStream::connect(running.address).expect("a server");
        running.signal();
        soon(running.drain.reached(DrainPhase::LastRequest)).await;
        turns(50).await;
        let name = "localhost".try_into().expect("a name");
        let mut tls = ClientConnection::new(Arc::new(offer("http/1.1")), name).expect("a client");
        // In one turn of the runtime: nothing polls the server between the ClientHello and the end of the window.
        tls.write_tls(&mut tcp).expect("sent");
        leap(SHORT).await;
        let ended = spawn_blocking(move || {
            while tls.is_handshaking() {
                tls.complete_io(&mut tcp)?;
            }
            StreamOwned::new(tls, tcp).read(&mut [0])
        });
        assert_eq!(soon(ended).await.expect("no panic").expect("close_notify"), 0);
        let report = running.report().await;
        assert_eq!((report.handshakes_finished(), report.handshakes_cut()), (1, 0), "{report}");
    }
}

/// No client has begun a request, so that none loses one.
#[tokio::test]
async fn a_window_without_room_in_the_grace_period_ends_at_the_deadline() {
    let grace = Duration::from_secs(10);
    let contradiction =
        |drain: ServerDrain| drain.last_request(LONG).jitter(LONG).ping_timeout(LONG).grace_period(grace);
    let mut running = Running::start_with(listener().await, |server| server, contradiction, routes);
    let mut clients = [idle(&running).await, Client::connect_http2(running.address).await];
    clients[1].send([hello(), get(1)].concat()).await;
    while clients[1].frame_of(http2::DATA).await.flags & http2::END_STREAM == 0 {}
    running.signal();
    pass_time(grace - ServerDrain::RESERVE * 2).await;
    assert_eq!(running.drain.phase(), DrainPhase::LastRequest);
    pass_time(ServerDrain::RESERVE).await;
    for client in &mut clients {
        assert_eq!(client.read_to_end().await.1, End::CloseNotify);
    }
    drop(clients);
    let report = running.report().await;
    assert_eq!((report.responses_cut(), report.left(), report.lingering()), (0, 0, 0), "{report}");
    // Later, their tasks are dropped.
    assert!(report.time_in(DrainPhase::Deadline) < ServerDrain::RESERVE / 4, "{report}");
}

/// The grace period holds, whatever the clients do.
#[tokio::test]
async fn the_grace_holds() {
    let grace = Duration::from_secs(2);
    let quick = |drain: ServerDrain| drain.notice(SHORT).last_request(SHORT).grace_period(grace);
    let mut running = Running::start_with(listener().await, |server| server, quick, routes);
    let half = async |text: &'static str| {
        let mut client = Client::connect(running.address).await;
        client.send(text).await;
        client
    };
    // The test keeps all of them: no client closes.
    let silent = TcpStream::connect(running.address).await.expect("a listener");
    let half_head = half("GET / HT").await;
    let upload = half("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n1234").await;
    let mut never_reads = Client::connect_narrow(running.address).await;
    never_reads.ask("/large").await;
    let (endless, never) = (asking(&running, "/stop").await, asking(&running, "/never").await);
    let kept = idle(&running).await;
    let mut http2 = Client::connect_http2(running.address).await;
    http2.send([hello(), get(1)].concat()).await;
    let mut stalled = Client::connect_http2(running.address).await;
    stalled.send([hello(), frame(HEADERS, END_HEADERS, 1, GET)[..5].to_vec()].concat()).await;
    let endless_upload = half("POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let (reader, mut writer) = tokio::io::split(endless_upload.stream);
    let uploading = tokio::spawn(async move {
        while writer.write_all(b"5\r\n12345\r\n").await.is_ok() && writer.flush().await.is_ok() {}
    });
    let mut drips = half("").await.stream;
    let dripping = tokio::spawn(async move {
        while drips.write_all(b"\r\n").await.is_ok() && drips.flush().await.is_ok() {
            // The drain runs by the real clock here, and so does the pace of a slow client.
            real_time(Duration::from_millis(10)).await;
        }
    });
    let connections = 11;
    let began = Instant::now();
    running.signal();
    let report = running.report().await;
    assert!(began.elapsed() <= grace + grace / 2, "{:?}\n{report}", began.elapsed());
    assert_eq!(report.left(), 0, "{report}");
    assert_eq!(report.connections(), connections, "{report}");
    assert_eq!(report.handshakes_cut(), 1, "{report}");
    // The endless response, the one that never begins, those of two uploads, and that of 50 MB.
    assert_eq!(report.responses_cut(), 5, "{report}");
    uploading.abort();
    dripping.abort();
    drop((silent, half_head, upload, never_reads, endless, never, kept, http2, stalled, reader));
}

#[tokio::test]
async fn a_window_can_be_waited_for_by_servers_that_are_not_ours() {
    let drain = ServerDrain::on(std::future::ready(())).last_request(LONG).grace_period(LONG);
    let over = drain.handle().last_request_over();
    let mut over = pin!(over);
    let mut listener = listener().await.with_drain(&drain.handle());
    // As tonic accepts.
    assert!(listener.next().now_or_never().is_none());
    let mut held = Some(listener);
    let run = drain.run(async {
        tokio::select! {
            biased;
            () = over.as_mut() => panic!("the listener is open"),
            () = yield_now() => {}
        }
        held.take();
        over.await;
    });
    assert_eq!(soon(run).await.0.left(), 0);
}
