//! Connections that end without close_notify.

use std::io;

use tls_shutdown::{Ending, ShutdownStream};
use tls_shutdown_tests::{
    Peer, connect,
    scripted::{BIDIRECTIONAL, POLICIES, RECEIVE_FIRST, UNIDIRECTIONAL, each_kind, ending, shut_down_now},
    wire_script::Then,
};
use tokio::io::AsyncReadExt;
use tokio_test::{assert_ready, task};

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
                    assert_eq!(error.report().sent(), policy == BIDIRECTIONAL, "nothing is sent after a truncation");
                    let kind = io::Error::from(error).kind();
                    assert!(matches!(kind, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset));
                }
            }
        }
    }
}

/// tokio-rustls returns a clean end to the second read after an aborted transport.
#[tokio::test(start_paused = true)]
async fn no_read_after_a_failed_one_returns_a_clean_end() {
    for (side, version) in each_kind() {
        for kind in [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof] {
            for then_end in [false, true] {
                let (mut stream, mut peer) = connect(side, version);
                peer.send(b"some");
                peer.wire.script(|script| script.then = Then::Error(kind));
                let mut data = Vec::new();
                let error = assert_ready!(task::spawn(stream.read_to_end(&mut data)).poll()).expect_err("cut");
                assert_eq!((error.kind(), &data[..]), (kind, &b"some"[..]));
                if then_end {
                    peer.wire.script(|script| script.then = Then::End);
                }
                for _ in 0..2 {
                    assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect_err("cut");
                }
                shut_down_now(&mut stream, BIDIRECTIONAL).expect_err("cut");
                assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect_err("cut");
            }
        }
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
async fn a_truncation_met_before_the_stream_was_wrapped_is_one() {
    for (side, version) in each_kind() {
        let (stream, peer) = connect(side, version);
        let mut bare = stream.into_inner();
        peer.wire.script(|script| script.then = Then::End);
        assert_ready!(task::spawn(bare.read(&mut [0; 9])).poll()).expect_err("cut");
        let mut stream = ShutdownStream::new(bare);
        assert_eq!(ending(shut_down_now(&mut stream, UNIDIRECTIONAL)), Ending::Truncated);
        assert_eq!(peer.wire.script(|script| script.log.clone()), []);
    }
}

#[tokio::test(start_paused = true)]
async fn reading_on_to_an_end_that_is_accepted_ends() {
    for (side, version) in each_kind() {
        // As a TLS stream that is the transport: it reports its truncation at each read.
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

/// Users search for the words of rustls, and the handbook explains them.
#[tokio::test(start_paused = true)]
async fn a_read_at_a_truncation_says_what_rustls_says() {
    for (side, version) in each_kind() {
        for closes_first in [false, true] {
            let (mut stream, mut peer) = connect(side, version);
            if closes_first {
                assert_ready!(task::spawn(Box::pin(stream.close_notify())).poll()).expect("sent");
            }
            peer.send(b"some");
            peer.wire.script(|script| script.then = Then::End);
            let mut data = Vec::new();
            let error = assert_ready!(task::spawn(stream.read_to_end(&mut data)).poll()).expect_err("cut");
            assert!(
                error.to_string().starts_with("peer closed connection without sending TLS close_notify"),
                "{error}"
            );
        }
    }
}
