//! A reaper without a place for one more closing sheds one.

use std::time::Duration;

use tls_shutdown::{Ending, Reaper, ReaperLimits, ShutdownPolicy, Undelivered};
use tls_shutdown_tests::{
    Side, Wire, connect,
    scripted::{UNIDIRECTIONAL, shut_down_now},
};
use tokio::{
    sync::oneshot,
    task::yield_now,
    time::{Instant, sleep},
};

use super::{PATIENCE, reaped};

#[tokio::test(start_paused = true)]
async fn the_closing_without_an_answer_is_shed_first() {
    let reaper = Reaper::new();
    assert!(!reaper.shed_one(), "nothing is closing");
    let mut peers = Vec::new();
    let mut ends = Vec::new();
    for undelivered in [Undelivered::Answer, Undelivered::Alert, Undelivered::Answer] {
        let (stream, peer) = connect(Side::Server, &rustls::version::TLS13);
        let (mut stream, end) = reaped(stream, &reaper);
        stream.set_undelivered(undelivered);
        shut_down_now(&mut stream, UNIDIRECTIONAL).expect("sent");
        drop(stream);
        peers.push(peer);
        ends.push(end);
    }
    let began = Instant::now();
    for (index, left) in [(1, 2), (0, 1), (0, 0)] {
        assert!(reaper.shed_one());
        assert_eq!(ends.remove(index).await.expect("once").1, began, "at once");
        yield_now().await;
        assert_eq!(reaper.closings(), left);
    }
    assert_eq!(reaper.shed(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_closing_is_shed() {
    let reaper = Reaper::with_limits(ReaperLimits::new().with_max_closings(3));
    let mut ends = Vec::new();
    let began = Instant::now();
    for _ in 0..10 {
        let (stream, _peer) = connect(Side::Server, &rustls::version::TLS13);
        let (mut stream, end) = reaped(stream, &reaper);
        shut_down_now(&mut stream, UNIDIRECTIONAL).expect("sent");
        drop(stream);
        ends.push(end);
    }
    assert_eq!(reaper.shed(), 7);
    for (number, end) in ends.into_iter().enumerate() {
        if number == 7 {
            assert_eq!(reaper.closings(), 3);
        }
        let (report, ended) = end.await.expect("once");
        assert_eq!(report.ending(), Ending::Sent);
        let expected = if number < 7 { Duration::ZERO } else { ShutdownPolicy::CLOSE_TIMEOUT };
        assert_eq!(ended - began, expected, "closing {number}");
    }
    assert_eq!(reaper.wait_idle(PATIENCE).await, 0);
    assert_eq!(reaper.shed(), 7);
}

/// They are in the client's store, wherever its closing ends.
#[tokio::test(start_paused = true)]
async fn a_closing_that_is_shed_tells_the_tickets_that_it_has_received() {
    let ways_to_end: [fn(&Reaper); 2] = [Reaper::abort_all, |reaper| assert!(reaper.shed_one())];
    for end_early in ways_to_end {
        let reaper = Reaper::new();
        let (stream, peer) = connect(Side::Client, &rustls::version::TLS13);
        let (mut stream, end) = reaped(stream, &reaper);
        shut_down_now(&mut stream, UNIDIRECTIONAL).expect("sent");
        drop(stream);
        sleep(Duration::from_millis(1)).await;
        assert!(peer.wire.script(|script| script.inbound.is_empty()), "the reaper has read what the server sent");
        end_early(&reaper);
        let (report, _) = end.await.expect("once");
        assert_eq!((report.ending(), report.tickets()), (Ending::Sent, 2), "{report}");
    }
}

/// The alert of a failed handshake is worth less than an answer.
#[tokio::test(start_paused = true)]
async fn a_linger_after_a_failed_handshake_is_shed_first() {
    let reaper = Reaper::with_limits(ReaperLimits::new().with_max_closings(2));
    let adopt = || {
        let (stream, peer) = connect(Side::Server, &rustls::version::TLS13);
        let mut stream = stream.with_reaper(&reaper);
        shut_down_now(&mut stream, UNIDIRECTIONAL).expect("sent");
        peer
    };
    let oldest = adopt();
    let failed = Wire::default();
    reaper.linger(failed.clone());
    let youngest = adopt();
    assert_eq!(reaper.shed(), 1);
    sleep(Duration::from_millis(1)).await;
    assert_eq!([&oldest.wire, &failed, &youngest.wire].map(Wire::handles), [2, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_reaper_without_places_takes_nothing() {
    let reaper = Reaper::with_limits(ReaperLimits::new().with_max_closings(0));
    let (stream, _peer) = connect(Side::Server, &rustls::version::TLS13);
    let (told, report) = oneshot::channel();
    let mut stream = stream.with_reaper(&reaper).on_end(move |report| told.send(*report).expect("awaited"));
    shut_down_now(&mut stream, UNIDIRECTIONAL).expect("sent");
    drop(stream);
    assert_eq!(report.await.expect("once").ending(), Ending::Sent);
    assert_eq!((reaper.closings(), reaper.shed()), (0, 1));
}
