//! A server drain with clients that do all the wrong things, and what both sides know of it.

use std::{io, pin::pin, time::Duration};

use hyper::{Request, Response, body::Incoming};
use tls_shutdown::{
    Ending, Reaper,
    server::{Acknowledgement, ConnectionInfo, DrainPhase, DrainReport, Server, ServerDrain, TlsListener},
};
use tls_shutdown_tests::serving::{
    Client, End, LONG, Running, ScriptedBody,
    Step::{Data, Stop},
    answer,
    http2::{self, END_HEADERS, GET, HEADERS, PING, PREFACE, RST_STREAM, frame, get, goaways, hello, is_answered},
    listener, offering, soon,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::oneshot,
    task::yield_now,
    time::{Instant, sleep},
};
use tower::Service;

type Answer = Result<Response<ScriptedBody>, io::Error>;

const SHORT: Duration = Duration::from_millis(200);

async fn routes(request: Request<Incoming>) -> Answer {
    let drain = request.extensions().get::<ConnectionInfo>().expect("known").drain().clone();
    let body = match request.uri().path() {
        "/never" => std::future::pending().await,
        "/stop" => ScriptedBody::new(&[Data(10), Stop]),
        "/told" => {
            drain.reached(DrainPhase::LastRequest).await;
            ScriptedBody::full(10)
        }
        "/upload" => {
            use http_body_util::BodyExt;
            let _ = request.into_body().collect().await;
            ScriptedBody::full(10)
        }
        "/large" => ScriptedBody::full(50_000_000),
        _ => ScriptedBody::full(10),
    };
    Ok(Response::new(body))
}

async fn start(drain: impl FnOnce(ServerDrain) -> ServerDrain) -> Running {
    Running::start_with(listener().await, |server| server, |plan| drain(plan.grace_period(LONG)), routes)
}

/// A connection that has had an answer, and is kept.
async fn idle(running: &Running) -> Client {
    let mut client = Client::connect(running.address).await;
    client.ask("/").await;
    client.read_message().await;
    client
}

/// A connection with a request that the server knows of.
async fn asking(running: &Running, path: &str) -> Client {
    let mut client = idle(running).await;
    client.ask(path).await;
    for _ in 0..50 {
        yield_now().await;
    }
    client
}

#[tokio::test]
async fn a_server_without_connections_ends_at_once() {
    let mut running = start(|drain| drain).await;
    running.signal();
    let report = running.report().await;
    assert_eq!((report.connections(), report.left(), report.lingering()), (0, 0, 0));
    assert!(report.elapsed() < SHORT * 10, "{report}");
    assert_eq!(report.acknowledgement(), Acknowledgement::Everything);
}

#[tokio::test]
async fn what_is_in_flight_is_counted() {
    let mut running = start(|drain| drain).await;
    let mut waiting = Vec::new();
    for path in ["/told", "/stop", "/told"] {
        waiting.push(asking(&running, path).await);
    }
    let mut done = asking(&running, "/").await;
    soon(done.stream.read_exact(&mut [0; 50])).await.expect("an answer");
    soon(async {
        while running.drain.in_flight() != 3 {
            yield_now().await;
        }
    })
    .await;
    running.signal();
    running.force();
    drop((waiting, done));
    let drain = running.drain.clone();
    running.report().await;
    assert_eq!(drain.in_flight(), 0);
}

#[tokio::test]
async fn a_layer_counts_what_is_in_flight() {
    let drain = ServerDrain::on(std::future::pending()).handle();
    let service = tower::service_fn(async |_: Request<()>| answer(ScriptedBody::full(10)));
    let mut service = tower_layer::Layer::layer(&drain.layer(), service);
    let response = service.call(Request::new(()));
    assert_eq!(drain.in_flight(), 1);
    let response = response.await.expect("an answer");
    assert_eq!(drain.in_flight(), 1, "its body is still to be sent");
    drop(response);
    assert_eq!(drain.in_flight(), 0);
}

#[tokio::test]
async fn the_phases_come_in_order_and_a_notice_changes_nothing_but_readiness() {
    let mut running = start(|drain| drain.notice(SHORT).last_request(SHORT)).await;
    let mut kept = idle(&running).await;
    let handle = running.drain.clone();
    let readiness = async |expected: u16| {
        let answer = handle.readiness().call(Request::new(())).await.expect("infallible");
        assert_eq!(answer.status(), expected);
    };
    readiness(200).await;
    assert_eq!((handle.phase(), handle.ends_at()), (DrainPhase::Serving, None));
    running.signal();
    soon(handle.reached(DrainPhase::Notice)).await;
    assert_eq!(handle.phase(), DrainPhase::Notice);
    readiness(503).await;
    let mut new = Client::connect(running.address).await;
    for client in [&mut kept, &mut new] {
        client.ask("/").await;
        assert!(!client.read_message().await.0.contains("connection: close"));
    }
    soon(handle.reached(DrainPhase::LastRequest)).await;
    assert_eq!(handle.phase(), DrainPhase::LastRequest);
    while TcpStream::connect(running.address).await.is_ok() {}
    kept.ask("/").await;
    assert!(kept.read_message().await.0.contains("connection: close"));
    assert_eq!(kept.read_to_end().await, (vec![], End::CloseNotify));
    drop(kept);
    assert_eq!(new.read_to_end().await, (vec![], End::CloseNotify), "its window is over");
    drop(new);
    let report = running.report().await;
    assert!(report.notice() >= SHORT && report.last_request() >= SHORT, "{report}");
    assert_eq!(report.deadline(), Duration::ZERO);
    assert_eq!((report.requests(), report.responses_cut(), report.handshakes_finished()), (3, 0, 1), "{report}");
    assert_eq!(handle.phase(), DrainPhase::Ended);
}

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
        // In one piece with the request before it.
        client.send(format!("{first}GET / HTTP/1.1\r\nHo")).await;
        client.read_message().await;
        assert_half_a_head_is_a_request(running, client).await;
    }
}

async fn assert_half_a_head_is_a_request(mut running: Running, mut client: Client) {
    running.signal();
    soon(running.drain.reached(DrainPhase::LastRequest)).await;
    // Past the window's end, which is nothing that a client could see.
    sleep(SHORT + SHORT / 2).await;
    client.send("st: a\r\n\r\n").await;
    assert!(client.read_message().await.0.contains("connection: close"));
    assert_eq!(client.read_to_end().await, (vec![], End::CloseNotify));
    drop(client);
    assert_eq!(running.report().await.responses_cut(), 0);
}

/// RFC 9112 section 2.2 has servers ignore it.
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
    // Unread tickets make a reset of a client's end.
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
        // All in one turn of the runtime: the server has not been polled when the drain begins.
        running.signal();
        client.ask("/").await;
        let (data, end) = client.read_to_end().await;
        assert_eq!(end, End::CloseNotify);
        assert!(data.ends_with(b"xxxxxxxxxx"), "{}", String::from_utf8_lossy(&data));
        drop(client);
        running.report().await;
    }
}

/// One budget, whatever the clients do.
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
    // Held to the end: none of them closes.
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
            // A slow peer is slow by the clock.
            sleep(Duration::from_millis(10)).await;
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
    // The endless response, the one that never came, two uploads; that of 50 MB.
    assert_eq!(report.responses_cut(), 5, "{report}");
    uploading.abort();
    dripping.abort();
    drop((silent, half_head, upload, never_reads, endless, never, kept, http2, stalled, reader));
}

#[tokio::test]
async fn a_second_signal_cuts_what_is_in_progress_and_loses_no_request() {
    let mut running = start(|drain| drain.notice(LONG)).await;
    let mut endless = asking(&running, "/stop").await;
    let mut kept = idle(&running).await;
    running.signal();
    soon(running.drain.reached(DrainPhase::Notice)).await;
    running.force();
    kept.ask("/").await;
    let (data, end) = kept.read_to_end().await;
    assert_eq!(end, End::CloseNotify);
    assert!(data.ends_with(b"xxxxxxxxxx"));
    let (data, end) = endless.read_to_end().await;
    assert_eq!(end, End::CloseNotify, "chunks tell");
    assert!(!data.ends_with(b"0\r\n\r\n"));
    drop((kept, endless));
    let report = running.report().await;
    assert_eq!((report.requests(), report.responses_cut(), report.left()), (1, 1, 0), "{report}");
}

#[tokio::test]
async fn long_answers_are_told_and_end_whole() {
    let mut running = start(|drain| drain.last_request(SHORT)).await;
    let mut client = asking(&running, "/told").await;
    running.signal();
    assert!(client.read_message().await.0.contains("connection: close"));
    assert_eq!(client.read_to_end().await, (vec![], End::CloseNotify));
    drop(client);
    assert_eq!(running.report().await.responses_cut(), 0);
}

#[tokio::test]
async fn closes_are_spread() {
    let spread = Duration::from_millis(600);
    let mut running = start(|drain| drain.last_request(Duration::ZERO).jitter(spread)).await;
    let mut clients = Vec::new();
    for _ in 0..16 {
        clients.push(idle(&running).await);
    }
    running.signal();
    let began = Instant::now();
    let ends = clients.into_iter().map(|mut client| {
        tokio::spawn(async move {
            assert_eq!(client.read_to_end().await, (vec![], End::CloseNotify));
            began.elapsed()
        })
    });
    let mut times = Vec::new();
    for end in ends.collect::<Vec<_>>() {
        times.push(end.await.expect("no panic"));
    }
    let (first, last) = (times.iter().min().expect("some"), times.iter().max().expect("some"));
    assert!(*last - *first > spread / 4 && *last < spread + SHORT * 2, "{first:?} to {last:?}");
    running.report().await;
}

#[tokio::test]
async fn http2_is_drained_with_two_goaways() {
    let mut running = start(|drain| drain.ping_timeout(LONG)).await;
    let mut client = Client::connect_http2(running.address).await;
    client.send([hello(), get(1)].concat()).await;
    while client.frame_of(http2::DATA).await.flags & 1 == 0 {}
    running.signal();
    assert_eq!(goaways(&[client.frame_of(http2::GOAWAY).await]), [(1 << 31) - 1]);
    let ping = client.frame_of(PING).await;
    // On its way when the client heard of the drain.
    client.send(get(3)).await;
    client.send(frame(PING, 1, 0, &ping.payload)).await;
    let (frames, end) = client.frames_to_end().await;
    assert!(is_answered(&frames, 3));
    assert_eq!((goaways(&frames), end), (vec![3], End::CloseNotify));
    drop(client);
    let report = running.report().await;
    assert_eq!((report.requests(), report.responses_cut()), (1, 0), "{report}");
}

#[tokio::test]
async fn http2_clients_that_never_answer_ping_do_not_hold_the_drain_up() {
    let told = [&[0x82, 0x87, 0x04, 5][..], b"/told", &[0x41, 1, b'a']].concat();
    for (sent, last, answered) in [
        (hello(), vec![(1 << 31) - 1, 0], false),
        ([hello(), frame(HEADERS, END_HEADERS | 1, 1, &told)].concat(), vec![(1 << 31) - 1, 1], true),
        // Within a frame: its end does not come.
        ([hello(), frame(PING, 0, 0, &[0; 8])[..5].to_vec()].concat(), vec![(1 << 31) - 1, 0], false),
        // Nothing of a preface, and half of it.
        (vec![], vec![0], false),
        (PREFACE[..10].to_vec(), vec![0], false),
    ] {
        let mut running = start(|drain| drain.ping_timeout(SHORT).last_request(SHORT)).await;
        let mut client = Client::connect_http2(running.address).await;
        client.send(&sent).await;
        for _ in 0..50 {
            yield_now().await;
        }
        running.signal();
        let (frames, end) = client.frames_to_end().await;
        assert_eq!((goaways(&frames), end), (last, End::CloseNotify), "{sent:?}");
        assert_eq!(is_answered(&frames, 1), answered, "{sent:?}");
        drop(client);
        assert_eq!(running.report().await.responses_cut(), 0, "{sent:?}");
    }
}

/// A request whose head has not wholly come is none that was served, and may be made again elsewhere.
#[tokio::test]
async fn half_a_header_block_is_no_request() {
    let told = [&[0x82, 0x87, 0x04, 5][..], b"/told", &[0x41, 1, b'a']].concat();
    for (before, last) in [(vec![], 0), (frame(HEADERS, END_HEADERS | 1, 1, &told), 1)] {
        let mut running = start(|drain| drain.ping_timeout(SHORT).last_request(SHORT)).await;
        let mut client = Client::connect_http2(running.address).await;
        client.send([hello(), before, frame(HEADERS, 1, 3, &told)].concat()).await;
        for _ in 0..50 {
            yield_now().await;
        }
        running.signal();
        let (frames, end) = client.frames_to_end().await;
        assert_eq!((goaways(&frames), end), (vec![(1 << 31) - 1, last], End::CloseNotify));
        assert_eq!(is_answered(&frames, 1), last == 1);
        drop(client);
        assert_eq!(running.report().await.responses_cut(), 0);
    }
}

#[tokio::test]
async fn http2_streams_at_the_deadline_are_reset() {
    let mut running = start(|drain| drain).await;
    let mut client = Client::connect_http2(running.address).await;
    let stop = [&[0x82, 0x87, 0x04, 5][..], b"/stop", &[0x41, 1, b'a']].concat();
    client.send([hello(), frame(HEADERS, END_HEADERS | 1, 1, &stop)].concat()).await;
    client.frame_of(http2::DATA).await;
    running.signal();
    assert_eq!(goaways(&[client.frame_of(http2::GOAWAY).await]), [(1 << 31) - 1]);
    running.force();
    let (frames, end) = client.frames_to_end().await;
    let reset = frames.iter().find(|frame| frame.kind == RST_STREAM).expect("told");
    assert_eq!((reset.stream, &reset.payload[..]), (1, &[0, 0, 0, 8][..]));
    assert_eq!((goaways(&frames), end), (vec![1], End::CloseNotify));
    drop(client);
    assert_eq!(running.report().await.responses_cut(), 1);
}

#[tokio::test]
async fn a_stream_that_is_held_for_ever_is_left() {
    let grace = Duration::from_millis(500);
    let drain = ServerDrain::on(std::future::ready(())).grace_period(grace);
    let mut listener = listener().await.with_drain(&drain.handle());
    let address = listener.local_addr().expect("an address");
    let client = tokio::spawn(Client::connect(address));
    let held = soon(listener.accept()).await.expect("a connection");
    let report = soon(drain.run(async move { while listener.accept().await.is_some() {} })).await;
    assert_eq!((report.left(), report.connections()), (1, 0), "{report}");
    assert!(report.elapsed() < grace * 2, "{report}");
    drop((held, client));
}

#[tokio::test]
async fn two_servers_share_a_drain() {
    let (signal, signalled) = oneshot::channel::<()>();
    let drain = ServerDrain::on(async move { signalled.await.expect("a signal") }).grace_period(LONG);
    let handle = drain.handle();
    let listeners = [listener().await, listener().await];
    let addresses = listeners.each_ref().map(|listener| listener.local_addr().expect("an address"));
    let [public, admin] = listeners.map(Server::new);
    let service = || tower::service_fn(routes);
    let task = tokio::spawn(async move {
        let both = async {
            tokio::join!(public.serve_in(&handle, service()), admin.serve_in(&handle, service()));
        };
        drain.run(both).await
    });
    let mut clients = Vec::new();
    for address in addresses {
        let mut client = Client::connect(address).await;
        client.ask("/told").await;
        clients.push(client);
    }
    signal.send(()).expect("a server");
    for mut client in clients {
        assert!(client.read_message().await.0.contains("connection: close"));
        assert_eq!(client.read_to_end().await, (vec![], End::CloseNotify));
    }
    let report = soon(task).await.expect("no panic");
    assert_eq!((report.connections(), report.responses_cut(), report.left()), (2, 0, 0), "{report}");
}

#[tokio::test]
async fn two_listeners_share_a_drain_and_a_reaper() {
    let drain = ServerDrain::on(std::future::ready(())).grace_period(LONG);
    let handle = drain.handle();
    let reaper = Reaper::with_limits(tls_shutdown::ReaperLimits::new().with_max_closings(0));
    let mut listeners = [listener().await, listener().await]
        .map(|listener| listener.with_reaper(&reaper).with_drain(&handle).max_handshakes(1));
    let [first, second] = &mut listeners;
    let clients = [first.local_addr(), second.local_addr()]
        .map(|address| tokio::spawn(Client::connect(address.expect("an address"))));
    for listener in [first, second] {
        let (mut stream, _) = soon(listener.accept()).await.expect("a connection");
        stream.shutdown().await.expect("sent");
    }
    assert_eq!(reaper.shed(), 2);
    let [mut first, second] = listeners;
    // The second is dropped before its time.
    drop(second);
    let report = soon(drain.run(async move { while first.accept().await.is_some() {} })).await;
    assert_eq!((report.shed(), report.left()), (2, 0), "{report}");
    drop(clients);
}

#[tokio::test]
async fn a_server_that_ends_by_itself_is_drained() {
    let drain = ServerDrain::on(std::future::pending()).notice(LONG).grace_period(LONG);
    let handle = drain.handle();
    let report = soon(drain.run(async {})).await;
    assert_eq!((report.left(), handle.phase()), (0, DrainPhase::Ended));
}

#[tokio::test]
async fn a_drain_that_is_dropped_drops_its_server() {
    for phase in [DrainPhase::Serving, DrainPhase::Notice, DrainPhase::LastRequest] {
        let notice = if phase == DrainPhase::Notice { LONG } else { Duration::ZERO };
        let mut running = start(|drain| drain.notice(notice).last_request(LONG)).await;
        let mut client = idle(&running).await;
        if phase != DrainPhase::Serving {
            running.signal();
        }
        soon(running.drain.reached(phase)).await;
        running.cut().await;
        assert_eq!(client.read_to_end().await, (vec![], End::CloseNotify), "{phase}");
        drop(client);
        assert_eq!(running.end().await.ending(), Ending::Sent, "the client has closed TCP alone");
        assert_eq!(running.drain.connections(), 0);
    }
}

/// A server whose answer a client's system has no room for, and that client.
async fn unacknowledged(
    limits: tls_shutdown::ReaperLimits,
    drain: impl FnOnce(ServerDrain) -> ServerDrain,
) -> (Running, Client) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_send_buffer_size(1 << 20).expect("an option");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let listener = TlsListener::from_tcp(socket.listen(10).expect("a socket"), offering(&[]));
    let policy = tls_shutdown::ShutdownPolicy::unidirectional().with_close_timeout(SHORT);
    let listener = listener.with_reaper(&Reaper::with_limits(limits)).with_policy(policy);
    let running = Running::start_with(
        listener,
        |server| server,
        |plan| drain(plan.last_request(Duration::ZERO)),
        |_| async { answer(ScriptedBody::full(100_000)) },
    );
    let mut client = Client::connect_narrow(running.address).await;
    client.ask("/").await;
    assert_eq!(soon(client.stream.read_u8()).await.expect("a byte"), b'H');
    (running, client)
}

fn assert_some_is_missing(report: &DrainReport) {
    let Acknowledgement::Missing(missing) = report.acknowledgement() else { panic!("{report}") };
    assert!((1..=110_000).contains(&missing), "{report}");
}

#[tokio::test]
async fn what_is_not_acknowledged_is_waited_for_within_bounds_and_told() {
    let limits = tls_shutdown::ReaperLimits::new().with_linger_idle_timeout(SHORT);
    let (mut running, mut client) = unacknowledged(limits, |drain| drain.grace_period(LONG).ack_timeout(SHORT)).await;
    running.signal();
    let report = running.report().await;
    assert_some_is_missing(&report);
    assert!(report.exit() >= SHORT && report.exit() < SHORT * 10, "{report}");
    let (data, end) = client.read_to_end().await;
    assert!(data.len() > 100_000 && end == End::CloseNotify, "the system has gone on");
}

#[tokio::test]
async fn a_second_signal_ends_the_wait_for_acknowledgements() {
    let limits = tls_shutdown::ReaperLimits::new().with_linger_idle_timeout(SHORT);
    let (mut running, _client) = unacknowledged(limits, |drain| drain.grace_period(LONG).ack_timeout(LONG)).await;
    running.signal();
    soon(running.drain.reached(DrainPhase::Exit)).await;
    // The system is asked at once; this is after its answer.
    sleep(SHORT).await;
    running.force();
    assert_some_is_missing(&running.report().await);
}

#[tokio::test]
async fn what_lingers_at_the_end_of_the_grace_is_not_acknowledged_either() {
    let limits = tls_shutdown::ReaperLimits::new().with_linger_idle_timeout(LONG).with_linger_timeout(LONG);
    let (mut running, client) = unacknowledged(limits, |drain| drain.grace_period(SHORT * 5)).await;
    running.signal();
    let report = running.report().await;
    assert_eq!(report.lingering(), 1, "{report}");
    assert_some_is_missing(&report);
    drop(client);
}

#[tokio::test]
async fn the_report_says_what_clients_have_seen() {
    let mut running = start(|drain| drain.last_request(SHORT * 5)).await;
    let mut clients = Vec::new();
    for number in 0..20 {
        clients.push((number, idle(&running).await));
    }
    running.signal();
    soon(running.drain.reached(DrainPhase::LastRequest)).await;
    let mut answered = 0;
    let mut closed = 0;
    for (_, client) in clients.iter_mut().filter(|(number, _)| number % 2 == 0) {
        client.ask("/").await;
        answered += 1;
    }
    for (number, mut client) in clients {
        if number % 2 == 0 {
            client.read_message().await;
        }
        if client.read_to_end().await == (vec![], End::CloseNotify) {
            closed += 1;
            let _ = client.stream.shutdown().await;
        }
    }
    let report = running.report().await;
    assert_eq!((report.requests(), report.endings().get("complete")), (answered, Some(&closed)), "{report}");
    assert_eq!((answered, closed), (10, 20));
}

#[tokio::test]
async fn a_window_can_be_waited_for_by_servers_that_are_not_ours() {
    let drain = ServerDrain::on(std::future::ready(())).last_request(LONG).grace_period(LONG);
    let over = drain.handle().last_request_over();
    let mut over = pin!(over);
    let listener = listener().await.with_drain(&drain.handle());
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
    assert_eq!(soon(run).await.left(), 0);
}
