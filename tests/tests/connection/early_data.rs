//! Closings while a 0-RTT handshake is not done, and early data that a server has accepted.

use std::{io, sync::Arc};

use rustls::pki_types::ServerName;
use tls_shutdown::{Ending, ShutdownPolicy, ShutdownStream};
use tls_shutdown_tests::{
    Peer, Side, connect_with,
    scripted::{BIDIRECTIONAL, REJECT, Stream, UNIDIRECTIONAL, ending, shut_down, with_ticket_for_early_data},
    wire_script::Then,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::oneshot,
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
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

/// A client that has sent `early` and then `late`, and its server, which has read nothing.
async fn accept_early(early: &[u8], late: &[u8]) -> (Client, Server) {
    let (client, server) = with_ticket_for_early_data();
    let name = ServerName::try_from("localhost").expect("a name");
    let (near, far) = duplex(64 * 1024);
    let client = async {
        let connector = TlsConnector::from(Arc::new(client)).early_data(true);
        let mut client = connector.connect(name, near).await.expect("0-RTT");
        client.write_all(early).await.expect("early data");
        client.flush().await.expect("a handshake");
        assert!(client.get_ref().1.is_early_data_accepted());
        client.write_all(late).await.expect("written");
        client.flush().await.expect("sent");
        ShutdownStream::new(client)
    };
    let (client, server) = tokio::join!(client, TlsAcceptor::from(Arc::new(server)).accept(far));
    (client, ShutdownStream::new(server.expect("a handshake")))
}

type Client = ShutdownStream<client::TlsStream<DuplexStream>>;
type Server = ShutdownStream<server::TlsStream<DuplexStream>>;

#[tokio::test(start_paused = true)]
async fn a_server_reads_early_data_before_what_follows_it() {
    for (early, late) in [(&b"early "[..], &b"late"[..]), (b"early", b""), (&[b'e'; 16_000], &[b'l'; 16_000])] {
        for size in [1, 4, 64 * 1024] {
            let (mut client, mut server) = accept_early(early, late).await;
            let closing = tokio::spawn(async move { client.shutdown_with(BIDIRECTIONAL).await });
            let (mut received, mut buffer) = (Vec::new(), vec![0; size]);
            loop {
                match server.read(&mut buffer).await.expect("data") {
                    0 => break,
                    amount => received.extend_from_slice(&buffer[..amount]),
                }
            }
            assert_eq!(received, [early, late].concat());
            let report = server.shutdown_with(BIDIRECTIONAL).await.expect("complete");
            assert_eq!((report.ending(), report.discarded()), (Ending::Complete, 0));
            closing.await.expect("no panic").expect("complete");
        }
    }
}

/// It is data like any other.
#[tokio::test(start_paused = true)]
async fn early_data_that_a_server_does_not_read_is_told() {
    let (_client, mut server) = accept_early(b"early", b"").await;
    let report = server.shutdown_with(UNIDIRECTIONAL).await.expect("sent");
    assert_eq!((report.discarded_unread(), report.discarded_late()), (5, 0));

    let (mut client, mut server) = accept_early(b"early", b"").await;
    let error = server.shutdown_with(REJECT).await.expect_err("unread data");
    assert_eq!(error.ending(), Ending::PeerData);
    server.read_exact(&mut [0; 5]).await.expect("early data");
    let (client, server) = tokio::join!(client.shutdown_with(BIDIRECTIONAL), server.shutdown_with(REJECT));
    assert_eq!((ending(client), ending(server)), (Ending::Complete, Ending::Complete));

    let (client, mut server) = accept_early(b"early", b"").await;
    server = server.with_policy(BIDIRECTIONAL);
    server.read_exact(&mut [0; 2]).await.expect("early data");
    server.shutdown().await.expect("a half-close, since the application reads");
    drop(client);
    let mut rest = Vec::new();
    server.read_to_end(&mut rest).await.expect_err("a truncation");
    assert_eq!(rest, b"rly");
}
