//! Clients that keep the server waiting, and slow ones that do not.

use std::{error::Error, time::Duration};

use hyper::{Request, Response, body::Incoming};
use tls_shutdown::{
    Ending,
    server::{Server, TlsListener},
};
use tls_shutdown_tests::{
    End,
    serving::{
        Client, Running, ScriptedBody, answer, body_of,
        http2::{self, END_STREAM, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, get, get_path, goaways, hello},
        listener, narrow_socket, offer, offering,
    },
    soon,
    time::pass_time,
};
use tokio::{
    io::AsyncReadExt,
    net::TcpSocket,
    sync::{mpsc, watch},
};

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
    // It reads nothing of the response.
    let mut running = start().await;
    let mut client = Client::connect_narrow(running.address).await;
    client.ask("/").await;
    client.read_message().await;
    client.ask("/huge").await;
    let end = running.end().await;
    assert_eq!((end.ending(), end.requests(), end.responses_cut()), (Ending::TimedOut, 2, 1), "{end}");
    // It does not send the rest of its body.
    let mut client = Client::connect(running.address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n1234").await;
    // The body of the service fails, and the service may answer.
    let (answer, end) = client.read_to_end().await;
    assert_eq!((body_of(&answer).len(), end), (10, End::CloseNotify));
    drop(client);
    assert_eq!(running.end().await.responses_cut(), 0);
    // A slow client is not ended.
    let mut client = Client::connect(running.address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n").await;
    for _ in 0..20 {
        pass_time(Duration::from_millis(40)).await;
        client.send("1").await;
    }
    assert_eq!(client.read_message().await.1.len(), 10);
    // Over HTTP/2 it reads nothing, although its windows are open.
    let mut client = Client::over(narrow_socket(running.address, 4096).await, offer("h2")).await;
    let windows =
        [frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]), frame(WINDOW_UPDATE, 0, 0, &[0x70, 0, 0, 0])];
    client.send([http2::PREFACE.to_vec(), windows.concat(), get_path(1, "/huge")].concat()).await;
    let end = running.end().await;
    assert_eq!((end.ending(), end.responses_cut()), (Ending::TimedOut, 1), "{end}");
}

/// It needs longer than the stall timeout for what is in the buffers, but not for each piece of it.
/// hyper's error says only that the body could not be read. Its source says why.
#[tokio::test]
async fn the_error_of_a_body_that_stops_has_the_reason_as_its_source() {
    let (sender, mut errors) = mpsc::unbounded_channel();
    let service = move |request: Request<Incoming>| {
        let sender = sender.clone();
        async move {
            let error = http_body_util::BodyExt::collect(request.into_body()).await.expect_err("a body that stops");
            sender.send(error).expect("a test");
            answer(ScriptedBody::full(10))
        }
    };
    let short = |server: Server| server.stall_timeout(Duration::from_millis(100));
    let running = Running::start_with(listener().await, short, |drain| drain, service);
    let http1 = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n1234";
    let post =
        [frame(http2::HEADERS, http2::END_HEADERS, 1, &http2::header_block("/")), frame(http2::DATA, 0, 1, b"1234")]
            .concat();
    for (mut client, request, timeout) in [
        (Client::connect(running.address).await, http1.to_vec(), "100ms"),
        (Client::connect_http2(running.address).await, [hello(), post].concat(), "500ms"),
    ] {
        client.send(request).await;
        let error = soon(errors.recv()).await.expect("an error");
        let (mut sources, mut next) = (Vec::new(), error.source());
        while let Some(source) = next {
            sources.push(source.to_string());
            next = source.source();
        }
        let reason = format!("the client has kept the server waiting for {timeout} (Server::stall_timeout)");
        assert!(sources.iter().any(|source| source.contains(&reason)), "{sources:?}");
    }
}

#[tokio::test]
async fn a_client_that_reads_slowly_is_none_that_stalls() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_send_buffer_size(4096).expect("an option");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let listener = TlsListener::from_tcp(socket.listen(10).expect("a socket"), offering(&[]));
    // The system pauses by itself when windows are small.
    let limit = Duration::from_secs(1);
    let slow = |server: Server| server.stall_timeout(limit);
    let mut running =
        Running::start_with(listener, slow, |drain| drain, |_| async { answer(ScriptedBody::full(60_000)) });
    let config = tls_shutdown_tests::client_config(&rustls::version::TLS13);
    let mut client = Client::over(narrow_socket(running.address, 8 * 1024).await, config).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let began = tokio::time::Instant::now();
    let mut data = Vec::new();
    let mut buffer = [0; 1000];
    loop {
        pass_time(Duration::from_millis(50)).await;
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

/// The client opens the windows of HTTP/2.
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

    // It needs several times the limit, but takes some bytes in each.
    let mut client = Client::connect_http2(running.address).await;
    client.send([hello(), get(1)].concat()).await;
    let opens = |stream| frame(WINDOW_UPDATE, 0, stream, &3_500_u32.to_be_bytes());
    for _ in 0..10 {
        pass_time(limit / 4).await;
        client.send([opens(0), opens(1)].concat()).await;
    }
    while client.frame_of(http2::DATA).await.flags & END_STREAM == 0 {}
    // A connection on which another request waits for the server is not ended either.
    client.send([get_path(3, "/never"), get(5)].concat()).await;
    pass_time(limit * 2).await;
    client.send(frame(PING, 0, 0, &[7; 8])).await;
    while client.frame_of(PING).await.payload != [7; 8] {}
    drop(client);
    running.end().await;
}

/// It reads, and answers PING, but does not continue its request.
#[tokio::test]
async fn an_http2_client_that_stops_in_an_upload_is_ended() {
    let limit = Duration::from_millis(1500);
    let short = |server: Server| server.stall_timeout(limit / 5);
    let routes = |request: Request<Incoming>| async move {
        if request.uri().path() == "/reads" {
            let _ = http_body_util::BodyExt::collect(request.into_body()).await;
            return answer(ScriptedBody::full(10));
        }
        // It does not read yet, so the client has to wait.
        std::future::pending().await
    };
    let mut running = Running::start_with(listener().await, short, |drain| drain, routes);
    let post = |path| frame(http2::HEADERS, http2::END_HEADERS, 1, &http2::header_block(path));
    let mut client = Client::connect_http2(running.address).await;
    client.send([hello(), post("/reads"), frame(http2::DATA, 0, 1, b"half")].concat()).await;
    for _ in 0..10 {
        pass_time(limit / 4).await;
        client.send(frame(http2::DATA, 0, 1, b"more")).await;
    }
    let began = tokio::time::Instant::now();
    let (frames, end) = client.frames_to_end().await;
    assert!(began.elapsed() >= limit, "{:?}", began.elapsed());
    let reset: Vec<_> = frames.iter().filter(|frame| frame.kind == RST_STREAM).map(|frame| frame.stream).collect();
    assert_eq!((&reset[..], &goaways(&frames)[..], end), (&[1][..], &[1][..], End::CloseNotify));
    drop(client);
    assert_eq!(running.end().await.responses_cut(), 1);

    // The client has sent all that the server lets through.
    let mut client = Client::connect_http2(running.address).await;
    client.send([hello(), post("/waits")].concat()).await;
    let settings = client.frame_of(SETTINGS).await.payload;
    let window = settings.chunks(6).find(|setting| setting[..2] == [0, 4]).expect("a window");
    let mut left = u32::from_be_bytes(window[2..].try_into().expect("four bytes"));
    while left > 0 {
        let piece = left.min(16_384);
        client.send(frame(http2::DATA, 0, 1, &vec![0; piece as usize])).await;
        left -= piece;
    }
    pass_time(limit * 2).await;
    client.send(frame(PING, 0, 0, &[7; 8])).await;
    while client.frame_of(PING).await.payload != [7; 8] {}
    drop(client);
    running.end().await;
}

/// It may send nothing before its tunnel is there, and that can take the server a while.
#[tokio::test]
async fn an_http2_client_that_waits_for_its_tunnel_is_none_that_stalls() {
    let limit = Duration::from_millis(500);
    let (sender, connected) = watch::channel(false);
    let routes = move |_| {
        let mut connected = connected.clone();
        async move {
            connected.wait_for(|connected| *connected).await.expect("a test");
            answer(ScriptedBody::full(10))
        }
    };
    let short = |server: Server| server.stall_timeout(limit / 5);
    let mut running = Running::start_with(listener().await, short, |drain| drain, routes);
    let mut client = Client::connect_http2(running.address).await;
    // `:method: CONNECT` and `:authority: a`, as HPACK has them.
    let connect = [b"\x02\x07CONNECT", &b"\x41\x01a"[..]].concat();
    client.send([hello(), frame(http2::HEADERS, http2::END_HEADERS, 1, &connect)].concat()).await;
    pass_time(limit * 4).await;
    sender.send_replace(true);
    while client.frame_of(http2::HEADERS).await.stream != 1 {}
    drop(client);
    assert_eq!(running.end().await.requests(), 1);
}

/// A body is bounded if the server and hyper agree about its end.
#[tokio::test]
async fn a_body_whose_end_is_nearly_there_is_no_end() {
    let short = |server: Server| server.stall_timeout(Duration::from_millis(200));
    let routes = |request: Request<Incoming>| async move {
        http_body_util::BodyExt::collect(request.into_body()).await?;
        Ok::<_, hyper::Error>(Response::new(ScriptedBody::full(10)))
    };
    let mut running = Running::start_with(listener().await, short, |drain| drain, routes);
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n";
    for upload in [
        format!("{chunked}\r\n0\r\n \r\n"),
        format!("{chunked}\r\n{}3\r\nabc\r\n", "0".repeat(1100)),
        format!("{chunked}Content-Length: x\r\n\r\n3\r\nabc"),
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:{}9\r\n\r\nabc", " ".repeat(1030)),
    ] {
        let mut client = Client::connect(running.address).await;
        client.send(&upload).await;
        assert_eq!(client.read_to_end().await.1, End::CloseNotify, "{upload:?}");
        drop(client);
        assert_eq!(running.end().await.requests(), 1, "{upload:?}");
    }
}
