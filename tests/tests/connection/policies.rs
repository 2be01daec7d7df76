//! What each policy sends, and in which order.

use std::{io, time::Duration};

use tls_shutdown::{Ending, PeerData, Reaper, ShutdownError, ShutdownPolicy, ShutdownState};
use tls_shutdown_tests::{
    Side, connect,
    scripted::{BIDIRECTIONAL, POLICIES, RECEIVE_FIRST, UNIDIRECTIONAL, each_kind, ending, shut_down, shut_down_now},
    wire_script::{Buffering, Done, Then},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    time::Instant,
};
use tokio_test::{assert_pending, assert_ready, task};

#[tokio::test(start_paused = true)]
async fn one_byte_a_call_is_enough() {
    for (side, version) in each_kind() {
        for policy in POLICIES {
            let (mut stream, mut peer) = connect(side, version);
            peer.wire.script(|script| script.piece = 1);
            peer.send(b"late");
            peer.close_notify();
            let report = shut_down_now(&mut stream, policy.with_max_drain_bytes(4)).expect("complete");
            let waits = policy != UNIDIRECTIONAL;
            assert_eq!(report.ending(), if waits { Ending::Complete } else { Ending::Sent });
            assert_eq!(report.discarded_late(), if waits { 4 } else { 0 });
            assert_eq!(peer.receive(), Ok((vec![], true)));
            assert!(peer.wire.is_finished());
        }
    }
}

//= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
//# When using a buffering BIO, like a BIO pair, data must be written into
//# or retrieved out of the BIO before being able to continue.
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

//= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
//# After SSL_shutdown() returned 0, it is possible to call SSL_shutdown()
//# again to wait for the peer's close_notify alert.
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
        assert_eq!((error.ending(), began.elapsed()), (Ending::TimedOut, ShutdownPolicy::CLOSE_TIMEOUT));
        assert_eq!(peer.wire.script(|script| script.outbound.len()), before, "one close_notify, one FIN");

        let (mut stream, mut peer) = connect(side, version);
        assert_eq!(ending(shut_down_now(&mut stream, UNIDIRECTIONAL)), Ending::Sent);
        peer.close_notify();
        assert_eq!(ending(shut_down_now(&mut stream, BIDIRECTIONAL)), Ending::Complete);
        // A complete closing stays complete under every policy.
        for policy in POLICIES {
            assert_eq!(ending(shut_down_now(&mut stream, policy)), Ending::Complete);
        }
        assert_eq!(stream.state(), ShutdownState::Both);
        assert_eq!(peer.wire.script(|script| script.log.iter().filter(|done| **done == Done::Finished).count()), 1);
    }
}

/// A shutdown that waits for the peer before it sends was given up. Whoever asks next must not wait for a peer that waits for us.
#[tokio::test(start_paused = true)]
async fn a_later_call_that_sends_earlier_raises_the_goal() {
    for (side, version) in each_kind() {
        for later in [UNIDIRECTIONAL, BIDIRECTIONAL] {
            let (mut stream, mut peer) = connect(side, version);
            assert_pending!(shut_down(&mut stream, RECEIVE_FIRST).poll());
            assert_eq!(peer.receive(), Ok((vec![], false)));
            let mut shutdown = shut_down(&mut stream, later);
            assert_pending!(shutdown.poll());
            assert_eq!(peer.receive(), Ok((vec![], true)), "at once");
            peer.close_notify();
            assert_eq!(ending(assert_ready!(shutdown.poll())), Ending::Complete);
        }
        // The other way round, what was asked for earlier stays.
        let (mut stream, mut peer) = connect(side, version);
        peer.wire.script(|script| script.room = 0);
        assert_pending!(task::spawn(stream.write_all(&[7; 100_000])).poll());
        assert_pending!(shut_down(&mut stream, UNIDIRECTIONAL).poll());
        peer.wire.script(|script| script.room = usize::MAX);
        assert_pending!(shut_down(&mut stream, RECEIVE_FIRST).poll());
        assert!(peer.receive().expect("records").1);
    }
}

//= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
//# When "quiet shutdown" is enabled, SSL_shutdown() will always succeed
//# and return 1.
#[tokio::test(start_paused = true)]
async fn quiet_touches_nothing() {
    for (side, version) in each_kind() {
        let (mut stream, peer) = connect(side, version);
        let report = shut_down_now(&mut stream, ShutdownPolicy::quiet()).expect("quiet");
        assert_eq!((report.ending(), report.sent(), report.received()), (Ending::Quiet, false, false));
        assert_eq!(peer.wire.script(|script| (script.log.len(), script.outbound.len(), script.reads)).0, 0);
        let error = assert_ready!(task::spawn(stream.write_all(b"late")).poll()).expect_err("shut down");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(shut_down_now(&mut stream, BIDIRECTIONAL).expect_err("marked").ending(), Ending::Quiet);
    }
}

//= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
//# The order of those two steps depends on the application.
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

//= https://www.rfc-editor.org/rfc/rfc8446#section-6
//# Upon receiving such an alert, the TLS implementation SHOULD indicate
//# end-of-data to the application.
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

        // The transport may be gone at that time.
        let (mut stream, mut peer) = connect(side, version);
        peer.close_notify();
        assert_eq!(assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect("zero-return"), 0);
        peer.wire.script(|script| script.finish_error = Some(io::ErrorKind::NotConnected));
        assert_eq!(ending(shut_down_now(&mut stream, BIDIRECTIONAL)), Ending::Complete);
    }
}

//= https://www.rfc-editor.org/rfc/rfc9112#section-9.8
//# Clients MUST send a closure alert before closing the connection.
//= https://www.rfc-editor.org/rfc/rfc9112#section-9.8
//# Servers MUST attempt to initiate an exchange of closure alerts with
//# the client before closing the connection.
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
        let mut stream = stream.with_policy(BIDIRECTIONAL.with_close_timeout(Duration::from_millis(1500)));
        let began = Instant::now();
        let error = stream.shutdown().await.expect_err("silence");
        assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, Duration::from_millis(1500)));
        let error = error.get_ref().and_then(|error| error.downcast_ref::<ShutdownError>()).expect("ours");
        assert_eq!((error.ending(), error.report().sent()), (Ending::TimedOut, true));
        drop(peer);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_goal_comes_with_its_policy() {
    for (side, version) in each_kind() {
        // A truncation fails the first goal. The next one accepts it.
        let (mut stream, peer) = connect(side, version);
        assert_ready!(task::spawn(Box::pin(stream.close_notify())).poll()).expect("sent");
        peer.wire.script(|script| script.then = Then::End);
        assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect_err("cut");
        let report = shut_down_now(&mut stream, BIDIRECTIONAL.ignore_unexpected_eof()).expect("accepted");
        assert_eq!(report.ending(), Ending::Truncated);
        assert!(peer.wire.is_finished());

        // The next goal may discard the data that the first one rejected, and the application may still read it.
        let reject = BIDIRECTIONAL.with_peer_data(PeerData::Reject);
        let (mut stream, mut peer) = connect(side, version);
        peer.send(b"unread");
        assert_eq!(ending(shut_down_now(&mut stream, reject)), Ending::PeerData);
        peer.close_notify();
        let report = shut_down_now(&mut stream, BIDIRECTIONAL).expect("complete");
        assert_eq!((report.ending(), report.discarded()), (Ending::Complete, 6));

        let (mut stream, mut peer) = connect(side, version);
        peer.send(b"unread");
        assert_eq!(ending(shut_down_now(&mut stream, reject)), Ending::PeerData);
        tokio::time::sleep(ShutdownPolicy::CLOSE_TIMEOUT * 2).await;
        assert_ready!(task::spawn(stream.read_exact(&mut [0; 6])).poll()).expect("still there");
        let began = Instant::now();
        assert_eq!(ending(stream.shutdown_with(reject).await), Ending::TimedOut);
        assert_eq!(began.elapsed(), ShutdownPolicy::CLOSE_TIMEOUT);
    }
}

#[tokio::test(start_paused = true)]
async fn tickets_are_received_by_a_client_that_never_reads() {
    let version = &rustls::version::TLS13;
    let (mut stream, mut peer) = connect(Side::Client, version);
    peer.close_notify();
    assert_eq!(shut_down_now(&mut stream, BIDIRECTIONAL).expect("complete").tickets(), 2);

    // A server that never answers: the wanted number of tickets is enough.
    let (mut stream, _peer) = connect(Side::Client, version);
    let report = shut_down_now(&mut stream, BIDIRECTIONAL.until_tickets(2)).expect("tickets");
    assert_eq!((report.ending(), report.tickets()), (Ending::Sent, 2));
    let (mut stream, _peer) = connect(Side::Client, version);
    let outcome = stream.shutdown_with(BIDIRECTIONAL.until_tickets(3)).await;
    assert_eq!(ending(outcome), Ending::TimedOut);

    // TLS 1.2 has no such tickets to wait for, and a server receives none.
    let (mut stream, _peer) = connect(Side::Client, &rustls::version::TLS12);
    assert_eq!(ending(shut_down_now(&mut stream, BIDIRECTIONAL.until_tickets(1))), Ending::Sent);
    let (mut stream, mut peer) = connect(Side::Server, version);
    assert_pending!(shut_down(&mut stream, BIDIRECTIONAL.until_tickets(0)).poll());
    peer.close_notify();
    assert_eq!(ending(shut_down_now(&mut stream, BIDIRECTIONAL.until_tickets(0))), Ending::Complete);
}

#[tokio::test(start_paused = true)]
async fn close_notify_keeps_to_the_streams_policy() {
    for (side, version) in each_kind() {
        let (stream, peer) = connect(side, version);
        let limit = Duration::from_secs(1);
        let mut stream = stream.with_policy(BIDIRECTIONAL.with_stall_timeout(limit));
        peer.wire.script(|script| script.room = 0);
        let began = Instant::now();
        let error = stream.close_notify().await.expect_err("nothing is taken");
        assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, limit));

        let reaper = Reaper::new();
        let (stream, _peer) = connect(side, version);
        let (told, report) = oneshot::channel();
        let mut stream = stream
            .with_policy(BIDIRECTIONAL.with_close_timeout(limit))
            .with_reaper(&reaper)
            .on_end(move |report| told.send(*report).expect("awaited"));
        let began = Instant::now();
        stream.close_notify().await.expect("sent");
        drop(stream);
        assert_eq!(report.await.expect("once").ending(), Ending::Sent);
        assert_eq!(began.elapsed(), limit);
    }
}
