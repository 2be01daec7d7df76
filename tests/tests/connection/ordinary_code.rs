//! Code that knows nothing of this library: `split`, `shutdown()` before `read_to_end()`, `copy_bidirectional`, TLS in TLS. Everything
//! arrives, or a read fails and states the reason.

use std::{io, time::Duration};

use tls_shutdown::{Ending, Reaper, ShutdownPolicy, ShutdownReport, ShutdownState, ShutdownStream, TlsSession};
use tls_shutdown_tests::{VERSIONS, scripted::BIDIRECTIONAL};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy_bidirectional, duplex, split},
    sync::mpsc,
    time::{Instant, advance, sleep, timeout},
};

use crate::exchanges::{
    ANSWERS, Answer, Ends, REQUEST, Transport, answer, connect, proxy, read_after_the_shutdown,
    read_beside_the_shutdown, upload,
};

fn pipe() -> (DuplexStream, DuplexStream) {
    duplex(64 * 1024)
}

/// Runs a case in each version of TLS, with each answer. It has two connections.
async fn each<F: Future<Output = ()>>(case: impl Fn([Ends<DuplexStream>; 2], Answer) -> F) {
    for version in VERSIONS {
        for due in ANSWERS {
            case([connect(version, pipe()).await, connect(version, pipe()).await], due).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_beside_the_shutdown_receives_everything() {
    each(|[connection, _], due| read_beside_the_shutdown(connection, due)).await;
}

#[tokio::test(start_paused = true)]
async fn a_read_after_the_shutdown_receives_everything_or_fails() {
    each(|[connection, _], due| read_after_the_shutdown(connection, due)).await;
}

#[tokio::test(start_paused = true)]
async fn a_proxy_by_copy_bidirectional_carries_a_late_answer() {
    each(|[front, back], due| proxy(front, back, due)).await;
}

/// `join!` polls the shutdown before the read that it runs beside, and a task may run before the task that reads. Everything has arrived
/// then, and it is more than a shutdown keeps.
#[tokio::test(start_paused = true)]
async fn a_reader_that_is_polled_after_the_shutdown_receives_everything() {
    const LENGTH: usize = 500_000;
    for version in VERSIONS {
        for is_spawned in [false, true] {
            let (client, mut server) = connect(version, duplex(1_000_000)).await;
            server.write_all(&[b'a'; LENGTH]).await.expect("written");
            let server = tokio::spawn(answer(server, (0, Duration::ZERO)));
            let (mut read, mut write) = split(client);
            let reader = async move {
                let mut received = Vec::new();
                read.read_to_end(&mut received).await.map(|_| received.len())
            };
            let writer = async move {
                write.write_all(REQUEST).await.expect("written");
                write.shutdown().await.expect("sent");
                write
            };
            let received = if is_spawned {
                let reader = tokio::spawn(reader);
                let _write = writer.await;
                reader.await.expect("no panic")
            } else {
                tokio::join!(writer, reader).1
            };
            assert_eq!(received.expect("everything"), LENGTH, "{version:?}, {is_spawned}");
            server.await.expect("no panic");
        }
    }
}

/// The close timeout is for a peer that owes nothing but close_notify. An answer may take longer.
#[tokio::test(start_paused = true)]
async fn an_answer_later_than_the_close_timeout_is_carried_too() {
    const DUE: Answer = (100_000, Duration::from_secs(60));
    for version in VERSIONS {
        read_beside_the_shutdown(connect(version, pipe()).await, DUE).await;
        proxy(connect(version, pipe()).await, connect(version, pipe()).await, DUE).await;
    }
}

/// Whoever has not read may have uploaded, and must hear that nobody has confirmed it. A late answer can be read all the same.
#[tokio::test(start_paused = true)]
async fn an_answer_behind_a_shutdown_that_timed_out_is_read() {
    const DUE: Answer = (100_000, Duration::from_secs(60));
    for version in VERSIONS {
        let (client, server) = connect(version, pipe()).await;
        let (sender, mut ends) = mpsc::unbounded_channel();
        let mut client = client.on_end(move |report| sender.send(report.ending()).expect("a test"));
        let server = tokio::spawn(answer(server, DUE));
        client.write_all(REQUEST).await.expect("written");
        let begin = Instant::now();
        for _ in 0..2 {
            let error = client.shutdown().await.expect_err("no answer");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
            assert_eq!(
                begin.elapsed().as_secs(),
                ShutdownPolicy::CLOSE_TIMEOUT.as_secs(),
                "a second call does not wait"
            );
        }
        assert_eq!(client.read_to_end(&mut Vec::new()).await.expect("everything"), DUE.0);
        assert_eq!(client.state(), ShutdownState::Both);
        drop(client);
        assert_eq!(ends.recv().await, Some(Ending::Complete));
        server.await.expect("no panic");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_to_a_server_that_talks_arrives() {
    for version in VERSIONS {
        upload(connect(version, pipe()).await).await;
    }
}

/// It has more to do than to wait: a proxy writes to a client that does not read.
#[tokio::test(start_paused = true)]
async fn a_reader_that_is_busy_at_the_close_timeout_receives_everything() {
    /// What `copy_bidirectional` reads before it has to write.
    const BUFFER: usize = 8 * 1024;
    const BUSY: Duration = Duration::from_secs(20);
    /// Sends some of its answer at once, and the rest when the reader has been busy for long.
    async fn answer_twice<S: TlsSession>(mut server: ShutdownStream<S>) {
        server.write_all(&[b'a'; BUFFER]).await.expect("a reader");
        server.flush().await.expect("a reader");
        answer(server, (10, BUSY * 2)).await;
    }
    for version in VERSIONS {
        let (client, server) = connect(version, pipe()).await;
        let server = tokio::spawn(answer_twice(server));
        let (mut read, mut write) = split(client);
        read.read_exact(&mut [0; BUFFER]).await.expect("a part");
        write.write_all(REQUEST).await.expect("written");
        let busy = tokio::spawn(async move {
            sleep(BUSY).await;
            read.read_to_end(&mut Vec::new()).await
        });
        write.shutdown().await.expect("a half-close");
        assert_eq!(busy.await.expect("no panic").expect("everything"), 10);
        server.await.expect("no panic");

        let (mut back, server) = connect(version, pipe()).await;
        let server = tokio::spawn(answer_twice(server));
        let (mut client, mut front) = duplex(100);
        let proxy = tokio::spawn(async move {
            let copied = copy_bidirectional(&mut front, &mut back).await;
            (copied, back.state())
        });
        // The proxy has read then.
        sleep(Duration::from_millis(10)).await;
        client.write_all(REQUEST).await.expect("written");
        client.shutdown().await.expect("sent");
        sleep(BUSY).await;
        assert_eq!(client.read_to_end(&mut Vec::new()).await.expect("to the end"), BUFFER + 10);
        let (copied, state) = proxy.await.expect("no panic");
        assert_eq!(copied.expect("both directions"), (REQUEST.len() as u64, BUFFER as u64 + 10));
        assert_eq!(state, ShutdownState::Both);
        server.await.expect("no panic");
    }
}

/// Nothing comes, and nobody waits any more.
#[tokio::test(start_paused = true)]
async fn a_half_close_without_an_answer_is_reported_as_such() {
    for version in VERSIONS {
        let (client, _server) = connect(version, pipe()).await;
        let (sender, mut ends) = mpsc::unbounded_channel();
        let mut client = client.on_end(move |report| sender.send(report.ending()).expect("a test"));
        timeout(Duration::from_secs(1), client.read(&mut [0; 9])).await.expect_err("silence");
        client.shutdown().await.expect("sent");
        drop(client);
        assert_eq!(ends.recv().await, Some(Ending::TimedOut));

        let (client, mut server) = connect(version, pipe()).await;
        let (sender, mut ends) = mpsc::unbounded_channel();
        let mut client = client.on_end(move |report| sender.send(report.ending()).expect("a test"));
        server.write_all(b"all").await.expect("written");
        server.flush().await.expect("flushed");
        client.read_exact(&mut [0; 3]).await.expect("data");
        client.shutdown().await.expect("sent");
        drop(client);
        assert_eq!(ends.recv().await, Some(Ending::TimedOut));
    }
}

/// It has its answer, and waits for nothing more. How much its last read had room for changes nothing.
#[tokio::test(start_paused = true)]
async fn an_application_that_stops_to_read_behind_its_answer_has_not_waited_in_vain() {
    for version in VERSIONS {
        for room in [3, 100] {
            let (client, mut server) = connect(version, pipe()).await;
            let (sender, mut ends) = mpsc::unbounded_channel();
            let mut client = client.on_end(move |report| sender.send(report.ending()).expect("a test"));
            timeout(Duration::from_secs(1), client.read(&mut [0; 9])).await.expect_err("silence");
            server.write_all(b"all").await.expect("written");
            server.flush().await.expect("flushed");
            client.shutdown().await.expect("sent");
            assert_eq!(client.read(&mut vec![0; room]).await.expect("an answer"), 3);
            advance(ShutdownPolicy::CLOSE_TIMEOUT * 2).await;
            drop(client);
            assert_eq!(ends.recv().await, Some(Ending::Sent), "with room for {room}");
        }
    }
}

/// A policy that is passed to `shutdown_with` ends the whole connection, and no read hides what that has discarded.
#[tokio::test(start_paused = true)]
async fn no_read_hides_what_an_explicit_shutdown_has_discarded() {
    for version in VERSIONS {
        let (mut client, mut server) = connect(version, pipe()).await;
        server.write_all(b"unread").await.expect("written");
        server.flush().await.expect("flushed");
        let server = tokio::spawn(async move {
            server.read_to_end(&mut Vec::new()).await.expect("to the end");
            server.shutdown().await
        });
        let report = client.shutdown_with(BIDIRECTIONAL).await.expect("complete");
        assert_eq!((report.ending(), report.discarded()), (Ending::Complete, 6));
        for _ in 0..2 {
            let error = client.read(&mut [0; 9]).await.expect_err("what was discarded");
            assert!(error.to_string().contains("6 bytes"), "{error}");
        }
        server.await.expect("no panic").expect("sent");
    }
}

/// The stream is the reader's. Whoever shuts down and drops it leaves the rest to the reaper, if there is one.
#[tokio::test(start_paused = true)]
async fn data_that_nobody_reads_any_more_is_the_reapers() {
    for version in VERSIONS {
        let (client, mut server) = connect(version, pipe()).await;
        let (sender, mut ends) = mpsc::unbounded_channel();
        let reaper = Reaper::new();
        let mut client = client.with_reaper(&reaper).on_end(move |report| sender.send(*report).expect("a test"));
        server.write_all(b"first second").await.expect("written");
        server.flush().await.expect("flushed");
        client.read_exact(&mut [0; 5]).await.expect("the first");
        client.shutdown().await.expect("sent");
        assert_eq!(client.state(), ShutdownState::Sent);
        drop(client);
        server.read_to_end(&mut Vec::new()).await.expect("to the end");
        server.shutdown().await.expect("sent");
        let report: ShutdownReport = ends.recv().await.expect("an end");
        assert_eq!((report.ending(), report.discarded()), (Ending::Complete, 7));
    }
}

/// The shutdown of the outer stream ends the write half of the inner one, and takes nothing from the outer one's reads.
#[tokio::test(start_paused = true)]
async fn tls_in_tls_ends_completely_on_both_levels() {
    for version in VERSIONS {
        for policy in [ShutdownPolicy::bidirectional(), ShutdownPolicy::unidirectional()] {
            let (sender, mut ends) = mpsc::unbounded_channel();
            let reaper = Reaper::new();
            let observed = |name: &'static str| {
                let sender = sender.clone();
                move |report: &ShutdownReport| sender.send((name, report.ending(), report.tickets())).expect("a test")
            };
            let (inner_client, inner_server) = connect(version, pipe()).await;
            let inner_client = inner_client.with_reaper(&reaper).on_end(observed("inner"));
            let inner_client: Box<dyn Transport> = Box::new(inner_client);
            let inner_server: Box<dyn Transport> = Box::new(inner_server.with_reaper(&reaper));
            let (client, mut server) = connect(version, (inner_client, inner_server)).await;
            let mut client = client.with_policy(policy).with_reaper(&reaper).on_end(observed("outer"));
            let server = tokio::spawn(async move {
                let mut received = Vec::new();
                server.read_to_end(&mut received).await.expect("to the end");
                server.write_all(&vec![b'a'; 100_000]).await.expect("a client that takes it");
                server.shutdown().await.expect("sent");
                received
            });
            client.write_all(REQUEST).await.expect("written");
            client.shutdown().await.expect("the goal");
            drop(client);
            assert_eq!(server.await.expect("no panic"), REQUEST);
            let mut told = [ends.recv().await.expect("an end"), ends.recv().await.expect("an end")];
            told.sort_unstable_by_key(|(name, ..)| *name);
            let tickets = if version == VERSIONS[1] { 2 } else { 0 };
            assert_eq!(
                told,
                [("inner", Ending::Complete, tickets), ("outer", Ending::Complete, tickets)],
                "{policy:?}"
            );
        }
    }
}
