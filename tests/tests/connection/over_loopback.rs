//! Ordinary code over real sockets, whose buffers and threads do what no script thinks of. Each test runs a hundred times.

use std::{io, time::Duration};

use tls_shutdown::{Abort, Records, ShutdownState, ShutdownStream, Unwrap};
use tls_shutdown_tests::{End, VERSIONS, soon, time::real_time};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional, split},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{client, server};

use crate::ordinary_code::{ANSWERS, Answer, KEPT, REQUEST, answer, connect};

const RUNS: usize = 100;
const UPLOADS: usize = 50;

type Client = ShutdownStream<client::TlsStream<TcpStream>>;
type Server = ShutdownStream<server::TlsStream<TcpStream>>;

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.expect("a server"), accepted.expect("a client").0)
}

/// Both ends of a connection, in the version of TLS that is due in this run.
async fn connected(run: usize) -> (Client, Server) {
    connect(VERSIONS[run % VERSIONS.len()], sockets().await).await
}

/// Runs a case some times, side by side. Each answer is due in some of the runs.
async fn each_run<F: Future<Output = ()> + Send + 'static>(runs: usize, case: impl Fn(usize, Answer) -> F) {
    let mut runs: JoinSet<()> = (0..runs).map(|run| case(run, ANSWERS[run % ANSWERS.len()])).collect();
    while let Some(run) = soon(runs.join_next()).await {
        run.expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_concurrent_reader_receives_everything() {
    each_run(RUNS, |run, due| async move {
        let (client, server) = connected(run).await;
        let server = tokio::spawn(answer(server, due));
        let (mut read, mut write) = split(client);
        let reader = tokio::spawn(async move {
            let mut received = Vec::new();
            read.read_to_end(&mut received).await.map(|_| received.len())
        });
        write.write_all(REQUEST).await.expect("written");
        write.shutdown().await.expect("sent");
        assert_eq!(reader.await.expect("no panic").expect("everything"), due.0, "{due:?}");
        server.await.expect("no panic");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_behind_the_shutdown_receives_everything_or_fails() {
    each_run(RUNS, |run, due| async move {
        let (mut client, server) = connected(run).await;
        let server = tokio::spawn(answer(server, due));
        client.write_all(REQUEST).await.expect("written");
        client.shutdown().await.expect("the server has closed");
        let mut received = Vec::new();
        match client.read_to_end(&mut received).await {
            Ok(_) => assert_eq!(received.len(), due.0, "{due:?}"),
            Err(error) => {
                assert!(due.0 > KEPT, "{due:?}: {error}");
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{due:?}: {error}");
                assert!(error.to_string().contains(&format!("{} bytes", due.0 - received.len())), "{due:?}: {error}");
            }
        }
        server.await.expect("no panic");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_carries_a_late_answer() {
    each_run(RUNS, |run, due| async move {
        let ((mut client, mut front), (mut back, server)) = tokio::join!(connected(run), connected(run));
        let server = tokio::spawn(answer(server, due));
        let proxy = tokio::spawn(async move {
            let copied = copy_bidirectional(&mut front, &mut back).await;
            (copied, front.state(), back.state())
        });
        client.write_all(REQUEST).await.expect("written");
        client.close_notify().await.expect("sent");
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.expect("to the end");
        assert_eq!(received.len(), due.0, "{due:?}");
        let (copied, front, back) = proxy.await.expect("no panic");
        assert_eq!(copied.expect("both directions"), (REQUEST.len() as u64, due.0 as u64), "{due:?}");
        assert_eq!((front, back), (ShutdownState::Both, ShutdownState::Both));
        server.await.expect("no panic");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_to_a_server_that_talks_arrives_whole() {
    const UPLOAD: usize = 3_000_000;
    each_run(UPLOADS, |run, _| async move {
        let (mut client, mut server) = connected(run).await;
        let server = tokio::spawn(async move {
            let (mut received, mut buffer) = (0, vec![0; 100_000]);
            loop {
                match server.read(&mut buffer).await.expect("data") {
                    0 => break,
                    amount => received += amount,
                }
                server.write_all(&[b'.'; 1000]).await.expect("a client that takes it");
                // A server that reads as slowly as this has most of the upload in front of it when the client closes.
                real_time(Duration::from_millis(1)).await;
            }
            server.shutdown().await.expect("sent");
            received
        });
        client.write_all(&vec![0; UPLOAD]).await.expect("written");
        client.shutdown().await.expect("complete");
        drop(client);
        assert_eq!(server.await.expect("no panic"), UPLOAD);
    })
    .await;
}

/// A cut message is to be reset. This one is whole, since close_notify is sent.
#[tokio::test]
async fn close_notify_alone_ends_the_abort_mode() {
    for run in 0..VERSIONS.len() {
        let (mut client, mut server) = connected(run).await;
        server.set_abort_mode(Abort::Reset);
        server.write_all(&[b'.'; 100_000]).await.expect("written");
        server.close_notify().await.expect("sent");
        server.set_abort_mode(Abort::Reset);
        drop(server);
        let mut received = Vec::new();
        soon(client.read_to_end(&mut received)).await.expect("to the end");
        assert_eq!(received.len(), 100_000);
    }
}

#[tokio::test]
async fn the_abort_mode_ends_with_tls() {
    for version in VERSIONS {
        for unwrap in [Unwrap::Initiate, Unwrap::Reply, Unwrap::Silent] {
            let (client, server) = sockets().await;
            let (mut client, mut server) = connect(version, (Records::new(client), Records::new(server))).await;
            server.set_abort_mode(Abort::Reset);
            client.close_notify().await.expect("sent");
            let mut plaintext = server.into_plaintext(unwrap).await.expect("TLS is off");
            plaintext.write_all(b"220 plain").await.expect("written");
            drop(plaintext);
            let (_, mut client) = client.into_inner().into_inner().0.into_parts();
            let mut received = Vec::new();
            soon(client.read_to_end(&mut received)).await.expect("to the end");
            assert!(received.ends_with(b"220 plain"), "{unwrap:?}");
        }
    }
}

/// What is asked for last holds: a message that was cut is one with FIN, if the caller says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_does_what_it_is_told_whatever_the_abort_mode() {
    for version in VERSIONS {
        for (mode, abort, end) in [
            (Abort::Fin, Abort::Fin, End::Truncation),
            (Abort::Reset, Abort::Fin, End::Truncation),
            (Abort::Fin, Abort::Reset, End::Reset),
            (Abort::Reset, Abort::Reset, End::Reset),
        ] {
            let (mut client, mut server) = connect(version, sockets().await).await;
            // Nothing is unread: that alone would reset the connection.
            server.flush().await.expect("tickets");
            server.write_all(b"whole").await.expect("written");
            client.read_exact(&mut [0; 5]).await.expect("a message");
            client.set_abort_mode(mode);
            client.abort(abort);
            let error = soon(server.read(&mut [0; 9])).await.expect_err("no close_notify");
            assert_eq!(End::of(&error), end, "{mode:?}, then {abort:?}");
        }
    }
}
