//! What a reaper does with dropped streams, and for how long.

mod places;

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tls_shutdown::{Ending, Reaper, ReaperLimits, ShutdownPolicy, ShutdownReport, Undelivered};
use tls_shutdown_tests::{
    Peer, Side, connect,
    scripted::{BIDIRECTIONAL, RECEIVE_FIRST, Stream, UNIDIRECTIONAL, each_kind, shut_down, shut_down_now},
    wire_script::Then,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::oneshot,
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_test::{assert_pending, assert_ready, task};

/// Attaches a reaper. The receiver gets what `on_end` reports, and when.
fn reaped(stream: Stream, reaper: &Reaper) -> (Stream, oneshot::Receiver<(ShutdownReport, Instant)>) {
    let (sender, receiver) = oneshot::channel();
    let stream = stream.with_reaper(reaper).on_end(move |report| {
        let _ = sender.send((*report, Instant::now()));
    });
    (stream, receiver)
}

/// Longer than any wait here.
const PATIENCE: Duration = Duration::from_secs(600);

async fn after_idle(reaper: &Reaper, began: Instant) -> Duration {
    assert_eq!(reaper.wait_idle(PATIENCE).await, 0);
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_listened_to_and_lingered_for() {
    for (side, version) in each_kind() {
        let reaper = Reaper::new();
        let began = Instant::now();
        let (stream, peer) = connect(side, version);
        let (mut stream, end) = reaped(stream, &reaper);
        assert_eq!(shut_down_now(&mut stream, UNIDIRECTIONAL).expect("sent").ending(), Ending::Sent);
        drop(stream);
        assert_eq!(reaper.closings(), 1);
        assert_eq!(reaper.wait_idle(Duration::from_secs(1)).await, 1, "a wait ends, and returns what is left");
        let (report, ended) = end.await.expect("once");
        assert_eq!((report.ending(), report.sent(), report.received()), (Ending::Sent, true, false));
        assert_eq!(ended - began, ShutdownPolicy::CLOSE_TIMEOUT, "what was left of it");
        let idle = after_idle(&reaper, began).await;
        assert_eq!(idle, ShutdownPolicy::CLOSE_TIMEOUT + ReaperLimits::LINGER_IDLE_TIMEOUT);
        assert_eq!(peer.wire.handles(), 1, "the transport is gone");
    }
}

/// The peer may have closed its half long before it has received our data: bytes that it sends meanwhile must not reset the connection.
#[tokio::test(start_paused = true)]
async fn a_stream_that_was_closed_by_close_notify_alone_is_lingered_for() {
    for (side, version) in each_kind() {
        let reaper = Reaper::new();
        let (stream, mut peer) = connect(side, version);
        let (mut stream, end) = reaped(stream, &reaper);
        assert_ready!(task::spawn(Box::pin(stream.close_notify())).poll()).expect("sent");
        peer.close_notify();
        assert_eq!(stream.read(&mut [0; 9]).await.expect("zero-return"), 0);
        let began = Instant::now();
        drop(stream);
        let (report, _) = end.await.expect("once");
        assert_eq!((report.ending(), report.sent(), report.received()), (Ending::Complete, true, true));
        assert_eq!(after_idle(&reaper, began).await, ReaperLimits::LINGER_IDLE_TIMEOUT);
        assert!(peer.wire.is_finished());
    }
}

/// A receive-first shutdown sends nothing before the peer, whoever finishes it.
#[tokio::test(start_paused = true)]
async fn a_closing_that_receives_first_does_so_in_the_reaper() {
    for (side, version) in each_kind() {
        let reaper = Reaper::new();
        let (stream, mut peer) = connect(side, version);
        let (mut stream, end) = reaped(stream, &reaper);
        assert_pending!(shut_down(&mut stream, RECEIVE_FIRST).poll());
        drop(stream);
        assert_eq!(end.await.expect("once").0.ending(), Ending::TimedOut);
        assert_eq!(peer.receive(), Ok((vec![], false)));
    }
}

/// The application has read on for longer than the close timeout. The peer owed it data, and not its close_notify.
#[tokio::test(start_paused = true)]
async fn after_a_half_close_the_reaper_gives_the_peer_its_own_time() {
    const HALF: Duration = ShutdownPolicy::CLOSE_TIMEOUT.checked_div(2).unwrap();
    for (side, version) in each_kind() {
        for answers in [true, false] {
            for (policy, silent) in
                [(Some(BIDIRECTIONAL), Ending::TimedOut), (Some(UNIDIRECTIONAL), Ending::Sent), (None, Ending::Sent)]
            {
                let reaper = Reaper::new();
                let (stream, mut peer) = connect(side, version);
                let (mut stream, end) = reaped(stream, &reaper);
                peer.send(b"x");
                assert_eq!(stream.read(&mut [0]).await.expect("data"), 1);
                peer.send(b"answer");
                match policy {
                    Some(policy) => {
                        stream = stream.with_policy(policy);
                        stream.shutdown().await.expect("a half-close");
                    }
                    None => drop(stream.close_notify().await.expect("a half-close")),
                }
                assert_eq!(stream.read(&mut [0; 9]).await.expect("data"), 6);
                sleep(ShutdownPolicy::CLOSE_TIMEOUT * 2).await;
                let began = Instant::now();
                drop(stream);
                sleep(HALF).await;
                if answers {
                    peer.close_notify();
                }
                let (report, ended) = end.await.expect("once");
                let expected = if answers { (Ending::Complete, HALF) } else { (silent, ShutdownPolicy::CLOSE_TIMEOUT) };
                assert_eq!((report.ending(), ended - began), expected, "{policy:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reaper_that_hurries_waits_for_answers_alone() {
    const HURRY: Duration = Duration::from_millis(500);
    for (side, version) in each_kind() {
        let reaper = Reaper::new();
        let acknowledged = Arc::new(AtomicBool::new(false));
        let mut peers = Vec::new();
        let mut left_to_reaper = |undelivered| {
            let (stream, peer) = connect(side, version);
            let (mut stream, end) = reaped(stream, &reaper);
            stream.set_undelivered(undelivered);
            shut_down_now(&mut stream, UNIDIRECTIONAL).expect("sent");
            peers.push(peer);
            end
        };
        let answer = left_to_reaper(Undelivered::Answer);
        let read = left_to_reaper(Undelivered::CloseNotify(Arc::new(|| true)));
        let is_acknowledged = acknowledged.clone();
        let unread =
            left_to_reaper(Undelivered::CloseNotify(Arc::new(move || is_acknowledged.load(Ordering::Relaxed))));
        let began = Instant::now();
        reaper.hurry();
        assert_eq!(read.await.expect("once").1 - began, HURRY);
        sleep(HURRY * 3 / 2).await;
        assert_eq!(reaper.closings(), 2, "one is not acknowledged, and the other one has an answer");
        acknowledged.store(true, Ordering::Relaxed);
        assert_eq!(unread.await.expect("once").1 - began, HURRY * 3);
        assert_eq!(answer.await.expect("once").1 - began, ShutdownPolicy::CLOSE_TIMEOUT);
    }
}

/// The socket is closed although the callback panics.
#[tokio::test(start_paused = true)]
async fn a_callback_that_panics_keeps_no_transport() {
    for (side, version) in each_kind() {
        let panics = |_: &ShutdownReport| panic!("as a callback may");
        let (stream, peer) = connect(side, version);
        let stream = stream.on_end(panics);
        catch_unwind(AssertUnwindSafe(|| stream.into_inner())).map(drop).expect_err("a panic");
        assert_eq!(peer.wire.handles(), 1);

        let reaper = Reaper::new();
        let (stream, peer) = connect(side, version);
        let mut stream = stream.with_reaper(&reaper).on_end(panics);
        shut_down_now(&mut stream, UNIDIRECTIONAL).expect("sent");
        drop(stream);
        assert_eq!(reaper.wait_idle(PATIENCE).await, 0);
        assert_eq!(peer.wire.handles(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_linger_ends_though_the_peer_goes_on() {
    for pause in [Duration::from_secs(1), Duration::from_millis(1)] {
        let limit = Duration::from_secs(4);
        let reaper = Reaper::with_limits(ReaperLimits::new().with_linger_timeout(limit));
        let began = Instant::now();
        let (stream, peer) = connect(Side::Server, &rustls::version::TLS13);
        let (mut stream, _end) = reaped(stream, &reaper);
        shut_down_now(&mut stream, UNIDIRECTIONAL.with_close_timeout(Duration::ZERO)).expect("sent");
        drop(stream);
        let wire = peer.wire.clone();
        let send = async {
            loop {
                // More than the budget of one poll, so that there is always something to read.
                wire.script(|script| {
                    script.piece = 10;
                    script.inbound.resize(5_000, 0);
                });
                sleep(pause).await;
            }
        };
        let idle = tokio::select! {
            idle = after_idle(&reaper, began) => idle,
            () = send => unreachable!("it sends for ever"),
        };
        assert!(idle >= limit && idle <= limit + pause, "{idle:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_peers_fin_ends_a_linger() {
    for (side, version) in each_kind() {
        let reaper = Reaper::new();
        let began = Instant::now();
        let (stream, mut peer) = connect(side, version);
        let (mut stream, end) = reaped(stream, &reaper);
        shut_down_now(&mut stream, UNIDIRECTIONAL.with_max_drain_bytes(1000)).expect("sent");
        drop(stream);
        // More than the drain limit: the TLS session is dropped, and the linger begins at once.
        peer.send(&[0; 2000]);
        let (report, ended) = end.await.expect("once");
        assert_eq!((report.ending(), ended), (Ending::Sent, began));
        for _ in 0..20 {
            sleep(Duration::from_secs(1)).await;
            peer.send(&[0; 2000]);
        }
        assert_eq!(reaper.closings(), 1, "each byte restarts the idle limit");
        peer.wire.script(|script| script.then = Then::End);
        assert_eq!(after_idle(&reaper, began).await, Duration::from_secs(20));
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_and_closes_needs_no_linger() {
    for (side, version) in each_kind() {
        for answer in [Duration::ZERO, Duration::from_millis(4_999)] {
            let reaper = Reaper::new();
            let began = Instant::now();
            let (stream, mut peer) = connect(side, version);
            let (mut stream, end) = reaped(stream, &reaper);
            shut_down_now(&mut stream, UNIDIRECTIONAL).expect("sent");
            drop(stream);
            sleep(answer).await;
            peer.send(b"late");
            peer.close_notify();
            peer.wire.script(|script| script.then = Then::End);
            let (report, ended) = end.await.expect("once");
            assert_eq!((report.ending(), report.discarded(), report.elapsed()), (Ending::Complete, 4, answer));
            assert_eq!(ended - began, answer);
            assert_eq!(after_idle(&reaper, began).await, answer);
        }
    }
}

/// It may have closed its half only, and still receive.
#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_and_keeps_tcp_open_is_lingered_for() {
    for (side, version) in each_kind() {
        let reaper = Reaper::new();
        let began = Instant::now();
        let (stream, mut peer) = connect(side, version);
        let (mut stream, end) = reaped(stream, &reaper);
        shut_down_now(&mut stream, UNIDIRECTIONAL).expect("sent");
        drop(stream);
        peer.close_notify();
        let (report, ended) = end.await.expect("once");
        assert_eq!((report.ending(), ended), (Ending::Complete, began), "the report waits for no linger");
        assert_eq!(after_idle(&reaper, began).await, ReaperLimits::LINGER_IDLE_TIMEOUT);
    }
}

#[tokio::test(start_paused = true)]
async fn ends_that_are_no_failure_of_a_unidirectional_close_are_told_apart_from_those_that_are() {
    fn end(peer: &mut Peer, then: Then) {
        peer.wire.script(|script| script.then = then);
    }
    for (side, version) in each_kind() {
        for (then, ending) in [(Then::End, Ending::Sent), (Then::Error(io::ErrorKind::ConnectionReset), Ending::Reset)]
        {
            let reaper = Reaper::new();
            let (stream, mut peer) = connect(side, version);
            let (mut stream, told) = reaped(stream, &reaper);
            shut_down_now(&mut stream, UNIDIRECTIONAL).expect("sent");
            drop(stream);
            end(&mut peer, then);
            assert_eq!(told.await.expect("once").0.ending(), ending);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_closing_dropped_on_its_way_goes_on_with_what_is_left_of_its_deadline() {
    for (side, version) in each_kind() {
        let reaper = Reaper::new();
        let began = Instant::now();
        let (stream, mut peer) = connect(side, version);
        let (mut stream, end) = reaped(stream, &reaper);
        peer.wire.script(|script| script.room = 0);
        assert_ready!(task::spawn(stream.write_all(&[7; 30_000])).poll()).expect("buffered");
        assert_pending!(shut_down(&mut stream, BIDIRECTIONAL).poll());
        drop(stream);
        sleep(Duration::from_secs(2)).await;
        peer.wire.script(|script| script.room = usize::MAX);
        sleep(Duration::from_secs(3)).await;
        let (data, closed) = peer.receive().expect("records");
        assert!(!data.is_empty() && closed, "data, then close_notify");
        let (report, ended) = end.await.expect("once");
        assert_eq!(report.ending(), Ending::TimedOut, "it was asked to wait for the peer");
        assert_eq!(ended - began, Duration::from_secs(2) + ShutdownPolicy::CLOSE_TIMEOUT);

        // Half of the close timeout has passed before the drop.
        let began = Instant::now();
        let (stream, _peer) = connect(side, version);
        let (mut stream, end) = reaped(stream, &reaper);
        timeout(ShutdownPolicy::CLOSE_TIMEOUT / 2, stream.shutdown_with(BIDIRECTIONAL)).await.expect_err("silence");
        drop(stream);
        assert_eq!(end.await.expect("once").1 - began, ShutdownPolicy::CLOSE_TIMEOUT);
    }
}

/// The timer of the shutdown belongs to the runtime in which it began.
#[test]
fn a_closing_outlives_the_runtime_in_which_it_began() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().expect("a runtime")
    };
    for (side, version) in each_kind() {
        let (first, second) = (runtime(), runtime());
        let reaper = second.block_on(async { Reaper::new() });
        let (stream, _peer) = connect(side, version);
        let (stream, end) = reaped(stream.with_policy(BIDIRECTIONAL), &reaper);
        first.spawn(async move {
            let mut stream = stream;
            stream.shutdown().await
        });
        first.block_on(async { sleep(Duration::from_secs(1)).await });
        drop(first);
        let (report, _) = second.block_on(end).expect("once");
        assert_eq!(report.ending(), Ending::TimedOut, "{side:?}, {version:?}");
        assert_eq!(second.block_on(async { reaper.wait_idle(PATIENCE).await }), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_never_shut_down_is_not_finished() {
    for (side, version) in each_kind() {
        let reaper = Reaper::new();
        let (stream, mut peer) = connect(side, version);
        let (stream, end) = reaped(stream, &reaper);
        drop(stream);
        assert_eq!(end.await.expect("once").0.ending(), Ending::Aborted);
        assert_eq!(reaper.closings(), 0);
        assert_eq!(peer.receive(), Ok((vec![], false)));
        assert!(!peer.wire.is_finished());
    }
}

#[tokio::test(start_paused = true)]
async fn a_fin_that_takes_its_time_makes_no_linger_longer() {
    let limit = Duration::from_secs(4);
    let limits = ReaperLimits::new().with_linger_timeout(limit).with_linger_idle_timeout(limit);
    let reaper = Reaper::with_limits(limits);
    let began = Instant::now();
    reaper.linger(SlowFin(Box::pin(sleep(Duration::from_secs(3)))));
    assert_eq!(after_idle(&reaper, began).await, limit);
}

/// A transport that needs time for its FIN, and whose peer is silent.
struct SlowFin(Pin<Box<Sleep>>);

impl AsyncRead for SlowFin {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for SlowFin {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

#[tokio::test(start_paused = true)]
async fn limits_that_never_come_are_no_limits() {
    let limits = ReaperLimits::new().with_linger_timeout(Duration::MAX).with_linger_idle_timeout(Duration::MAX);
    let reaper = Reaper::with_limits(limits);
    let (stream, peer) = connect(Side::Server, &rustls::version::TLS13);
    let (mut stream, _end) = reaped(stream, &reaper);
    shut_down_now(&mut stream, UNIDIRECTIONAL).expect("sent");
    drop(stream);
    assert_eq!(reaper.wait_idle(Duration::from_secs(100_000)).await, 1);
    peer.wire.script(|script| script.then = Then::End);
    assert_eq!(reaper.wait_idle(PATIENCE).await, 0);
}

/// After the wait for an idle reaper a process may exit: every `on_end` was called.
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
        peer.wire.script(|script| script.then = Then::End);
        reports.push(report);
    }
    assert_eq!(reaper.wait_idle(Duration::from_secs(1)).await, 0);
    for mut report in reports {
        report.try_recv().expect("told already");
    }
}
