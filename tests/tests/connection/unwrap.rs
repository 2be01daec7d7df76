//! TLS taken off a connection. Every byte that is not TLS is kept.

use std::{sync::Arc, time::Duration};

use rustls::{SupportedProtocolVersion, pki_types::ServerName};
use tls_shutdown::{
    Alert, Ending, Plaintext, Reaper, Records, ShutdownPolicy, ShutdownStream, TlsSession, Unwrap, UnwrapError,
};
use tls_shutdown_tests::{
    Forge, Peer, Side, Wire, client_config, connect_over,
    scripted::{BIDIRECTIONAL, each_kind},
    server_config,
    wire_script::Then,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex},
    task::coop::unconstrained,
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_test::{assert_pending, assert_ready, task};

pub(crate) const PLAIN: &[u8] = b"220 plain text, and more of it\r\n";

const WAYS: [Unwrap; 3] = [Unwrap::Initiate, Unwrap::Reply, Unwrap::Silent];

type Stream = ShutdownStream<TlsStream<Records<Wire>>>;

fn connect(side: Side, version: &'static SupportedProtocolVersion) -> (Stream, Peer) {
    connect_over(side, client_config(version), server_config(version), Records::new)
}

fn unwrap_now(stream: Stream, unwrap: Unwrap) -> Result<Plaintext<Wire>, UnwrapError<TlsStream<Records<Wire>>>> {
    assert_ready!(task::spawn(unconstrained(Box::pin(stream.into_plaintext(unwrap)))).poll())
}

/// The records of close_notify, with plaintext behind them.
fn close_notify_and_plaintext(peer: &mut Peer) -> Vec<u8> {
    peer.tls.send_close_notify();
    [&peer.records()[..], PLAIN].concat()
}

#[tokio::test(start_paused = true)]
async fn close_notify_and_plaintext_in_one_segment_and_cut_at_every_byte() {
    for (side, version) in each_kind() {
        for unwrap in WAYS {
            let length = close_notify_and_plaintext(&mut connect(side, version).1).len();
            for cut in 0..=length {
                let (stream, mut peer) = connect(side, version);
                let bytes = close_notify_and_plaintext(&mut peer);
                peer.wire.deliver(&bytes[..cut]);
                let mut taking_off = task::spawn(unconstrained(Box::pin(stream.into_plaintext(unwrap))));
                let polled = taking_off.poll();
                peer.wire.deliver(&bytes[cut..]);
                let outcome = match polled {
                    std::task::Poll::Ready(outcome) => outcome,
                    std::task::Poll::Pending => assert_ready!(taking_off.poll()),
                };
                let mut plain = outcome.expect("TLS is off");
                let mut read = [0; PLAIN.len()];
                assert_ready!(task::spawn(plain.read_exact(&mut read)).poll()).expect("all of it");
                assert_eq!(read, PLAIN, "{unwrap:?} cut at {cut}");
                assert_pending!(task::spawn(plain.read(&mut read)).poll());
                assert_eq!(peer.receive(), Ok((vec![], unwrap != Unwrap::Silent)));
                assert!(!peer.wire.is_finished(), "no FIN");

                assert_ready!(task::spawn(plain.write_all(b"plain")).poll()).expect("written");
                assert_eq!(peer.wire.script(|script| std::mem::take(&mut script.outbound)), b"plain");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_notify_that_the_application_has_read_is_enough() {
    for (side, version) in each_kind() {
        for unwrap in WAYS {
            let (mut stream, mut peer) = connect(side, version);
            peer.send(b"the last data");
            let bytes = close_notify_and_plaintext(&mut peer);
            peer.wire.deliver(&bytes);
            let mut data = Vec::new();
            assert_ready!(task::spawn(stream.read_to_end(&mut data)).poll()).expect("to close_notify");
            assert_eq!(data, b"the last data");
            let (leftover, _wire) = unwrap_now(stream, unwrap).expect("TLS is off").into_parts();
            assert_eq!(leftover, PLAIN);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_what_when() {
    for (side, version) in each_kind() {
        for unwrap in WAYS {
            let (stream, mut peer) = connect(side, version);
            let mut taking_off = task::spawn(unconstrained(Box::pin(stream.into_plaintext(unwrap))));
            assert_pending!(taking_off.poll());
            assert_eq!(peer.receive(), Ok((vec![], unwrap == Unwrap::Initiate)));
            peer.close_notify();
            assert!(taking_off.is_woken());
            assert_ready!(taking_off.poll()).expect("TLS is off");
            assert_eq!(peer.receive(), Ok((vec![], unwrap != Unwrap::Silent)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn data_that_is_still_to_be_read_is_in_the_way() {
    for (side, version) in each_kind() {
        for unwrap in WAYS {
            let (stream, mut peer) = connect(side, version);
            peer.send(b"late");
            let bytes = close_notify_and_plaintext(&mut peer);
            peer.wire.deliver(&bytes);
            let error = unwrap_now(stream, unwrap).expect_err("data");
            assert_eq!(error.error().ending(), Ending::PeerData);
            let mut stream = error.into_stream();
            let mut data = [0; 4];
            assert_ready!(task::spawn(stream.read_exact(&mut data)).poll()).expect("still there");
            assert_eq!(&data, b"late");
            let (leftover, _wire) = unwrap_now(stream, unwrap).expect("TLS is off").into_parts();
            assert_eq!(leftover, PLAIN);
        }
    }
}

/// After data was in the way, the application may know better who closes first.
#[tokio::test(start_paused = true)]
async fn a_later_unwrap_that_sends_raises_the_goal() {
    for (side, version) in each_kind() {
        for (first, second) in
            [(Unwrap::Reply, Unwrap::Initiate), (Unwrap::Silent, Unwrap::Initiate), (Unwrap::Silent, Unwrap::Reply)]
        {
            let (stream, mut peer) = connect(side, version);
            peer.send(b"late");
            let error = unwrap_now(stream, first).expect_err("data");
            let mut stream = error.into_stream();
            assert_ready!(task::spawn(stream.read_exact(&mut [0; 4])).poll()).expect("still there");
            let mut taking_off = task::spawn(unconstrained(Box::pin(stream.into_plaintext(second))));
            assert_pending!(taking_off.poll());
            assert_eq!(peer.receive(), Ok((vec![], second == Unwrap::Initiate)), "{first:?} then {second:?}");
            peer.close_notify();
            assert_ready!(taking_off.poll()).expect("TLS is off");
            assert_eq!(peer.receive(), Ok((vec![], true)), "{first:?} then {second:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_skips_close_notify_is_not_tls_and_loses_nothing() {
    for (side, version) in each_kind() {
        for unwrap in WAYS {
            for cut in 0..=PLAIN.len() {
                let (stream, peer) = connect(side, version);
                let mut taking_off = task::spawn(unconstrained(Box::pin(stream.into_plaintext(unwrap))));
                assert_pending!(taking_off.poll());
                peer.wire.deliver(&PLAIN[..cut]);
                let polled = taking_off.poll();
                peer.wire.deliver(&PLAIN[cut..]);
                let error = match polled {
                    std::task::Poll::Ready(outcome) => outcome,
                    std::task::Poll::Pending => assert_ready!(taking_off.poll()),
                }
                .expect_err("no close_notify");
                assert_eq!(error.error().ending(), Ending::NotTls);
                let mut plain = error.into_plaintext().expect("plaintext");
                let mut read = [0; PLAIN.len()];
                assert_ready!(task::spawn(plain.read_exact(&mut read)).poll()).expect("all of it");
                assert_eq!(read, PLAIN, "{unwrap:?} cut at {cut}");
                assert_pending!(task::spawn(plain.read(&mut read)).poll());
            }
        }
    }
}

/// The application's own read has met the plaintext first.
#[tokio::test(start_paused = true)]
async fn plaintext_that_a_read_has_met_is_returned() {
    for (side, version) in each_kind() {
        for unwrap in WAYS {
            for is_half_closed in [false, true] {
                let (mut stream, mut peer) = connect(side, version);
                if is_half_closed {
                    assert_ready!(task::spawn(Box::pin(stream.close_notify())).poll()).expect("sent");
                }
                peer.send(b"the last data");
                peer.wire.deliver(PLAIN);
                assert_ready!(task::spawn(stream.read_exact(&mut [0; 13])).poll()).expect("data");
                assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect_err("no TLS");
                let error = unwrap_now(stream, unwrap).expect_err("no close_notify");
                assert_eq!(error.error().ending(), Ending::NotTls);
                let mut plain = error.into_plaintext().expect("plaintext");
                let mut read = [0; PLAIN.len()];
                assert_ready!(task::spawn(plain.read_exact(&mut read)).poll()).expect("all of it");
                assert_eq!(read, PLAIN);
                assert_eq!(peer.receive(), Ok((vec![], is_half_closed)), "no alert goes into the plaintext");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fin_silence_and_alerts_are_no_close_notify() {
    for (side, version) in each_kind() {
        for unwrap in WAYS {
            // A record that is not whole. It can be neither decrypted nor taken for plaintext, and it is kept.
            let (stream, mut peer) = connect(side, version);
            let mut half = close_notify_and_plaintext(&mut peer);
            half.truncate(half.len() - PLAIN.len() - 1);
            peer.wire.deliver(&half[..4]);
            peer.wire.script(|script| script.then = Then::End);
            let error = unwrap_now(stream, unwrap).expect_err("cut");
            assert_eq!(error.error().ending(), Ending::Truncated);
            assert!(!peer.wire.is_finished());
            assert_eq!(left_in(error), half[..4]);

            let (stream, peer) = connect(side, version);
            peer.wire.deliver(&half[..4]);
            let began = Instant::now();
            let error = stream.into_plaintext(unwrap).await.expect_err("silence");
            assert_eq!((error.error().ending(), began.elapsed()), (Ending::TimedOut, ShutdownPolicy::CLOSE_TIMEOUT));
            assert_eq!(left_in(error), half[..4]);

            let (stream, peer) = connect(side, version);
            let mut forge = peer.into_forge();
            let alert = forge.record(Forge::ALERT, &[Forge::FATAL, 80]);
            forge.wire.deliver(&[&alert, PLAIN].concat());
            let error = unwrap_now(stream, unwrap).expect_err("an alert");
            assert_eq!(error.error().ending(), Ending::PeerAlert(Alert(80)));
            assert_eq!(left_in(error), PLAIN);
        }
    }
}

/// The bytes behind the last record that rustls has read. They are no plaintext: TLS ends only with the peer's close_notify, or with bytes
/// that are no record.
fn left_in(error: UnwrapError<TlsStream<Records<Wire>>>) -> Vec<u8> {
    let error = error.into_plaintext().expect_err("no end of TLS");
    error.into_stream().into_inner().into_transport().into_parts().0
}

/// New keys may come at any time. A request for ours is answered before close_notify or not at all.
#[tokio::test(start_paused = true)]
async fn key_updates_before_close_notify_lose_nothing() {
    for side in Side::BOTH {
        for unwrap in WAYS {
            let (stream, mut peer) = connect(side, &rustls::version::TLS13);
            peer.tls.refresh_traffic_keys().expect("TLS 1.3");
            let bytes = close_notify_and_plaintext(&mut peer);
            peer.wire.deliver(&bytes);
            let (leftover, _wire) = unwrap_now(stream, unwrap).expect("TLS is off").into_parts();
            assert_eq!(leftover, PLAIN);
            assert_eq!(peer.receive(), Ok((vec![], unwrap != Unwrap::Silent)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_fin_the_transport_is_of_no_more_use() {
    for (side, version) in each_kind() {
        for unwrap in WAYS {
            let (mut stream, mut peer) = connect(side, version);
            peer.close_notify();
            assert_ready!(task::spawn(stream.shutdown_with(BIDIRECTIONAL)).poll()).expect("complete");
            let error = unwrap_now(stream, unwrap).expect_err("closed");
            assert_eq!(error.error().ending(), Ending::Refused);
        }
        for unwrap in WAYS {
            let (mut stream, _peer) = connect(side, version);
            assert_ready!(task::spawn(stream.shutdown_with(ShutdownPolicy::unidirectional())).poll()).expect("sent");
            let error = unwrap_now(stream, unwrap).expect_err("closed");
            assert_eq!(error.error().ending(), Ending::Refused);
        }
        // After a half-close it is still of use.
        let (mut stream, mut peer) = connect(side, version);
        assert_ready!(task::spawn(Box::pin(stream.close_notify())).poll()).expect("sent");
        let bytes = close_notify_and_plaintext(&mut peer);
        peer.wire.deliver(&bytes);
        let (leftover, _wire) = unwrap_now(stream, Unwrap::Initiate).expect("TLS is off").into_parts();
        assert_eq!(leftover, PLAIN);
        assert_eq!(peer.receive(), Ok((vec![], true)), "one close_notify");
    }
}

#[tokio::test(start_paused = true)]
async fn half_an_alert_is_no_way_back_to_plaintext() {
    for (side, version) in each_kind() {
        for unwrap in [Unwrap::Initiate, Unwrap::Reply] {
            let (stream, mut peer) = connect(side, version);
            peer.close_notify();
            peer.wire.script(|script| script.room = 10);
            let error = stream.into_plaintext(unwrap).await.expect_err("half of it is out");
            assert_eq!((error.error().ending(), error.error().report().sent()), (Ending::TimedOut, false));
        }
        // The same if the peer itself goes back to plaintext.
        let (stream, peer) = connect(side, version);
        peer.wire.deliver(PLAIN);
        peer.wire.script(|script| script.room = 10);
        let error = stream.into_plaintext(Unwrap::Initiate).await.expect_err("half of it is out");
        assert_eq!((error.error().ending(), error.error().report().sent()), (Ending::TimedOut, false));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reaper_does_not_say_what_an_unwrap_did_not() {
    for (side, version) in each_kind() {
        for unwrap in [Unwrap::Reply, Unwrap::Silent] {
            let reaper = Reaper::new();
            let (stream, mut peer) = connect(side, version);
            let mut taking_off = task::spawn(Box::pin(stream.with_reaper(&reaper).into_plaintext(unwrap)));
            assert_pending!(taking_off.poll());
            drop(taking_off);
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(peer.receive(), Ok((vec![], false)));
            assert!(!peer.wire.is_finished());
        }
    }
}

/// Connects a client and a server of ours over any transport.
async fn pair<A, B>(near: A, far: B) -> (ShutdownStream<TlsStream<Records<A>>>, ShutdownStream<TlsStream<Records<B>>>)
where
    A: AsyncRead + AsyncWrite + Unpin + 'static,
    B: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let version = &rustls::version::TLS13;
    let name = ServerName::try_from("localhost").expect("a name");
    let (client, server) = tokio::join!(
        TlsConnector::from(Arc::new(client_config(version))).connect(name, Records::new(near)),
        TlsAcceptor::from(Arc::new(server_config(version))).accept(Records::new(far)),
    );
    let client = ShutdownStream::new(TlsStream::from(client.expect("a handshake")));
    (client, ShutdownStream::new(TlsStream::from(server.expect("a handshake"))))
}

async fn say_and_hear<A, B>(near: &mut A, far: &mut B, text: &[u8])
where
    A: AsyncWrite + Unpin,
    B: AsyncRead + Unpin,
{
    near.write_all(text).await.expect("written");
    near.flush().await.expect("flushed");
    let mut heard = vec![0; text.len()];
    far.read_exact(&mut heard).await.expect("read");
    assert_eq!(heard, text);
}

#[tokio::test(start_paused = true)]
async fn tls_can_be_put_on_again() {
    let (near, far) = duplex(100_000);
    let (mut client, mut server) = pair(near, far).await;
    say_and_hear(&mut client, &mut server, b"under TLS").await;
    let (client, server) = tokio::join!(client.into_plaintext(Unwrap::Initiate), server.into_plaintext(Unwrap::Reply));
    let (mut client, mut server) = (client.expect("TLS is off"), server.expect("TLS is off"));
    say_and_hear(&mut client, &mut server, b"plain").await;
    say_and_hear(&mut server, &mut client, b"plain").await;
    let (mut client, mut server) = pair(client, server).await;
    say_and_hear(&mut client, &mut server, b"under TLS again").await;
    let (client, server) = tokio::join!(client.shutdown_with(BIDIRECTIONAL), server.shutdown_with(BIDIRECTIONAL));
    assert_eq!(client.expect("complete").ending(), Ending::Complete);
    assert_eq!(server.expect("complete").ending(), Ending::Complete);
}

#[tokio::test(start_paused = true)]
async fn tls_inside_tls_ends_one_inside_the_other() {
    let (near, far) = duplex(100_000);
    let (outer_client, outer_server) = pair(near, far).await;
    let (mut client, mut server) = pair(outer_client, outer_server).await;
    say_and_hear(&mut client, &mut server, b"twice under TLS").await;
    let (client, server) = tokio::join!(client.into_plaintext(Unwrap::Initiate), server.into_plaintext(Unwrap::Reply));
    let (_, mut client) = client.expect("TLS is off").into_parts();
    let (_, mut server) = server.expect("TLS is off").into_parts();
    say_and_hear(&mut client, &mut server, b"once under TLS").await;
    let (client, server) = tokio::join!(client.shutdown_with(BIDIRECTIONAL), server.shutdown_with(BIDIRECTIONAL));
    assert_eq!(client.expect("complete").ending(), Ending::Complete);
    assert_eq!(server.expect("complete").ending(), Ending::Complete);
}

/// The control: without `Records`, rustls reads the plaintext, and it is lost.
#[tokio::test(start_paused = true)]
async fn without_records_the_plaintext_is_lost() {
    for (side, version) in each_kind() {
        let (mut stream, mut peer) = tls_shutdown_tests::connect(side, version);
        let bytes = close_notify_and_plaintext(&mut peer);
        peer.wire.deliver(&bytes);
        assert_eq!(assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect("zero-return"), 0);
        assert_eq!(peer.wire.script(|script| script.inbound.len()), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_bounds_a_peer_that_drips() {
    for (side, version) in each_kind() {
        let (stream, mut peer) = connect(side, version);
        let began = Instant::now();
        peer.tls.send_close_notify();
        let mut records = peer.records().into_iter();
        let drip = async {
            loop {
                peer.wire.script(|script| script.inbound.extend(records.next()));
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let outcome = tokio::select! {
            outcome = stream.into_plaintext(Unwrap::Initiate) => outcome,
            () = drip => unreachable!("it drips for ever"),
        };
        assert_eq!(outcome.expect_err("too slow").error().ending(), Ending::TimedOut);
        assert_eq!(began.elapsed(), ShutdownPolicy::CLOSE_TIMEOUT);
    }
}
