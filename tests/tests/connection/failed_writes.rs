//! Closings whose data or close_notify cannot be written.

use std::{error::Error, io, time::Duration};

use rustls::SupportedProtocolVersion;
use tls_shutdown::{Alert, Ending, Reaper};
use tls_shutdown_tests::{
    Forge, connect,
    scripted::{BIDIRECTIONAL, POLICIES, REJECT, UNIDIRECTIONAL, each_kind, ending, shut_down, shut_down_now},
    wire_script::{Full, Then},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    time::{Instant, sleep},
};
use tokio_test::{assert_pending, assert_ready, task};

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
                assert_eq!((error.ending(), error.report().sent()), (failure, false));
                let source = error.source().expect("the transport's error").downcast_ref::<io::Error>();
                assert_eq!(source.map(io::Error::kind), Some(kind));

                // The close_notify of the peer came first: it is complete although ours could not be sent.
                let (mut stream, mut peer) = connect_failing();
                peer.close_notify();
                let report = shut_down_now(&mut stream, BIDIRECTIONAL).expect("complete");
                assert_eq!((report.ending(), report.sent(), report.received()), (Ending::Complete, false, true));

                // The alert of the peer explains more than the failed write.
                let (mut stream, peer) = connect_failing();
                peer.into_forge().alert(Forge::FATAL, 80);
                let error = shut_down_now(&mut stream, BIDIRECTIONAL).expect_err("an alert");
                assert_eq!(error.ending(), Ending::PeerAlert(Alert(80)));
                assert_eq!(error.report().alert(), Some(Alert(80)));

                // An end after a failed write changes nothing.
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
        assert_eq!(error.ending(), Ending::Reset);
        assert!(error.report().received());
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
            // The buffer is larger than the data: the read meets the reset behind the data, and reports it later.
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
        assert_eq!(shut_down_now(&mut stream, UNIDIRECTIONAL).expect_err("reset").ending(), Ending::Reset);
        assert_eq!(peer.wire.script(|script| script.log.clone()), []);
    }
}

#[tokio::test(start_paused = true)]
async fn an_alert_behind_a_cut_connection_is_found() {
    for (side, version) in each_kind() {
        // The peer has sent an alert and a reset. Our data cannot be sent.
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

#[tokio::test(start_paused = true)]
async fn a_failed_close_leaves_unread_data_to_the_application() {
    for (side, version) in each_kind() {
        let (mut stream, mut peer) = connect(side, version);
        peer.send(b"an answer");
        peer.wire.script(|script| {
            script.room = 0;
            script.full = Full::Error(io::ErrorKind::BrokenPipe);
            script.then = Then::Error(io::ErrorKind::ConnectionReset);
        });
        let error = shut_down_now(&mut stream, UNIDIRECTIONAL).expect_err("it cannot be written");
        assert_eq!((error.ending(), error.report().discarded()), (Ending::Reset, 0));
        let mut data = Vec::new();
        let error = assert_ready!(task::spawn(stream.read_to_end(&mut data)).poll()).expect_err("reset");
        assert_eq!((error.kind(), &data[..]), (io::ErrorKind::ConnectionReset, &b"an answer"[..]));
    }
}

#[tokio::test(start_paused = true)]
async fn tickets_are_no_way_out_of_a_failed_write() {
    for (side, version) in each_kind() {
        for tickets in [0, 1, 3] {
            let (mut stream, peer) = connect(side, version);
            peer.wire.cut();
            let outcome = shut_down_now(&mut stream, BIDIRECTIONAL.until_tickets(tickets));
            assert_eq!(ending(outcome), Ending::Reset);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn looking_for_the_reason_of_a_failed_write_is_bounded() {
    for (side, version) in each_kind() {
        let (mut stream, mut peer) = connect(side, version);
        peer.wire.break_writes();
        let began = Instant::now();
        let flood = async {
            loop {
                (0..300).for_each(|_| peer.send(&[0; 100]));
                sleep(Duration::from_millis(1)).await;
            }
        };
        let policy = BIDIRECTIONAL.with_max_drain_bytes(u64::MAX).with_close_timeout(Duration::from_millis(50));
        let outcome = tokio::select! {
            biased;
            outcome = stream.shutdown_with(policy) => outcome,
            () = flood => unreachable!("it floods for ever"),
        };
        assert_eq!(ending(outcome), Ending::Reset);
        assert!(began.elapsed() <= Duration::from_millis(51), "{:?}", began.elapsed());
    }
}

/// The peer answers, closes and resets at once. Its close_notify is behind data that belongs to the application.
#[tokio::test(start_paused = true)]
async fn the_reason_of_a_failed_close_is_found_behind_data() {
    for (side, version) in each_kind() {
        let fail = || {
            let (mut stream, mut peer) = connect(side, version);
            peer.send(b"an answer");
            peer.close_notify();
            peer.wire.cut();
            assert_eq!(ending(shut_down_now(&mut stream, UNIDIRECTIONAL)), Ending::Reset);
            stream
        };
        // The application reads on.
        let mut stream = fail();
        let mut data = Vec::new();
        assert_ready!(task::spawn(stream.read_to_end(&mut data)).poll()).expect("close_notify");
        assert_eq!(&data[..], b"an answer");
        assert_eq!(ending(shut_down_now(&mut stream, UNIDIRECTIONAL)), Ending::Complete);

        // Nobody reads on. The reaper discards the data.
        let (told, report) = oneshot::channel();
        drop(fail().with_reaper(&Reaper::new()).on_end(move |report| told.send(*report).expect("awaited")));
        let report = report.await.expect("once");
        assert_eq!((report.ending(), report.sent(), report.received()), (Ending::Complete, false, true));
    }
}

#[tokio::test(start_paused = true)]
async fn the_reason_of_a_failed_write_is_found_though_nobody_shuts_down() {
    for (side, version) in each_kind() {
        let fail = || {
            let (mut stream, mut peer) = connect(side, version);
            peer.send(b"an answer");
            peer.wire.cut();
            let written = assert_ready!(task::spawn(stream.write_all(b"a request")).poll());
            assert_eq!(written.expect_err("no room").kind(), io::ErrorKind::BrokenPipe);
            let (told, report) = oneshot::channel();
            let stream = stream.with_reaper(&Reaper::new());
            (stream.on_end(move |report| told.send(*report).expect("awaited")), peer, report)
        };
        let (stream, peer, report) = fail();
        peer.into_forge().alert(Forge::FATAL, 80);
        drop(stream);
        assert_eq!(report.await.expect("once").ending(), Ending::PeerAlert(Alert(80)));

        // Our data is lost, although the peer had finished its own.
        let (stream, mut peer, report) = fail();
        peer.close_notify();
        drop(stream);
        let report = report.await.expect("once");
        assert_eq!((report.ending(), report.received()), (Ending::Reset, true));
    }
}

/// The policy limits how much is searched. That it rejects data does not matter here.
#[tokio::test(start_paused = true)]
async fn the_reason_is_looked_for_as_far_as_the_policy_goes() {
    const PIECES: usize = 200;
    for (side, version) in each_kind() {
        for (limit, found) in [(u64::MAX, Ending::PeerAlert(Alert(80))), (1_000_000, Ending::Reset)] {
            let (stream, mut peer) = connect(side, version);
            let (told, report) = oneshot::channel();
            let mut stream = stream.with_policy(BIDIRECTIONAL.with_max_drain_bytes(limit)).with_reaper(&Reaper::new());
            stream = stream.on_end(move |report| told.send(*report).expect("awaited"));
            (0..PIECES).for_each(|_| peer.send(&[0; 10_000]));
            peer.wire.break_writes();
            assert_ready!(task::spawn(stream.write_all(b"a request")).poll()).expect_err("no room");
            peer.into_forge().alert(Forge::FATAL, 80);
            drop(stream);
            assert_eq!(report.await.expect("once").ending(), found, "{limit}");
        }

        let (stream, mut peer) = connect(side, version);
        let (told, report) = oneshot::channel();
        let mut stream = stream.with_reaper(&Reaper::new());
        stream = stream.on_end(move |report| told.send(*report).expect("awaited"));
        peer.wire.break_writes();
        assert_pending!(shut_down(&mut stream, REJECT).poll());
        // One read takes more than the data, and less than the alert behind it.
        peer.wire.script(|script| script.piece = 40);
        peer.send(b"late");
        peer.into_forge().alert(Forge::FATAL, 80);
        drop(stream);
        assert_eq!(report.await.expect("once").ending(), Ending::PeerAlert(Alert(80)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_is_followed_by_nothing() {
    for (side, version) in each_kind() {
        let (mut stream, mut peer) = connect(side, version);
        peer.wire.break_writes();
        assert_ready!(task::spawn(stream.write_all(b"lost")).poll()).expect_err("broken");
        peer.tls.send_close_notify();
        let mut records = peer.records();
        *records.last_mut().expect("a tag") ^= 1;
        peer.wire.deliver(&records);
        // The transport takes bytes again, and none are written: neither the lost data nor an alert about the bad record.
        peer.wire.script(|script| script.room = usize::MAX);
        assert_eq!(ending(shut_down_now(&mut stream, BIDIRECTIONAL)), Ending::Reset);
        assert_eq!(peer.wire.script(|script| script.outbound.len()), 0);
    }
}
