//! What a peer, a transport or an application can do at the worst moment.

use std::{io, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore, SupportedCipherSuite, Tls12CipherSuite, crypto::CipherSuiteCommon};
use tls_shutdown::{
    Abort, Alert, Ending, PeerData, Reaper, ReaperLimits, ShutdownPolicy, ShutdownState, ShutdownStream,
};
use tls_shutdown_tests::{
    Forge, Side, certificate, client_config, connect, connect_with,
    scripted::{
        BIDIRECTIONAL, POLICIES, UNIDIRECTIONAL, each_kind, ending, shut_down, shut_down_now,
        with_ticket_for_early_data,
    },
    server_config,
    wire_script::{Full, Then},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    time::{Instant, sleep, timeout},
};
use tokio_test::{assert_pending, assert_ready, task};

const REJECT: ShutdownPolicy = BIDIRECTIONAL.with_peer_data(PeerData::Reject);

/// A transport that takes nothing, and says so.
fn break_writes(wire: &tls_shutdown_tests::Wire) {
    wire.script(|script| {
        script.room = 0;
        script.full = Full::Error(io::ErrorKind::BrokenPipe);
    });
}

/// The same, and nothing comes after what the peer has said.
fn cut(wire: &tls_shutdown_tests::Wire) {
    break_writes(wire);
    wire.script(|script| script.then = Then::Error(io::ErrorKind::ConnectionReset));
}

#[tokio::test(start_paused = true)]
async fn tickets_are_no_way_out_of_a_failed_write() {
    for (side, version) in each_kind() {
        for tickets in [0, 1, 3] {
            let (mut stream, peer) = connect(side, version);
            cut(&peer.wire);
            let outcome = shut_down_now(&mut stream, BIDIRECTIONAL.until_tickets(tickets));
            assert_eq!(ending(outcome), Ending::Reset);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn looking_for_the_reason_of_a_failed_write_is_bounded() {
    for (side, version) in each_kind() {
        let (mut stream, mut peer) = connect(side, version);
        break_writes(&peer.wire);
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

/// A peer that answers, closes and resets at once: what it has said last is behind data that belongs to the application.
#[tokio::test(start_paused = true)]
async fn the_reason_of_a_failed_close_is_found_behind_data() {
    for (side, version) in each_kind() {
        let fail = || {
            let (mut stream, mut peer) = connect(side, version);
            peer.send(b"an answer");
            peer.close_notify();
            cut(&peer.wire);
            assert_eq!(ending(shut_down_now(&mut stream, UNIDIRECTIONAL)), Ending::Reset);
            stream
        };
        // The application reads on.
        let mut stream = fail();
        let mut data = Vec::new();
        assert_ready!(task::spawn(stream.read_to_end(&mut data)).poll()).expect("close_notify");
        assert_eq!(&data[..], b"an answer");
        assert_eq!(ending(shut_down_now(&mut stream, UNIDIRECTIONAL)), Ending::Complete);

        // Nobody reads on, and the data is in nobody's way any more.
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
            cut(&peer.wire);
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

        // What we had to say is lost, though the peer was at its end.
        let (stream, mut peer, report) = fail();
        peer.close_notify();
        drop(stream);
        let report = report.await.expect("once");
        assert_eq!((report.ending(), report.received()), (Ending::Reset, true));
    }
}

/// The policy says how much is looked through, but not that data is in the way.
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
            break_writes(&peer.wire);
            assert_ready!(task::spawn(stream.write_all(b"a request")).poll()).expect_err("no room");
            peer.into_forge().alert(Forge::FATAL, 80);
            drop(stream);
            assert_eq!(report.await.expect("once").ending(), found, "{limit}");
        }

        let (stream, mut peer) = connect(side, version);
        let (told, report) = oneshot::channel();
        let mut stream = stream.with_reaper(&Reaper::new());
        stream = stream.on_end(move |report| told.send(*report).expect("awaited"));
        break_writes(&peer.wire);
        assert_pending!(shut_down(&mut stream, REJECT).poll());
        // More than the data, and less than the alert behind it.
        peer.wire.script(|script| script.piece = 40);
        peer.send(b"late");
        peer.into_forge().alert(Forge::FATAL, 80);
        drop(stream);
        assert_eq!(report.await.expect("once").ending(), Ending::PeerAlert(Alert(80)));
    }
}

/// rustls 0.23.46 panics if it is asked to go on after these two records.
#[tokio::test(start_paused = true)]
async fn an_empty_handshake_record_before_close_notify_hurts_nobody() {
    for side in Side::BOTH {
        for policy in POLICIES {
            let (mut stream, peer) = connect(side, &rustls::version::TLS13);
            let wire = peer.wire.clone();
            let mut forge = peer.into_forge();
            let records = [forge.record(Forge::HANDSHAKE, &[]), forge.record(Forge::ALERT, &[1, 0])].concat();
            wire.deliver(&records);
            assert_eq!(assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect("zero-return"), 0);
            assert_ready!(task::spawn(stream.write_all(b"an answer")).poll()).expect("written");
            let report = shut_down_now(&mut stream, policy).expect("complete");
            assert_eq!((report.ending(), report.sent()), (Ending::Complete, true));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn ends_that_come_while_data_is_in_the_way_count() {
    for (side, version) in each_kind() {
        let connect_rejected = || {
            let (mut stream, mut peer) = connect(side, version);
            peer.send(b"data");
            assert_eq!(ending(shut_down_now(&mut stream, REJECT)), Ending::PeerData);
            assert_ready!(task::spawn(stream.read_exact(&mut [0; 4])).poll()).expect("data");
            (stream, peer)
        };
        let (mut stream, peer) = connect_rejected();
        peer.wire.script(|script| script.then = Then::Error(io::ErrorKind::ConnectionReset));
        assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect_err("reset");
        peer.wire.script(|script| script.then = Then::End);
        assert_eq!(ending(shut_down_now(&mut stream, REJECT.ignore_unexpected_eof())), Ending::Reset);

        let (mut stream, peer) = connect_rejected();
        peer.into_forge().alert(Forge::FATAL, 80);
        assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect_err("an alert");
        assert_eq!(ending(shut_down_now(&mut stream, REJECT)), Ending::PeerAlert(Alert(80)));

        let (mut stream, mut peer) = connect_rejected();
        peer.close_notify();
        assert_eq!(assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect("zero-return"), 0);
        assert_eq!(stream.state(), ShutdownState::Both);
        let (told, report) = oneshot::channel();
        drop(stream.on_end(move |report| told.send(*report).expect("awaited")));
        assert_eq!(report.await.expect("once").ending(), Ending::Complete);
    }
}

/// At the limit of its keys rustls ends writing itself, and takes further data to drop it.
#[tokio::test(start_paused = true)]
async fn worn_out_keys_are_never_complete() {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain_mut(|suite| match suite {
        SupportedCipherSuite::Tls12(tls12) if suite_name(tls12).ends_with("ECDSA_WITH_AES_256_GCM_SHA384") => {
            let common = CipherSuiteCommon { confidentiality_limit: 10, ..copy_of(&tls12.common) };
            let Tls12CipherSuite { prf_provider, kx, sign, aead_alg, .. } = **tls12;
            *suite = SupportedCipherSuite::Tls12(Box::leak(Box::new(Tls12CipherSuite {
                common,
                prf_provider,
                kx,
                sign,
                aead_alg,
            })));
            true
        }
        _ => false,
    });
    let mut roots = RootCertStore::empty();
    roots.add(certificate().0).expect("a root");
    let client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (mut stream, mut peer) = connect_with(Side::Client, client, server_config(&rustls::version::TLS12));
    for _ in 0..30 {
        assert_ready!(task::spawn(stream.write_all(b"x")).poll()).expect("taken");
        assert_ready!(task::spawn(stream.flush()).poll()).expect("taken");
    }
    peer.close_notify();
    let error = shut_down_now(&mut stream, BIDIRECTIONAL).expect_err("data is lost");
    assert_eq!((error.ending(), error.report().sent()), (Ending::Refused, false));
    assert!(peer.receive().expect("records").0.len() < 30);
}

fn suite_name(suite: &Tls12CipherSuite) -> String {
    format!("{:?}", suite.common.suite)
}

fn copy_of(common: &CipherSuiteCommon) -> CipherSuiteCommon {
    CipherSuiteCommon {
        suite: common.suite,
        hash_provider: common.hash_provider,
        confidentiality_limit: common.confidentiality_limit,
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_meets_the_end_wakes_the_writer_that_closes() {
    for (side, version) in each_kind() {
        let (stream, peer) = connect(side, version);
        peer.wire.script(|script| script.room = 0);
        let (mut reader, mut writer) = tokio::io::split(stream);
        assert_pending!(task::spawn(writer.write_all(&[0; 100_000])).poll());
        let mut shutdown = task::spawn(writer.shutdown());
        assert_pending!(shutdown.poll());
        peer.into_forge().alert(Forge::FATAL, 80);
        let mut byte = [0];
        assert_ready!(task::spawn(reader.read(&mut byte)).poll()).expect_err("an alert");
        assert!(shutdown.is_woken(), "it need not wait for the stall limit");
        assert_ready!(shutdown.poll()).expect_err("an alert");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_sees_the_end_of_a_closing_that_failed() {
    for (side, version) in each_kind() {
        let (stream, _peer) = connect(side, version);
        let (mut reader, mut writer) = tokio::io::split(stream.with_policy(BIDIRECTIONAL));
        let read = tokio::spawn(async move { reader.read(&mut [0; 9]).await });
        writer.shutdown().await.expect_err("silence");
        let error = timeout(Duration::from_secs(60), read).await.expect("at once").expect("no panic");
        assert_eq!(error.expect_err("silence").kind(), io::ErrorKind::TimedOut);
    }
    // Data and an odd record in one read: first the one, then the other, and never nothing.
    for (side, version) in each_kind() {
        let (mut stream, mut peer) = connect(side, version);
        stream.shutdown_with(BIDIRECTIONAL).await.expect_err("silence");
        assert_eq!(peer.receive(), Ok((vec![], true)));
        let wire = peer.wire.clone();
        let mut forge = peer.into_forge();
        let records = [forge.record(Forge::DATA, b"data"), forge.record(Forge::ALERT, &[1])].concat();
        wire.deliver(&records);
        for _ in 0..3 {
            assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect_err("over");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reaper_keeps_the_policy_that_rejects_data() {
    for (side, version) in each_kind() {
        for told_before in [true, false] {
            let reaper = Reaper::new();
            let (stream, mut peer) = connect(side, version);
            let (told, report) = oneshot::channel();
            let mut stream = stream
                .with_policy(REJECT)
                .with_reaper(&reaper)
                .on_end(move |report| told.send(*report).expect("awaited"));
            assert_pending!(shut_down(&mut stream, REJECT).poll());
            if told_before {
                peer.send(b"data");
                assert_eq!(ending(shut_down_now(&mut stream, REJECT)), Ending::PeerData);
                drop(stream);
            } else {
                drop(stream);
                peer.send(b"data");
            }
            peer.close_notify();
            let report = report.await.expect("once");
            assert_eq!((report.ending(), report.discarded()), (Ending::PeerData, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_abort_after_a_unidirectional_close_is_told() {
    for (side, version) in each_kind() {
        let (stream, _peer) = connect(side, version);
        let (told, report) = oneshot::channel();
        let mut stream = stream.on_end(move |report| told.send(*report).expect("awaited"));
        shut_down_now(&mut stream, UNIDIRECTIONAL).expect("sent");
        stream.abort(Abort::Reset);
        let report = report.await.expect("once");
        assert_eq!((report.ending(), report.sent()), (Ending::Aborted, true));
    }
}

#[tokio::test(start_paused = true)]
async fn an_abort_hides_no_earlier_failure() {
    for (side, version) in each_kind() {
        let (stream, peer) = connect(side, version);
        let (told, report) = oneshot::channel();
        let mut stream = stream.on_end(move |report| told.send(*report).expect("awaited"));
        peer.wire.script(|script| script.then = Then::End);
        assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect_err("cut");
        stream.abort(Abort::Reset);
        assert_eq!(report.await.expect("once").ending(), Ending::Truncated);

        let (stream, peer) = connect(side, version);
        let (told, report) = oneshot::channel();
        let mut stream = stream.on_end(move |report| told.send(*report).expect("awaited"));
        break_writes(&peer.wire);
        assert_ready!(task::spawn(stream.write_all(b"lost")).poll()).expect_err("broken");
        stream.abort(Abort::Fin);
        assert_eq!(report.await.expect("once").ending(), Ending::Reset);
    }
}

#[tokio::test(start_paused = true)]
async fn a_0_rtt_handshake_that_fails_under_a_write_is_told_as_what_it_is() {
    let (client, server) = with_ticket_for_early_data();
    for (garbage, expected) in [(&b"220 plain"[..], Ending::NotTls), (b"", Ending::NotStarted)] {
        let (mut stream, peer) = connect_with(Side::Client, client.clone(), server.clone());
        assert!(stream.session().get_ref().1.is_handshaking(), "0-RTT");
        assert_ready!(task::spawn(stream.write_all(b"early")).poll()).expect("early data");
        peer.wire.deliver(garbage);
        peer.wire.script(|script| script.then = Then::End);
        assert_ready!(task::spawn(stream.flush()).poll()).expect_err("no handshake");
        let (told, report) = oneshot::channel();
        drop(stream.on_end(move |report| told.send(*report).expect("awaited")));
        assert_eq!(report.await.expect("once").ending(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_truncation_met_before_the_stream_was_wrapped_is_one() {
    for (side, version) in each_kind() {
        let (stream, peer) = connect(side, version);
        let mut bare = stream.into_session();
        peer.wire.script(|script| script.then = Then::End);
        assert_ready!(task::spawn(bare.read(&mut [0; 9])).poll()).expect_err("cut");
        let mut stream = ShutdownStream::new(bare);
        assert_eq!(ending(shut_down_now(&mut stream, UNIDIRECTIONAL)), Ending::Truncated);
        assert_eq!(peer.wire.script(|script| script.log.clone()), []);
    }
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

/// Whoever waits for a reaper to be idle may exit then: every `on_end` was called.
#[tokio::test(start_paused = true)]
async fn an_idle_reaper_has_told_everything() {
    let reaper = Reaper::with_limits(ReaperLimits::new().with_max_closings(1));
    let mut reports = Vec::new();
    for _ in 0..20 {
        let (stream, mut peer) = connect(Side::Server, &rustls::version::TLS13);
        let (told, report) = oneshot::channel();
        let mut stream = stream.with_reaper(&reaper).on_end(move |report| told.send(*report).expect("awaited"));
        shut_down_now(&mut stream, UNIDIRECTIONAL).expect("sent");
        drop(stream);
        peer.close_notify();
        reports.push(report);
    }
    assert_eq!(reaper.wait_idle(Duration::from_secs(1)).await, 0);
    for mut report in reports {
        report.try_recv().expect("told already");
    }
}

#[tokio::test(start_paused = true)]
async fn reading_on_to_an_end_that_is_accepted_ends() {
    for (side, version) in each_kind() {
        // A TLS stream as the transport reports its own truncation again and again.
        let (stream, peer) = connect(side, version);
        let mut stream = stream.with_policy(BIDIRECTIONAL.ignore_unexpected_eof());
        assert_ready!(task::spawn(Box::pin(stream.close_notify())).poll()).expect("sent");
        peer.wire.script(|script| script.then = Then::Error(io::ErrorKind::UnexpectedEof));
        for _ in 0..2 {
            let error = assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect_err("cut");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
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

/// Tokio's sockets do not ask the system again before the runtime has had its turn.
#[tokio::test]
async fn last_words_are_found_behind_a_reset_that_came_with_them() {
    use std::io::Write as _;
    use tls_shutdown_tests::openssl_peer::{self, ClientCertificate, acceptor};
    let version = &rustls::version::TLS13;
    let (do_close, closing) = std::sync::mpsc::channel::<()>();
    let (closed, is_closed) = std::sync::mpsc::channel::<()>();
    let closing = std::sync::Mutex::new(closing);
    let (address, peer) = openssl_peer::serve(acceptor(version, ClientCertificate::Ignored), 1, move |mut peer| {
        closing.lock().expect("one connection").recv().expect("told to");
        peer.write_all(b"last data").expect("sent");
        peer.shutdown().expect("close_notify");
        // What we have sent is unread here: the close is a reset.
        drop(peer);
        closed.send(()).expect("awaited");
    });
    let tcp = tokio::net::TcpStream::connect(address).await.expect("a server");
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client_config(version)));
    let mut stream = ShutdownStream::new(connector.connect(name, tcp).await.expect("a handshake"));
    stream.write_all(b"unread").await.expect("written");
    stream.flush().await.expect("written");
    // A read that waits has told tokio that there is nothing to be read.
    while timeout(Duration::from_millis(20), stream.read(&mut [0; 9])).await.is_ok() {}
    do_close.send(()).expect("awaited");
    is_closed.recv_timeout(Duration::from_secs(20)).expect("closed");
    let report = stream.shutdown_with(BIDIRECTIONAL).await.expect("their close_notify had come");
    assert_eq!((report.ending(), report.received()), (Ending::Complete, true));
    peer.join().expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_is_followed_by_nothing() {
    for (side, version) in each_kind() {
        let (mut stream, mut peer) = connect(side, version);
        break_writes(&peer.wire);
        assert_ready!(task::spawn(stream.write_all(b"lost")).poll()).expect_err("broken");
        peer.tls.send_close_notify();
        let mut records = peer.records();
        *records.last_mut().expect("a tag") ^= 1;
        peer.wire.deliver(&records);
        // The transport takes bytes again, and gets none: neither the lost data nor an alert about the bad record.
        peer.wire.script(|script| script.room = usize::MAX);
        assert_eq!(ending(shut_down_now(&mut stream, BIDIRECTIONAL)), Ending::Reset);
        assert_eq!(peer.wire.script(|script| script.outbound.len()), 0);
    }
}
