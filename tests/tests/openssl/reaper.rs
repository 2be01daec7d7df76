//! Streams that are dropped into a reaper, or without one.

use std::{pin::pin, sync::mpsc, time::Duration};

use futures_util::poll;
use tls_shutdown::{Ending, Reaper, ReaperLimits};
use tls_shutdown_tests::{
    Side, VERSIONS,
    openssl_peer::{Saw, read_slowly, read_to_end, received},
    scripted::BIDIRECTIONAL,
};
use tokio::{io::AsyncWriteExt, sync::oneshot};

use crate::{Openssl, UPLOAD, answer, joined, pair};

#[tokio::test]
async fn the_reaper_hears_a_late_close_notify() {
    for version in VERSIONS {
        let reaper = Reaper::new();
        let (report_sender, report) = oneshot::channel();
        let (stream, peer) = pair(Side::Server, version, answer).await;
        let mut stream =
            stream.with_reaper(&reaper).on_end(move |report| report_sender.send(*report).expect("awaited"));
        stream.shutdown().await.expect("sent");
        drop(stream);
        let report = report.await.expect("once");
        assert_eq!(report.ending(), Ending::Complete, "whoever was first");
        assert!(report.elapsed() > Duration::ZERO);
        assert_eq!(joined(peer).await, Saw::ZeroReturn);
        assert_eq!(reaper.wait_idle(Duration::from_secs(10)).await, 0);
    }
}

#[tokio::test]
async fn a_slow_reader_gets_all_from_a_dropped_stream() {
    fn take_its_time(mut peer: Openssl) -> (usize, Saw) {
        read_slowly(&mut peer, 16 * 1024, Duration::from_millis(2))
    }
    for side in Side::BOTH {
        let version = &rustls::version::TLS13;
        let reaper = Reaper::new();
        let (stream, peer) = pair(side, version, take_its_time).await;
        let mut stream = stream.with_reaper(&reaper);
        stream.write_all(&vec![0; UPLOAD]).await.expect("written");
        // The stream is dropped in the middle of its shutdown. The reaper goes on from there.
        assert!(poll!(pin!(stream.shutdown_with(BIDIRECTIONAL))).is_pending(), "the peer needs longer");
        drop(stream);
        assert_eq!(joined(peer).await, (UPLOAD, Saw::ZeroReturn));
        assert_eq!(reaper.wait_idle(Duration::from_secs(10)).await, 0);
    }
}

#[tokio::test]
async fn a_full_reaper_sheds_the_oldest() {
    let reaper = Reaper::with_limits(ReaperLimits::new().with_max_closings(2));
    let mut reports = Vec::new();
    let mut peers = Vec::new();
    let mut open = Vec::new();
    for _ in 0..3 {
        let (keep_open, is_over) = mpsc::channel::<()>();
        let read_and_stay = move |mut peer: Openssl| {
            let (_, saw) = read_to_end(&mut peer);
            // Silent, with TCP open, until the sender is dropped.
            let _ = is_over.recv();
            saw
        };
        open.push(keep_open);
        let (stream, peer) = pair(Side::Server, &rustls::version::TLS13, read_and_stay).await;
        let (report_sender, report) = oneshot::channel();
        let mut stream =
            stream.with_reaper(&reaper).on_end(move |report| report_sender.send(*report).expect("awaited"));
        stream.shutdown().await.expect("sent");
        drop(stream);
        reports.push(report);
        peers.push(peer);
    }
    let mut reports = reports.into_iter();
    assert_eq!(reports.next().expect("three").await.expect("once").ending(), Ending::Sent);
    assert_eq!((reaper.shed(), reaper.closings()), (1, 2));
    drop(open);
    for report in reports {
        assert_eq!(report.await.expect("once").ending(), Ending::Sent);
    }
    for peer in peers {
        joined(peer).await;
    }
    assert_eq!(reaper.wait_idle(Duration::from_secs(20)).await, 0);
}

#[test]
fn a_stream_may_be_dropped_anywhere() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let closing = |runtime: &tokio::runtime::Runtime, reaper: &Reaper| {
        let (report_sender, report) = mpsc::channel();
        let stream = runtime.block_on(async {
            let (stream, _peer) = pair(Side::Server, &rustls::version::TLS13, answer).await;
            let mut stream =
                stream.with_reaper(reaper).on_end(move |report| report_sender.send(*report).expect("awaited"));
            stream.shutdown().await.expect("sent");
            stream
        });
        (stream, report)
    };
    // On a thread without a runtime: the reaper uses that in which it was made.
    let home = runtime();
    let reaper = home.block_on(async { Reaper::new() });
    let (stream, report) = closing(&home, &reaper);
    std::thread::spawn(|| drop(stream)).join().expect("no panic");
    assert_eq!(received(&report).ending(), Ending::Complete);

    // After the end of that runtime: the connection ends at once.
    let (stream, report) = closing(&home, &reaper);
    drop(home);
    drop(stream);
    assert_eq!(received(&report).ending(), Ending::Sent);
    assert_eq!(reaper.closings(), 0);

    // A reaper that was made without a runtime uses that of the thread, if there is one.
    let reaper = Reaper::new();
    let other = runtime();
    let (stream, report) = closing(&other, &reaper);
    drop(stream);
    assert_eq!(received(&report).ending(), Ending::Sent);
    let (stream, report) = closing(&other, &reaper);
    other.block_on(async { drop(stream) });
    assert_eq!(received(&report).ending(), Ending::Complete);
}
