//! The servers that are compared. Each one runs in a process of its own, with the same application, TLS and timeouts.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use hyper::{Request, Response};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tls_shutdown::server::{Server, ServerDrain, ServerListener, TlsListener};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tower::{Service, make::Shared};

use super::Transport;
use crate::server_config;

/// A response that does not fit into one write.
pub(super) const LARGE_BYTES: usize = 100_000;
const MAX_CONCURRENT_STREAMS: u32 = Server::MAX_CONCURRENT_STREAMS;

/// A way to serve an application.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Contender {
    /// This library's `Server`.
    Ours,
    /// hyper-util's connections for both versions, and its `GracefulShutdown`.
    Hyper,
    AxumServer,
    /// `axum::serve`. Its timeouts cannot be set. It has no TLS, so a listener brings that.
    AxumServe,
}

impl Contender {
    pub(super) const ALL: [Self; 4] = [Self::Hyper, Self::Ours, Self::AxumServer, Self::AxumServe];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => "Server",
            Self::Hyper => "hyper-util",
            Self::AxumServer => "axum-server",
            Self::AxumServe => "axum::serve",
        }
    }
}

/// Everything before it does not count: Callgrind sets its counters to zero.
#[inline(never)]
pub(super) fn begin_measurement() {
    black_box("begin");
}

/// Nothing after it counts: Callgrind writes its counters down.
#[inline(never)]
pub(super) fn end_measurement() {
    black_box("end of it");
}

/// Runs a server, under the control of the lines on standard input.
pub(crate) fn serve(contender: &str, transport: &str) {
    let contender = Contender::ALL.into_iter().find(|known| known.name() == contender).expect("a contender");
    let transport = Transport::ALL.into_iter().find(|known| known.name() == transport).expect("a transport");
    let (config, certificate) = server_config();
    let mut config = Arc::unwrap_or_clone(config);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("an option");
    let certificate: Vec<_> = certificate.iter().map(u8::to_string).collect();
    println!("{}\n{}", listener.local_addr().expect("an address"), certificate.join(","));
    let (signal, signalled) = oneshot::channel();
    std::thread::spawn(|| obey(signal));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let tls = (transport == Transport::Tls).then(|| Arc::new(config));
    runtime.block_on(run(contender, listener, tls, async { signalled.await.expect("a signal") }));
    end_measurement();
    println!("end");
}

/// Does what the lines say.
fn obey(signal: oneshot::Sender<()>) {
    let mut signal = Some(signal);
    for line in io::stdin().lines() {
        match line.expect("text").as_str() {
            "begin" => begin_measurement(),
            "end" => end_measurement(),
            _ => signal.take().expect("one drain").send(()).expect("a server"),
        }
        println!("done");
    }
    // The harness needs no more of this process.
    std::process::exit(0);
}

async fn run(
    contender: Contender,
    listener: std::net::TcpListener,
    tls: Option<Arc<ServerConfig>>,
    signalled: impl Future<Output = ()> + Send + 'static,
) {
    let application = Application { large: Bytes::from(vec![7; LARGE_BYTES]) };
    match (contender, tls) {
        (Contender::Ours, tls) => {
            let listener = match tls {
                Some(config) => TlsListener::from_std(listener, config).expect("a listener").into(),
                None => ServerListener::from(TcpListener::from_std(listener).expect("a listener")),
            };
            let drain = ServerDrain::on(signalled).last_request(Duration::ZERO);
            Server::new(listener).drain(drain).serve(application).await;
        }
        (Contender::Hyper, tls) => {
            let listener = TcpListener::from_std(listener).expect("a listener");
            hyper(listener, tls.map(TlsAcceptor::from), application, signalled).await;
        }
        (Contender::AxumServer, tls) => axum_server(listener, tls, application, signalled).await,
        (Contender::AxumServe, None) => {
            let listener = TcpListener::from_std(listener).expect("a listener");
            axum::serve(listener, Shared::new(application)).with_graceful_shutdown(signalled).await.expect("served");
        }
        (Contender::AxumServe, Some(config)) => {
            let listener = TcpListener::from_std(listener).expect("a listener");
            let listener = WithTls { listener, acceptor: config.into() };
            axum::serve(listener, Shared::new(application)).with_graceful_shutdown(signalled).await.expect("served");
        }
    }
}

/// The application: `/` is small, and `/large` is large.
#[derive(Clone)]
struct Application {
    large: Bytes,
}

impl<B> Service<Request<B>> for Application {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(Response::new(match request.uri().path() {
            "/large" => self.large.clone().into(),
            _ => "hello".into(),
        })))
    }
}

async fn hyper(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    application: Application,
    signalled: impl Future<Output = ()>,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Server::HEADER_TIMEOUT).half_close(true);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_CONCURRENT_STREAMS);
    let (builder, graceful) = (Arc::new(builder), GracefulShutdown::new());
    let accept = async {
        loop {
            let (tcp, _) = listener.accept().await.expect("a connection");
            tcp.set_nodelay(true).expect("an option");
            let (acceptor, builder, watcher) = (acceptor.clone(), builder.clone(), graceful.watcher());
            let service = TowerToHyperService::new(application.clone());
            tokio::spawn(async move {
                match acceptor {
                    Some(acceptor) => {
                        let handshake = tokio::time::timeout(TlsListener::HANDSHAKE_TIMEOUT, acceptor.accept(tcp));
                        let stream = handshake.await.expect("in time").expect("a handshake");
                        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
                        let _ = watcher.watch(connection.into_owned()).await;
                    }
                    None => {
                        let connection = builder.serve_connection_with_upgrades(TokioIo::new(tcp), service);
                        let _ = watcher.watch(connection.into_owned()).await;
                    }
                }
            });
        }
    };
    tokio::select! {
        () = accept => {}
        () = signalled => {}
    }
    drop(listener);
    graceful.shutdown().await;
}

async fn axum_server(
    listener: std::net::TcpListener,
    tls: Option<Arc<ServerConfig>>,
    application: Application,
    signalled: impl Future<Output = ()> + Send + 'static,
) {
    use axum_server::{
        Handle,
        accept::NoDelayAcceptor,
        tls_rustls::{RustlsAcceptor, RustlsConfig},
    };

    let handle = Handle::<SocketAddr>::new();
    let mut server = axum_server::from_tcp(listener).expect("a listener").handle(handle.clone());
    let builder = server.http_builder();
    builder.http1().header_read_timeout(Server::HEADER_TIMEOUT).half_close(true);
    builder.http2().max_concurrent_streams(MAX_CONCURRENT_STREAMS);
    tokio::spawn(async move {
        signalled.await;
        handle.graceful_shutdown(None);
    });
    let application = Shared::new(application);
    match tls {
        Some(config) => {
            let acceptor = RustlsAcceptor::new(RustlsConfig::from_config(config)).acceptor(NoDelayAcceptor::new());
            server.acceptor(acceptor).serve(application).await
        }
        None => server.acceptor(NoDelayAcceptor::new()).serve(application).await,
    }
    .expect("served");
}

/// A listener of `axum::serve` that has TLS. It finishes each handshake before it accepts the next connection.
struct WithTls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for WithTls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        let (tcp, peer) = self.listener.accept().await.expect("a connection");
        tcp.set_nodelay(true).expect("an option");
        (self.acceptor.accept(tcp).await.expect("a handshake"), peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
