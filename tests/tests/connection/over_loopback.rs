//! Ordinary code over real sockets, whose buffers and threads do what no script thinks of. Each test runs a hundred times.

use tls_shutdown::{Abort, Records, Unwrap};
use tls_shutdown_tests::{End, VERSIONS, soon};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::exchanges::{
    ANSWERS, Answer, Ends, connect, proxy, read_after_the_shutdown, read_beside_the_shutdown, upload,
};

const RUNS: usize = 100;
const UPLOADS: usize = 50;

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.expect("a server"), accepted.expect("a client").0)
}

/// Both ends of a connection, in the version of TLS that is due in this run.
async fn connected(run: usize) -> Ends<TcpStream> {
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
    each_run(RUNS, |run, due| async move { read_beside_the_shutdown(connected(run).await, due).await }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_behind_the_shutdown_receives_everything_or_fails() {
    each_run(RUNS, |run, due| async move { read_after_the_shutdown(connected(run).await, due).await }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_carries_a_late_answer() {
    each_run(RUNS, |run, due| async move { proxy(connected(run).await, connected(run).await, due).await }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_to_a_server_that_talks_arrives_whole() {
    each_run(UPLOADS, |run, _| async move { upload(connected(run).await).await }).await;
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
