//! Application data that a closing meets.

use std::io;

use tls_shutdown::{Alert, Ending, PeerData, Reaper, ShutdownState};
use tls_shutdown_tests::{
    Forge, connect,
    scripted::{BIDIRECTIONAL, REJECT, each_kind, ending, shut_down, shut_down_now},
    wire_script::Then,
};
use tokio::{io::AsyncReadExt, sync::oneshot};
use tokio_test::{assert_pending, assert_ready, task};

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
