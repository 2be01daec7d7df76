//! The phases of a drain, their signals, and the report.

use std::time::Duration;

use hyper::{Method, Request, header::CONNECTION};
use tls_shutdown::{
    Ending,
    server::{Acknowledgement, DrainPhase, ServerDrain},
};
use tls_shutdown_tests::{
    End,
    serving::{Client, LONG, ScriptedBody, answer},
    soon,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::yield_now,
    time::{Instant, timeout},
};
use tower::Service;

use crate::drain::{SHORT, asking, idle, start};

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
async fn a_layer_announces_the_end_of_a_connection_and_not_of_a_tunnel() {
    let drain = ServerDrain::on(std::future::ready(())).ack_timeout(Duration::ZERO);
    let handle = drain.handle();
    drain.run(async {}).await;
    let service = tower::service_fn(async |_: Request<()>| answer(ScriptedBody::full(0)));
    let mut service = tower_layer::Layer::layer(&handle.layer(), service);
    for (method, expected) in [(Method::GET, Some("close")), (Method::CONNECT, None)] {
        let mut request = Request::new(());
        *request.method_mut() = method;
        let response = service.call(request).await.expect("an answer");
        let announced = response.headers().get(CONNECTION).map(|value| value.to_str().expect("text"));
        assert_eq!(announced, expected);
    }
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
    // The system of a client that connects while the socket closes tries again after a second. Such a client is not accepted.
    while let Ok(Ok(_)) = timeout(SHORT / 4, TcpStream::connect(running.address)).await {}
    kept.ask("/").await;
    assert!(kept.read_message().await.0.contains("connection: close"));
    assert_eq!(kept.read_to_end().await, (vec![], End::CloseNotify));
    drop(kept);
    assert_eq!(new.read_to_end().await, (vec![], End::CloseNotify), "its window is over");
    drop(new);
    let report = running.report().await;
    assert!(
        report.time_in(DrainPhase::Notice) >= SHORT && report.time_in(DrainPhase::LastRequest) >= SHORT,
        "{report}"
    );
    assert_eq!(report.time_in(DrainPhase::Deadline), Duration::ZERO);
    assert_eq!((report.requests(), report.responses_cut(), report.handshakes_finished()), (3, 0, 1), "{report}");
    assert_eq!(handle.phase(), DrainPhase::Ended);
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
async fn a_server_that_ends_by_itself_is_drained() {
    let drain = ServerDrain::on(std::future::pending()).notice(LONG).grace_period(LONG);
    let handle = drain.handle();
    let (report, _) = soon(drain.run(async {})).await;
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
    assert_eq!((report.requests(), report.count(Ending::Complete)), (answered, closed), "{report}");
    assert_eq!((answered, closed), (10, 20));
}

/// Browsers and curl leave so, and have lost nothing.
#[tokio::test]
async fn clients_that_leave_without_close_notify_after_their_response_are_told_apart() {
    let mut running = start(|drain| drain.last_request(LONG)).await;
    let (left, cut) = (idle(&running).await, asking(&running, "/stop").await);
    running.signal();
    soon(running.drain.reached(DrainPhase::LastRequest)).await;
    drop((left, cut));
    let report = running.report().await;
    assert_eq!((report.left_after_response(), report.responses_cut(), report.count(Ending::Complete)), (1, 1, 0));
    assert!(report.to_string().contains("left after response  1"), "{report}");
}
