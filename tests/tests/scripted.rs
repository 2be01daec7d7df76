//! Closings over scripted transports: what no kernel would do on demand.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustls::SupportedProtocolVersion;
use tls_shutdown::{
    Abort, Alert, AsyncShutdown, Ending, PeerData, ShutdownError, ShutdownPolicy, ShutdownReport, ShutdownState,
    ShutdownStream,
};
use tls_shutdown_tests::{
    Forge, Peer, Side, VERSIONS, Wire, client_config, connect, connect_with, server_config,
    wire_script::{Buffering, Done, Full, Then},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::coop::{Unconstrained, unconstrained},
    time::Instant,
};
use tokio_rustls::TlsStream;
use tokio_test::{assert_pending, assert_ready, task};

type Stream = ShutdownStream<TlsStream<Wire>>;
type Outcome = Result<ShutdownReport, ShutdownError>;

const BIDIRECTIONAL: ShutdownPolicy = ShutdownPolicy::bidirectional();
const UNIDIRECTIONAL: ShutdownPolicy = ShutdownPolicy::unidirectional();
const RECEIVE_FIRST: ShutdownPolicy = ShutdownPolicy::receive_first();
const POLICIES: [ShutdownPolicy; 3] = [UNIDIRECTIONAL, BIDIRECTIONAL, RECEIVE_FIRST];

fn each_kind() -> impl Iterator<Item = (Side, &'static SupportedProtocolVersion)> {
    Side::BOTH.into_iter().flat_map(|side| VERSIONS.map(|version| (side, version)))
}

fn ending(outcome: Outcome) -> Ending {
    outcome.map_or_else(|error| error.kind(), |report| report.ending())
}

/// A shutdown to be polled by hand, with no budget, since the test's own is never renewed.
fn shut_down(stream: &mut Stream, policy: ShutdownPolicy) -> task::Spawn<Unconstrained<AsyncShutdown<&mut Stream>>> {
    task::spawn(unconstrained(stream.shutdown_with(policy)))
}

/// Polls a shutdown that must not need to wait.
fn shut_down_now(stream: &mut Stream, policy: ShutdownPolicy) -> Outcome {
    assert_ready!(shut_down(stream, policy).poll())
}

/// Polls a shutdown once; what is awaited has yet to be scripted.
async fn start(stream: &mut Stream, policy: ShutdownPolicy) {
    assert_pending!(shut_down(stream, policy).poll());
}

#[tokio::test(start_paused = true)]
async fn one_byte_a_call_is_enough() {
    for (side, version) in each_kind() {
        for policy in POLICIES {
            let (mut stream, mut peer) = connect(side, version);
            peer.wire.script(|script| script.piece = 1);
            peer.send(b"late");
            peer.close_notify();
            let report = shut_down_now(&mut stream, policy.drain_limit(4)).expect("complete");
            let waits = policy != UNIDIRECTIONAL;
            assert_eq!(report.ending(), if waits { Ending::Complete } else { Ending::Sent });
            assert_eq!(report.discarded_late(), if waits { 4 } else { 0 });
            assert_eq!(peer.receive(), Ok((vec![], true)));
            assert!(peer.wire.is_finished());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_buffers_is_flushed_before_fin_and_before_the_wait() {
    for (side, version) in each_kind() {
        let (mut stream, mut peer) = connect(side, version);
        peer.wire.script(|script| {
            script.buffering = Buffering::UntilFlush;
            script.flush_delay = 3;
            script.finish_delay = 2;
        });
        let mut shutdown = shut_down(&mut stream, BIDIRECTIONAL);
        for _ in 0..6 {
            assert_pending!(shutdown.poll());
        }
        let order = peer.wire.script(|script| script.log.clone());
        let written = order.iter().position(|done| matches!(done, Done::Written(_))).expect("close_notify");
        assert_eq!(order[written + 1..], [Done::Flushed, Done::Finished]);
        assert_eq!(peer.receive(), Ok((vec![], true)));
        peer.close_notify();
        assert!(shutdown.is_woken());
        assert_eq!(ending(assert_ready!(shutdown.poll())), Ending::Complete);
    }
}

/// The length of our close_notify record.
fn alert_length(version: &'static SupportedProtocolVersion) -> usize {
    if version == &rustls::version::TLS13 { 24 } else { 31 }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_at_each_byte_of_the_alert() {
    for (side, version) in each_kind() {
        for accepted in 0..alert_length(version) {
            for (kind, failure) in [
                (io::ErrorKind::ConnectionReset, Ending::Reset),
                (io::ErrorKind::BrokenPipe, Ending::Reset),
                (io::ErrorKind::TimedOut, Ending::Transport(io::ErrorKind::TimedOut)),
            ] {
                let connect_failing = || {
                    let (stream, peer) = connect(side, version);
                    peer.wire.script(|script| {
                        script.room = accepted;
                        script.full = Full::Error(kind);
                    });
                    (stream, peer)
                };
                let (mut stream, _peer) = connect_failing();
                let error = shut_down_now(&mut stream, BIDIRECTIONAL).expect_err("a failed write");
                assert_eq!((error.kind(), error.report().sent()), (failure, false));

                // Their close_notify came first: that ours did not get out spoils nothing.
                let (mut stream, mut peer) = connect_failing();
                peer.close_notify();
                let report = shut_down_now(&mut stream, BIDIRECTIONAL).expect("complete");
                assert_eq!((report.ending(), report.sent(), report.received()), (Ending::Complete, false, true));

                // Why the peer has gone says more than that it has.
                let (mut stream, peer) = connect_failing();
                peer.into_forge().alert(Forge::FATAL, 80);
                let error = shut_down_now(&mut stream, BIDIRECTIONAL).expect_err("an alert");
                assert_eq!(error.kind(), Ending::PeerAlert(Alert(80)));
                assert_eq!(error.report().alert(), Some(Alert(80)));

                // An end that follows a failed write adds nothing.
                let (mut stream, peer) = connect_failing();
                peer.wire.script(|script| script.then = Then::End);
                assert_eq!(ending(shut_down_now(&mut stream, UNIDIRECTIONAL)), failure);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn data_that_could_not_be_sent_is_never_complete() {
    for (side, version) in each_kind() {
        let (mut stream, mut peer) = connect(side, version);
        peer.wire.script(|script| script.room = 10);
        assert_ready!(task::spawn(stream.write_all(b"not all of this gets out")).poll()).expect("buffered");
        peer.wire.script(|script| script.full = Full::Error(io::ErrorKind::ConnectionReset));
        peer.close_notify();
        let error = shut_down_now(&mut stream, BIDIRECTIONAL).expect_err("data is unsent");
        assert_eq!(error.kind(), Ending::Reset);
        assert!(error.report().received());
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_after_every_byte_of_the_peer() {
    for (side, version) in each_kind() {
        for policy in [BIDIRECTIONAL, RECEIVE_FIRST] {
            let (_, mut peer) = connect(side, version);
            peer.tls.writer();
            peer.tls.send_close_notify();
            let length = peer.records().len();
            for arrived in 0..=length {
                let (mut stream, mut peer) = connect(side, version);
                peer.tls.send_close_notify();
                let records = peer.records();
                peer.wire.deliver(&records[..arrived]);
                peer.wire.script(|script| script.then = Then::End);
                let outcome = shut_down_now(&mut stream, policy);
                if arrived == length {
                    assert_eq!(ending(outcome), Ending::Complete);
                } else {
                    let error = outcome.expect_err("cut");
                    assert_eq!(error.kind(), Ending::Truncated, "{arrived} of {length} bytes");
                    assert!(!error.report().received());
                    assert_eq!(error.report().sent(), policy == BIDIRECTIONAL, "nothing is said after a truncation");
                    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::UnexpectedEof);
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_forged_close_notify_never_completes() {
    for (side, version) in each_kind() {
        let (_, mut peer) = connect(side, version);
        peer.tls.send_close_notify();
        let length = peer.records().len();
        // rustls takes the version, and in TLS 1.3 the outer type, for the constants that the RFCs make them, whatever was
        // received: a change there changes nothing.
        let constant = if version == &rustls::version::TLS13 { 0..3 } else { 1..3 };
        for bit in (0..length * 8).filter(|bit| !constant.contains(&(bit / 8))) {
            let (mut stream, mut peer) = connect(side, version);
            peer.tls.send_close_notify();
            let mut records = peer.records();
            records[bit / 8] ^= 1 << (bit % 8);
            peer.wire.deliver(&records);
            peer.wire.script(|script| script.then = Then::End);
            let outcome = shut_down_now(&mut stream, BIDIRECTIONAL);
            assert_ne!(ending(outcome), Ending::Complete, "bit {bit} in {version:?}");
            let written = peer.receive().expect("no alert after close_notify");
            assert_eq!(written, (vec![], true));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_future_dropped_at_every_poll_goes_on() {
    for (side, version) in each_kind() {
        for policy in POLICIES {
            let close = async |drops: bool| {
                let (mut stream, mut peer) = connect(side, version);
                peer.wire.script(|script| script.room = 0);
                assert_pending!(task::spawn(stream.write_all(&[7; 100_000])).poll());
                peer.wire.script(|script| {
                    script.buffering = Buffering::UntilFlush;
                    script.flush_delay = 2;
                    script.finish_delay = 2;
                });
                peer.tls.writer();
                peer.tls.send_close_notify();
                let mut records = peer.records().into_iter();
                let mut future = Some(shut_down(&mut stream, policy));
                // Bytes trickle in both directions. The end is a defined one, whoever polled.
                let mut outbound = Vec::new();
                let mut polls = 0;
                let report = loop {
                    polls += 1;
                    let outcome = match &mut future {
                        Some(future) => future.poll(),
                        None => unreachable!("made again below"),
                    };
                    if let std::task::Poll::Ready(outcome) = outcome {
                        break outcome.expect("the goal");
                    }
                    if drops {
                        drop(future.take());
                        future = Some(shut_down(&mut stream, policy));
                    }
                    peer.wire.script(|script| {
                        script.room += 1000;
                        outbound.append(&mut script.outbound);
                        if polls > 80 {
                            script.inbound.extend(records.next());
                        }
                    });
                };
                drop(future);
                outbound.append(&mut peer.wire.script(|script| std::mem::take(&mut script.outbound)));
                let finished = peer.wire.is_finished();
                peer.wire.script(|script| script.outbound = outbound.clone());
                let (data, closed) = peer.receive().expect("records");
                assert!(closed && finished);
                (data.len(), outbound.len(), report.ending(), report.wire_written())
            };
            assert_eq!(close(false).await, close(true).await);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_does_not_start_again_with_a_new_future() {
    for (side, version) in each_kind() {
        let (mut stream, _peer) = connect(side, version);
        let began = Instant::now();
        let policy = BIDIRECTIONAL.deadline(Duration::from_secs(3));
        for _ in 0..29 {
            let step = tokio::time::timeout(Duration::from_millis(100), stream.shutdown_with(policy));
            assert!(step.await.is_err(), "after {:?}", began.elapsed());
        }
        let outcome = stream.shutdown_with(policy).await;
        assert_eq!((ending(outcome), began.elapsed()), (Ending::TimedOut, Duration::from_secs(3)));
        // Neither does it for another future of the same goal, nor for a longer deadline.
        let outcome = stream.shutdown_with(BIDIRECTIONAL.deadline(Duration::from_secs(60))).await;
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
            assert_eq!((error.kind(), began.elapsed()), (Ending::TimedOut, ShutdownPolicy::DEADLINE));
            assert_eq!(error.report().elapsed(), ShutdownPolicy::DEADLINE);
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
                outcome = stream.shutdown_with(BIDIRECTIONAL.deadline(deadline)) => outcome,
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
        let policy = BIDIRECTIONAL.drain_limit(u64::MAX).deadline(Duration::from_millis(100));
        let outcome = tokio::select! {
            outcome = stream.shutdown_with(policy) => outcome,
            () = flood => unreachable!("it floods for ever"),
        };
        assert_eq!(ending(outcome), Ending::TimedOut);
        assert!(began.elapsed() <= Duration::from_millis(101), "{:?}", began.elapsed());
    }
}

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
                outcome = stream.shutdown_with(UNIDIRECTIONAL.stall_limit(limit)) => outcome,
                () = read => unreachable!("it stays"),
            };
            if expected {
                assert_eq!(ending(outcome), Ending::Sent);
                assert!(began.elapsed() > limit * 50);
                assert!(peer.receive().expect("records").1);
            } else {
                let error = outcome.expect_err("stalled");
                assert_eq!((error.kind(), began.elapsed()), (Ending::TimedOut, limit));
                assert!(!error.report().sent());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_later_call_raises_the_goal_and_only_then_the_deadline() {
    for (side, version) in each_kind() {
        let (mut stream, peer) = connect(side, version);
        assert_eq!(ending(shut_down_now(&mut stream, UNIDIRECTIONAL)), Ending::Sent);
        assert_eq!(stream.state(), ShutdownState::Sent);
        let before = peer.wire.script(|script| script.outbound.len());
        tokio::time::sleep(Duration::from_secs(60)).await;
        let began = Instant::now();
        let error = stream.shutdown_with(BIDIRECTIONAL).await.expect_err("silence");
        assert_eq!((error.kind(), began.elapsed()), (Ending::TimedOut, ShutdownPolicy::DEADLINE));
        assert_eq!(peer.wire.script(|script| script.outbound.len()), before, "one close_notify, one FIN");

        let (mut stream, mut peer) = connect(side, version);
        assert_eq!(ending(shut_down_now(&mut stream, UNIDIRECTIONAL)), Ending::Sent);
        peer.close_notify();
        assert_eq!(ending(shut_down_now(&mut stream, BIDIRECTIONAL)), Ending::Complete);
        // What is complete stays complete, whatever is asked for.
        for policy in POLICIES {
            assert_eq!(ending(shut_down_now(&mut stream, policy)), Ending::Complete);
        }
        assert_eq!(stream.state(), ShutdownState::Both);
        assert_eq!(peer.wire.script(|script| script.log.iter().filter(|done| **done == Done::Finished).count()), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn quiet_touches_nothing() {
    for (side, version) in each_kind() {
        let (mut stream, peer) = connect(side, version);
        let report = shut_down_now(&mut stream, ShutdownPolicy::quiet()).expect("quiet");
        assert_eq!((report.ending(), report.sent(), report.received()), (Ending::Quiet, false, false));
        assert_eq!(peer.wire.script(|script| (script.log.len(), script.outbound.len(), script.reads)).0, 0);
        let error = assert_ready!(task::spawn(stream.write_all(b"late")).poll()).expect_err("shut down");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(shut_down_now(&mut stream, BIDIRECTIONAL).expect_err("marked").kind(), Ending::Quiet);
    }
}

#[tokio::test(start_paused = true)]
async fn receive_first_says_nothing_before_the_peer() {
    for (side, version) in each_kind() {
        let (mut stream, mut peer) = connect(side, version);
        assert_ready!(task::spawn(stream.write_all(b"last words")).poll()).expect("written");
        let mut shutdown = shut_down(&mut stream, RECEIVE_FIRST);
        assert_pending!(shutdown.poll());
        assert_eq!(peer.receive(), Ok((b"last words".to_vec(), false)));
        assert!(!peer.wire.is_finished());
        peer.close_notify();
        assert!(shutdown.is_woken());
        assert_eq!(ending(assert_ready!(shutdown.poll())), Ending::Complete);
        assert_eq!(peer.receive(), Ok((vec![], true)));
        assert!(peer.wire.is_finished());
    }
}

#[tokio::test(start_paused = true)]
async fn a_received_close_notify_needs_no_read() {
    for (side, version) in each_kind() {
        let (mut stream, mut peer) = connect(side, version);
        peer.close_notify();
        assert_eq!(assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect("zero-return"), 0);
        assert_eq!(stream.state(), ShutdownState::Received);
        let reads = peer.wire.script(|script| script.reads);
        let report = shut_down_now(&mut stream, BIDIRECTIONAL).expect("complete");
        assert_eq!((report.ending(), report.wire_read()), (Ending::Complete, 0));
        assert_eq!(peer.wire.script(|script| script.reads), reads);

        // The transport may be gone by then.
        let (mut stream, mut peer) = connect(side, version);
        peer.close_notify();
        assert_eq!(assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect("zero-return"), 0);
        peer.wire.script(|script| script.finish_error = Some(io::ErrorKind::NotConnected));
        assert_eq!(ending(shut_down_now(&mut stream, BIDIRECTIONAL)), Ending::Complete);
    }
}

#[tokio::test(start_paused = true)]
async fn unread_and_late_data_are_discarded_and_counted_apart() {
    for (side, version) in each_kind() {
        let (mut stream, mut peer) = connect(side, version);
        peer.send(b"read this, not that");
        assert_ready!(task::spawn(stream.read_exact(&mut [0; 9])).poll()).expect("data");
        peer.send(&[0; 5000]);
        peer.close_notify();
        let report = shut_down_now(&mut stream, BIDIRECTIONAL).expect("complete");
        assert_eq!((report.discarded_unread(), report.discarded_late(), report.discarded()), (10, 5000, 5010));
        assert!(report.wire_read() > 5000);
    }
}

#[tokio::test(start_paused = true)]
async fn the_drain_limit_is_exact() {
    for (side, version) in each_kind() {
        for (limit, expected) in [(3000, Ending::Complete), (2999, Ending::DrainLimit)] {
            let (mut stream, mut peer) = connect(side, version);
            (0..3).for_each(|_| peer.send(&[0; 1000]));
            peer.close_notify();
            let outcome = shut_down_now(&mut stream, BIDIRECTIONAL.drain_limit(limit));
            assert_eq!(ending(outcome), expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn records_without_data_are_limited_too() {
    for (side, version) in each_kind() {
        let (mut stream, mut peer) = connect(side, version);
        // One byte of data in each: far below the limit, with more than 64 KiB of headers and tags around it.
        (0..4000).for_each(|_| peer.send(b"."));
        let outcome =
            tokio::time::timeout(Duration::from_secs(1), stream.shutdown_with(BIDIRECTIONAL.drain_limit(10_000)));
        assert_eq!(ending(outcome.await.expect("a limit, not the deadline")), Ending::DrainLimit);
    }
}

#[tokio::test(start_paused = true)]
async fn rejected_data_stays_to_be_read() {
    for (side, version) in each_kind() {
        let reject = BIDIRECTIONAL.peer_data(PeerData::Reject);
        let (mut stream, mut peer) = connect(side, version);
        peer.send(b"unread");
        let error = shut_down_now(&mut stream, reject).expect_err("data");
        assert_eq!((error.kind(), error.report().discarded()), (Ending::PeerData, 0));
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidData);
        let mut data = [0; 6];
        assert_ready!(task::spawn(stream.read_exact(&mut data)).poll()).expect("still there");
        assert_eq!(&data, b"unread");
        peer.close_notify();
        assert_eq!(ending(shut_down_now(&mut stream, reject)), Ending::Complete);
    }
}

#[tokio::test(start_paused = true)]
async fn close_notify_leaves_the_read_half_open() {
    for (side, version) in each_kind() {
        let (mut stream, mut peer) = connect(side, version);
        assert_ready!(task::spawn(stream.write_all(b"all")).poll()).expect("written");
        let report = assert_ready!(task::spawn(Box::pin(stream.close_notify())).poll()).expect("sent");
        assert_eq!(report.ending(), Ending::Sent);
        assert_eq!(peer.receive(), Ok((b"all".to_vec(), true)));
        assert!(!peer.wire.is_finished(), "the transport stays");
        let error = assert_ready!(task::spawn(stream.write_all(b"late")).poll()).expect_err("closed");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_ready!(task::spawn(stream.flush()).poll()).expect("nothing to flush");

        peer.send(b"an answer");
        let mut data = Vec::new();
        let mut read = task::spawn(stream.read_to_end(&mut data));
        assert_pending!(read.poll());
        peer.close_notify();
        assert!(read.is_woken());
        assert_ready!(read.poll()).expect("to the end");
        drop(read);
        assert_eq!(data, b"an answer");
        assert_eq!(ending(shut_down_now(&mut stream, BIDIRECTIONAL)), Ending::Complete);
        assert!(peer.wire.is_finished());
        assert_eq!(peer.receive(), Ok((vec![], true)), "one close_notify");
    }
}

#[tokio::test(start_paused = true)]
async fn reading_after_close_notify_tells_every_end() {
    for (side, version) in each_kind() {
        for (then, kind) in [
            (Then::End, io::ErrorKind::UnexpectedEof),
            (Then::Error(io::ErrorKind::ConnectionReset), io::ErrorKind::ConnectionReset),
        ] {
            let (mut stream, mut peer) = connect(side, version);
            assert_ready!(task::spawn(Box::pin(stream.close_notify())).poll()).expect("sent");
            peer.send(b"some");
            peer.wire.script(|script| script.then = then);
            let mut data = Vec::new();
            let error = assert_ready!(task::spawn(stream.read_to_end(&mut data)).poll()).expect_err("cut");
            assert_eq!((error.kind(), &data[..]), (kind, &b"some"[..]));
        }
        let (mut stream, peer) = connect(side, version);
        assert_ready!(task::spawn(Box::pin(stream.close_notify())).poll()).expect("sent");
        peer.into_forge().alert(Forge::FATAL, 80);
        for _ in 0..2 {
            let error = assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect_err("an alert");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        assert_eq!(ending(shut_down_now(&mut stream, BIDIRECTIONAL)), Ending::PeerAlert(Alert(80)));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_after_a_fatal_error() {
    for (side, version) in each_kind() {
        for (alert, description) in [(Forge::FATAL, 80), (Forge::FATAL, 20)] {
            let (mut stream, peer) = connect(side, version);
            let wire = peer.wire.clone();
            peer.into_forge().alert(alert, description);
            assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect_err("an alert");
            for policy in POLICIES {
                let error = shut_down_now(&mut stream, policy).expect_err("refused");
                assert_eq!((error.kind(), error.report().alert()), (Ending::Refused, Some(Alert(description))));
            }
            assert_eq!(wire.script(|script| script.log.clone()), []);
        }
        // Our own fatal alert is the last word too.
        let (mut stream, mut peer) = connect(side, version);
        let mut record = {
            peer.tls.send_close_notify();
            peer.records()
        };
        *record.last_mut().expect("a tag") ^= 1;
        peer.wire.deliver(&record);
        assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect_err("a bad record");
        peer.receive().expect_err("our fatal alert");
        assert_eq!(shut_down_now(&mut stream, BIDIRECTIONAL).expect_err("refused").kind(), Ending::Refused);
        assert_eq!(peer.wire.script(|script| script.outbound.len()), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_after_a_truncation_unless_it_is_accepted() {
    for (side, version) in each_kind() {
        for policy in POLICIES {
            let connect_truncated = || {
                let (mut stream, peer) = connect(side, version);
                peer.wire.script(|script| script.then = Then::End);
                let error = assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect_err("cut");
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                (stream, peer)
            };
            let (mut stream, peer) = connect_truncated();
            assert_eq!(shut_down_now(&mut stream, policy).expect_err("truncated").kind(), Ending::Truncated);
            assert_eq!(peer.wire.script(|script| script.log.clone()), []);

            let (mut stream, mut peer) = connect_truncated();
            let report = shut_down_now(&mut stream, policy.ignore_unexpected_eof()).expect("accepted");
            assert_eq!((report.ending(), report.sent(), report.received()), (Ending::Truncated, true, false));
            assert_eq!(peer.receive(), Ok((vec![], true)));
        }
        let (mut stream, mut peer) = connect(side, version);
        peer.wire.script(|script| script.then = Then::End);
        let report = shut_down_now(&mut stream, BIDIRECTIONAL.ignore_unexpected_eof()).expect("accepted");
        assert_eq!((report.ending(), report.sent(), report.received()), (Ending::Truncated, true, false));
        assert_eq!(peer.receive(), Ok((vec![], true)));
    }
}

#[tokio::test(start_paused = true)]
async fn data_and_a_reset_with_no_read_between_is_reset() {
    for (side, version) in each_kind() {
        for policy in POLICIES {
            let (mut stream, mut peer) = connect(side, version);
            peer.send(&[0; 1000]);
            peer.wire.script(|script| {
                script.then = Then::Error(io::ErrorKind::ConnectionReset);
                script.room = 0;
                script.full = Full::Error(io::ErrorKind::ConnectionReset);
            });
            // A buffer larger than the data: the read meets the reset behind it, and keeps it to itself.
            let amount = assert_ready!(task::spawn(stream.read(&mut [0; 4000])).poll()).expect("data");
            assert_eq!(amount, 1000);
            peer.wire.script(|script| script.then = Then::End);
            assert_eq!(ending(shut_down_now(&mut stream, policy)), Ending::Reset);
            let error = assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect_err("kept");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_of_the_application_is_remembered() {
    for (side, version) in each_kind() {
        let (mut stream, peer) = connect(side, version);
        peer.wire.script(|script| {
            script.room = 0;
            script.full = Full::Error(io::ErrorKind::ConnectionReset);
        });
        assert_ready!(task::spawn(stream.write_all(b"lost")).poll()).expect_err("reset");
        peer.wire.script(|script| script.room = usize::MAX);
        assert_eq!(shut_down_now(&mut stream, UNIDIRECTIONAL).expect_err("reset").kind(), Ending::Reset);
        assert_eq!(peer.wire.script(|script| script.log.clone()), []);
    }
}

/// What a peer may send behind our close_notify, and how that ends.
struct Odd {
    description: &'static str,
    versions: &'static [&'static SupportedProtocolVersion],
    side: Option<Side>,
    records: fn(&mut Forge),
    endings: &'static [Ending],
}

const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
const ANY: &[&SupportedProtocolVersion] = &VERSIONS;

fn close_notify(forge: &mut Forge) {
    forge.alert(Forge::WARNING, 0);
}

fn repeat(forge: &mut Forge, times: usize, content_type: u8, content: &[u8]) {
    (0..times).for_each(|_| forge.send(content_type, content));
    close_notify(forge);
}

const KEY_UPDATE_REQUESTED: [u8; 5] = [24, 0, 0, 1, 1];

const ODD: &[Odd] = &[
    Odd {
        description: "user_canceled x1",
        versions: ANY,
        side: None,
        endings: &[Ending::Complete],
        records: |forge| repeat(forge, 1, Forge::ALERT, &[1, 90]),
    },
    Odd {
        description: "user_canceled x4",
        versions: ANY,
        side: None,
        endings: &[Ending::Complete],
        records: |forge| repeat(forge, 4, Forge::ALERT, &[1, 90]),
    },
    Odd {
        description: "user_canceled x5",
        versions: ANY,
        side: None,
        endings: &[Ending::ProtocolError],
        records: |forge| repeat(forge, 5, Forge::ALERT, &[1, 90]),
    },
    Odd {
        description: "user_canceled, fatal",
        versions: ANY,
        side: None,
        endings: &[Ending::PeerAlert(Alert(90))],
        records: |forge| repeat(forge, 1, Forge::ALERT, &[2, 90]),
    },
    Odd {
        description: "no_renegotiation, warning, 1.2",
        versions: TLS12,
        side: None,
        endings: &[Ending::Complete],
        records: |forge| repeat(forge, 1, Forge::ALERT, &[1, 100]),
    },
    Odd {
        description: "no_renegotiation, warning, 1.3",
        versions: TLS13,
        side: None,
        endings: &[Ending::PeerAlert(Alert(100)), Ending::ProtocolError],
        records: |forge| repeat(forge, 1, Forge::ALERT, &[1, 100]),
    },
    Odd {
        description: "internal_error, warning, 1.2",
        versions: TLS12,
        side: None,
        endings: &[Ending::Complete],
        records: |forge| repeat(forge, 1, Forge::ALERT, &[1, 80]),
    },
    Odd {
        description: "internal_error, warning, 1.3",
        versions: TLS13,
        side: None,
        endings: &[Ending::PeerAlert(Alert(80)), Ending::ProtocolError],
        records: |forge| repeat(forge, 1, Forge::ALERT, &[1, 80]),
    },
    Odd {
        description: "unknown alert, warning, 1.3",
        versions: TLS13,
        side: None,
        endings: &[Ending::PeerAlert(Alert(200)), Ending::ProtocolError],
        records: |forge| repeat(forge, 1, Forge::ALERT, &[1, 200]),
    },
    Odd {
        description: "unknown alert level",
        versions: ANY,
        side: None,
        endings: &[Ending::PeerAlert(Alert(0)), Ending::ProtocolError],
        records: |forge| repeat(forge, 1, Forge::ALERT, &[7, 0]),
    },
    Odd {
        description: "internal_error, fatal",
        versions: ANY,
        side: None,
        endings: &[Ending::PeerAlert(Alert(80))],
        records: |forge| repeat(forge, 1, Forge::ALERT, &[2, 80]),
    },
    Odd {
        description: "close_notify, fatal",
        versions: ANY,
        side: None,
        endings: &[Ending::Complete],
        records: |forge| forge.alert(Forge::FATAL, 0),
    },
    Odd {
        description: "32 empty records",
        versions: ANY,
        side: None,
        endings: &[Ending::Complete],
        records: |forge| repeat(forge, 32, Forge::DATA, &[]),
    },
    Odd {
        description: "33 empty records",
        versions: ANY,
        side: None,
        endings: &[Ending::ProtocolError],
        records: |forge| repeat(forge, 33, Forge::DATA, &[]),
    },
    Odd {
        description: "empty alert",
        versions: ANY,
        side: None,
        endings: &[Ending::ProtocolError],
        records: |forge| repeat(forge, 1, Forge::ALERT, &[]),
    },
    Odd {
        description: "alert of 1 byte",
        versions: ANY,
        side: None,
        endings: &[Ending::ProtocolError],
        records: |forge| repeat(forge, 1, Forge::ALERT, &[1]),
    },
    Odd {
        description: "alert of 3 bytes",
        versions: ANY,
        side: None,
        endings: &[Ending::ProtocolError],
        records: |forge| repeat(forge, 1, Forge::ALERT, &[1, 0, 0]),
    },
    Odd {
        description: "two alerts in one record",
        versions: ANY,
        side: None,
        endings: &[Ending::ProtocolError],
        records: |forge| repeat(forge, 1, Forge::ALERT, &[1, 90, 1, 0]),
    },
    Odd {
        description: "data behind close_notify",
        versions: ANY,
        side: None,
        endings: &[Ending::Complete],
        records: |forge| {
            close_notify(forge);
            forge.send(Forge::DATA, b"ignored");
        },
    },
    Odd {
        description: "change_cipher_spec, 1.2",
        versions: TLS12,
        side: None,
        endings: &[Ending::ProtocolError],
        records: |forge| repeat(forge, 1, Forge::CHANGE_CIPHER_SPEC, &[1]),
    },
    Odd {
        description: "change_cipher_spec inside, 1.3",
        versions: TLS13,
        side: None,
        endings: &[Ending::ProtocolError],
        records: |forge| repeat(forge, 1, Forge::CHANGE_CIPHER_SPEC, &[1]),
    },
    Odd {
        description: "unknown type inside",
        versions: TLS13,
        side: None,
        endings: &[Ending::ProtocolError],
        records: |forge| repeat(forge, 1, 99, b"what"),
    },
    Odd {
        description: "HelloRequest x1",
        versions: TLS12,
        side: Some(Side::Client),
        endings: &[Ending::Complete],
        records: |forge| repeat(forge, 1, Forge::HANDSHAKE, &[0; 4]),
    },
    Odd {
        description: "HelloRequest x2",
        versions: TLS12,
        side: Some(Side::Client),
        endings: &[Ending::ProtocolError],
        records: |forge| repeat(forge, 2, Forge::HANDSHAKE, &[0; 4]),
    },
    Odd {
        description: "KeyUpdate(requested) cut, then close_notify",
        versions: TLS13,
        side: None,
        endings: &[Ending::ProtocolError],
        records: |forge| repeat(forge, 1, Forge::HANDSHAKE, &KEY_UPDATE_REQUESTED[..3]),
    },
    Odd {
        description: "CertificateRequest",
        versions: TLS13,
        side: Some(Side::Client),
        endings: &[Ending::ProtocolError],
        records: |forge| {
            repeat(forge, 1, Forge::HANDSHAKE, &[13, 0, 0, 15, 0, 0, 12, 0, 13, 0, 8, 0, 6, 4, 3, 5, 3, 6, 3])
        },
    },
    Odd {
        description: "plaintext",
        versions: ANY,
        side: None,
        endings: &[Ending::NotTls],
        records: |forge| forge.wire.deliver(b"220 plain text\r\n"),
    },
    Odd {
        description: "a record that does not decrypt",
        versions: ANY,
        side: None,
        endings: &[Ending::ProtocolError],
        records: |forge| {
            let mut record = forge.record(Forge::DATA, b"data");
            record[9] ^= 1;
            forge.wire.deliver(&record);
        },
    },
    Odd {
        description: "a record that is too long",
        versions: ANY,
        side: None,
        endings: &[Ending::ProtocolError],
        records: |forge| forge.wire.deliver(&[23, 3, 3, 0xff, 0xff, 0]),
    },
    Odd {
        description: "plain alert",
        versions: ANY,
        side: None,
        endings: &[Ending::ProtocolError],
        records: |forge| forge.wire.deliver(&[21, 3, 3, 0, 2, 1, 0]),
    },
];

#[tokio::test(start_paused = true)]
async fn every_odd_record_after_our_close_notify_has_a_defined_ending() {
    for odd in ODD {
        for (side, version) in each_kind() {
            if !odd.versions.contains(&version) || odd.side.is_some_and(|only| only != side) {
                continue;
            }
            let what = format!("{} to a {side:?} of {version:?}", odd.description);
            let (mut stream, mut peer) = connect(side, version);
            let mut shutdown = shut_down(&mut stream, BIDIRECTIONAL);
            assert_pending!(shutdown.poll());
            assert_eq!(peer.receive(), Ok((vec![], true)), "{what}");
            let mut forge = peer.into_forge();
            forge.send(Forge::DATA, b"some data");
            (odd.records)(&mut forge);
            let outcome = assert_ready!(shutdown.poll(), "{}", what);
            drop(shutdown);
            let report = *outcome.as_ref().unwrap_or_else(|error| error.report());
            assert!(odd.endings.contains(&report.ending()), "{what}: {outcome:?}");
            assert_eq!(report.discarded(), 9, "{what}: what came before is counted");
            assert_eq!(report.received(), report.ending() == Ending::Complete, "{what}");
            // Nothing is ever written behind close_notify, whatever is asked of the stream later.
            assert_ready!(task::spawn(stream.flush()).poll()).expect("nothing to flush");
            assert_eq!(ending(shut_down_now(&mut stream, BIDIRECTIONAL)), report.ending(), "{what}");
            let _ = task::spawn(stream.read(&mut [0; 9])).poll();
            drop(stream);
            assert_eq!(forge.wire.script(|script| script.outbound.len()), 0, "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn odd_records_read_by_the_application_after_close_notify() {
    for odd in ODD {
        for (side, version) in each_kind() {
            if !odd.versions.contains(&version) || odd.side.is_some_and(|only| only != side) {
                continue;
            }
            let (mut stream, mut peer) = connect(side, version);
            assert_ready!(task::spawn(Box::pin(stream.close_notify())).poll()).expect("sent");
            assert_eq!(peer.receive(), Ok((vec![], true)));
            let mut forge = peer.into_forge();
            forge.send(Forge::DATA, b"some data");
            (odd.records)(&mut forge);
            let mut data = Vec::new();
            let outcome = assert_ready!(task::spawn(stream.read_to_end(&mut data)).poll());
            assert_eq!(outcome.is_ok(), odd.endings == [Ending::Complete], "{}", odd.description);
            assert_eq!(data, b"some data", "{}", odd.description);
            assert_eq!(forge.wire.script(|script| script.outbound.len()), 0, "{}", odd.description);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn key_updates_are_followed_and_not_answered() {
    let version = &rustls::version::TLS13;
    for side in Side::BOTH {
        let (mut stream, mut peer) = connect(side, version);
        start(&mut stream, BIDIRECTIONAL).await;
        assert_eq!(peer.receive(), Ok((vec![], true)));
        peer.tls.refresh_traffic_keys().expect("TLS 1.3");
        peer.send(b"under new keys");
        peer.close_notify();
        let report = shut_down_now(&mut stream, BIDIRECTIONAL).expect("complete");
        assert_eq!((report.ending(), report.discarded()), (Ending::Complete, 14));
        assert_eq!(peer.wire.script(|script| script.outbound.len()), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn tickets_are_received_by_a_client_that_never_reads() {
    let version = &rustls::version::TLS13;
    let (mut stream, mut peer) = connect(Side::Client, version);
    peer.close_notify();
    assert_eq!(shut_down_now(&mut stream, BIDIRECTIONAL).expect("complete").tickets(), 2);

    // A server that never answers: as many tickets as are wanted are enough.
    let (mut stream, _peer) = connect(Side::Client, version);
    let report = shut_down_now(&mut stream, BIDIRECTIONAL.until_tickets(2)).expect("tickets");
    assert_eq!((report.ending(), report.tickets()), (Ending::Sent, 2));
    let (mut stream, _peer) = connect(Side::Client, version);
    let outcome = stream.shutdown_with(BIDIRECTIONAL.until_tickets(3)).await;
    assert_eq!(ending(outcome), Ending::TimedOut);

    // In TLS 1.2 there is nothing to wait for, and a server receives none.
    let (mut stream, _peer) = connect(Side::Client, &rustls::version::TLS12);
    assert_eq!(ending(shut_down_now(&mut stream, BIDIRECTIONAL.until_tickets(1))), Ending::Sent);
    let (mut stream, mut peer) = connect(Side::Server, version);
    start(&mut stream, BIDIRECTIONAL.until_tickets(0)).await;
    peer.close_notify();
    assert_eq!(ending(shut_down_now(&mut stream, BIDIRECTIONAL.until_tickets(0))), Ending::Complete);
}

/// A client whose 0-RTT handshake is not done: `data` is early, and the peer has not been heard.
fn connect_early(data: &[u8], accepts: EarlyData) -> (Stream, Peer) {
    let version = &rustls::version::TLS13;
    let mut client = client_config(version);
    client.enable_early_data = true;
    let mut server = server_config(version);
    server.max_early_data_size = 16_384;
    let (mut first, mut peer) = connect_with(Side::Client, client.clone(), server.clone());
    peer.close_notify();
    shut_down_now(&mut first, BIDIRECTIONAL).expect("a ticket");
    if accepts == EarlyData::Rejected {
        server.max_early_data_size = 0;
    }
    let (mut stream, peer) = connect_with(Side::Client, client, server);
    assert_ready!(task::spawn(stream.write_all(data)).poll()).expect("early data");
    (stream, peer)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum EarlyData {
    Accepted,
    Rejected,
}

#[tokio::test(start_paused = true)]
async fn a_0_rtt_handshake_is_finished_first_and_rejected_data_sent_again() {
    for accepts in [EarlyData::Accepted, EarlyData::Rejected] {
        let (mut stream, mut peer) = connect_early(b"early", accepts);
        let mut shutdown = shut_down(&mut stream, BIDIRECTIONAL);
        assert_pending!(shutdown.poll());
        let mut data = Vec::new();
        for _ in 0..3 {
            let (more, _) = peer.receive().expect("records");
            data.extend(more);
            if let rustls::Connection::Server(server) = &mut peer.tls
                && let Some(mut early) = server.early_data()
            {
                io::Read::read_to_end(&mut early, &mut data).expect("early data");
            }
            let records = peer.records();
            peer.wire.deliver(&records);
            let _ = shutdown.poll().is_pending() || panic!("it waits for close_notify");
        }
        assert_eq!(data, b"early");
        assert!(peer.wire.is_finished());
        peer.close_notify();
        assert_eq!(ending(assert_ready!(shutdown.poll())), Ending::Complete);
    }
}

#[tokio::test(start_paused = true)]
async fn a_0_rtt_handshake_that_is_never_done_is_not_started() {
    let (mut stream, _peer) = connect_early(b"early", EarlyData::Accepted);
    let began = Instant::now();
    let error = stream.shutdown_with(BIDIRECTIONAL).await.expect_err("silence");
    assert_eq!((error.kind(), began.elapsed()), (Ending::NotStarted, ShutdownPolicy::STALL_LIMIT));
    assert!(!error.report().sent());

    let (mut stream, peer) = connect_early(b"early", EarlyData::Accepted);
    peer.wire.script(|script| script.then = Then::End);
    assert_eq!(ending(stream.shutdown_with(BIDIRECTIONAL).await), Ending::NotStarted);
}

/// A stream whose `on_end` counts, and keeps the ending.
fn counted(stream: Stream) -> (Stream, impl Fn() -> (usize, Option<Ending>)) {
    let calls = Arc::new(AtomicUsize::new(0));
    let last = Arc::new(std::sync::Mutex::new(None));
    let (calls_made, last_ending) = (calls.clone(), last.clone());
    let stream = stream.on_end(move |report| {
        calls.fetch_add(1, Ordering::Relaxed);
        *last.lock().expect("no panic") = Some(report.ending());
    });
    (stream, move || (calls_made.load(Ordering::Relaxed), *last_ending.lock().expect("no panic")))
}

#[tokio::test(start_paused = true)]
async fn on_end_is_called_once_whatever_the_path() {
    for (side, version) in each_kind() {
        let once = |ending| (1, Some(ending));

        let (stream, mut peer) = connect(side, version);
        let (stream, ends) = counted(stream);
        drop(stream);
        assert_eq!(ends(), once(Ending::Aborted));
        assert_eq!(peer.receive(), Ok((vec![], false)), "a drop says nothing");

        for how in [Abort::Fin, Abort::Reset] {
            let (stream, mut peer) = connect(side, version);
            let (stream, ends) = counted(stream);
            stream.abort(how);
            assert_eq!(ends(), once(Ending::Aborted));
            assert_eq!(peer.receive(), Ok((vec![], false)));
        }

        let (stream, mut peer) = connect(side, version);
        let (mut stream, ends) = counted(stream);
        peer.close_notify();
        shut_down_now(&mut stream, BIDIRECTIONAL).expect("complete");
        shut_down_now(&mut stream, UNIDIRECTIONAL).expect("complete");
        assert_eq!(ends(), (0, None), "the connection is not over yet");
        drop(stream);
        assert_eq!(ends(), once(Ending::Complete));

        let (stream, _peer) = connect(side, version);
        let (mut stream, ends) = counted(stream);
        start(&mut stream, BIDIRECTIONAL).await;
        drop(stream);
        assert_eq!(ends(), once(Ending::Sent));

        let (stream, peer) = connect(side, version);
        let (mut stream, ends) = counted(stream);
        peer.into_forge().alert(Forge::FATAL, 80);
        assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect_err("an alert");
        assert_eq!(shut_down_now(&mut stream, BIDIRECTIONAL).expect_err("refused").kind(), Ending::Refused);
        drop(stream);
        assert_eq!(ends(), once(Ending::PeerAlert(Alert(80))), "what was wrong, not what was refused");

        let (stream, peer) = connect(side, version);
        let (mut stream, ends) = counted(stream);
        peer.wire.script(|script| script.then = Then::End);
        assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect_err("cut");
        drop(stream);
        assert_eq!(ends(), once(Ending::Truncated));

        let (stream, _peer) = connect(side, version);
        let (mut stream, ends) = counted(stream);
        shut_down_now(&mut stream, UNIDIRECTIONAL).expect("sent");
        let _session = stream.into_session();
        assert_eq!(ends(), once(Ending::Sent));
    }
}

#[tokio::test(start_paused = true)]
async fn poll_shutdown_runs_the_streams_own_policy() {
    for (side, version) in each_kind() {
        // By default a client waits for the peer, and a server does not.
        let (mut stream, mut peer) = connect(side, version);
        let mut shutdown = task::spawn(stream.shutdown());
        match side {
            Side::Client => {
                assert_pending!(shutdown.poll());
                peer.close_notify();
                assert!(shutdown.is_woken());
            }
            Side::Server => {}
        }
        assert_ready!(shutdown.poll()).expect("closed");
        drop(shutdown);
        assert_ready!(task::spawn(stream.shutdown()).poll()).expect("closed already");
        assert_eq!(peer.receive(), Ok((vec![], true)));

        let (stream, peer) = connect(side, version);
        let mut stream = stream.with_policy(BIDIRECTIONAL.deadline(Duration::from_millis(1500)));
        let began = Instant::now();
        let error = stream.shutdown().await.expect_err("silence");
        assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, Duration::from_millis(1500)));
        let error = error.get_ref().and_then(|error| error.downcast_ref::<ShutdownError>()).expect("ours");
        assert_eq!((error.kind(), error.report().sent()), (Ending::TimedOut, true));
        drop(peer);
    }
}

#[tokio::test(start_paused = true)]
async fn the_owned_form_can_be_spawned() {
    for (side, version) in each_kind() {
        let (stream, mut peer) = connect(side, version);
        let (stream, ends) = counted(stream.with_policy(BIDIRECTIONAL));
        let closing = tokio::spawn(AsyncShutdown::new(stream));
        tokio::task::yield_now().await;
        assert_eq!(peer.receive(), Ok((vec![], true)));
        peer.close_notify();
        assert_eq!(ending(closing.await.expect("no panic")), Ending::Complete);
        assert_eq!(ends(), (1, Some(Ending::Complete)));
    }
}

#[tokio::test(start_paused = true)]
async fn split_halves_do_not_lose_each_others_wake_ups() {
    for (side, version) in each_kind() {
        for reader_polls_last in [false, true] {
            let (stream, mut peer) = connect(side, version);
            let (mut reader, mut writer) = tokio::io::split(stream.with_policy(BIDIRECTIONAL));
            let mut byte = [0];
            let mut read = task::spawn(reader.read(&mut byte));
            assert_pending!(read.poll());
            let mut shutdown = task::spawn(writer.shutdown());
            assert_pending!(shutdown.poll());
            if reader_polls_last {
                assert_pending!(read.poll());
            }
            peer.close_notify();
            assert!(read.is_woken() && shutdown.is_woken());
            if reader_polls_last {
                assert_eq!(assert_ready!(read.poll()).expect("zero-return"), 0);
                assert_ready!(shutdown.poll()).expect("complete");
            } else {
                assert_ready!(shutdown.poll()).expect("complete");
                assert_eq!(assert_ready!(read.poll()).expect("zero-return"), 0);
            }
        }
        // Whoever reads the end tells the other, also when the transport has woken only one.
        let (stream, mut peer) = connect(side, version);
        let (mut reader, mut writer) = tokio::io::split(stream.with_policy(BIDIRECTIONAL));
        let mut byte = [0];
        let mut read = task::spawn(reader.read(&mut byte));
        assert_pending!(read.poll());
        peer.close_notify();
        let mut shutdown = task::spawn(writer.shutdown());
        assert_ready!(shutdown.poll()).expect("complete");
        assert!(read.is_woken());
        assert_eq!(assert_ready!(read.poll()).expect("zero-return"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn each_wait_has_its_own_limit() {
    // The stall limit bounds each time that nothing is accepted; what the peer took to answer in between is not part of it.
    let policy = RECEIVE_FIRST.stall_limit(Duration::from_secs(10)).deadline(Duration::from_secs(120));
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
async fn a_new_goal_comes_with_its_policy() {
    for (side, version) in each_kind() {
        // An end that was no end for the first goal is one for the next.
        let (mut stream, peer) = connect(side, version);
        assert_ready!(task::spawn(Box::pin(stream.close_notify())).poll()).expect("sent");
        peer.wire.script(|script| script.then = Then::End);
        assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect_err("cut");
        let report = shut_down_now(&mut stream, BIDIRECTIONAL.ignore_unexpected_eof()).expect("accepted");
        assert_eq!(report.ending(), Ending::Truncated);
        assert!(peer.wire.is_finished());

        // What was rejected may be discarded, or be read at leisure.
        let reject = BIDIRECTIONAL.peer_data(PeerData::Reject);
        let (mut stream, mut peer) = connect(side, version);
        peer.send(b"unread");
        assert_eq!(ending(shut_down_now(&mut stream, reject)), Ending::PeerData);
        peer.close_notify();
        let report = shut_down_now(&mut stream, BIDIRECTIONAL).expect("complete");
        assert_eq!((report.ending(), report.discarded()), (Ending::Complete, 6));

        let (mut stream, mut peer) = connect(side, version);
        peer.send(b"unread");
        assert_eq!(ending(shut_down_now(&mut stream, reject)), Ending::PeerData);
        tokio::time::sleep(ShutdownPolicy::DEADLINE * 2).await;
        assert_ready!(task::spawn(stream.read_exact(&mut [0; 6])).poll()).expect("still there");
        let began = Instant::now();
        assert_eq!(ending(stream.shutdown_with(reject).await), Ending::TimedOut);
        assert_eq!(began.elapsed(), ShutdownPolicy::DEADLINE);
    }
}

#[tokio::test(start_paused = true)]
async fn limits_that_never_come_are_no_limits() {
    let policy = BIDIRECTIONAL.deadline(Duration::MAX).stall_limit(Duration::MAX).drain_limit(u64::MAX);
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

#[tokio::test(start_paused = true)]
async fn an_alert_behind_a_cut_connection_is_found() {
    for (side, version) in each_kind() {
        // The peer has sent an alert, and reset; our data cannot get out.
        let (mut stream, peer) = connect(side, version);
        peer.wire.script(|script| script.room = 0);
        assert_pending!(task::spawn(stream.write_all(&[0; 100_000])).poll());
        peer.wire.script(|script| script.full = Full::Error(io::ErrorKind::BrokenPipe));
        let wire = peer.wire.clone();
        peer.into_forge().alert(Forge::FATAL, 80);
        wire.script(|script| script.then = Then::Error(io::ErrorKind::ConnectionReset));
        for policy in POLICIES {
            assert_eq!(ending(shut_down_now(&mut stream, policy)), Ending::PeerAlert(Alert(80)));
        }
    }
}
