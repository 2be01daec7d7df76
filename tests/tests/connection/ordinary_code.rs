//! Code that knows nothing of this library: `split`, `shutdown()` before `read_to_end()`, `copy_bidirectional`, TLS in TLS. Everything
//! arrives, or a read fails and states the reason.

use std::{io, sync::Arc, time::Duration};

use rustls::pki_types::ServerName;
use tls_shutdown::{Ending, Reaper, ShutdownPolicy, ShutdownReport, ShutdownState, ShutdownStream, TlsSession};
use tls_shutdown_tests::{VERSIONS, client_config, scripted::BIDIRECTIONAL, server_config};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, copy_bidirectional, duplex, split},
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

pub(crate) const REQUEST: &[u8] = b"request";

/// What a shutdown keeps of an answer for a later read.
pub(crate) const KEPT: usize = 64 * 1024;

/// How much a peer answers, and how long after our close_notify.
pub(crate) type Answer = (usize, Duration);

/// More than the buffers hold, and less.
pub(crate) const ANSWERS: [Answer; 9] = {
    const MOMENT: Duration = Duration::from_millis(1);
    const LATE: Duration = Duration::from_millis(50);
    [
        (1, Duration::ZERO),
        (1, MOMENT),
        (1, LATE),
        (16_000, Duration::ZERO),
        (16_000, MOMENT),
        (16_000, LATE),
        (1_000_000, Duration::ZERO),
        (1_000_000, MOMENT),
        (1_000_000, LATE),
    ]
};

/// Both ends of a TLS connection over `transport`, each of them with its default policy.
pub(crate) async fn connect<T>(
    version: &'static rustls::SupportedProtocolVersion,
    transports: (T, T),
) -> (ShutdownStream<client::TlsStream<T>>, ShutdownStream<server::TlsStream<T>>)
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let name = ServerName::try_from("localhost").expect("a name");
    let (client, server) = tokio::join!(
        TlsConnector::from(Arc::new(client_config(version))).connect(name, transports.0),
        TlsAcceptor::from(Arc::new(server_config(version))).accept(transports.1),
    );
    (ShutdownStream::new(client.expect("a handshake")), ShutdownStream::new(server.expect("a handshake")))
}

fn pipe() -> (DuplexStream, DuplexStream) {
    duplex(64 * 1024)
}

/// Reads a request to its end, and answers after a while.
pub(crate) async fn answer<S: TlsSession>(mut server: ShutdownStream<S>, (length, delay): Answer) {
    let mut request = Vec::new();
    server.read_to_end(&mut request).await.expect("a request");
    assert_eq!(request, REQUEST);
    sleep(delay).await;
    server.write_all(&vec![b'a'; length]).await.expect("a reader");
    server.shutdown().await.expect("sent");
}

#[tokio::test(start_paused = true)]
async fn a_reader_beside_the_shutdown_receives_everything() {
    for version in VERSIONS {
        for (length, delay) in ANSWERS {
            let (client, server) = connect(version, pipe()).await;
            let server = tokio::spawn(answer(server, (length, delay)));
            let (mut read, mut write) = split(client);
            let reader = tokio::spawn(async move {
                let mut received = Vec::new();
                read.read_to_end(&mut received).await.map(|_| (received.len(), read))
            });
            write.write_all(REQUEST).await.expect("written");
            write.shutdown().await.expect("sent");
            let (received, read) = reader.await.expect("no panic").expect("everything");
            assert_eq!(received, length, "{delay:?}");
            let mut client = read.unsplit(write);
            assert_eq!(client.state(), ShutdownState::Both);
            assert_eq!(client.shutdown_with(BIDIRECTIONAL).await.expect("complete").discarded(), 0);
            server.await.expect("no panic");
        }
    }
}

/// The close timeout is for a peer that owes nothing but close_notify. An answer may take longer.
#[tokio::test(start_paused = true)]
async fn an_answer_later_than_the_close_timeout_is_carried_too() {
    const DUE: Answer = (100_000, Duration::from_secs(60));
    for version in VERSIONS {
        let (client, server) = connect(version, pipe()).await;
        let server = tokio::spawn(answer(server, DUE));
        let (mut read, mut write) = split(client);
        let reader = tokio::spawn(async move {
            let mut received = Vec::new();
            read.read_to_end(&mut received).await.map(|_| received.len())
        });
        write.write_all(REQUEST).await.expect("written");
        write.shutdown().await.expect("sent");
        assert_eq!(reader.await.expect("no panic").expect("everything"), DUE.0);
        server.await.expect("no panic");

        let (mut client, mut front) = connect(version, pipe()).await;
        let (mut back, server) = connect(version, pipe()).await;
        let server = tokio::spawn(answer(server, DUE));
        let proxy = tokio::spawn(async move { copy_bidirectional(&mut front, &mut back).await });
        client.write_all(REQUEST).await.expect("written");
        client.close_notify().await.expect("sent");
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.expect("to the end");
        assert_eq!(received.len(), DUE.0);
        proxy.await.expect("no panic").expect("both directions");
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
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_after_the_shutdown_receives_everything_or_fails() {
    for version in VERSIONS {
        for (length, delay) in ANSWERS {
            let (mut client, server) = connect(version, pipe()).await;
            let server = tokio::spawn(answer(server, (length, delay)));
            client.write_all(REQUEST).await.expect("written");
            client.shutdown().await.expect("the server has closed");
            let mut received = Vec::new();
            let read = client.read_to_end(&mut received).await;
            if length < KEPT {
                assert_eq!((read.expect("to the end"), received.len()), (length, length), "{delay:?}");
            } else {
                let error = read.expect_err("not everything was kept");
                let missing = length - received.len();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                let text = error.to_string();
                assert!(text.contains(&format!("{missing} bytes")) && text.contains("close_notify"), "{text}");
            }
            server.await.expect("no panic");
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

#[tokio::test(start_paused = true)]
async fn a_proxy_by_copy_bidirectional_carries_a_late_answer() {
    for version in VERSIONS {
        for (length, delay) in ANSWERS {
            let (mut client, mut front) = connect(version, pipe()).await;
            let (mut back, server) = connect(version, pipe()).await;
            let server = tokio::spawn(answer(server, (length, delay)));
            let proxy = tokio::spawn(async move {
                let copied = copy_bidirectional(&mut front, &mut back).await;
                (copied, front.state(), back.state())
            });
            client.write_all(REQUEST).await.expect("written");
            client.close_notify().await.expect("sent");
            let mut received = Vec::new();
            client.read_to_end(&mut received).await.expect("to the end");
            assert_eq!(received.len(), length, "{delay:?}");
            let (copied, front, back) = proxy.await.expect("no panic");
            assert_eq!(copied.expect("both directions"), (REQUEST.len() as u64, length as u64));
            assert_eq!((front, back), (ShutdownState::Both, ShutdownState::Both));
            server.await.expect("no panic");
        }
    }
}

/// Nobody reads, and nobody will: the shutdown waits until the server has read the whole upload.
#[tokio::test(start_paused = true)]
async fn an_upload_to_a_server_that_talks_arrives() {
    const UPLOAD: usize = 3_000_000;
    for version in VERSIONS {
        let (mut client, mut server) = connect(version, pipe()).await;
        let server = tokio::spawn(async move {
            let mut received = 0;
            let mut buffer = vec![0; 100_000];
            loop {
                match server.read(&mut buffer).await.expect("data") {
                    0 => break,
                    amount => received += amount,
                }
                server.write_all(&[b'.'; 1000]).await.expect("a client that takes it");
                sleep(Duration::from_millis(1)).await;
            }
            server.shutdown().await.expect("sent");
            received
        });
        client.write_all(&vec![0; UPLOAD]).await.expect("written");
        client.shutdown().await.expect("complete");
        assert_eq!(client.state(), ShutdownState::Both);
        drop(client);
        assert_eq!(server.await.expect("no panic"), UPLOAD);
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

trait Transport: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Transport for T {}
