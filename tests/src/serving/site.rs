//! A server in each of the ways that `docs/integrations.md` compares.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use axum::{Router, body::Bytes};
use futures_util::FutureExt;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, StatusCode, body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tls_shutdown::{
    Ending,
    server::{
        Acknowledgement, ConnectionReport, DrainHandle, DrainPhase, DrainReport, Server, ServerDrain, ServerListener,
        TlsListener, UnixSocket,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tonic::service::Routes;

#[cfg(feature = "frameworks")]
use crate::serving::frameworks::serve_framework;
use crate::{
    End,
    serving::{
        AnyStream, Client, ClientStream,
        Integration::{self, AcceptLoop, AxumServe, PlainServer, Tonic, UnixServer},
        app::{app, echo},
        offer, offering,
    },
    soon,
    time::PATIENCE,
};

/// A request over HTTP/1.1.
pub const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Where a [`Site`] listens.
#[derive(Clone, Debug)]
pub enum SiteAddress {
    /// At this address.
    Tcp(SocketAddr),
    /// At this path.
    Unix(PathBuf),
}

/// A connection on which no byte was sent.
pub enum Untouched {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// A server and its drain.
pub struct Site {
    /// The way it serves.
    pub integration: Integration,
    /// Where it listens.
    pub address: SiteAddress,
    /// The handle of its drain.
    pub handle: DrainHandle,
    stop: Option<oneshot::Sender<()>>,
    release: watch::Sender<bool>,
    report: Option<JoinHandle<DrainReport>>,
    /// The reports of its connections.
    pub ends: mpsc::UnboundedReceiver<ConnectionReport>,
}

impl Site {
    /// Serves. Its drain has a long window for last requests.
    pub async fn start(integration: Integration) -> Self {
        Self::start_with(integration, |drain| drain).await
    }

    /// Serves, with these settings of its drain.
    pub async fn start_with(integration: Integration, plan: impl FnOnce(ServerDrain) -> ServerDrain) -> Self {
        let (stop, stopped) = oneshot::channel();
        let drain = plan(ServerDrain::on(stopped.map(drop)).last_request(PATIENCE));
        let handle = drain.handle();
        let (sender, ends) = mpsc::unbounded_channel();
        let on_end = move |end: &ConnectionReport| drop(sender.send(end.clone()));
        let release = watch::Sender::new(false);
        let app = app(handle.clone(), release.subscribe());
        let (address, report) = match integration {
            PlainServer => {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
                let address = SiteAddress::Tcp(listener.local_addr().expect("an address"));
                (address, serve_sockets(listener.into(), on_end, drain, app))
            }
            UnixServer => {
                let path = socket_path();
                let listener = UnixSocket::bind(&path).await.expect("a free path");
                (SiteAddress::Unix(path), serve_sockets(listener.into(), on_end, drain, app))
            }
            Integration::Framework(framework) => {
                let (address, report) = serve_framework(framework, on_end, drain, app).await;
                (SiteAddress::Tcp(address), report)
            }
            Integration::Server | AxumServe | Tonic | AcceptLoop => {
                let listener = TlsListener::bind("127.0.0.1:0", offering(&["h2", "http/1.1"])).await;
                let listener = listener.expect("a free port").on_end(on_end);
                let address = SiteAddress::Tcp(listener.local_addr().expect("an address"));
                (address, serve(integration, listener, drain, app))
            }
        };
        Self { integration, address, handle, stop: Some(stop), release, report: Some(report), ends }
    }

    /// Begins the drain.
    pub fn stop(&mut self) {
        self.stop.take().expect("one stop").send(()).expect("a server");
    }

    /// Begins the drain, and waits until the server accepts no more connections.
    pub async fn drain(&mut self) {
        self.stop();
        soon(self.handle.reached(DrainPhase::LastRequest)).await;
    }

    /// Lets the answers of `/wait` go on.
    pub fn release(&self) {
        self.release.send_replace(true);
    }

    /// Whether the drain has ended.
    pub fn is_finished(&self) -> bool {
        self.report.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Waits for the end of the drain.
    pub async fn report(&mut self) -> DrainReport {
        soon(self.report.take().expect("one report")).await.expect("no panic")
    }

    /// Waits for the end of the drain, and asserts that every connection has ended completely and has its last bytes acknowledged.
    pub async fn ends_completely(mut self) -> DrainReport {
        let report = self.report().await;
        let (integration, connections) = (self.integration, report.connections());
        assert_eq!(report.left(), 0, "{integration:?}: {report}");
        // The system takes a client of a Unix socket that does not read the last GOAWAY for one that resets.
        let unread = if integration == UnixServer { report.count(Ending::Reset) } else { 0 };
        assert_eq!(report.count(Ending::Complete) + unread, connections, "{integration:?}: {report}");
        assert!(unread == 0 || report.responses_cut() == 0, "{integration:?}: {report}");
        assert!(
            report.time_in(DrainPhase::LastRequest) < PATIENCE,
            "{integration:?}: nobody needed the whole window: {report}"
        );
        if cfg!(target_os = "linux") {
            assert_eq!(report.acknowledgement(), Acknowledgement::Everything, "{integration:?}");
        }
        report
    }

    /// The address of a site that listens for TCP.
    pub fn tcp_address(&self) -> SocketAddr {
        match &self.address {
            SiteAddress::Tcp(address) => *address,
            SiteAddress::Unix(path) => panic!("it listens at {}", path.display()),
        }
    }

    /// Connects, and sends nothing.
    pub async fn connect_untouched(&self) -> Untouched {
        match &self.address {
            SiteAddress::Tcp(address) => Untouched::Tcp(TcpStream::connect(address).await.expect("a server")),
            SiteAddress::Unix(path) => Untouched::Unix(UnixStream::connect(path).await.expect("a server")),
        }
    }

    /// Connects at once, while the server has no turn.
    pub fn queue(&self) -> Untouched {
        match &self.address {
            SiteAddress::Tcp(address) => {
                let tcp = std::net::TcpStream::connect(address).expect("a server");
                tcp.set_nonblocking(true).expect("an option");
                Untouched::Tcp(TcpStream::from_std(tcp).expect("a runtime"))
            }
            SiteAddress::Unix(path) => {
                let unix = std::os::unix::net::UnixStream::connect(path).expect("a server");
                unix.set_nonblocking(true).expect("an option");
                Untouched::Unix(UnixStream::from_std(unix).expect("a runtime"))
            }
        }
    }

    /// Connects, and offers a protocol that the server speaks.
    pub async fn connect(&self) -> Client<AnyStream> {
        self.secure(self.connect_untouched().await).await
    }

    /// Connects for HTTP/2.
    pub async fn connect_http2(&self) -> Client<AnyStream> {
        self.secure_with(self.connect_untouched().await, "h2").await
    }

    /// Makes the TLS handshake over a connection, if the server speaks TLS, and offers a protocol that the server speaks.
    pub async fn secure(&self, untouched: Untouched) -> Client<AnyStream> {
        self.secure_with(untouched, if self.integration == Tonic { "h2" } else { "http/1.1" }).await
    }

    async fn secure_with(&self, untouched: Untouched, protocol: &str) -> Client<AnyStream> {
        let stream = match untouched {
            Untouched::Unix(unix) => AnyStream::new(unix),
            Untouched::Tcp(tcp) if self.integration == PlainServer => AnyStream::new(tcp),
            Untouched::Tcp(tcp) => AnyStream::new(Client::over(tcp, offer(protocol)).await.stream),
        };
        Client { stream }
    }

    /// Asserts that the draining server answers with `body` over HTTP/1, and that the connection then ends: if the answer does not announce
    /// that, by the client.
    pub async fn answers_last(&self, mut client: Client<AnyStream>, body: &str) {
        if self.integration.is_layered() {
            return client.is_answered_last(body).await;
        }
        assert_eq!(client.read_message().await.1, body.as_bytes());
        soon(client.stream.shutdown()).await.expect("sent");
        assert_eq!(client.read_to_end_and_close().await, (String::new(), self.integration.orderly_end()));
    }

    /// Asserts that the draining server answers a request on a new connection, and then ends the connection.
    pub async fn serves_last(&self, mut client: Client<AnyStream>) {
        match self.integration {
            Integration::Server | PlainServer | UnixServer | AxumServe | Integration::Framework(_) => {
                client.send(GET).await;
                self.answers_last(client, "hello").await;
            }
            Tonic => {
                let (mut requests, connection) = hyper_http2(client).await;
                assert_eq!(hyper_body(requests.send_request(hyper_request("/"))).await.expect("a response"), "hello");
                drop(requests);
                soon(connection).await.expect("no panic");
            }
            AcceptLoop => {
                client.send("hello\n").await;
                assert_eq!(client.read_until("\n").await, "hello\n");
                soon(client.stream.shutdown()).await.expect("sent");
                assert_eq!(client.read_to_end_and_close().await, (String::new(), End::CloseNotify));
            }
        }
    }
}

/// A path at which nothing is.
pub fn socket_path() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    std::env::temp_dir().join(format!("tls-shutdown-{process}-{number}.sock"))
}

/// Serves `app` by a [`Server`], until the drain has ended.
fn serve_sockets(
    listener: ServerListener,
    on_end: impl Fn(&ConnectionReport) + Send + Sync + 'static,
    drain: ServerDrain,
    app: Router,
) -> JoinHandle<DrainReport> {
    let server = Server::new(listener).http2(|http2| http2.enable_connect_protocol()).on_end(on_end);
    tokio::spawn(server.drain(drain).serve(app))
}

/// Serves `app`, or echoes lines in an accept loop, until the drain has ended.
fn serve(integration: Integration, listener: TlsListener, drain: ServerDrain, app: Router) -> JoinHandle<DrainReport> {
    let handle = drain.handle();
    match integration {
        Integration::Server | PlainServer | UnixServer | Integration::Framework(_) => {
            serve_sockets(listener.into(), |_| {}, drain, app)
        }
        AxumServe => {
            let app = app.layer(handle.layer());
            let serving = axum::serve(listener.with_drain(&handle), app)
                .with_graceful_shutdown(handle.last_request_over())
                .into_future();
            tokio::spawn(drain.run(serving).map(|(report, _)| report))
        }
        Tonic => {
            let serving = tonic::transport::Server::builder()
                .layer(handle.layer())
                .add_routes(Routes::from(app))
                .serve_with_incoming_shutdown(listener.with_drain(&handle), handle.last_request_over());
            tokio::spawn(drain.run(serving).map(|(report, _)| report))
        }
        AcceptLoop => {
            let mut listener = listener.with_drain(&handle);
            tokio::spawn(
                drain
                    .run(async move {
                        while let Some((stream, _)) = listener.accept().await {
                            tokio::spawn(echo(stream, handle.clone()));
                        }
                    })
                    .map(|(report, _)| report),
            )
        }
    }
}

/// What a client of a [`Site`] sees over HTTP/1.
impl<S: ClientStream> Client<S> {
    /// Asserts that a request is answered, and that others may follow.
    pub async fn is_served(&mut self) {
        self.send(GET).await;
        assert!(!self.head().await.contains("connection: close"));
        let mut body = [0; 5];
        soon(self.stream.read_exact(&mut body)).await.expect("a body");
        assert_eq!(&body, b"hello");
    }

    /// Asserts that a request is answered as the last one, and that the connection ends.
    pub async fn is_served_last(&mut self, request: &str) {
        self.send(request).await;
        self.is_answered_last("hello").await;
    }

    /// Asserts that the answer is the last one, and that the connection ends.
    pub async fn is_answered_last(&mut self, body: &str) {
        let head = self.head().await;
        assert!(head.starts_with("http/1.1 200") && head.contains("connection: close"), "{head}");
        let (rest, end) = self.read_to_end_and_close().await;
        assert_eq!((rest.as_str(), end), (body, self.stream.orderly_end()));
    }
}

/// hyper's handle of an HTTP/2 connection.
pub type HttpRequests = http2::SendRequest<Empty<Bytes>>;

/// Lets hyper speak HTTP/2. Returns its handle, and the task of the connection.
pub async fn hyper_http2(client: Client<impl ClientStream + 'static>) -> (HttpRequests, JoinHandle<()>) {
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(client.stream));
    let (requests, connection) = soon(handshake).await.expect("a connection");
    let connection = tokio::spawn(async move {
        // The server's report tells how it ends.
        let _ = connection.await;
    });
    (requests, connection)
}

/// A GET request for `path`.
pub fn hyper_request(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("https://localhost{path}")).body(Empty::new()).expect("a request")
}

/// Awaits a response, which must have status 200. Returns its body.
pub async fn hyper_body(response: impl Future<Output = hyper::Result<Response<Incoming>>>) -> hyper::Result<Bytes> {
    let response = soon(response).await?;
    assert_eq!(response.status(), StatusCode::OK);
    Ok(soon(response.into_body().collect()).await?.to_bytes())
}

#[cfg(not(feature = "frameworks"))]
async fn serve_framework(
    framework: crate::serving::Framework,
    _: impl Fn(&ConnectionReport) + Send + Sync + 'static,
    _: ServerDrain,
    _: Router,
) -> (SocketAddr, JoinHandle<DrainReport>) {
    unreachable!("{framework:?} needs the feature `frameworks`")
}
