//! What `docs/integrations.md` promises for each way to serve over a `TlsListener`. In each state that a drain may meet there are ten
//! connections.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{FutureExt, future::join_all, stream};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConnection, pki_types::ServerName, version::TLS13};
use tls_shutdown::{
    Ending,
    server::{
        Acknowledgement, ConnectionReport, DrainHandle, DrainPhase, DrainReport, Server, ServerDrain, ServerStream,
        TlsListener, Use,
    },
};
use tls_shutdown_tests::{client_config, openssl_peer::wait, server_config};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::service::Routes;

const CONNECTIONS: usize = 10;
/// No step takes so long, unless it hangs; neither does a drain wait for the end of such a window if nobody needs it.
const HANG: Duration = Duration::from_secs(20);
/// A window that is over soon.
const SHORT: Duration = Duration::from_millis(300);
const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Integration {
    Server,
    AxumServe,
    Tonic,
    AcceptLoop,
}
use Integration::{AcceptLoop, AxumServe, Tonic};

const EVERY: [Integration; 4] = [Integration::Server, AxumServe, Tonic, AcceptLoop];
const HTTP1: [Integration; 2] = [Integration::Server, AxumServe];
const HTTP2: [Integration; 3] = [Integration::Server, AxumServe, Tonic];

/// A server and its drain.
struct Site {
    integration: Integration,
    address: SocketAddr,
    handle: DrainHandle,
    prepared: Option<(TlsListener, ServerDrain)>,
    stop: Option<oneshot::Sender<()>>,
    /// Lets `/wait` go on.
    release: watch::Sender<bool>,
    report: Option<JoinHandle<DrainReport>>,
    ends: mpsc::UnboundedReceiver<ConnectionReport>,
}

impl Site {
    /// Listens, and serves nothing yet.
    async fn bind(integration: Integration, plan: impl FnOnce(ServerDrain) -> ServerDrain) -> Self {
        let (stop, stopped) = oneshot::channel();
        let drain = plan(ServerDrain::on(stopped.map(drop)).last_request(HANG));
        let handle = drain.handle();
        let mut config = server_config(&TLS13);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let (told, ends) = mpsc::unbounded_channel();
        let listener = TlsListener::bind("127.0.0.1:0", config).await.unwrap().on_end(move |end| {
            let _ = told.send(end.clone());
        });
        Self {
            integration,
            address: listener.local_addr().unwrap(),
            handle,
            prepared: Some((listener, drain)),
            stop: Some(stop),
            release: watch::Sender::new(false),
            report: None,
            ends,
        }
    }

    async fn start(integration: Integration) -> Self {
        Self::start_with(integration, |drain| drain).await
    }

    async fn start_with(integration: Integration, plan: impl FnOnce(ServerDrain) -> ServerDrain) -> Self {
        let mut site = Self::bind(integration, plan).await;
        site.serve();
        site
    }

    fn serve(&mut self) {
        let (listener, drain) = self.prepared.take().unwrap();
        let handle = self.handle.clone();
        let app = app(handle.clone(), self.release.subscribe());
        self.report = Some(match self.integration {
            Integration::Server => tokio::spawn(Server::new(listener).drain(drain).serve(app)),
            AxumServe => {
                let app = app.layer(handle.layer());
                let serving = axum::serve(listener.with_drain(&handle), app)
                    .with_graceful_shutdown(handle.last_request_over())
                    .into_future();
                tokio::spawn(drain.run(serving))
            }
            Tonic => {
                let serving = tonic::transport::Server::builder()
                    .layer(handle.layer())
                    .add_routes(Routes::from(app))
                    .serve_with_incoming_shutdown(listener.with_drain(&handle), handle.last_request_over());
                tokio::spawn(drain.run(serving))
            }
            AcceptLoop => {
                let mut listener = listener.with_drain(&handle);
                tokio::spawn(drain.run(async move {
                    while let Some((stream, _)) = listener.accept().await {
                        tokio::spawn(echo(stream, handle.clone()));
                    }
                }))
            }
        });
    }

    /// Begins the drain, and waits until the server has stopped to accept.
    async fn drain(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        within(self.handle.reached(DrainPhase::LastRequest)).await;
    }

    /// Waits for the end of the drain.
    async fn report(&mut self) -> DrainReport {
        within(self.report.take().unwrap()).await.unwrap()
    }

    /// Waits for the end of the drain, in which every connection has to end completely, and has its last bytes acknowledged.
    async fn ends_completely(mut self) -> DrainReport {
        let report = self.report().await;
        let (integration, connections) = (self.integration, report.connections());
        assert_eq!(report.left(), 0, "{integration:?}: {report}");
        assert_eq!(report.endings().get("complete").copied(), Some(connections), "{integration:?}: {report}");
        assert!(report.last_request() < HANG, "{integration:?}: nobody needed all of the window: {report}");
        if cfg!(target_os = "linux") {
            assert_eq!(report.acknowledgement(), Acknowledgement::Everything, "{integration:?}");
        }
        report
    }

    async fn connect_tcp(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        self.secure(self.connect_tcp().await).await
    }

    /// The client's handshake, by the protocol that it will speak.
    async fn secure(&self, tcp: TcpStream) -> TlsStream<TcpStream> {
        let protocol: &[u8] = if self.integration == Tonic { b"h2" } else { b"http/1.1" };
        secure(tcp, protocol).await
    }

    async fn http1(&self) -> Http1 {
        Http1(BufReader::new(self.connect().await))
    }

    /// Has the draining server answer a request on a connection that is new, and end the connection.
    async fn is_served(&self, stream: TlsStream<TcpStream>) {
        match self.integration {
            Integration::Server | AxumServe => Http1(BufReader::new(stream)).is_served_last(GET).await,
            Tonic => {
                let (mut requests, connection) = http2_client(stream).await;
                assert_eq!(body_of(requests.send_request(request("/"))).await.unwrap(), "hello");
                drop(requests);
                within(connection).await.unwrap();
            }
            AcceptLoop => {
                let mut client = Http1(BufReader::new(stream));
                client.send("hello\n").await;
                assert_eq!(client.line().await, "hello\n");
                within(client.0.shutdown()).await.unwrap();
                assert_eq!(client.rest().await, (String::new(), End::CloseNotify));
            }
        }
    }
}

async fn secure(tcp: TcpStream, protocol: &[u8]) -> TlsStream<TcpStream> {
    let mut config = client_config(&TLS13);
    config.alpn_protocols = vec![protocol.to_vec()];
    within(TlsConnector::from(Arc::new(config)).connect(name(), tcp)).await.unwrap()
}

fn name() -> ServerName<'static> {
    "localhost".try_into().unwrap()
}

async fn within<F: Future>(future: F) -> F::Output {
    timeout(HANG, future).await.expect("nothing hangs")
}

/// A body of these pieces: text, a cut, or the end of a wait.
enum Piece {
    Text(&'static str),
    Released(watch::Receiver<bool>),
    Draining(DrainHandle),
    Cut,
}

fn body(pieces: impl IntoIterator<Item = Piece>) -> Body {
    let pieces: Vec<_> = pieces.into_iter().collect();
    Body::from_stream(stream::unfold(pieces.into_iter(), |mut pieces| async {
        let piece = match pieces.next()? {
            Piece::Text(text) => Ok(text),
            Piece::Released(mut released) => {
                let _ = released.wait_for(|released| *released).await;
                Ok("released")
            }
            Piece::Draining(drain) => {
                drain.reached(DrainPhase::LastRequest).await;
                Ok("farewell")
            }
            Piece::Cut => Err(io::Error::other("cut")),
        };
        Some((piece, pieces))
    }))
}

async fn logged() -> Body {
    tracing::debug!("the service is asked");
    Body::from_stream(stream::once(async {
        tracing::debug!("its body is asked");
        Ok::<_, io::Error>("hello")
    }))
}

fn app(drain: DrainHandle, released: watch::Receiver<bool>) -> Router {
    let farewell = drain.clone();
    Router::new()
        .route("/", get("hello"))
        .route("/logged", get(logged))
        .route("/count", post(async |body: Bytes| body.len().to_string()))
        .route("/wait", get(async move || body([Piece::Text("begun,"), Piece::Released(released.clone())])))
        .route("/endless", get(async move || body([Piece::Text("begun,"), Piece::Draining(drain.clone())])))
        .route("/cut", get(async || body([Piece::Text("begun,"), Piece::Cut])))
        .route("/large", get(async || vec![b'.'; LARGE]))
        .route("/reject", post(async || (StatusCode::PAYLOAD_TOO_LARGE, "too large")))
        .route("/panic", get(async || -> Infallible { panic!("a handler that panics, on purpose") }))
        .route("/upgrade", get(async move |request: Request| upgrade(request, farewell.clone())))
}

/// More than a client's small buffer holds.
const LARGE: usize = 200_000;

/// Another protocol, which says farewell when the server drains.
fn upgrade(request: Request, drain: DrainHandle) -> Response {
    tokio::spawn(async move {
        let mut stream = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
        drain.reached(DrainPhase::LastRequest).await;
        stream.write_all(b"farewell").await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "farewells")];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// Echoes lines, until the window is over. `stay` stays to the deadline, and `reject` reads nothing more.
async fn echo(mut stream: ServerStream, drain: DrainHandle) -> io::Result<()> {
    let mut over = Box::pin(drain.clone().last_request_over());
    loop {
        let mut line = String::new();
        tokio::select! {
            read = stream.read_line(&mut line) => if read? == 0 { break },
            () = &mut over => break,
        }
        stream.write_all(line.as_bytes()).await?;
        stream.flush().await?;
        match line.trim() {
            "stay" => {
                drain.reached(DrainPhase::Deadline).await;
                break;
            }
            "reject" => break,
            _ => {}
        }
    }
    stream.shutdown().await
}

/// How a client sees the end of a connection.
#[derive(Debug, PartialEq, Eq)]
enum End {
    CloseNotify,
    Truncated,
    Reset,
}

/// A client that sees everything.
struct Http1(BufReader<TlsStream<TcpStream>>);

impl Http1 {
    async fn send(&mut self, text: &str) {
        within(self.0.write_all(text.as_bytes())).await.unwrap();
        within(self.0.flush()).await.unwrap();
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        within(self.0.read_line(&mut line)).await.unwrap();
        line
    }

    /// A head, in lower case.
    async fn head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let line = self.line().await;
            assert!(!line.is_empty(), "an end after {head:?}");
            head += &line.to_lowercase();
        }
        head
    }

    /// Everything to the end, which is answered.
    async fn rest(&mut self) -> (String, End) {
        let mut rest = Vec::new();
        let end = match within(self.0.read_to_end(&mut rest)).await {
            Ok(_) => End::CloseNotify,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => End::Truncated,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => End::Reset,
            Err(error) => panic!("{error}"),
        };
        let _ = within(self.0.shutdown()).await;
        (String::from_utf8_lossy(&rest).into_owned(), end)
    }

    /// Is answered by a server that goes on.
    async fn is_served(&mut self) {
        self.send(GET).await;
        assert!(!self.head().await.contains("connection: close"));
        let mut body = [0; 5];
        within(self.0.read_exact(&mut body)).await.unwrap();
        assert_eq!(&body, b"hello");
    }

    /// Is answered, told that it is the last time, and the connection ends.
    async fn is_served_last(&mut self, request: &str) {
        self.send(request).await;
        self.is_answered_last("hello").await;
    }

    async fn is_answered_last(&mut self, body: &str) {
        let head = self.head().await;
        assert!(head.starts_with("http/1.1 200") && head.contains("connection: close"), "{head}");
        let (rest, end) = self.rest().await;
        assert_eq!((rest.as_str(), end), (body, End::CloseNotify));
    }
}

/// What the two clients of HTTP/2 have in common.
type Requests = http2::SendRequest<Empty<Bytes>>;

async fn http2_client(stream: TlsStream<TcpStream>) -> (Requests, JoinHandle<()>) {
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (requests, connection) = within(handshake).await.unwrap();
    let connection = tokio::spawn(async move {
        // How it ends is what the server's report tells.
        let _ = connection.await;
    });
    (requests, connection)
}

fn request(path: &str) -> hyper::Request<Empty<Bytes>> {
    hyper::Request::get(format!("https://localhost{path}")).body(Empty::new()).unwrap()
}

async fn body_of(
    response: impl Future<Output = hyper::Result<hyper::Response<hyper::body::Incoming>>>,
) -> hyper::Result<Bytes> {
    let response = within(response).await?;
    assert_eq!(response.status(), StatusCode::OK);
    Ok(within(response.into_body().collect()).await?.to_bytes())
}

/// A client of HTTP/2 that sees each frame.
struct Frames(TlsStream<TcpStream>);

const PING: u8 = 6;
const GOAWAY: u8 = 7;

impl Frames {
    async fn connect(site: &Site) -> Self {
        let mut stream = secure(site.connect_tcp().await, b"h2").await;
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        stream.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..]].concat()).await.unwrap();
        stream.flush().await.unwrap();
        let mut client = Self(stream);
        assert_eq!(client.next().await.map(|(kind, _)| kind), Some(4), "SETTINGS");
        client
    }

    /// The type and the payload of the next frame; `None` at close_notify.
    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 9];
        match within(self.0.read_exact(&mut head)).await {
            Ok(_) => {}
            Err(error) => {
                // Only after close_notify a read gives nothing once more.
                assert_eq!(within(self.0.read(&mut head)).await.map_err(|error| error.kind()), Ok(0), "{error}");
                return None;
            }
        }
        let [_, high, low, kind, ..] = head;
        let mut payload = vec![0; usize::from(u16::from_be_bytes([high, low]))];
        within(self.0.read_exact(&mut payload)).await.unwrap();
        Some((kind, payload))
    }

    /// The stream that the next GOAWAY names.
    async fn goaway(&mut self) -> u32 {
        loop {
            let (kind, payload) = self.next().await.expect("a GOAWAY");
            if kind == GOAWAY {
                return u32::from_be_bytes(payload[..4].try_into().unwrap());
            }
        }
    }
}

/// All that a client has to say for the answer of `/large`, with room for all of it.
fn large_over_http2() -> Vec<u8> {
    let window = (LARGE as u32).to_be_bytes();
    // GET, https, a literal path, a literal authority (RFC 7541).
    let block = [&[0x82, 0x87, 0x04, 6][..], b"/large", &[0x01, 9], b"localhost"].concat();
    let length = block.len() as u8;
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4][..],
        &window,
        &[0, 0, 4, 8, 0, 0, 0, 0, 0],
        &window,
        &[0, 0, length, 1, 5, 0, 0, 0, 1],
        &block,
    ]
    .concat()
}

const ANNOUNCED: u32 = (1 << 31) - 1;

/// As many of something as there are connections, side by side.
async fn each<T, F: Future<Output = T>>(make: impl Fn() -> F) -> Vec<T> {
    join_all((0..CONNECTIONS).map(|_| make())).await
}

/// Does something with all of them, side by side.
async fn all<T, F: Future<Output = ()>>(of: Vec<T>, what: impl Fn(T) -> F) {
    join_all(of.into_iter().map(what)).await;
}

/// The thread is blocked from their connect until the notice is over, so that the listener finds both together.
#[tokio::test]
async fn connections_that_the_system_has_accepted_are_served() {
    for integration in EVERY {
        let mut site = Site::start_with(integration, |drain| drain.notice(SHORT)).await;
        site.stop.take().unwrap().send(()).unwrap();
        within(site.handle.reached(DrainPhase::Notice)).await;
        let queued: Vec<_> = (0..CONNECTIONS).map(|_| std::net::TcpStream::connect(site.address).unwrap()).collect();
        wait(2 * SHORT);
        all(queued, async |tcp| {
            tcp.set_nonblocking(true).unwrap();
            site.is_served(site.secure(TcpStream::from_std(tcp).unwrap()).await).await;
        })
        .await;
        let report = site.ends_completely().await;
        assert_eq!(report.handshakes_finished(), CONNECTIONS as u64, "{integration:?}");
    }
}

#[tokio::test]
async fn handshakes_in_progress_are_served() {
    for integration in EVERY {
        let mut site = Site::start(integration).await;
        let (silent, mut begun) = (each(|| site.connect_tcp()).await, Vec::new());
        for _ in 0..CONNECTIONS {
            let mut tcp = std::net::TcpStream::connect(site.address).unwrap();
            let mut config = client_config(&TLS13);
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            let mut tls = ClientConnection::new(Arc::new(config), name()).unwrap();
            tls.write_tls(&mut tcp).unwrap();
            begun.push(rustls::StreamOwned::new(tls, tcp));
        }
        // What listens no more has all of them in their handshake, and so does what has accepted a later one.
        drop(site.connect().await);
        within(site.ends.recv()).await.unwrap();
        site.drain().await;
        all(silent, async |tcp| site.is_served(site.secure(tcp).await).await).await;
        let handshakes = begun.into_iter().map(|mut stream| {
            spawn_blocking(move || {
                while stream.conn.is_handshaking() {
                    stream.conn.complete_io(&mut stream.sock).unwrap();
                }
            })
        });
        join_all(handshakes).await;
        let report = site.report().await;
        assert_eq!((report.handshakes_finished(), report.handshakes_cut()), (2 * CONNECTIONS as u64, 0), "{report}");
    }
}

#[tokio::test]
async fn a_connection_without_a_request_has_its_window() {
    for integration in EVERY {
        let mut site = Site::start(integration).await;
        let fresh = each(|| site.connect()).await;
        site.drain().await;
        all(fresh, async |stream| site.is_served(stream).await).await;
        site.ends_completely().await;
    }
}

#[tokio::test]
async fn an_idle_connection_has_its_window() {
    for integration in HTTP1 {
        let mut site = Site::start(integration).await;
        let idle = each(async || {
            let mut client = site.http1().await;
            client.is_served().await;
            client
        });
        let idle = idle.await;
        site.drain().await;
        all(idle, async |mut client| client.is_served_last(GET).await).await;
        assert_eq!(site.ends_completely().await.requests(), CONNECTIONS as u64);
    }
}

#[tokio::test]
async fn an_idle_connection_gets_close_notify_at_the_end_of_its_window() {
    for integration in HTTP1.into_iter().chain([AcceptLoop]) {
        let mut site = Site::start_with(integration, |drain| drain.last_request(SHORT)).await;
        let idle = each(async || {
            let mut client = site.http1().await;
            match integration {
                AcceptLoop => {
                    client.send("hello\n").await;
                    assert_eq!(client.line().await, "hello\n");
                }
                _ => client.is_served().await,
            }
            client
        });
        let idle = idle.await;
        site.drain().await;
        all(idle, async |mut client| assert_eq!(client.rest().await, (String::new(), End::CloseNotify))).await;
        let report = site.ends_completely().await;
        assert!(report.last_request() >= SHORT, "{integration:?}: {report}");
    }
}

#[tokio::test]
async fn half_a_request_is_served_when_the_rest_comes() {
    for integration in HTTP1 {
        let mut site = Site::start(integration).await;
        let half = each(async || {
            let mut client = site.http1().await;
            client.send(&GET[..20]).await;
            client
        });
        let half = half.await;
        site.drain().await;
        all(half, async |mut client| client.is_served_last(&GET[20..]).await).await;
        site.ends_completely().await;
    }
}

#[tokio::test]
async fn a_response_in_progress_is_finished() {
    for integration in HTTP1 {
        let mut site = Site::start(integration).await;
        let begun = each(async || {
            let mut client = site.http1().await;
            client.send("GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            assert!(client.head().await.contains("chunked"));
            client
        });
        let begun = begun.await;
        site.drain().await;
        site.release.send_replace(true);
        all(begun, async |mut client| {
            // The head could not say that it is the last one, so that the client has its window still.
            let mut chunks = String::new();
            while !chunks.ends_with("\r\n0\r\n\r\n") {
                chunks += &client.line().await;
            }
            assert_eq!(chunks, "6\r\nbegun,\r\n8\r\nreleased\r\n0\r\n\r\n");
            client.is_served_last(GET).await;
        })
        .await;
        site.ends_completely().await;
    }
}

#[tokio::test]
async fn an_upload_in_progress_is_finished() {
    for integration in HTTP1 {
        let mut site = Site::start(integration).await;
        let begun = each(async || {
            let mut client = site.http1().await;
            client.send("POST /count HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf.").await;
            client
        });
        let begun = begun.await;
        site.drain().await;
        all(begun, async |mut client| {
            client.send("half.").await;
            client.is_answered_last("10").await;
        })
        .await;
        site.ends_completely().await;
    }
}

#[tokio::test]
async fn endless_responses_are_told_to_end() {
    for integration in HTTP1 {
        let mut site = Site::start(integration).await;
        let begun = each(async || {
            let mut client = site.http1().await;
            client.send("GET /endless HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
            client.head().await;
            client
        });
        let begun = begun.await;
        site.drain().await;
        all(begun, async |mut client| {
            assert_eq!(client.rest().await, (String::from("begun,farewell"), End::CloseNotify));
        })
        .await;
        site.ends_completely().await;
    }
}

#[tokio::test]
async fn endless_http2_responses_are_told_to_end() {
    for integration in HTTP2 {
        let mut site = Site::start(integration).await;
        let begun = each(async || {
            let (mut requests, connection) = http2_client(secure(site.connect_tcp().await, b"h2").await).await;
            let response = within(requests.send_request(request("/endless"))).await.unwrap();
            (requests, connection, response)
        });
        let begun = begun.await;
        site.drain().await;
        all(begun, async |(requests, connection, response)| {
            assert_eq!(within(response.into_body().collect()).await.unwrap().to_bytes(), "begun,farewell");
            drop(requests);
            within(connection).await.unwrap();
        })
        .await;
        site.ends_completely().await;
    }
}

#[tokio::test]
async fn upgraded_connections_are_told_to_end_and_waited_for() {
    for integration in HTTP1 {
        let mut site = Site::start(integration).await;
        let upgraded = each(async || {
            let mut client = site.http1().await;
            client
                .send("GET /upgrade HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: farewells\r\n\r\n")
                .await;
            assert!(client.head().await.starts_with("http/1.1 101"));
            client
        });
        let upgraded = upgraded.await;
        site.drain().await;
        all(upgraded, async |mut client| {
            assert_eq!(client.rest().await, (String::from("farewell"), End::CloseNotify));
        })
        .await;
        let report = site.ends_completely().await;
        assert_eq!(report.connections(), CONNECTIONS as u64, "they are waited for: {report}");
        if integration == Integration::Server {
            assert_eq!(report.upgraded(), CONNECTIONS as u64, "{report}");
        }
    }
}

/// The thread is blocked while the window ends, so that the request and its end are found together.
#[tokio::test]
async fn a_request_in_the_systems_buffer_at_the_end_of_the_window_is_served() {
    let mut site = Site::start_with(Integration::Server, |drain| drain.last_request(SHORT)).await;
    let idle = each(async || {
        let mut client = site.http1().await;
        client.is_served().await;
        client
    });
    let mut idle = idle.await;
    site.drain().await;
    tokio::task::yield_now().await;
    for client in &mut idle {
        client.send(GET).now_or_never().expect("room in the socket's buffer");
    }
    wait(2 * SHORT);
    all(idle, async |mut client| client.is_answered_last("hello").await).await;
    assert_eq!(site.ends_completely().await.requests(), CONNECTIONS as u64);
}

#[tokio::test]
async fn http2_streams_in_progress_are_finished() {
    for integration in HTTP2 {
        let mut site = Site::start(integration).await;
        let begun = each(async || {
            let (mut requests, connection) = http2_client(secure(site.connect_tcp().await, b"h2").await).await;
            let response = within(requests.send_request(request("/wait"))).await.unwrap();
            (requests, connection, response)
        });
        let begun = begun.await;
        site.drain().await;
        site.release.send_replace(true);
        all(begun, async |(requests, connection, response)| {
            assert_eq!(within(response.into_body().collect()).await.unwrap().to_bytes(), "begun,released");
            // `axum::serve` would send GOAWAY at the end of the window only.
            drop(requests);
            within(connection).await.unwrap();
        })
        .await;
        site.ends_completely().await;
    }
}

#[tokio::test]
async fn http2_clients_get_two_goaways_and_close_notify() {
    for integration in HTTP2 {
        // For `axum::serve`, which sends GOAWAY at the end of the window only.
        let mut site = Site::start_with(integration, |drain| drain.last_request(SHORT)).await;
        let idle = each(|| Frames::connect(&site)).await;
        site.drain().await;
        all(idle, async |mut client| {
            assert_eq!(client.goaway().await, ANNOUNCED);
            let (kind, ping) = client.next().await.unwrap();
            assert_eq!(kind, PING);
            client.0.write_all(&[&[0, 0, 8, PING, 1, 0, 0, 0, 0], &ping[..]].concat()).await.unwrap();
            assert_eq!(client.goaway().await, 0);
            assert_eq!(client.next().await, None);
            client.0.shutdown().await.unwrap();
        })
        .await;
        site.ends_completely().await;
    }
}

#[tokio::test]
async fn an_http2_client_that_never_answers_a_ping_is_waited_for_within_bounds() {
    let mut site = Site::start_with(Integration::Server, |drain| drain.ping_timeout(SHORT)).await;
    let idle = each(|| Frames::connect(&site)).await;
    site.drain().await;
    all(idle, async |mut client| {
        assert_eq!((client.goaway().await, client.goaway().await), (ANNOUNCED, 0));
        assert_eq!(client.next().await, None);
        client.0.shutdown().await.unwrap();
    })
    .await;
    site.ends_completely().await;
}

#[tokio::test]
async fn an_early_answer_arrives() {
    const UPLOAD: usize = 3_000_000;
    for integration in HTTP1.into_iter().chain([AcceptLoop]) {
        let mut site = Site::start(integration).await;
        let clients = each(|| site.http1()).await;
        all(clients, async |mut client| {
            let (request, answer) = match integration {
                AcceptLoop => ("reject\n".to_owned(), "reject\n"),
                _ => (
                    format!("POST /reject HTTP/1.1\r\nHost: localhost\r\nContent-Length: {UPLOAD}\r\n\r\n"),
                    "too large",
                ),
            };
            client.send(&request).await;
            client.send(&".".repeat(UPLOAD)).await;
            let (rest, end) = client.rest().await;
            assert!(rest.ends_with(answer), "{integration:?}: {rest}");
            assert_eq!(end, End::CloseNotify);
        })
        .await;
        site.drain().await;
        site.report().await;
    }
}

#[tokio::test]
async fn a_response_that_ends_with_the_connection_is_never_cut_by_close_notify() {
    for integration in HTTP1 {
        let mut site = Site::start_with(integration, |drain| drain.grace_period(SHORT)).await;
        let cut = each(async || {
            let mut client = site.http1().await;
            client.send("GET /cut HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
            assert_ne!(client.rest().await.1, End::CloseNotify, "{integration:?}");
        });
        cut.await;
        let waiting = each(async || {
            let mut client = site.http1().await;
            client.send("GET /wait HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
            client.head().await;
            client
        });
        let waiting = waiting.await;
        site.drain().await;
        let report = site.report().await;
        match integration {
            Integration::Server => {
                assert_eq!(report.responses_cut(), CONNECTIONS as u64, "{report}");
                all(waiting, async |mut client| assert_eq!(client.rest().await.1, End::Reset)).await;
            }
            // Their tasks are axum's, and the process's exit ends them.
            _ => assert_eq!(report.left(), CONNECTIONS, "{report}"),
        }
    }
}

#[tokio::test]
async fn a_handler_that_panics_leaves_a_close_notify() {
    let site = Site::start(Integration::Server).await;
    let clients = each(|| site.http1()).await;
    all(clients, async |mut client| {
        client.send("GET /panic HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(client.rest().await, (String::new(), End::CloseNotify));
    })
    .await;
}

#[tokio::test]
async fn at_the_deadline_there_is_a_close_notify() {
    for integration in [Integration::Server, AcceptLoop] {
        let mut site = Site::start_with(integration, |drain| drain.grace_period(4 * SHORT)).await;
        let clients = each(async || {
            let mut client = site.http1().await;
            match integration {
                AcceptLoop => {
                    client.send("stay\n").await;
                    client.line().await;
                }
                _ => {
                    client.send("GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
                    client.head().await;
                }
            }
            client
        });
        let clients = clients.await;
        site.drain().await;
        all(clients, async |mut client| assert_eq!(client.rest().await.1, End::CloseNotify, "{integration:?}")).await;
        let report = site.ends_completely().await;
        assert!(!report.deadline().is_zero(), "{integration:?}: {report}");
    }
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn the_exit_waits_for_acknowledgements() {
    for integration in EVERY {
        let mut site = Site::start(integration).await;
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let tcp = socket.connect(site.address).await.unwrap();
        let mut client = Http1(BufReader::new(site.secure(tcp).await));
        match integration {
            AcceptLoop => client.send(&format!("{}\n", ".".repeat(LARGE))).await,
            Tonic => within(client.0.write_all(&large_over_http2())).await.unwrap(),
            _ => client.send("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").await,
        }
        within(client.0.flush()).await.unwrap();
        // HTTP/2 begins with frames that are no answer, and ends with the client. Most of the answer is in the system's buffer now.
        within(client.0.read_exact(&mut vec![0; LARGE / 4])).await.unwrap();
        within(client.0.get_mut().shutdown()).await.unwrap();
        let end = within(site.ends.recv()).await.unwrap();
        assert_eq!(end.ending(), Ending::Complete);
        site.drain().await;
        within(site.handle.reached(DrainPhase::Exit)).await;
        let is_finished = site.report.as_ref().unwrap().is_finished();
        assert!(!is_finished, "{integration:?}: {}", site.report().await);
        client.rest().await;
        let report = site.report().await;
        assert_eq!(report.acknowledgement(), Acknowledgement::Everything, "{integration:?}");
    }
}

#[tokio::test]
async fn each_connection_is_told_and_counted() {
    for integration in EVERY {
        let mut site = Site::start(integration).await;
        let clients = each(|| site.connect()).await;
        drop(site.connect_tcp().await);
        let end = within(site.ends.recv()).await.unwrap();
        assert_eq!((end.ending(), end.used_as()), (Ending::NotStarted, Use::Served));
        site.drain().await;
        all(clients, async |stream| site.is_served(stream).await).await;
        let (handle, mut ends) = (site.handle.clone(), std::mem::replace(&mut site.ends, mpsc::unbounded_channel().1));
        let report = site.ends_completely().await;
        assert_eq!((report.connections(), handle.connections()), (CONNECTIONS as u64, 0), "{integration:?}");
        let requests = if integration == AcceptLoop { 0 } else { CONNECTIONS as u64 };
        assert_eq!(report.requests(), requests, "{integration:?}");
        for _ in 0..CONNECTIONS {
            assert_eq!(within(ends.recv()).await.unwrap().ending(), Ending::Complete, "{integration:?}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_stays_silent_gets_close_notify() {
    for integration in [Integration::Server, AcceptLoop] {
        let mut site = Site::start_with(integration, |drain| drain.last_request(SHORT)).await;
        let silent = each(|| site.http1()).await;
        site.drain().await;
        all(silent, async |mut client| assert_eq!(client.rest().await, (String::new(), End::CloseNotify))).await;
        site.ends_completely().await;
    }
}

/// What is logged, for those who look at it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn each_end_is_logged_with_its_peer_and_each_phase_of_the_drain() {
    let written = Log::default();
    let writer = written.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("tls_shutdown=debug,integrations=debug")
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // For all tests: what one thread alone subscribes to, another may have switched off for all of them.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    tracing::callsite::rebuild_interest_cache();
    let mut site = Site::start(Integration::Server).await;
    let clients = each(|| site.connect()).await;
    let peers: Vec<_> = clients.iter().map(|client| client.get_ref().0.local_addr().unwrap()).collect();
    site.drain().await;
    all(clients, async |stream| site.is_served(stream).await).await;
    site.ends_completely().await;
    let log = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    for peer in peers {
        let span = format!("connection{{peer={peer} protocol=\"http/1.1\"}}");
        let end = format!("{span}: tls_shutdown::driver: TLS connection ended ending=complete");
        assert!(log.contains(&end), "{end}: {log}");
    }
    for phase in ["notice", "last_request", "exit"] {
        assert!(log.contains(&format!("INFO tls_shutdown::drain: server drain phase={phase} connections=")), "{log}");
    }
    // What the service logs is in the span, too, also in the tasks of HTTP/2.
    let mut site = Site::start(Integration::Server).await;
    let (mut requests, connection) = http2_client(secure(site.connect_tcp().await, b"h2").await).await;
    assert_eq!(body_of(requests.send_request(request("/logged"))).await.unwrap(), "hello");
    site.drain().await;
    drop(requests);
    within(connection).await.unwrap();
    site.ends_completely().await;
    let log = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    for event in ["the service is asked", "its body is asked"] {
        assert!(log.contains(&format!("protocol=\"h2\"}}: integrations: {event}")), "{event}: {log}");
    }
}
