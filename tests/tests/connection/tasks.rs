//! Closings that are dropped, spawned, or split between two tasks.

use std::{io, time::Duration};

use tls_shutdown::{AsyncShutdown, Ending, ShutdownPolicy, ShutdownStream, TlsSession};
use tls_shutdown_tests::{
    Forge, connect,
    scripted::{BIDIRECTIONAL, POLICIES, each_kind, ending, shut_down},
    wire_script::Buffering,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, WriteHalf},
    time::{sleep, timeout},
};
use tokio_test::{assert_pending, assert_ready, task};

use crate::on_end::counted;

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
                // Bytes come slowly in both directions. The end does not depend on who polls.
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

/// Splits a stream. A task waits for a byte of its reading half.
fn split_with_a_reader<S: TlsSession>(
    stream: ShutdownStream<S>,
) -> (task::Spawn<impl Future<Output = io::Result<usize>>>, WriteHalf<ShutdownStream<S>>) {
    let (mut reader, writer) = tokio::io::split(stream.with_policy(BIDIRECTIONAL));
    let mut read = task::spawn(async move { reader.read(&mut [0]).await });
    assert_pending!(read.poll());
    (read, writer)
}

#[tokio::test(start_paused = true)]
async fn split_halves_do_not_lose_each_others_wake_ups() {
    for (side, version) in each_kind() {
        for reader_polls_last in [false, true] {
            let (stream, mut peer) = connect(side, version);
            let (mut read, mut writer) = split_with_a_reader(stream);
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
        // The task that reads the end wakes the other one, also if the transport has woken only one.
        let (stream, mut peer) = connect(side, version);
        let (mut read, mut writer) = split_with_a_reader(stream);
        peer.close_notify();
        let mut shutdown = task::spawn(writer.shutdown());
        assert_ready!(shutdown.poll()).expect("complete");
        assert!(read.is_woken());
        assert_eq!(assert_ready!(read.poll()).expect("zero-return"), 0);
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

/// A shutdown looks for the reason of a failed write. If it is dropped meanwhile, data still wakes the task that reads.
#[tokio::test(start_paused = true)]
async fn a_dropped_shutdown_leaves_its_reader_awake() {
    for (side, version) in each_kind() {
        for breaks_writes in [false, true] {
            let (stream, mut peer) = connect(side, version);
            if breaks_writes {
                peer.wire.break_writes();
            }
            let (mut read, mut writer) = split_with_a_reader(stream);
            let mut shutdown = task::spawn(writer.shutdown());
            assert_pending!(shutdown.poll());
            drop(shutdown);
            peer.send(b"x");
            assert!(read.is_woken());
            assert_eq!(assert_ready!(read.poll()).expect("data"), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_sees_the_end_of_a_closing_that_failed() {
    for (side, version) in each_kind() {
        for unsent in [0, 100_000] {
            let (stream, peer) = connect(side, version);
            peer.wire.script(|script| script.room = 0);
            let (mut reader, mut writer) = tokio::io::split(stream.with_policy(BIDIRECTIONAL));
            let _ = task::spawn(writer.write_all(&vec![0; unsent])).poll();
            let read = tokio::spawn(async move { reader.read(&mut [0; 9]).await });
            writer.shutdown().await.expect_err("a peer that takes nothing");
            let error = timeout(Duration::from_secs(60), read).await.expect("at once").expect("no panic");
            assert_eq!(error.expect_err("the same").kind(), io::ErrorKind::TimedOut, "{unsent} bytes");
        }
    }
    // What had arrived is read first.
    for (side, version) in each_kind() {
        for unsent in [0, 100_000] {
            let (stream, mut peer) = connect(side, version);
            peer.wire.script(|script| script.room = 0);
            let (mut reader, mut writer) = tokio::io::split(stream.with_policy(BIDIRECTIONAL));
            let _ = task::spawn(writer.write_all(&vec![0; unsent])).poll();
            let read = tokio::spawn(async move {
                let mut received = Vec::new();
                sleep(ShutdownPolicy::STALL_TIMEOUT * 2).await;
                (reader.read_to_end(&mut received).await.map_err(|error| error.kind()), received)
            });
            tokio::task::yield_now().await;
            peer.send(b"data");
            writer.shutdown().await.expect_err("a peer that takes nothing");
            let read = timeout(ShutdownPolicy::STALL_TIMEOUT * 3, read).await.expect("an end").expect("no panic");
            assert_eq!(read, (Err(io::ErrorKind::TimedOut), b"data".to_vec()), "{unsent} bytes");
        }
    }
    // Data and an odd record come in one read: first the one is reported, then the other, and never an end.
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

/// The reader tries to write an alert, and the transport keeps one waker for writes.
#[tokio::test(start_paused = true)]
async fn a_reader_that_meets_a_bad_record_leaves_the_writer_its_wake_up() {
    for (side, version) in each_kind() {
        let (stream, peer) = connect(side, version);
        let wire = peer.wire.clone();
        wire.script(|script| script.room = 0);
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut writing = task::spawn(async move { writer.write_all(&[0; 100_000]).await });
        peer.into_forge().wire.deliver(b"220 plain text\r\n");
        assert_pending!(writing.poll());
        assert_ready!(task::spawn(reader.read(&mut [0; 9])).poll()).expect_err("no TLS");
        wire.script(|script| script.room = usize::MAX);
        assert!(writing.is_woken());
    }
}
