//! A signal comes while connections are in each possible state, over every kind of socket of one server at once. Each connection ends within
//! `--last-request` and `--grace`, its client sees a proper end, and the server reports the same. The control of each test is a server that
//! is killed instead: the clients of each socket notice it.
//!
//! These tests have a process of their own, since they measure short times.

/// Makes tests of states, and their controls.
macro_rules! states {
    ($(over $transports:ident: [$($state:ident),* $(,)?])*) => {
        mod terminated {
            $($(#[tokio::test]
            async fn $state() {
                crate::ends_well(super::$state, crate::sockets::$transports).await;
            })*)*
        }

        mod killed {
            $($(#[tokio::test]
            async fn $state() {
                crate::is_noticed(super::$state, crate::sockets::$transports).await;
            })*)*
        }
    };
}

mod before_a_request;
mod exchanges;
mod handshakes;
mod http2;
mod sockets;

use std::{
    cell::Cell,
    collections::BTreeMap,
    ops::RangeInclusive,
    panic::{AssertUnwindSafe, panic_any},
    slice,
    time::Duration,
};

use futures_util::FutureExt;
use rustix::process::Signal;
use serde_json::{Value, json};
use tls_shutdown_interop::{
    Build, LOOPBACK,
    client::{Response, Stream, get, receive_all, receive_until},
    within,
};
use tokio::{io::AsyncWriteExt, time::Instant};

use sockets::{Client, Server, Socket, Transport};

/// Over each kind of socket.
pub(crate) const CONNECTIONS: usize = 10;
/// What the servers here are started with.
pub(crate) const ARGUMENTS: [&str; 4] = ["--last-request", "1s", "--grace", "10s"];
/// When a window that nobody uses is over, on a busy machine too.
pub(crate) const WINDOW: RangeInclusive<Duration> = Duration::from_millis(900)..=Duration::from_secs(3);
/// The grace time, less a reserve: what ends in it was not cut.
pub(crate) const UNCUT: Duration = Duration::from_secs(8);

/// What a state is tried with.
pub(crate) struct Trial {
    signal: Signal,
    transports: &'static [Transport],
    is_signalled: Cell<bool>,
}

tokio::task_local! {
    pub(crate) static TRIAL: Trial;
}

impl Trial {
    const fn new(signal: Signal, transports: &'static [Transport]) -> Self {
        Self { signal, transports, is_signalled: Cell::new(false) }
    }
}

/// The clients have seen all that they should, though the server was killed.
struct Unnoticed;

async fn ends_well(state: impl AsyncFn(), transports: &'static [Transport]) {
    TRIAL.scope(Trial::new(Signal::TERM, transports), state()).await;
}

/// The clients of a server that is killed in this state do not see what they should, whatever socket they use.
async fn is_noticed(state: impl AsyncFn(), transports: &'static [Transport]) {
    for transport in transports {
        let trial = Trial::new(Signal::KILL, slice::from_ref(transport));
        let state = async {
            let failure = AssertUnwindSafe(state()).catch_unwind().await.expect_err("a failure");
            assert!(TRIAL.with(|trial| trial.is_signalled.get()), "{transport:?}: it fails before the signal");
            failure
        };
        let failure = TRIAL.scope(trial, state).await;
        assert!(
            !failure.is::<Unnoticed>(),
            "{transport:?}: the clients notice nothing, so that the test proves nothing"
        );
    }
}

/// Waits for the exit. Returns the events of connections until then, and that of the drain.
pub(crate) async fn exit(server: Server) -> (Vec<Value>, Value) {
    if TRIAL.with(|trial| trial.signal) == Signal::KILL {
        panic_any(Unnoticed);
    }
    server.exit().await
}

/// A server, and the connections to it when the signal comes.
pub(crate) async fn start<C>(open: impl AsyncFn(&Socket) -> C) -> (Server, Vec<C>) {
    let mut server = Server::start(&ARGUMENTS).await;
    let connections = server.open(CONNECTIONS, open).await;
    (server, connections)
}

/// Signals the server.
pub(crate) fn signal(server: &Server) -> Instant {
    let signalled = Instant::now();
    server.signal(TRIAL.with(|trial| {
        trial.is_signalled.set(true);
        trial.signal
    }));
    signalled
}

/// Signals the server, and waits until the drain is under way.
pub(crate) async fn terminate(server: &Server) -> Instant {
    let signalled = signal(server);
    server.stops_listening().await;
    signalled
}

/// Asserts that the server exits before the deadline, reports each connection of each socket once, and sums them up. Returns its sums.
pub(crate) async fn exits(server: Server, signalled: Instant, ending: &str) -> Value {
    let connections = server.connections;
    let (events, drained) = exit(server).await;
    assert!(signalled.elapsed() < UNCUT, "{:?}", signalled.elapsed());
    let sum = report_ends(&events, connections, ending);
    assert_eq!(drained["endings"], json!({ ending: sum }), "{drained}");
    assert_eq!(drained["connections"], sum, "{drained}");
    for nothing in ["responses_cut", "shed", "left", "lingering", "unacknowledged"] {
        assert_eq!(drained[nothing], 0, "{nothing}: {drained}");
    }
    drained
}

/// Asserts that events report this ending of this many connections over each socket, and no other event. Returns their sum.
pub(crate) fn report_ends(events: &[Value], connections: usize, ending: &str) -> usize {
    let transports = TRIAL.with(|trial| trial.transports);
    let expected = transports.iter().map(|transport| ((transport.name(), ending), connections));
    assert_eq!(count_ends(events), expected.collect(), "{events:?}");
    connections * transports.len()
}

/// Counts the reported ends of connections by their transport and their ending.
pub(crate) fn count_ends(events: &[Value]) -> BTreeMap<(&str, &str), usize> {
    let mut count = BTreeMap::new();
    for event in events {
        let field = |name: &str| event[name].as_str().expect("a text");
        *count.entry((field("transport"), field("ending"))).or_insert(0) += 1;
    }
    count
}

/// Receives up to the end of all data, which is close_notify with TLS and FIN without, and answers it.
pub(crate) async fn closes(client: &mut impl Stream) -> Vec<u8> {
    let (received, last) = receive_all(client).await;
    assert_eq!(last, client.end_of_data(), "{}", String::from_utf8_lossy(&received));
    within(client.shutdown()).await.expect("the server still listens");
    received
}

/// The answer, which is announced as the last, and the end.
pub(crate) async fn answers(client: &mut impl Stream) -> Vec<u8> {
    let received = closes(client).await;
    let response = Response::parse(&received).expect("a head");
    assert!(response.head.starts_with("http/1.1 200") && response.is_last(), "{}", response.head);
    response.body
}

/// The answer to a last request.
pub(crate) async fn serves(client: &mut impl Stream) {
    get(client, "/bytes/10").await;
    assert_eq!(answers(client).await, b"..........");
}

/// Nothing but the end, when the window for a last request is over.
pub(crate) async fn closes_after_the_window(clients: &mut [Client], signalled: Instant) {
    for client in clients {
        assert_eq!(closes(client).await, b"");
        assert!(WINDOW.contains(&signalled.elapsed()), "{:?}", signalled.elapsed());
    }
}

/// Waits until the window is over, which these clients do not use. Asserts nothing, so that it is left to others to notice a killed server.
pub(crate) async fn outlast(silent: &mut [Client]) {
    for client in silent {
        receive_all(client).await;
        let _ = within(client.shutdown()).await;
    }
}

pub(crate) async fn unused(socket: &Socket) -> Client {
    socket.connect().await.begin("http/1.1").await
}

/// A connection that has been of use.
pub(crate) async fn idle(socket: &Socket) -> Client {
    let mut client = unused(socket).await;
    get(&mut client, "/bytes/10").await;
    receive_until(&mut client, "..........").await;
    client
}

/// A connection that its client ends at once.
pub(crate) async fn visit(socket: &Socket) {
    let mut client = unused(socket).await;
    within(client.shutdown()).await.expect("the server listens");
    assert_eq!(closes(&mut client).await, b"");
}

#[tokio::test]
async fn the_bare_server_leaves_no_time_for_a_last_request() {
    let (tls, plain) = (Build::Tests.bare_server(LOOPBACK), Build::Tests.plain_bare_server(LOOPBACK));
    for (command, socket) in [(tls, Socket::Tls as fn(_) -> Socket), (plain, Socket::Plain)] {
        let server = tls_shutdown_interop::Server::start(command).await;
        let socket = socket(server.address);
        let (unused, idle) = (socket.connect().await, idle(&socket).await);
        let signalled = Instant::now();
        server.signal(Signal::TERM);
        server.stops_listening().await;
        for mut client in [idle, unused.begin("http/1.1").await] {
            assert_eq!(receive_all(&mut client).await.0, b"");
            assert!(signalled.elapsed() < *WINDOW.start(), "{:?}", signalled.elapsed());
        }
    }
}
