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
use tls_shutdown::{Abort, Alert, AsyncShutdown, Ending, PeerData, ShutdownError, ShutdownPolicy, ShutdownState};
use tls_shutdown_tests::{
    Forge, Peer, Side, connect, connect_with,
    scripted::{
        BIDIRECTIONAL, POLICIES, RECEIVE_FIRST, Stream, UNIDIRECTIONAL, each_kind, ending, shut_down, shut_down_now,
        with_ticket_for_early_data,
    },
    wire_script::{Buffering, Done, Full, Then},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
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

                // Their close_notify came first: that ours did not get out spoils nothing.
                let (mut stream, mut peer) = connect_failing();
                peer.close_notify();
                let report = shut_down_now(&mut stream, BIDIRECTIONAL).expect("complete");
                assert_eq!((report.ending(), report.sent(), report.received()), (Ending::Complete, false, true));

                // Why the peer has gone says more than that it has.
                let (mut stream, peer) = connect_failing();
                peer.into_forge().alert(Forge::FATAL, 80);
                let error = shut_down_now(&mut stream, BIDIRECTIONAL).expect_err("an alert");
                assert_eq!(error.ending(), Ending::PeerAlert(Alert(80)));
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
        assert_eq!(error.ending(), Ending::Reset);
        assert!(error.report().received());
    }
}

//= https://www.rfc-editor.org/rfc/rfc8446#section-6.1
//# If a transport-level close is received prior to a "close_notify", the
//# receiver cannot know that all the data that was sent has been
//# received.
#[tokio::test(start_paused = true)]
async fn the_end_after_every_byte_of_the_peer() {
    for (side, version) in each_kind() {
        let records = |peer: &mut Peer| {
            for data in [&b"some"[..], b"late data"] {
                io::Write::write_all(&mut peer.tls.writer(), data).expect("buffered");
            }
            peer.tls.send_close_notify();
            peer.records()
        };
        let length = records(&mut connect(side, version).1).len();
        for policy in [BIDIRECTIONAL, RECEIVE_FIRST] {
            for arrived in 0..=length {
                for (then, cut) in
                    [(Then::End, Ending::Truncated), (Then::Error(io::ErrorKind::ConnectionReset), Ending::Reset)]
                {
                    let (mut stream, mut peer) = connect(side, version);
                    let records = records(&mut peer);
                    peer.wire.deliver(&records[..arrived]);
                    peer.wire.script(|script| script.then = then);
                    let outcome = shut_down_now(&mut stream, policy);
                    if arrived == length {
                        assert_eq!(ending(outcome), Ending::Complete);
                        continue;
                    }
                    let error = outcome.expect_err("cut");
                    assert_eq!(error.ending(), cut, "{arrived} of {length} bytes");
                    assert!(!error.report().received());
                    assert_eq!(error.report().sent(), policy == BIDIRECTIONAL, "nothing is said after a truncation");
                    let kind = io::Error::from(error).kind();
                    assert!(matches!(kind, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset));
                }
            }
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
        // What is complete stays complete, whatever is asked for.
        for policy in POLICIES {
            assert_eq!(ending(shut_down_now(&mut stream, policy)), Ending::Complete);
        }
        assert_eq!(stream.state(), ShutdownState::Both);
        assert_eq!(peer.wire.script(|script| script.log.iter().filter(|done| **done == Done::Finished).count()), 1);
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

        // The transport may be gone by then.
        let (mut stream, mut peer) = connect(side, version);
        peer.close_notify();
        assert_eq!(assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect("zero-return"), 0);
        peer.wire.script(|script| script.finish_error = Some(io::ErrorKind::NotConnected));
        assert_eq!(ending(shut_down_now(&mut stream, BIDIRECTIONAL)), Ending::Complete);
    }
}

//= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
//# The peer is still allowed to send data after receiving the
//# close_notify event.
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

//= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#return-values
//# It can also occur when not all data was read using SSL_read().
#[tokio::test(start_paused = true)]
async fn rejected_data_stays_to_be_read() {
    for (side, version) in each_kind() {
        let reject = BIDIRECTIONAL.with_peer_data(PeerData::Reject);
        let (mut stream, mut peer) = connect(side, version);
        peer.send(b"unread");
        let error = shut_down_now(&mut stream, reject).expect_err("data");
        assert_eq!((error.ending(), error.report().discarded()), (Ending::PeerData, 0));
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidData);
        let mut data = [0; 6];
        assert_ready!(task::spawn(stream.read_exact(&mut data)).poll()).expect("still there");
        assert_eq!(&data, b"unread");
        peer.close_notify();
        assert_eq!(ending(shut_down_now(&mut stream, reject)), Ending::Complete);
    }
}

//= https://www.rfc-editor.org/rfc/rfc8446#section-6.1
//# This does not have any effect on its read side of the connection.
//= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
//# SSL_shutdown() only closes the write direction.
//= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
//# It is not possible to call SSL_write() after calling SSL_shutdown().
//= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
//# SSL_read() should be called until all data is received.
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

//= https://www.rfc-editor.org/rfc/rfc8446#section-6.1
//# Each party MUST send a "close_notify" alert before closing its write
//# side of the connection, unless it has already sent some error alert.
//= https://www.rfc-editor.org/rfc/rfc8446#section-6.2
//# Upon transmission or receipt of a fatal alert message, both parties
//# MUST immediately close the connection.
//= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
//# Note that SSL_shutdown() must not be called if a previous fatal error
//# has occurred on a connection i.e. if SSL_get_error() has returned
//# SSL_ERROR_SYSCALL or SSL_ERROR_SSL.
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
                assert_eq!((error.ending(), error.report().alert()), (Ending::Refused, Some(Alert(description))));
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
        assert_eq!(shut_down_now(&mut stream, BIDIRECTIONAL).expect_err("refused").ending(), Ending::Refused);
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
            assert_eq!(shut_down_now(&mut stream, policy).expect_err("truncated").ending(), Ending::Truncated);
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
        assert_eq!(shut_down_now(&mut stream, UNIDIRECTIONAL).expect_err("reset").ending(), Ending::Reset);
        assert_eq!(peer.wire.script(|script| script.log.clone()), []);
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
    assert_pending!(shut_down(&mut stream, BIDIRECTIONAL.until_tickets(0)).poll());
    peer.close_notify();
    assert_eq!(ending(shut_down_now(&mut stream, BIDIRECTIONAL.until_tickets(0))), Ending::Complete);
}

/// A client whose 0-RTT handshake is not done: `data` is early, and the peer has not been heard.
fn connect_early(data: &[u8], accepts: EarlyData) -> (Stream, Peer) {
    let (client, mut server) = with_ticket_for_early_data();
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
            assert_pending!(shutdown.poll(), "it waits for close_notify");
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
    assert_eq!((error.ending(), began.elapsed()), (Ending::NotStarted, ShutdownPolicy::STALL_TIMEOUT));
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
        assert_pending!(shut_down(&mut stream, BIDIRECTIONAL).poll());
        drop(stream);
        assert_eq!(ends(), once(Ending::Sent));

        let (stream, peer) = connect(side, version);
        let (mut stream, ends) = counted(stream);
        peer.into_forge().alert(Forge::FATAL, 80);
        assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect_err("an alert");
        assert_eq!(shut_down_now(&mut stream, BIDIRECTIONAL).expect_err("refused").ending(), Ending::Refused);
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
async fn before_our_close_notify_a_bad_record_is_answered_with_an_alert() {
    for (side, version) in each_kind() {
        let (mut stream, mut peer) = connect(side, version);
        peer.tls.send_close_notify();
        let mut records = peer.records();
        *records.last_mut().expect("a tag") ^= 1;
        peer.wire.deliver(&records);
        let error = shut_down_now(&mut stream, RECEIVE_FIRST).expect_err("a bad record");
        assert_eq!((error.ending(), error.report().sent()), (Ending::ProtocolError, false));
        let answer = peer.receive().expect_err("a fatal alert");
        assert_eq!(answer, rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
    }
}

#[tokio::test(start_paused = true)]
async fn an_abort_ends_a_closing_on_its_way() {
    for (side, version) in each_kind() {
        // Before close_notify is out, it never goes out.
        let (stream, mut peer) = connect(side, version);
        let (mut stream, ends) = counted(stream);
        peer.wire.script(|script| script.room = 0);
        assert_pending!(shut_down(&mut stream, BIDIRECTIONAL).poll());
        stream.abort(Abort::Fin);
        assert_eq!(ends(), (1, Some(Ending::Aborted)));
        assert_eq!(peer.receive(), Ok((vec![], false)));

        // Once it is, it is; and what had ended before has ended.
        let (stream, peer) = connect(side, version);
        let (mut stream, ends) = counted(stream);
        assert_pending!(shut_down(&mut stream, BIDIRECTIONAL).poll());
        stream.abort(Abort::Fin);
        assert_eq!(ends(), (1, Some(Ending::Aborted)));
        drop(peer);

        let (stream, mut peer) = connect(side, version);
        let (mut stream, ends) = counted(stream);
        peer.close_notify();
        shut_down_now(&mut stream, BIDIRECTIONAL).expect("complete");
        stream.abort(Abort::Reset);
        assert_eq!(ends(), (1, Some(Ending::Complete)));
    }
}
