//! One server process that listens on every kind of socket, and the clients of each.

use std::{
    env, fs, iter,
    net::SocketAddr,
    path::PathBuf,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::Value;
use tls_shutdown_interop::{
    LOOPBACK, Server as Process,
    client::{Stream, handshake},
    glance, is_port_open, is_unix_socket_open,
};
use tokio::net::{TcpStream, UnixStream};

use crate::{TRIAL, visit};

/// A client's end of a connection over any socket.
pub(crate) type Client = Box<dyn Stream>;

/// What is below HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tls,
    Plain,
    Unix,
}

pub(crate) const EACH: &[Transport] = &[Transport::Tls, Transport::Plain, Transport::Unix];
/// For the states that only a handshake or its ALPN make.
pub(crate) const TLS: &[Transport] = &[Transport::Tls];
/// Those over which a client sees that a response was cut whose end is the end of the connection. A Unix socket has no reset.
pub(crate) const WITH_RESET: &[Transport] = &[Transport::Tls, Transport::Plain];

impl Transport {
    /// As events name it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Plain => "plain",
            Self::Unix => "unix",
        }
    }
}

/// Where a server listens.
pub(crate) enum Socket {
    Tls(SocketAddr),
    Plain(SocketAddr),
    Unix(PathBuf),
}

impl Socket {
    const fn transport(&self) -> Transport {
        match self {
            Self::Tls(_) => Transport::Tls,
            Self::Plain(_) => Transport::Plain,
            Self::Unix(_) => Transport::Unix,
        }
    }

    /// Connects, and sends nothing.
    pub(crate) async fn connect(&self) -> Connection {
        let tcp = async |address: &SocketAddr| TcpStream::connect(address).await.expect("it listens");
        match self {
            Self::Tls(address) => Connection::Tls(tcp(address).await),
            Self::Plain(address) => Connection::Plain(tcp(address).await),
            Self::Unix(path) => Connection::Unix(UnixStream::connect(path).await.expect("it listens")),
        }
    }

    fn is_open(&self) -> bool {
        match self {
            Self::Tls(address) | Self::Plain(address) => is_port_open(address.port()),
            Self::Unix(path) => is_unix_socket_open(path.to_str().expect("a UTF-8 path")),
        }
    }
}

/// A connection on which nothing was sent.
pub(crate) enum Connection {
    Tls(TcpStream),
    Plain(TcpStream),
    Unix(UnixStream),
}

impl Connection {
    /// Makes a handshake for this protocol, where the socket has TLS.
    pub(crate) async fn begin(self, protocol: &str) -> Client {
        match self {
            Self::Tls(tcp) => Box::new(handshake(tcp, protocol).await.expect("a handshake")),
            Self::Plain(tcp) => Box::new(tcp),
            Self::Unix(unix) => Box::new(unix),
        }
    }
}

/// `tls-shutdown serve` on every kind of socket.
pub(crate) struct Server {
    process: Process,
    file: SocketFile,
    /// Those over which clients come in this trial.
    sockets: Vec<Socket>,
    /// How many connections each of these has when the signal comes.
    pub(crate) connections: usize,
}

impl Server {
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        let file = SocketFile::new();
        let path = file.0.to_str().expect("a UTF-8 path");
        let sockets = ["--plain", LOOPBACK, "--unix", path];
        let mut process = Process::serve(&[&sockets, arguments].concat()).await;
        let plain = process.event().await.expect("an event");
        let unix = process.event().await.expect("an event");
        assert_eq!((&plain["transport"], &unix["transport"]), (&"plain".into(), &"unix".into()));
        let plain = plain["addr"].as_str().and_then(|address| address.parse().ok()).expect("an address");
        let mut sockets = vec![Socket::Tls(process.address), Socket::Plain(plain), Socket::Unix(file.0.clone())];
        sockets.retain(|socket| TRIAL.with(|trial| trial.transports.contains(&socket.transport())));
        Self { process, file, sockets, connections: 0 }
    }

    /// Opens this many connections over each socket, all at once: the first is still in its state when the last one is.
    pub(crate) async fn open<C>(&mut self, count: usize, open: impl AsyncFn(&Socket) -> C) -> Vec<C> {
        self.connections += count;
        let sockets = self.sockets.iter().flat_map(|socket| iter::repeat_n(socket, count));
        join_all(sockets.map(|socket| open(socket))).await
    }

    /// Serves one more connection over each socket to its end, so that the server has accepted all before it.
    pub(crate) async fn accepts(&mut self) {
        for socket in &self.sockets {
            visit(socket).await;
            assert_eq!(self.process.closed().await["ending"], "complete");
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Stops the process. Its system goes on accepting connections and data.
    pub(crate) async fn halt(&self) {
        self.process.halt().await;
    }

    /// Waits until it listens nowhere.
    pub(crate) async fn stops_listening(&self) {
        glance(|| !self.sockets.iter().any(Socket::is_open)).await;
    }

    /// Waits for its exit, after which the file of the Unix socket is gone. Returns the events until then, and that of the drain.
    pub(crate) async fn exit(self) -> (Vec<Value>, Value) {
        let mut events = self.process.exit().await;
        assert!(!self.file.0.exists(), "the file of the socket is left");
        let drained = events.pop().expect("an event");
        (events, drained)
    }
}

/// The file of a Unix socket, which a server that is killed leaves.
struct SocketFile(PathBuf);

impl SocketFile {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (process, count) = (process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // Not beside the test: such a path is short, 108 bytes on Linux.
        Self(env::temp_dir().join(format!("tls-shutdown-states-{process}-{count}.sock")))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
