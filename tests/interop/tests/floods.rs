//! Many peers that close badly, or never begin. The memory and the time of the server stay within limits, and it serves others meanwhile. In
//! the end nothing is left of the connections, although all the peers are still there.
//!
//! These tests have a process of their own: they raise the limit of file descriptors, and measure memory and latency under load.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tls_shutdown_interop::{
    Build, LOOPBACK, Server,
    client::{Client, connect, get, handshake, receive_all, receive_until},
    curl, glance,
    http2::{Frame, Http2, Pings, last_streams},
    run_well,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    sync::{Mutex, Semaphore},
    task::JoinSet,
    time::{Instant, interval},
};

/// Of each kind.
const PEERS: usize = 5_000;
const SILENT: usize = 2_000;
/// Peers that connect at the same time.
const AT_ONCE: usize = 64;
/// Descriptors of a server at rest, more or less: one may be of a connection that is just closed.
const FEW: usize = 4;
/// What the server may keep for a peer that closes badly, in bytes: not all are there at once.
const MEMORY: usize = 10_000;
/// What it may keep of an answer that is not taken: the buffers of TLS and of HTTP.
const MEMORY_OF_AN_ANSWER: usize = 90_000;
/// How long it waits for a peer that takes nothing.
const STALL_TIMEOUT: &str = "3s";
/// What it may keep for one that does not begin: the beginnings of a TLS session.
const MEMORY_OF_A_BEGINNING: usize = 32_000;
/// Peers of the control.
const FEWER: usize = 200;
/// Connections that cancel all their requests at once.
const CANCELLING: usize = 10;
/// Requests on each of them.
const CANCELLED: u32 = 20_000;
/// The most of them that the server begins to serve.
const SERVED: u64 = 1_000;
/// What the server may have of memory meanwhile, in all.
const MEMORY_IN_ALL: usize = 50_000_000;
/// How often another client asks, for its latency.
const ASKED: usize = 200;
const ROUNDS: usize = 5;
/// How long others may wait.
const PATIENCE: Duration = Duration::from_secs(2);

/// The machine is as busy with one of these tests as with both.
static ALONE: Mutex<()> = Mutex::const_new(());

/// What all peers share.
struct Flood {
    server: SocketAddr,
    turns: Semaphore,
    opened: AtomicUsize,
}

impl Flood {
    fn of(server: &Server) -> Arc<Self> {
        Arc::new(Self { server: server.address, turns: Semaphore::new(AT_ONCE), opened: AtomicUsize::new(0) })
    }
}

/// What a peer does after the server has sent close_notify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    /// It reads that, and stays.
    Mute,
    /// It does not even read the answer, which is more than all buffers take.
    Deaf,
    /// It goes on sending.
    Endless,
}

impl Peer {
    const ALL: [Self; 3] = [Self::Mute, Self::Deaf, Self::Endless];

    /// Connects and asks, in its turn, and then behaves badly until it is dropped.
    async fn run(self, flood: Arc<Flood>) {
        let turn = flood.turns.acquire().await.expect("nobody closes it");
        let mut client = handshake(self.connect(flood.server).await, "http/1.1").await.expect("a handshake");
        let route = if self == Self::Deaf { "/bytes/20000000" } else { "/close/30000" };
        get(&mut client, route).await;
        if self == Self::Mute {
            receive_all(&mut client).await;
        }
        drop(turn);
        flood.opened.fetch_add(1, Ordering::Relaxed);
        if self == Self::Endless {
            let mut pace = interval(Duration::from_secs(1));
            while client.write_all(&[0; 1000]).await.is_ok() {
                pace.tick().await;
            }
        }
        std::future::pending().await
    }

    /// Each kind has an address of its own, and so enough ports.
    async fn connect(self, server: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        if self == Self::Deaf {
            socket.set_recv_buffer_size(4096).expect("a small buffer");
        }
        socket.bind((Ipv4Addr::new(127, 0, 0, 2 + self as u8), 0).into()).expect("a port");
        socket.connect(server).await.expect("it listens")
    }
}

/// Lets this process and its children have as many descriptors as they may.
fn raise_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("the limit can be raised");
    let needed = (PEERS * Peer::ALL.len() + 1000) as u64;
    assert!(maximum.is_none_or(|maximum| maximum >= needed), "more descriptors are needed: ulimit -Hn {needed}");
}

fn descriptors(server: &Server) -> usize {
    fs::read_dir(format!("/proc/{}/fd", server.id())).expect("it runs").count()
}

/// The most memory that it has ever had, in bytes.
fn memory(server: &Server) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", server.id())).expect("it runs");
    let peak: Option<usize> =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    1024 * peak.unwrap_or_else(|| panic!("no peak in {status}"))
}

/// How long another client waits for most of its answers.
async fn median_latency(neighbour: &mut Client) -> Duration {
    let mut latencies = Vec::new();
    for _ in 0..ASKED {
        let asked = Instant::now();
        get(neighbour, "/bytes/10").await;
        receive_until(neighbour, "..........").await;
        latencies.push(asked.elapsed());
    }
    latencies.sort();
    latencies[ASKED / 2]
}

/// Requests uploads and cancels each, by HTTP/2 (CVE-2023-44487). Returns when the server has ended the connection.
async fn cancel_all(mut http2: Http2) {
    for first in (0..CANCELLED).step_by(50) {
        let pairs = (first..first + 50).map(|number| {
            let stream = 2 * number + 1;
            [Frame::upload(stream, "/delay/60000"), Frame::cancel(stream)]
        });
        if http2.send_all(pairs.flatten()).await.is_err() {
            break;
        }
    }
    let mut frames = Vec::new();
    while let Some(frame) = http2.frame().await {
        frames.push(frame);
    }
    assert!(!last_streams(&frames).is_empty(), "no GOAWAY");
}

/// How long one more client needs for a connection and an answer.
async fn latency(server: &Server) -> Duration {
    let url = server.url("/bytes/10");
    let output = run_well(curl("1.3").args(["-o", "/dev/null", "-w", "%{time_total}", &url]), b"").await;
    let seconds = String::from_utf8(output).ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs_f64(seconds.expect("a time"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_close_badly() {
    let _alone = ALONE.lock().await;
    raise_limit();
    let server = Server::start(Build::Release.serve(LOOPBACK, &["--stall-limit", STALL_TIMEOUT])).await;
    let bare = Server::start(Build::Release.bare_server(LOOPBACK)).await;
    latency(&server).await;
    let (descriptors_at_rest, memory_at_rest) = (descriptors(&server), memory(&server));

    let bare_flood = Flood::of(&bare);
    let mut bare_peers = JoinSet::new();
    for _ in 0..FEWER {
        bare_peers.spawn(Peer::Deaf.run(bare_flood.clone()));
    }
    let started = Instant::now();
    let flood = Flood::of(&server);
    let mut peers = JoinSet::new();
    for _ in 0..PEERS {
        for peer in Peer::ALL {
            peers.spawn(peer.run(flood.clone()));
        }
    }
    let mut worst = Duration::ZERO;
    while flood.opened.load(Ordering::Relaxed) < PEERS * Peer::ALL.len() {
        worst = worst.max(latency(&server).await);
        assert!(peers.try_join_next().is_none(), "a peer has failed");
    }
    let flooded = started.elapsed();
    let most = descriptors(&server);
    glance(|| descriptors(&server) <= descriptors_at_rest + FEW).await;
    let memory = memory(&server) - memory_at_rest;
    println!("at most {most} descriptors, {} MB, {worst:?} for another client", memory / 1_000_000);
    println!("flooded for {flooded:?}, at rest after {:?}", started.elapsed());
    // The other one serves its deaf peers for ever.
    assert!(descriptors(&bare) > FEWER, "{}", descriptors(&bare));
    assert!(memory < PEERS * (Peer::ALL.len() * MEMORY + MEMORY_OF_AN_ANSWER), "{memory} bytes");
    assert!(worst < PATIENCE, "{worst:?}");
    assert!(peers.try_join_next().is_none(), "a peer has failed");
    server.signal(Signal::TERM);
    server.exit().await;
}

#[tokio::test]
async fn peers_that_never_begin() {
    let _alone = ALONE.lock().await;
    raise_limit();
    let server = Server::start(Build::Release.serve(LOOPBACK, &[])).await;
    let bare = Server::start(Build::Release.bare_server(LOOPBACK)).await;
    latency(&server).await;
    let (descriptors_at_rest, memory_at_rest) = (descriptors(&server), memory(&server));

    let mut silent = Vec::new();
    for _ in 0..SILENT {
        for server in [&server, &bare] {
            silent.push(TcpStream::connect(server.address).await.expect("it listens"));
        }
    }
    let started = Instant::now();
    let mut worst = Duration::ZERO;
    while descriptors(&server) > descriptors_at_rest + FEW {
        worst = worst.max(latency(&server).await);
    }
    let memory = (memory(&server) - memory_at_rest) / SILENT;
    println!("{memory} bytes a peer, {worst:?} for another client, at rest after {:?}", started.elapsed());
    assert!(memory < MEMORY_OF_A_BEGINNING, "{memory} bytes a peer");
    assert!(worst < PATIENCE, "{worst:?}");
    // The other one waits for them for ever.
    assert!(descriptors(&bare) > SILENT, "{}", descriptors(&bare));
}

/// The others have their answers as fast as without them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_cancel_all_their_requests() {
    let _alone = ALONE.lock().await;
    let mut server = Server::start(Build::Release.serve(LOOPBACK, &[])).await;
    let mut neighbour = connect(server.address).await;
    let (mut alone, mut beside) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        alone = alone.min(median_latency(&mut neighbour).await);
        let mut flood = JoinSet::new();
        for _ in 0..CANCELLING {
            let http2 = Http2::connect(server.address, Pings::Ignored).await;
            flood.spawn(cancel_all(http2));
        }
        beside = beside.min(median_latency(&mut neighbour).await);
        flood.join_all().await;
        for _ in 0..CANCELLING {
            let event = server.closed().await;
            assert!(event["requests"].as_u64().expect("a number") < SERVED, "{event}");
        }
    }
    println!(
        "another client waits for {alone:?} alone, and {beside:?} beside them; {} MB",
        memory(&server) / 1_000_000
    );
    assert!(beside <= 2 * alone, "{beside:?} beside them, {alone:?} alone");
    assert!(memory(&server) < MEMORY_IN_ALL, "{} bytes", memory(&server));
}
