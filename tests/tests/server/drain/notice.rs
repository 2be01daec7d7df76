//! How long the notice of a drain is: as long as those need who watch.

use std::{future::pending, net::SocketAddr, time::Duration};

use axum::{Router, routing::get};
use tls_shutdown::server::{DrainHandle, DrainPhase, DrainReport, Notice, Server, ServerDrain};
use tls_shutdown_tests::{
    serving::{Client, LONG, listener},
    soon,
    time::{pass_time, turns},
};
use tokio::{sync::oneshot, task::JoinHandle};

const SECOND: Duration = Duration::from_secs(1);

struct Watched {
    address: SocketAddr,
    drain: DrainHandle,
    signal: Option<oneshot::Sender<()>>,
    task: JoinHandle<DrainReport>,
}

impl Watched {
    async fn start(plan: impl FnOnce(ServerDrain) -> ServerDrain) -> Self {
        let (signal, signalled) = oneshot::channel::<()>();
        let signalled = async {
            if signalled.await.is_err() {
                pending().await
            }
        };
        let drain = plan(ServerDrain::on(signalled).grace_period(LONG));
        let (handle, listener) = (drain.handle(), listener().await);
        let address = listener.local_addr().expect("an address");
        let routes = Router::new().route("/", get("hello")).route_service("/ready", handle.readiness());
        let task = tokio::spawn(Server::new(listener).drain(drain).serve(routes));
        Self { address, drain: handle, signal: Some(signal), task }
    }

    /// Asks as most balancers do: on a connection of its own.
    async fn probe(&self) -> bool {
        self.ask("/ready").await.starts_with("http/1.1 200")
    }

    async fn ask(&self, path: &str) -> String {
        Self::ask_at(self.address, path).await
    }

    async fn ask_at(address: SocketAddr, path: &str) -> String {
        let mut client = Client::connect(address).await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        let head = client.head().await;
        client.read_to_end_and_close().await;
        head
    }

    async fn signal(&mut self) {
        self.signal.take().expect("one signal").send(()).expect("a server");
        turns(50).await;
    }

    async fn report(self) -> DrainReport {
        soon(self.task).await.expect("no panic")
    }
}

#[tokio::test]
async fn nobody_watches_so_the_drain_ends_at_once() {
    for probe_before in [false, true] {
        let mut server = Watched::start(|drain| drain).await;
        if probe_before {
            // Too long ago to be somebody who asks regularly.
            assert!(server.probe().await);
            pass_time(SECOND * 61).await;
        }
        server.signal().await;
        let report = server.report().await;
        assert_eq!(report.notice(), Notice::Unwatched, "{report}");
        assert!(report.elapsed() < SECOND, "{report}");
    }
}

/// Each probe is a connection, and does not make the notice longer. Each other connection does.
#[tokio::test]
async fn the_notice_ends_when_the_probes_have_seen_it_and_nobody_connects_any_more() {
    let mut server = Watched::start(|drain| drain).await;
    assert!(server.probe().await);
    server.signal().await;
    assert!(!server.probe().await);
    pass_time(SECOND * 3).await;
    assert_eq!(server.drain.phase(), DrainPhase::Notice, "the probes have seen it once");
    for _ in 0..5 {
        assert!(server.ask("/").await.starts_with("http/1.1 200"), "the balancer still sends");
        assert!(!server.probe().await);
        pass_time(SECOND / 4).await;
        assert_eq!(server.drain.phase(), DrainPhase::Notice);
    }
    assert!(!server.probe().await);
    pass_time(SECOND * 3 / 2).await;
    let report = server.report().await;
    assert_eq!(report.notice(), Notice::Seen, "{report}");
}

/// Their connections are none of those that the drain counts.
#[tokio::test]
async fn probes_over_another_server_hide_no_connection() {
    let mut server = Watched::start(|drain| drain).await;
    let listener = listener().await;
    let address = listener.local_addr().expect("an address");
    let routes = Router::new().route_service("/ready", server.drain.readiness());
    tokio::spawn(Server::new(listener).serve(routes));
    let probe = async |status: &str| {
        let head = Watched::ask_at(address, "/ready").await;
        assert!(head.starts_with(status), "{head}");
    };
    for _ in 0..3 {
        probe("http/1.1 200").await;
    }
    server.signal().await;
    for _ in 0..8 {
        assert!(server.ask("/").await.starts_with("http/1.1 200"), "the balancer still sends");
        probe("http/1.1 503").await;
        pass_time(SECOND / 4).await;
        assert_eq!(server.drain.phase(), DrainPhase::Notice);
    }
    pass_time(SECOND * 3 / 2).await;
    assert_eq!(server.report().await.notice(), Notice::Seen);
}

#[tokio::test]
async fn the_notice_has_a_limit() {
    for (grace, limit) in [(LONG, ServerDrain::MAX_NOTICE), (SECOND * 10, SECOND * 4)] {
        let mut server = Watched::start(|drain| drain.grace_period(grace)).await;
        assert!(server.probe().await);
        server.signal().await;
        pass_time(limit - SECOND).await;
        assert_eq!(server.drain.phase(), DrainPhase::Notice);
        pass_time(SECOND * 3 / 2).await;
        let report = server.report().await;
        assert_eq!(report.notice(), Notice::TimedOut, "{report}");
        assert!(report.to_string().contains("(timed out)"), "{report}");
    }
}

#[tokio::test]
async fn a_fixed_notice_waits_for_nobody() {
    let mut server = Watched::start(|drain| drain.notice(SECOND * 3)).await;
    server.signal().await;
    pass_time(SECOND * 2).await;
    assert_eq!(server.drain.phase(), DrainPhase::Notice);
    pass_time(SECOND * 2).await;
    let report = server.report().await;
    assert_eq!(report.notice(), Notice::Fixed, "{report}");
}

/// What is left has to serve the requests in progress.
#[tokio::test]
async fn a_notice_without_room_in_the_grace_period_is_shortened() {
    for (notice, last_request, longest) in [(8, 2, 7), (100, 2, 7), (100, 100, 4)] {
        let plan = |drain: ServerDrain| {
            let times = (SECOND * notice, SECOND * last_request);
            drain.notice(times.0).last_request(times.1).grace_period(SECOND * 10)
        };
        let mut server = Watched::start(plan).await;
        server.signal().await;
        pass_time(SECOND * longest - SECOND / 2).await;
        assert_eq!(server.drain.phase(), DrainPhase::Notice);
        pass_time(SECOND * 3 / 2).await;
        let report = server.report().await;
        assert_eq!(report.notice(), Notice::Shortened, "{report}");
        assert!(report.time_in(DrainPhase::Deadline).is_zero(), "{report}");
    }
}

/// The drain begins and is cancelled by the program.
#[tokio::test]
async fn a_drain_is_started_and_cancelled_from_code() {
    let mut server = Watched::start(|drain| drain.notice(SECOND * 3)).await;
    let drain = server.drain.clone();
    assert!(!drain.cancel(), "it has not begun");
    for begin in 0..3 {
        if begin == 1 {
            server.signal().await
        } else {
            drain.start()
        }
        soon(drain.reached(DrainPhase::Notice)).await;
        assert!(!server.probe().await);
        assert!(drain.cancel());
        assert_eq!((drain.phase(), drain.ends_at()), (DrainPhase::Serving, None));
        assert!(server.probe().await, "it is ready again");
        pass_time(SECOND * 5).await;
        assert_eq!(drain.phase(), DrainPhase::Serving);
    }
    assert!(server.ask("/").await.starts_with("http/1.1 200"));
    drain.start();
    soon(drain.reached(DrainPhase::Notice)).await;
    pass_time(SECOND * 4).await;
    soon(drain.reached(DrainPhase::LastRequest)).await;
    assert!(!drain.cancel(), "the socket is closed");
    let report = server.report().await;
    // What came before the last beginning does not count.
    assert_eq!((report.requests(), report.left()), (0, 0), "{report}");
}

/// Two parts of the program begin the same drain. Whoever cancels it has cancelled both.
#[tokio::test]
async fn a_drain_that_was_started_twice_is_cancelled_once() {
    let mut server = Watched::start(|drain| drain.notice(SECOND * 3)).await;
    let drain = server.drain.clone();
    // It waits for the first one, and is told of both.
    turns(50).await;
    drain.start();
    drain.start();
    soon(drain.reached(DrainPhase::Notice)).await;
    assert!(drain.cancel());
    pass_time(SECOND).await;
    assert_eq!(drain.phase(), DrainPhase::Serving);
    server.signal().await;
    assert!(server.report().await.elapsed() >= SECOND * 3);
}

/// The two come in one moment. The server is ready again, and must not cut what it serves.
#[tokio::test]
async fn a_drain_that_is_cancelled_while_it_is_forced_serves_on() {
    let (sender, cancelled) = oneshot::channel();
    let cancelled_then_forced = |drain: ServerDrain| {
        let handle = drain.handle();
        drain.notice(SECOND * 3).force_on(async move { sender.send(handle.cancel()).expect("a test") })
    };
    let mut server = Watched::start(cancelled_then_forced).await;
    server.signal().await;
    assert!(soon(cancelled).await.expect("a drain"));
    turns(50).await;
    assert_eq!(server.drain.phase(), DrainPhase::Serving);
    assert!(server.ask("/").await.starts_with("http/1.1 200"));
    server.drain.start();
    assert_eq!(server.report().await.notice(), Notice::Fixed);
}
