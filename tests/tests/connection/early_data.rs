//! Closings while a 0-RTT handshake is not done.

use std::io;

use tls_shutdown::{Ending, ShutdownPolicy};
use tls_shutdown_tests::{
    Peer, Side, connect_with,
    scripted::{BIDIRECTIONAL, Stream, ending, shut_down, with_ticket_for_early_data},
    wire_script::Then,
};
use tokio::{io::AsyncWriteExt, sync::oneshot, time::Instant};
use tokio_test::{assert_pending, assert_ready, task};

/// A client that has sent `data` early. Nothing of the peer has come, so that the handshake is not done.
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

#[tokio::test(start_paused = true)]
async fn a_0_rtt_handshake_that_fails_under_a_write_is_told_as_what_it_is() {
    let (client, server) = with_ticket_for_early_data();
    for (garbage, expected) in [(&b"220 plain"[..], Ending::NotTls), (b"", Ending::NotStarted)] {
        let (mut stream, peer) = connect_with(Side::Client, client.clone(), server.clone());
        assert!(stream.get_ref().get_ref().1.is_handshaking(), "0-RTT");
        assert_ready!(task::spawn(stream.write_all(b"early")).poll()).expect("early data");
        peer.wire.deliver(garbage);
        peer.wire.script(|script| script.then = Then::End);
        assert_ready!(task::spawn(stream.flush()).poll()).expect_err("no handshake");
        let (told, report) = oneshot::channel();
        drop(stream.on_end(move |report| told.send(*report).expect("awaited")));
        assert_eq!(report.await.expect("once").ending(), expected);
    }
}
