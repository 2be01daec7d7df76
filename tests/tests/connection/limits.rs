//! The limits of a closing.

use std::{io, time::Duration};

use tls_shutdown::{Ending, ShutdownPolicy};
use tls_shutdown_tests::{
    connect,
    scripted::{BIDIRECTIONAL, RECEIVE_FIRST, UNIDIRECTIONAL, each_kind, ending, shut_down, shut_down_now},
    wire_script::Then,
};
use tokio::{io::AsyncWriteExt, time::Instant};
use tokio_test::{assert_pending, assert_ready, task};

#[tokio::test(start_paused = true)]
async fn the_deadline_does_not_start_again_with_a_new_future() {
    for (side, version) in each_kind() {
        let (mut stream, _peer) = connect(side, version);
        let began = Instant::now();
        let policy = BIDIRECTIONAL.with_close_timeout(Duration::from_secs(3));
        for _ in 0..29 {
            let step = tokio::time::timeout(Duration::from_millis(100), stream.shutdown_with(policy));
            assert!(step.await.is_err(), "after {:?}", began.elapsed());
        }
        let outcome = stream.shutdown_with(policy).await;
        assert_eq!((ending(outcome), began.elapsed()), (Ending::TimedOut, Duration::from_secs(3)));
        // The same holds for another future of the same goal, and for one with a longer timeout.
        let outcome = stream.shutdown_with(BIDIRECTIONAL.with_close_timeout(Duration::from_secs(60))).await;
        assert_eq!((ending(outcome), began.elapsed()), (Ending::TimedOut, Duration::from_secs(3)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_ends_at_the_deadline() {
    for (side, version) in each_kind() {
        for policy in [BIDIRECTIONAL, RECEIVE_FIRST] {
            let (mut stream, mut peer) = connect(side, version);
            let began = Instant::now();
            let error = stream.shutdown_with(policy).await.expect_err("silence");
            assert_eq!((error.ending(), began.elapsed()), (Ending::TimedOut, ShutdownPolicy::CLOSE_TIMEOUT));
            assert_eq!(error.report().elapsed(), ShutdownPolicy::CLOSE_TIMEOUT);
            assert_eq!(io::Error::from(error).kind(), io::ErrorKind::TimedOut);
            assert_eq!(peer.receive(), Ok((vec![], policy == BIDIRECTIONAL)), "only what was received is answered");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dripping_peer_prolongs_nothing() {
    for (side, version) in each_kind() {
        for deadline in [Duration::from_secs(5), Duration::from_millis(5_001)] {
            let (mut stream, mut peer) = connect(side, version);
            let began = Instant::now();
            let drip = async {
                loop {
                    peer.send(b".");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            let outcome = tokio::select! {
                outcome = stream.shutdown_with(BIDIRECTIONAL.with_close_timeout(deadline)) => outcome,
                () = drip => unreachable!("it drips for ever"),
            };
            assert_eq!((ending(outcome), began.elapsed()), (Ending::TimedOut, deadline));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_ends_at_the_deadline_too() {
    for (side, version) in each_kind() {
        let (mut stream, mut peer) = connect(side, version);
        let began = Instant::now();
        let flood = async {
            loop {
                // More than the budget of one poll, so that the closing always has something to read.
                (0..300).for_each(|_| peer.send(&[0; 100]));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let policy = BIDIRECTIONAL.with_max_drain_bytes(u64::MAX).with_close_timeout(Duration::from_millis(100));
        let outcome = tokio::select! {
            outcome = stream.shutdown_with(policy) => outcome,
            () = flood => unreachable!("it floods for ever"),
        };
        assert_eq!(ending(outcome), Ending::TimedOut);
        assert!(began.elapsed() <= Duration::from_millis(101), "{:?}", began.elapsed());
    }
}

//= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
//# The shutdown procedure consists of two steps: sending of the
//# close_notify shutdown alert, and reception of the peer's close_notify
//# shutdown alert.
#[tokio::test(start_paused = true)]
async fn a_round_trip_is_all_it_takes() {
    const ROUND_TRIP: Duration = Duration::from_millis(120);
    for (side, version) in each_kind() {
        for then in [Then::Pending, Then::End] {
            let (mut stream, mut peer) = connect(side, version);
            let began = Instant::now();
            let answer = async {
                tokio::time::sleep(ROUND_TRIP).await;
                assert_eq!(peer.receive(), Ok((vec![], true)), "our close_notify is what it answers");
                peer.close_notify();
                peer.wire.script(|script| script.then = then);
                std::future::pending::<()>().await;
            };
            let outcome = tokio::select! {
                outcome = stream.shutdown_with(BIDIRECTIONAL) => outcome,
                () = answer => unreachable!("it stays"),
            };
            assert_eq!((ending(outcome), began.elapsed()), (Ending::Complete, ROUND_TRIP));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_not_cut_and_a_stalled_one_is() {
    let limit = Duration::from_secs(10);
    for (side, version) in each_kind() {
        for (pause, expected) in [(limit - Duration::from_millis(1), true), (limit + Duration::from_millis(1), false)] {
            let (mut stream, mut peer) = connect(side, version);
            peer.wire.script(|script| script.room = 0);
            assert_pending!(task::spawn(stream.write_all(&[7; 100_000])).poll());
            let wire = peer.wire.clone();
            let read = async {
                for _ in 0..200 {
                    tokio::time::sleep(pause).await;
                    wire.script(|script| script.room += 1000);
                }
                std::future::pending::<()>().await;
            };
            let began = Instant::now();
            let outcome = tokio::select! {
                outcome = stream.shutdown_with(UNIDIRECTIONAL.with_stall_timeout(limit)) => outcome,
                () = read => unreachable!("it stays"),
            };
            if expected {
                assert_eq!(ending(outcome), Ending::Sent);
                assert!(began.elapsed() > limit * 50);
                assert!(peer.receive().expect("records").1);
            } else {
                let error = outcome.expect_err("stalled");
                assert_eq!((error.ending(), began.elapsed()), (Ending::TimedOut, limit));
                assert!(!error.report().sent());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_drain_limit_is_exact() {
    for (side, version) in each_kind() {
        for (limit, expected) in [(3000, Ending::Complete), (2999, Ending::DrainLimit)] {
            let (mut stream, mut peer) = connect(side, version);
            (0..3).for_each(|_| peer.send(&[0; 1000]));
            peer.close_notify();
            let outcome = shut_down_now(&mut stream, BIDIRECTIONAL.with_max_drain_bytes(limit));
            assert_eq!(ending(outcome), expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn records_without_data_are_limited_too() {
    for (side, version) in each_kind() {
        let (mut stream, mut peer) = connect(side, version);
        // Each has one byte of data: far below the limit. Their headers and tags are more than 64 KiB.
        (0..4000).for_each(|_| peer.send(b"."));
        let outcome = tokio::time::timeout(
            Duration::from_secs(1),
            stream.shutdown_with(BIDIRECTIONAL.with_max_drain_bytes(10_000)),
        );
        assert_eq!(ending(outcome.await.expect("a limit, not the deadline")), Ending::DrainLimit);
    }
}

#[tokio::test(start_paused = true)]
async fn each_wait_has_its_own_limit() {
    // The stall timeout limits each time in which nothing is accepted. The time until the peer answers is no part of it.
    let policy = RECEIVE_FIRST.with_stall_timeout(Duration::from_secs(10)).with_close_timeout(Duration::from_secs(120));
    for (side, version) in each_kind() {
        let (mut stream, mut peer) = connect(side, version);
        let wire = peer.wire.clone();
        let peer_acts = async {
            tokio::time::sleep(Duration::from_secs(70)).await;
            wire.script(|script| script.room = 0);
            peer.close_notify();
            tokio::time::sleep(Duration::from_secs(9)).await;
            wire.script(|script| script.room = usize::MAX);
            std::future::pending::<()>().await;
        };
        let outcome = tokio::select! {
            outcome = stream.shutdown_with(policy) => outcome,
            () = peer_acts => unreachable!("it stays"),
        };
        let report = outcome.expect("complete");
        assert_eq!((report.ending(), report.sent()), (Ending::Complete, true));
        assert_eq!(report.elapsed(), Duration::from_secs(79));
    }
}

#[tokio::test(start_paused = true)]
async fn limits_that_never_come_are_no_limits() {
    let policy = BIDIRECTIONAL
        .with_close_timeout(Duration::MAX)
        .with_stall_timeout(Duration::MAX)
        .with_max_drain_bytes(u64::MAX);
    for (side, version) in each_kind() {
        let (mut stream, mut peer) = connect(side, version);
        let mut shutdown = shut_down(&mut stream, policy);
        assert_pending!(shutdown.poll());
        peer.send(b"late");
        assert_pending!(shutdown.poll());
        peer.close_notify();
        assert_eq!(ending(assert_ready!(shutdown.poll())), Ending::Complete);
    }
}
