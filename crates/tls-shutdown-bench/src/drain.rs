//! Compares the CPU time in which `Server` and hyper-util's `GracefulShutdown` drain idle connections. The client and each server are
//! processes of their own. The client answers each close_notify, and closes.

use std::{
    convert::Infallible,
    io::{self, BufRead, BufReader, Write},
    net::SocketAddr,
    pin::Pin,
    process::{Child, Command, Stdio},
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};
use rustls::pki_types::ServerName;
use tls_shutdown::server::{Server, ServerDrain, TlsListener};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream, server};

use crate::{client_that_trusts, server_config};

const CONNECTIONS: usize = 8000;
/// The file descriptors that a process needs besides those of its connections.
const OTHER_DESCRIPTORS: u64 = 200;
const ROUNDS: usize = 5;
const AT_ONCE: usize = 64;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const HEADER_TIMEOUT: Duration = Duration::from_secs(600);

/// Measures the servers in turns, and prints the ratios.
pub(crate) async fn compare() {
    let connections = CONNECTIONS.min(raise_descriptor_limit().saturating_sub(OTHER_DESCRIPTORS) as usize);
    for (server, other) in
        [("ours", "bare"), ("without acknowledgement", "bare"), ("without acknowledgement", "bare, lingering")]
    {
        let mut ratios = Vec::new();
        for _ in 0..ROUNDS {
            let bare = measure(other, connections).await;
            let ours = measure(server, connections).await;
            println!("{connections} idle connections: {ours:.1?} of CPU time, hyper-util ({other}) {bare:.1?}");
            ratios.push(ours.as_secs_f64() / bare.as_secs_f64());
        }
        ratios.sort_by(f64::total_cmp);
        println!("{server}, compared with {other}: ratio {:.2} (median of {ROUNDS} pairs)", ratios[ROUNDS / 2]);
    }
}

/// Raises the limit of file descriptors to its maximum, and returns that.
fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("up to the maximum");
    limit.maximum.unwrap_or(u64::MAX)
}

/// Runs one kind of server, and returns the CPU time of its drain.
async fn measure(server: &str, connections: usize) -> Duration {
    let program = std::env::current_exe().expect("this program");
    let mut child: Child = Command::new(program)
        .args(["drain", server])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a server");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut line = || lines.next().expect("a line").expect("text");
    let address: SocketAddr = line().parse().expect("an address");
    let certificate = line().split(',').map(|byte| byte.parse().expect("a byte")).collect::<Vec<u8>>();
    let connector = client_that_trusts(certificate.into());
    let mut connecting = JoinSet::new();
    let mut idle = Vec::new();
    for _ in 0..connections {
        if connecting.len() == AT_ONCE {
            idle.extend(connecting.join_next().await.map(|client| client.expect("no panic")));
        }
        connecting.spawn(connect(connector.clone(), address));
    }
    idle.extend(connecting.join_all().await);
    let mut closing: JoinSet<()> = idle.into_iter().map(close).collect();
    child.stdin.take().expect("piped").write_all(b"drain\n").expect("a server");
    while closing.join_next().await.is_some() {}
    let nanoseconds = line().parse().expect("a number");
    child.wait().expect("an exit");
    Duration::from_nanos(nanoseconds)
}

/// Connects, and receives one response.
async fn connect(connector: TlsConnector, address: SocketAddr) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(address).await.expect("a server");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut stream = connector.connect(name, tcp).await.expect("a handshake");
    stream.write_all(REQUEST).await.expect("sent");
    let mut response = Vec::new();
    while !response.ends_with(b"hello") {
        response.push(stream.read_u8().await.expect("a response"));
    }
    stream
}

/// Waits for close_notify, and answers it.
async fn close(mut stream: TlsStream<TcpStream>) {
    assert_eq!(stream.read(&mut [0; 16]).await.expect("close_notify"), 0);
    stream.shutdown().await.ok();
}

/// Serves until a line comes on standard input. Then drains, and prints the CPU time of the drain.
pub(crate) async fn serve(kind: &str) {
    raise_descriptor_limit();
    let (config, certificate) = server_config();
    let certificate: Vec<_> = certificate.iter().map(u8::to_string).collect();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    println!("{}\n{}", listener.local_addr().expect("an address"), certificate.join(","));
    let (signal, began) = tokio::sync::oneshot::channel();
    let signalled = async {
        let wait = tokio::task::spawn_blocking(|| io::stdin().read_line(&mut String::new()));
        wait.await.expect("no panic").expect("a line");
        let _ = signal.send(cpu_time());
    };
    match kind {
        "ours" | "without acknowledgement" => {
            let listener = TlsListener::from_std(listener, config).expect("a listener");
            let drain = ServerDrain::on(signalled).last_request(Duration::ZERO).grace_period(HEADER_TIMEOUT);
            serve_ours(
                listener,
                match kind {
                    "ours" => drain,
                    _ => drain.ack_timeout(Duration::ZERO),
                },
            )
            .await;
        }
        "bare" => serve_bare(listener, TlsAcceptor::from(config), |stream| stream, signalled).await,
        _ => serve_bare(listener, TlsAcceptor::from(config), Lingering, signalled).await,
    }
    println!("{}", (cpu_time() - began.await.expect("a signal")).as_nanos());
}

async fn serve_ours(listener: TlsListener, drain: ServerDrain) {
    let server = Server::new(listener).idle_timeout(HEADER_TIMEOUT).drain(drain);
    server.serve(tower::service_fn(hello)).await;
}

/// A stream whose shutdown reads to the client's end. A server must do so to be sure that its last data arrives.
struct Lingering(server::TlsStream<TcpStream>);

impl AsyncRead for Lingering {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_shutdown(cx))?;
        let mut space = [0; 1024];
        loop {
            let mut space = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut self.0).poll_read(cx, &mut space))?;
            if space.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

async fn serve_bare<S>(
    listener: std::net::TcpListener,
    acceptor: TlsAcceptor,
    wrap: fn(server::TlsStream<TcpStream>) -> S,
    signalled: impl Future<Output = ()>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    listener.set_nonblocking(true).expect("an option");
    let listener = TcpListener::from_std(listener).expect("a listener");
    let graceful = GracefulShutdown::new();
    let mut http1 = hyper::server::conn::http1::Builder::new();
    http1.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let accept = async {
        loop {
            let (tcp, _) = listener.accept().await.expect("a connection");
            let (acceptor, http1, watcher) = (acceptor.clone(), http1.clone(), graceful.watcher());
            tokio::spawn(async move {
                let stream = acceptor.accept(tcp).await.expect("a handshake");
                watcher.watch(http1.serve_connection(TokioIo::new(wrap(stream)), service_fn(hello))).await
            });
        }
    };
    tokio::select! {
        () = accept => {}
        () = signalled => {}
    }
    graceful.shutdown().await;
}

async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("hello")))
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().expect("a time")
}
