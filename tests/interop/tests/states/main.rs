//! A signal comes while connections are in each possible state. Each connection ends within `--last-request` and `--grace`, its client sees
//! a proper end, and the server reports the same. The control of each test is a server that is killed instead.
//!
//! These tests have a process of their own, since they measure short times.

/// Makes tests of states, and their controls.
macro_rules! states {
    ($($state:ident),* $(,)?) => {
        mod terminated {
            $(#[tokio::test]
            async fn $state() {
                crate::ends_well(super::$state()).await;
            })*
        }

        mod killed {
            $(#[tokio::test]
            async fn $state() {
                crate::is_noticed(super::$state()).await;
            })*
        }
    };
}

mod before_a_request;
mod exchanges;
mod http2;

use std::{
    ops::RangeInclusive,
    panic::{AssertUnwindSafe, panic_any},
    time::Duration,
};

use futures_util::FutureExt;
use rustix::process::Signal;
use serde_json::{Value, json};
use tls_shutdown_interop::{
    Build, LOOPBACK, Server,
    client::{Client, Last, Response, connect, get, handshake, receive_all, receive_until},
    within,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

pub(crate) const CONNECTIONS: usize = 10;
/// What the servers here are started with.
pub(crate) const ARGUMENTS: [&str; 4] = ["--last-request", "1s", "--grace", "10s"];
/// When a window that nobody uses is over, on a busy machine too.
pub(crate) const WINDOW: RangeInclusive<Duration> = Duration::from_millis(900)..=Duration::from_secs(3);
/// The grace time, less a reserve: what ends in it was not cut.
pub(crate) const UNCUT: Duration = Duration::from_secs(8);

tokio::task_local! {
    /// What the server is signalled with.
    pub(crate) static SIGNAL: Signal;
}

/// The clients have seen all that they should, though the server was killed.
struct Unnoticed;

async fn ends_well(state: impl Future<Output = ()>) {
    SIGNAL.scope(Signal::TERM, state).await;
}

/// The clients of a server that is killed in this state do not see what they should.
async fn is_noticed(state: impl Future<Output = ()>) {
    let state = AssertUnwindSafe(SIGNAL.scope(Signal::KILL, state)).catch_unwind();
    let failure = state.await.expect_err("a failure");
    assert!(!failure.is::<Unnoticed>(), "the clients notice nothing, so that the test proves nothing");
}

/// Waits for the exit. Returns the events until then. The last one is that of the drain.
pub(crate) async fn exit(server: Server) -> Vec<Value> {
    if SIGNAL.get() == Signal::KILL {
        panic_any(Unnoticed);
    }
    server.exit().await
}

/// A server, and the connections to it when the signal comes.
pub(crate) async fn start<C>(open: impl AsyncFn(&Server) -> C) -> (Server, Vec<C>) {
    let server = Server::serve(&ARGUMENTS).await;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(open(&server).await);
    }
    (server, connections)
}

/// Signals the server, and waits until the drain is under way.
pub(crate) async fn terminate(server: &Server) -> Instant {
    let signalled = Instant::now();
    server.signal(SIGNAL.get());
    server.stops_listening().await;
    signalled
}

/// Asserts that the server exits before the deadline, reports each connection once, and sums them up. Returns its sums.
pub(crate) async fn exits(server: Server, signalled: Instant, ending: &str) -> Value {
    let mut events = exit(server).await;
    assert!(signalled.elapsed() < UNCUT, "{:?}", signalled.elapsed());
    let drained = events.pop().expect("an event");
    assert_eq!(drained["endings"], json!({ ending: CONNECTIONS }), "{drained}");
    assert_eq!(drained["connections"], CONNECTIONS, "{drained}");
    for nothing in ["responses_cut", "shed", "left", "lingering", "unacknowledged"] {
        assert_eq!(drained[nothing], 0, "{nothing}: {drained}");
    }
    let told = events.iter().filter(|event| event["ending"] == ending).count();
    assert_eq!((told, events.len()), (CONNECTIONS, CONNECTIONS), "{events:?}");
    drained
}

/// Receives up to the server's close_notify, and answers it.
pub(crate) async fn closes<T: AsyncRead + AsyncWrite + Unpin>(client: &mut Client<T>) -> Vec<u8> {
    let (received, last) = receive_all(client).await;
    assert_eq!(last, Last::CloseNotify, "{}", String::from_utf8_lossy(&received));
    within(client.shutdown()).await.expect("the server still listens");
    received
}

/// The answer, which is announced as the last, and close_notify.
pub(crate) async fn answers<T: AsyncRead + AsyncWrite + Unpin>(client: &mut Client<T>) -> Vec<u8> {
    let received = closes(client).await;
    let response = Response::parse(&received).expect("a head");
    assert!(response.head.starts_with("http/1.1 200") && response.is_last(), "{}", response.head);
    response.body
}

/// The answer to a last request.
pub(crate) async fn serves<T: AsyncRead + AsyncWrite + Unpin>(client: &mut Client<T>) {
    get(client, "/bytes/10").await;
    assert_eq!(answers(client).await, b"..........");
}

/// Nothing but a close_notify, when the window for a last request is over.
pub(crate) async fn closes_after_the_window(clients: &mut [Client], signalled: Instant) {
    for client in clients {
        assert_eq!(closes(client).await, b"");
        assert!(WINDOW.contains(&signalled.elapsed()), "{:?}", signalled.elapsed());
    }
}

pub(crate) async fn tcp(server: &Server) -> TcpStream {
    TcpStream::connect(server.address).await.expect("it listens")
}

pub(crate) async fn unused(server: &Server) -> Client {
    connect(server.address).await
}

/// A connection that has been of use.
pub(crate) async fn idle(server: &Server) -> Client {
    let mut client = connect(server.address).await;
    get(&mut client, "/bytes/10").await;
    receive_until(&mut client, "..........").await;
    client
}

/// Serves one more connection to its end, so that the server has accepted all before it.
pub(crate) async fn accepts(server: &mut Server) {
    let mut client = connect(server.address).await;
    within(client.shutdown()).await.expect("the server listens");
    assert_eq!(receive_all(&mut client).await.1, Last::CloseNotify);
    assert_eq!(server.closed().await["ending"], "complete");
}

#[tokio::test]
async fn the_bare_server_leaves_no_time_for_a_last_request() {
    let server = Server::start(Build::Tests.bare_server(LOOPBACK)).await;
    let tcp = tcp(&server).await;
    let idle = idle(&server).await;
    let signalled = SIGNAL.scope(Signal::TERM, terminate(&server)).await;
    for mut client in [idle, handshake(tcp, "http/1.1").await.expect("a handshake")] {
        assert_eq!(receive_all(&mut client).await.0, b"");
        assert!(signalled.elapsed() < *WINDOW.start(), "{:?}", signalled.elapsed());
    }
}
