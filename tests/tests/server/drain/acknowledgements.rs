//! What clients have not acknowledged when the server exits.

use std::time::Duration;

use tls_shutdown::{
    Reaper,
    server::{Acknowledgement, DrainPhase, DrainReport, ServerDrain, TlsListener},
};
use tls_shutdown_tests::{
    End,
    serving::{Client, LONG, Running, ScriptedBody, answer, offering},
    soon,
    time::{real_time, rest},
};
use tokio::{io::AsyncReadExt, net::TcpSocket};

use crate::drain::SHORT;

/// Starts a server, and a client whose system has no room for the whole answer.
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
    assert!(report.time_in(DrainPhase::Exit) >= SHORT && report.time_in(DrainPhase::Exit) < SHORT * 10, "{report}");
    let (data, end) = client.read_to_end().await;
    assert!(data.len() > 100_000 && end == End::CloseNotify, "the system has gone on");
}

#[tokio::test]
async fn a_second_signal_ends_the_wait_for_acknowledgements() {
    let limits = tls_shutdown::ReaperLimits::new().with_linger_idle_timeout(SHORT);
    let (mut running, _client) = unacknowledged(limits, |drain| drain.grace_period(LONG).ack_timeout(LONG)).await;
    running.signal();
    soon(running.drain.reached(DrainPhase::Exit)).await;
    // A thread asks the system at once. Nothing reports that it has the answer.
    real_time(SHORT).await;
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
async fn an_idle_client_that_has_not_received_its_answer_is_waited_for() {
    let limits = tls_shutdown::ReaperLimits::new().with_linger_idle_timeout(LONG).with_linger_timeout(LONG);
    let (mut running, mut client) = unacknowledged(limits, |drain| drain.grace_period(LONG)).await;
    rest(Duration::from_secs(2)).await;
    running.signal();
    for _ in 0..5 {
        rest(Duration::from_secs(1)).await;
    }
    assert_eq!(running.drain.phase(), DrainPhase::LastRequest);
    let (data, end) = client.read_to_end().await;
    assert!(data.len() > 100_000 && end == End::CloseNotify);
    let report = running.report().await;
    assert_eq!((report.lingering(), report.acknowledgement()), (0, Acknowledgement::Everything), "{report}");
    drop(client);
}
