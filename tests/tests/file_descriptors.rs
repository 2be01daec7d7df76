//! A process that has no file descriptor left.
//!
//! These tests have a process of their own, since the limit is that of the process.

use std::{
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tls_shutdown::server::{Server, ServerDrain, UnixSocket};
use tls_shutdown_tests::{
    End, client_config,
    log::Log,
    serving::{Client, listener, socket_path},
    soon,
    time::{leap, pass_time, turns},
};
use tokio::{net::TcpStream, runtime::Builder};

/// Runs a test while no other one runs: the limit is that of the process, and a runtime needs descriptors, too.
fn alone(test: impl Future<Output = ()>) {
    static LIMIT: Mutex<()> = Mutex::new(());
    let _limit = LIMIT.lock().unwrap_or_else(PoisonError::into_inner);
    Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test);
}

static LOG: LazyLock<Log> = LazyLock::new(|| Log::of_process("tls_shutdown=warn"));

/// Leaves no file descriptor to the process. Returns the limit before.
fn use_up_descriptors() -> Rlimit {
    let used = std::fs::File::open("/dev/null").expect("a file");
    let whole = getrlimit(Resource::Nofile);
    let next = std::os::fd::AsRawFd::as_raw_fd(&used);
    drop(used);
    let lowered = Rlimit { current: Some(u64::try_from(next).expect("a descriptor")), ..whole };
    setrlimit(Resource::Nofile, lowered).expect("lower");
    std::fs::File::open("/dev/null").expect_err("no descriptor");
    whole
}

/// At SIGTERM, the queue would be reset with the socket.
#[test]
fn a_closed_listener_serves_its_queue_when_there_are_descriptors_again() {
    alone(async {
        const QUEUED: usize = 5;
        let mut listener = listener().await;
        let address = listener.local_addr().expect("an address");
        let mut queued = Vec::new();
        for _ in 0..QUEUED {
            queued.push(TcpStream::connect(address).await.expect("the backlog"));
        }
        let whole = use_up_descriptors();
        listener.close();
        setrlimit(Resource::Nofile, whole).expect("as before");
        let clients = queued.into_iter().map(|tcp| Client::over(tcp, client_config(&rustls::version::TLS13)));
        let clients = tokio::spawn(futures_util::future::join_all(clients));
        for _ in 0..QUEUED {
            let _stream = soon(listener.accept()).await.expect("a connection");
        }
        soon(clients).await.expect("no panic");
        assert!(soon(listener.accept()).await.is_none(), "the queue is empty, and the socket is closed");
    });
}

/// Without a descriptor, the system refuses to accept also where nothing waits.
#[test]
fn a_closed_listener_without_a_queue_waits_for_no_descriptor() {
    alone(async {
        let log = LOG.clone();
        let mut listener = listener().await;
        let whole = use_up_descriptors();
        let before = log.text();
        listener.close();
        assert!(soon(listener.accept()).await.is_none(), "the queue is empty, and the socket is closed");
        setrlimit(Resource::Nofile, whole).expect("as before");
        assert_eq!(log.text(), before, "no connection was reset");
    });
}

/// The same without TLS. A server that drains waits for nothing either.
#[test]
fn a_closed_unix_socket_without_a_queue_waits_for_no_descriptor() {
    alone(async {
        let log = LOG.clone();
        let path = socket_path();
        let socket = UnixSocket::bind(&path).await.expect("a free path");
        let drain = ServerDrain::on(std::future::ready(()));
        let whole = use_up_descriptors();
        let before = log.text();
        let report = soon(Server::new(socket).drain(drain).serve(axum::Router::new())).await;
        setrlimit(Resource::Nofile, whole).expect("as before");
        assert!(report.elapsed() < Duration::from_secs(1), "{report}");
        assert_eq!(log.text(), before, "no connection was reset");
    });
}

/// A client that nobody answers keeps no new one out: first those that are closing end, then those that are idle.
#[test]
fn an_idle_connection_makes_room_for_a_new_one() {
    alone(async {
        let listener = listener().await;
        let address = listener.local_addr().expect("an address");
        let app = axum::Router::new().route("/", axum::routing::get("hello"));
        let server = tokio::spawn(Server::new(listener).serve(app));
        let mut idle = Vec::new();
        for _ in 0..5 {
            let mut client = Client::connect(address).await;
            client.ask("/").await;
            client.read_message().await;
            idle.push(client);
        }
        turns(50).await;
        leap(Duration::from_secs(2)).await;
        // Both are in the system's queue: nothing has polled the server since.
        let waiting = [(); 2].map(|()| {
            let tcp = std::net::TcpStream::connect(address).expect("the backlog");
            tcp.set_nonblocking(true).expect("an option");
            TcpStream::from_std(tcp).expect("a socket")
        });
        let whole = use_up_descriptors();
        for tcp in waiting {
            let mut client = Client::over(tcp, client_config(&rustls::version::TLS13)).await;
            client.ask("/").await;
            assert_eq!(client.read_message().await.1, b"hello");
            idle.push(client);
        }
        setrlimit(Resource::Nofile, whole).expect("as before");
        let mut left = 0;
        for mut client in idle {
            match client.read_to_end().now_or_never() {
                Some(end) => assert_eq!(end, (Vec::new(), End::CloseNotify)),
                None => left += 1,
            }
        }
        assert_eq!(left, 5, "as many as there were descriptors");
        server.abort();
    });
}

#[test]
fn a_listener_waits_for_a_file_descriptor_and_goes_on() {
    alone(async {
        // The listener warns when it meets the limit.
        let log = LOG.clone();
        let warnings = |log: &Log| log.text().matches("cannot accept a connection, will try again").count();
        let before = warnings(&log);
        let mut listener = listener().await;
        let address = listener.local_addr().expect("an address");
        let waiting = TcpStream::connect(address).await.expect("the backlog");
        let whole = use_up_descriptors();
        let client = tokio::spawn(async move {
            log.until_contains("cannot accept").await;
            // It tries ten times a second.
            pass_time(Duration::from_secs(1)).await;
            assert_eq!(warnings(&log), before + 1);
            setrlimit(Resource::Nofile, whole).expect("as before");
            Client::over(waiting, client_config(&rustls::version::TLS13)).await
        });
        let _stream = soon(listener.accept()).await.expect("a connection");
        soon(client).await.expect("no panic");
    });
}
