//! `ShutdownLayer` and `ClientDrain` with hyper-util's client, against servers of plain tokio-rustls and hyper.

use std::{
    convert::Infallible,
    error::Error,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::stream::poll_fn;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, Uri,
    body::{Bytes, Frame, Incoming},
    service::service_fn,
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connect, Connection, HttpConnector, HttpInfo},
    },
    rt::{TokioExecutor, TokioIo},
};
use rustls::{HandshakeKind, version::TLS13};
use tls_shutdown::{
    Ending, Reaper, Records, ShutdownPolicy, ShutdownReport, TlsSession,
    client::{ClientStream, Draining, ShutdownLayer},
};
use tls_shutdown_tests::{client_config, server_config};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Barrier, Notify, Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

/// Longer than anything here takes, unless it hangs.
const LIMIT: Duration = Duration::from_secs(20);

/// How a connection ended, as the server has seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    CloseNotify,
    Truncated,
    Reset,
}

/// A server's stream that notes how the client ends it, reading on to that end when it is itself shut down.
struct Witness {
    tls: server::TlsStream<TcpStream>,
    seen: Option<Seen>,
    ends: mpsc::UnboundedSender<Option<Seen>>,
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.ends.send(self.seen);
    }
}

impl AsyncRead for Witness {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.tls).poll_read(cx, buffer));
        self.seen = match &result {
            Ok(()) if buffer.filled().len() > before => None,
            Ok(()) => Some(Seen::CloseNotify),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Some(Seen::Truncated),
            Err(_) => Some(Seen::Reset),
        };
        Poll::Ready(result)
    }
}

impl AsyncWrite for Witness {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.tls).poll_shutdown(cx))?;
        while self.seen.is_none() {
            let mut space = [0; 1024];
            let _ = ready!(self.as_mut().poll_read(cx, &mut ReadBuf::new(&mut space)));
        }
        Poll::Ready(Ok(()))
    }
}

/// What the paths of a server wait for.
struct Gates {
    /// `/meet`: so many requests at the same time.
    meeting: Barrier,
    /// `/hold` and `/body`: a request has come, and may be answered; the latter's head is.
    arrived: Semaphore,
    release: Notify,
    /// How many requests have come.
    requests: AtomicUsize,
}

struct Server {
    address: SocketAddr,
    gates: Arc<Gates>,
    ends: mpsc::UnboundedReceiver<Option<Seen>>,
    resumed: Arc<AtomicUsize>,
}

impl Server {
    /// One that speaks `protocol`, and in which `meeting` requests meet.
    async fn new(protocol: &'static str, meeting: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (sender, ends) = mpsc::unbounded_channel();
        let (arrived, release, requests) = (Semaphore::new(0), Notify::new(), AtomicUsize::new(0));
        let gates = Arc::new(Gates { meeting: Barrier::new(meeting), arrived, release, requests });
        let server = Self { address: listener.local_addr().unwrap(), gates, ends, resumed: Arc::default() };
        let mut config = server_config(&TLS13);
        config.alpn_protocols = vec![protocol.into()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (gates, resumed) = (server.gates.clone(), server.resumed.clone());
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, ends, gates, resumed) =
                    (acceptor.clone(), sender.clone(), gates.clone(), resumed.clone());
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    if tls.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
                        resumed.fetch_add(1, Ordering::SeqCst);
                    }
                    let io = TokioIo::new(Witness { tls, seen: None, ends });
                    let service = service_fn(|request| answer(request, gates.clone()));
                    // How it ends is what the witness tells.
                    let _ = match protocol {
                        "h2" => {
                            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                                .serve_connection(io, service)
                                .await
                        }
                        _ => hyper::server::conn::http1::Builder::new().serve_connection(io, service).await,
                    };
                });
            }
        });
        server
    }

    fn uri(&self, path: &str) -> Uri {
        format!("https://{}{path}", self.address).parse().unwrap()
    }

    /// How the next `count` connections to end did.
    async fn ends(&mut self, count: usize) -> Vec<Option<Seen>> {
        let mut ends = Vec::new();
        for _ in 0..count {
            ends.push(timeout(LIMIT, self.ends.recv()).await.expect("an end").expect("a server"));
        }
        ends
    }

    async fn request_has_arrived(&self) {
        timeout(LIMIT, self.gates.arrived.acquire()).await.expect("a request").expect("open").forget();
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn answer(request: Request<Incoming>, gates: Arc<Gates>) -> Result<Response<Body>, Infallible> {
    let whole = |text: &'static str| Full::new(Bytes::from(text)).boxed_unsync();
    gates.requests.fetch_add(1, Ordering::SeqCst);
    Ok(Response::new(match request.uri().path() {
        "/meet" => {
            gates.meeting.wait().await;
            whole("met")
        }
        "/hold" => {
            gates.arrived.add_permits(1);
            gates.release.notified().await;
            whole("held")
        }
        "/body" => {
            let (sender, mut receiver) = mpsc::channel(1);
            tokio::spawn(async move {
                let _ = sender.send(&b"first "[..]).await;
                gates.arrived.add_permits(1);
                gates.release.notified().await;
                let _ = sender.send(b"last").await;
            });
            let frame = |data| Ok(Frame::data(Bytes::from_static(data)));
            StreamBody::new(poll_fn(move |cx| receiver.poll_recv(cx).map(|data| data.map(frame)))).boxed_unsync()
        }
        _ => whole("hello"),
    }))
}

fn https(protocol: &str) -> HttpsConnector<HttpConnector> {
    let builder = HttpsConnectorBuilder::new().with_tls_config(client_config(&TLS13)).https_only();
    match protocol {
        "h2" => builder.enable_http2().build(),
        _ => builder.enable_http1().build(),
    }
}

type Https<C> = Client<C, Empty<Bytes>>;

fn client<C: Connect + Clone>(connector: C) -> Https<C> {
    Client::builder(TokioExecutor::new()).build(connector)
}

async fn get<C>(client: &Https<C>, uri: Uri) -> Result<Bytes, Box<dyn Error + Send + Sync>>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let response = timeout(LIMIT, client.get(uri)).await??;
    Ok(timeout(LIMIT, response.into_body().collect()).await??.to_bytes())
}

/// So many requests for `uri` at the same time.
async fn get_at_once<C>(client: &Https<C>, uri: &Uri, count: usize)
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let tasks: Vec<_> = (0..count)
        .map(|_| {
            let (client, uri) = (client.clone(), uri.clone());
            tokio::spawn(async move { get(&client, uri).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), "met");
    }
}

/// Whether `Draining` is among the causes of `error`. h2 keeps nothing but the text of an I/O error.
fn is_draining(error: &(dyn Error + 'static)) -> bool {
    error.to_string().contains(&Draining.to_string()) || error.source().is_some_and(is_draining)
}

fn recorder() -> (impl Fn(&ShutdownReport) + Send + Sync + 'static, mpsc::UnboundedReceiver<ShutdownReport>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let record = move |report: &ShutdownReport| {
        let _ = sender.send(*report);
    };
    (record, receiver)
}

async fn next(reports: &mut mpsc::UnboundedReceiver<ShutdownReport>) -> ShutdownReport {
    timeout(LIMIT, reports.recv()).await.expect("a report").expect("on_end is kept")
}

#[tokio::test]
async fn a_hundred_pooled_connections_are_drained() {
    const COUNT: usize = 100;
    let mut server = Server::new("http/1.1", COUNT).await;
    let (record, mut reports) = recorder();
    let layer = ShutdownLayer::new().on_end(record);
    let client = client(layer.layer(https("http/1.1")));
    get_at_once(&client, &server.uri("/meet"), COUNT).await;
    assert_eq!(layer.drain().open(), COUNT, "pooled, and nothing else ends them");

    let report = layer.drain().drain(LIMIT).await;
    assert_eq!((report.ended(), report.count(Ending::Complete), report.left()), (COUNT, COUNT, 0), "{report}");
    assert_eq!(report.tickets(), 2 * COUNT as u64, "what rustls sends");
    assert_eq!(server.ends(COUNT).await, [Some(Seen::CloseNotify); COUNT]);
    for _ in 0..COUNT {
        assert!(reports.try_recv().unwrap().received());
    }
    assert!(reports.try_recv().is_err(), "once for each");
    let line = report.to_string();
    assert!(line.starts_with("100 ended: 100 complete; 200 tickets, 0 left, ") && line.ends_with(" ms"), "{line}");

    let error = get(&client, server.uri("/")).await.unwrap_err();
    assert!(is_draining(&*error), "{error:?}");
}

#[tokio::test]
async fn an_http2_connection_is_drained() {
    const COUNT: usize = 8;
    let mut server = Server::new("h2", COUNT).await;
    let layer = ShutdownLayer::new();
    let client = client(layer.layer(https("h2")));
    get(&client, server.uri("/")).await.unwrap();
    get_at_once(&client, &server.uri("/meet"), COUNT).await;
    assert_eq!(layer.drain().open(), 1, "ALPN is seen, and its streams share it");

    let report = layer.drain().drain(LIMIT).await;
    assert_eq!((report.ended(), report.count(Ending::Complete), report.left()), (1, 1, 0), "{report}");
    assert_eq!(server.ends(1).await, [Some(Seen::CloseNotify)]);
    let error = get(&client, server.uri("/")).await.unwrap_err();
    assert!(is_draining(&*error), "{error:?}");
}

#[tokio::test]
async fn what_is_in_flight_is_finished_first() {
    for (protocol, path, expected) in [
        ("http/1.1", "/hold", "held"),
        ("http/1.1", "/body", "first last"),
        ("h2", "/hold", "held"),
        ("h2", "/body", "first last"),
    ] {
        let mut server = Server::new(protocol, 1).await;
        let layer = ShutdownLayer::new();
        let client = client(layer.layer(https(protocol)));
        let request = tokio::spawn({
            let (client, uri) = (client.clone(), server.uri(path));
            async move { get(&client, uri).await }
        });
        server.request_has_arrived().await;
        let drain = layer.drain();
        let drained = tokio::spawn({
            let drain = drain.clone();
            async move { drain.drain(LIMIT).await }
        });
        drain.begun().await;
        let error = get(&client, server.uri("/")).await.unwrap_err();
        assert!(is_draining(&*error), "{protocol}{path}: {error:?}");
        assert_eq!(drain.open(), 1, "{protocol}{path}");

        server.gates.release.notify_one();
        assert_eq!(request.await.unwrap().unwrap(), expected, "{protocol}{path}");
        let report = drained.await.unwrap();
        assert_eq!((report.count(Ending::Complete), report.left()), (1, 0), "{protocol}{path}: {report}");
        assert_eq!(server.ends(1).await, [Some(Seen::CloseNotify)], "{protocol}{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_race_with_the_drain_are_answered_or_refused() {
    for protocol in ["http/1.1", "h2"] {
        let mut server = Server::new(protocol, 1).await;
        let (record, mut reports) = recorder();
        let layer = ShutdownLayer::new().on_end(record);
        let client = client(layer.layer(https(protocol)));
        let (sender, mut answers) = mpsc::unbounded_channel();
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let (client, uri, sender) = (client.clone(), server.uri("/"), sender.clone());
                tokio::spawn(async move {
                    loop {
                        match get(&client, uri.clone()).await {
                            Ok(_) => sender.send(()).unwrap(),
                            Err(error) => return error,
                        }
                    }
                })
            })
            .collect();
        for _ in 0..200 {
            answers.recv().await.unwrap();
        }
        let report = layer.drain().drain(LIMIT).await;
        assert_eq!((report.count(Ending::Complete), report.left()), (report.ended(), 0), "{protocol}: {report}");
        for task in tasks {
            let error = task.await.unwrap();
            assert!(is_draining(&*error), "{protocol}: {error:?}");
        }
        let answers = 200 + std::iter::from_fn(|| answers.try_recv().ok()).count();
        let lost = server.gates.requests.load(Ordering::SeqCst) - answers;
        // hyper itself gives up a stream that it opens while it is told to go away, though it sends the request.
        assert!(lost <= if protocol == "h2" { 16 } else { 0 }, "{protocol}: {lost} requests were lost");
        let connections = std::iter::from_fn(|| reports.try_recv().ok()).count();
        assert_eq!(server.ends(connections).await, vec![Some(Seen::CloseNotify); connections], "{protocol}");
    }
}

#[tokio::test]
async fn what_is_in_flight_at_the_limit_is_cut() {
    for protocol in ["http/1.1", "h2"] {
        let mut server = Server::new(protocol, 1).await;
        let layer = ShutdownLayer::new();
        let client = client(layer.layer(https(protocol)));
        let request = tokio::spawn({
            let uri = server.uri("/hold");
            async move { get(&client, uri).await }
        });
        server.request_has_arrived().await;
        let report = layer.drain().drain(Duration::from_millis(50)).await;
        assert_eq!((report.count(Ending::Aborted), report.left()), (1, 0), "{protocol}: {report}");
        let error = request.await.unwrap().unwrap_err();
        assert!(is_draining(&*error), "{protocol}: {error:?}");
        server.gates.release.notify_one();
        assert_ne!(server.ends(1).await, [Some(Seen::CloseNotify)], "{protocol}: a cut is not told as an end");
    }
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Accepts one TLS connection, reads once if there is an answer, writes that, and never reads again; gives the stream, to be kept.
async fn deaf_server(answer: &'static [u8]) -> (SocketAddr, tokio::task::JoinHandle<server::TlsStream<TcpStream>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(server_config(&TLS13)));
        let mut tls = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        if !answer.is_empty() {
            assert_ne!(tls.read(&mut [0; 1024]).await.unwrap(), 0);
        }
        tls.write_all(answer).await.unwrap();
        tls.flush().await.unwrap();
        tls
    });
    (address, server)
}

#[tokio::test]
async fn a_silent_server_costs_the_deadline() {
    let deadline = Duration::from_millis(200);
    for (limit, ending) in [(LIMIT, Some(Ending::TimedOut)), (deadline / 10, None)] {
        let (address, server) = deaf_server(ANSWER).await;
        let layer = ShutdownLayer::new().with_policy(ShutdownPolicy::bidirectional().with_close_timeout(deadline));
        let client = client(layer.layer(https("http/1.1")));
        let uri: Uri = format!("https://{address}/").parse().unwrap();
        assert_eq!(get(&client, uri).await.unwrap(), "ok");
        let report = layer.drain().drain(limit).await;
        assert_eq!(report.left(), usize::from(ending.is_none()), "{report}");
        assert_eq!(report.ended(), ending.map_or(0, |ending| report.count(ending)), "{report}");
        assert!(report.elapsed() >= limit.min(deadline) && report.elapsed() < LIMIT, "{report}");

        // What was left has gone on.
        let report = layer.drain().drain(LIMIT).await;
        assert_eq!((report.count(Ending::TimedOut), report.left()), (1, 0), "{report}");
        drop(server.await.unwrap());
    }
}

/// A connector made by hand, to one address.
fn by_hand(
    tls: TlsConnector,
) -> impl Service<Uri, Response = client::TlsStream<TcpStream>, Error = io::Error, Future: Send> + Clone + Send + Sync {
    tower::service_fn(move |uri: Uri| {
        let tls = tls.clone();
        async move {
            let tcp = TcpStream::connect(uri.authority().unwrap().as_str()).await?;
            tls.connect("localhost".try_into().unwrap(), tcp).await
        }
    })
}

#[tokio::test]
async fn a_drain_keeps_the_tickets_of_what_was_never_read() {
    let server = Server::new("http/1.1", 1).await;
    let tls = TlsConnector::from(Arc::new(client_config(&TLS13)));

    // The control: nobody has read the tickets.
    for _ in 0..2 {
        let mut bare = by_hand(tls.clone()).oneshot(server.uri("/")).await.unwrap();
        bare.shutdown().await.unwrap();
    }
    assert_eq!(server.resumed.load(Ordering::SeqCst), 0);

    for resumed in [0, 1] {
        let layer = ShutdownLayer::new();
        let stream = layer.layer(by_hand(tls.clone())).oneshot(server.uri("/")).await.unwrap();
        let report = layer.drain().drain(LIMIT).await;
        assert_eq!((report.count(Ending::Complete), report.tickets()), (1, 2), "{report}");
        assert_eq!(server.resumed.load(Ordering::SeqCst), resumed);
        assert_eq!(stream.with_session(|_| ()), None, "the drain has taken it");
    }
}

#[tokio::test]
async fn a_client_that_wants_tickets_only_does_not_wait_for_silence() {
    let (address, server) = deaf_server(b"").await;
    let layer =
        ShutdownLayer::new().with_policy(ShutdownPolicy::bidirectional().with_close_timeout(LIMIT).until_tickets(2));
    let tls = TlsConnector::from(Arc::new(client_config(&TLS13)));
    let uri: Uri = format!("https://{address}/").parse().unwrap();
    let mut stream = layer.layer(by_hand(tls)).oneshot(uri).await.unwrap();
    timeout(LIMIT / 2, stream.shutdown()).await.expect("no wait").unwrap();
    drop(stream);
    drop(server.await.unwrap());
    let report = layer.drain().drain(LIMIT).await;
    assert_eq!((report.ended(), report.left()), (1, 0), "{report}");
    assert_eq!((report.count(Ending::TimedOut), report.tickets()), (0, 2), "{report}");
}

#[tokio::test]
async fn what_the_client_asks_of_a_connection_is_kept() {
    for protocol in ["h2", "http/1.1"] {
        let server = Server::new(protocol, 1).await;
        let layer = ShutdownLayer::new();
        let connector = layer.layer(https(protocol));
        let stream = connector.clone().oneshot(server.uri("/")).await.unwrap();
        assert_eq!(stream.connected().is_negotiated_h2(), protocol == "h2");
        let alpn = stream.with_session(|tls| tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec));
        assert_eq!(alpn, Some((protocol == "h2").then(|| protocol.into())), "hyper-rustls offers nothing for HTTP/1");

        let has_socket =
            stream.with_session(|tls| <client::TlsStream<_> as TlsSession>::socket(tls.get_ref().0).is_some());
        assert_eq!(has_socket, Some(true), "what a linger needs");

        let response = client(connector).get(server.uri("/")).await.unwrap();
        let info = response.extensions().get::<HttpInfo>().expect("what HttpConnector tells");
        assert_eq!(info.remote_addr(), server.address);
    }
}

#[tokio::test]
async fn the_layer_sets_policy_reaper_and_on_end() {
    let mut server = Server::new("http/1.1", 1).await;
    let reaper = Reaper::new();
    let (record, mut reports) = recorder();
    let quiet = ShutdownLayer::new().with_policy(ShutdownPolicy::quiet()).with_reaper(&reaper).on_end(record);
    let tls = TlsConnector::from(Arc::new(client_config(&TLS13)));
    let mut stream = quiet.layer(by_hand(tls.clone())).oneshot(server.uri("/")).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    assert_eq!(next(&mut reports).await.ending(), Ending::Quiet);
    assert_ne!(server.ends(1).await, [Some(Seen::CloseNotify)]);

    let (record, mut reports) = recorder();
    let unidirectional =
        ShutdownLayer::new().with_policy(ShutdownPolicy::unidirectional()).with_reaper(&reaper).on_end(record);
    let mut stream = unidirectional.layer(by_hand(tls)).oneshot(server.uri("/")).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    assert_eq!(reaper.closings(), 1, "handed over");
    assert_eq!(next(&mut reports).await.ending(), Ending::Complete, "the reaper has heard the answer");
    assert_eq!(server.ends(1).await, [Some(Seen::CloseNotify)]);
}

#[tokio::test]
async fn an_acceptor_is_wrapped_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (record, mut reports) = recorder();
    let layer = ShutdownLayer::new().on_end(record);
    let acceptor = TlsAcceptor::from(Arc::new(server_config(&TLS13)));
    let mut accept = layer.layer(tower::service_fn(move |tcp: TcpStream| acceptor.accept(tcp)));
    let server = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream = accept.ready().await.unwrap().call(tcp).await.unwrap();
        let mut told = Vec::new();
        stream.read_to_end(&mut told).await.unwrap();
        stream.write_all(&told).await.unwrap();
        stream.shutdown().await.unwrap();
        drop(stream);
        assert_eq!(next(&mut reports).await.ending(), Ending::Complete);
    });
    let tls = TlsConnector::from(Arc::new(client_config(&TLS13)));
    let tcp = TcpStream::connect(address).await.unwrap();
    let mut client = tls.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    client.write_all(b"echo").await.unwrap();
    client.shutdown().await.unwrap();
    let mut told = Vec::new();
    client.read_to_end(&mut told).await.unwrap();
    assert_eq!(told, b"echo");
    server.await.unwrap();
}

#[derive(Clone)]
struct Twice;

impl<Response> tower::retry::Policy<Uri, Response, tower::BoxError> for Twice {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut Uri, result: &mut Result<Response, tower::BoxError>) -> Option<Self::Future> {
        result.is_err().then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, uri: &Uri) -> Option<Uri> {
        Some(uri.clone())
    }
}

#[tokio::test]
async fn it_composes_with_the_layers_of_tower() {
    let mut server = Server::new("http/1.1", 3).await;
    let attempts = Arc::new(AtomicUsize::new(0));
    let flaky = {
        let (attempts, https) = (attempts.clone(), https("http/1.1"));
        tower::service_fn(move |uri: Uri| {
            let (attempt, https) = (attempts.fetch_add(1, Ordering::SeqCst), https.clone());
            async move {
                match attempt {
                    0 => Err("the first attempt fails".into()),
                    _ => https.oneshot(uri).await,
                }
            }
        })
    };
    let layer = ShutdownLayer::new();
    let connector = ServiceBuilder::new()
        .map_future(Box::pin)
        .timeout(LIMIT)
        .layer(layer.clone())
        .retry(Twice)
        .concurrency_limit(3)
        .timeout(LIMIT)
        .service(flaky);
    let client = client(connector);
    get_at_once(&client, &server.uri("/meet"), 3).await;
    assert_eq!(attempts.load(Ordering::SeqCst), 4);
    let report = layer.drain().drain(LIMIT).await;
    assert_eq!((report.count(Ending::Complete), report.left()), (3, 0), "{report}");
    assert_eq!(server.ends(3).await, [Some(Seen::CloseNotify); 3]);
}

#[test]
fn futures_and_streams_are_what_clients_ask_for() {
    fn is_unpin<T: Unpin + Send>(_: &T) {}
    let mut connector = ShutdownLayer::new().layer(https("http/1.1"));
    is_unpin(&connector.call(Uri::from_static("https://localhost")));
    fn is_shared<T: Send + Sync + Unpin + 'static>() {}
    is_shared::<ClientStream<client::TlsStream<TcpStream>>>();
    fn is_connection<T: Connection>() {}
    is_connection::<ClientStream<client::TlsStream<Records<TcpStream>>>>();
}

#[tokio::test]
async fn a_connection_that_is_being_made_is_waited_for_refused_and_ended() {
    let mut server = Server::new("http/1.1", 1).await;
    let layer = ShutdownLayer::new();
    let tls = TlsConnector::from(Arc::new(client_config(&TLS13)));
    let gate = Arc::new(Notify::new());
    let late = {
        let gate = gate.clone();
        tower::service_fn(move |uri: Uri| {
            let (gate, inner) = (gate.clone(), by_hand(tls.clone()));
            async move {
                gate.notified().await;
                inner.oneshot(uri).await
            }
        })
    };
    let mut connector = layer.layer(late);
    let connecting = connector.call(server.uri("/"));
    let report = layer.drain().drain(Duration::from_millis(50)).await;
    assert_eq!((report.ended(), report.left()), (0, 1), "{report}");
    gate.notify_one();
    let drain = layer.drain();
    let (error, report) = tokio::join!(connecting, drain.drain(LIMIT));
    assert!(error.unwrap_err().is::<Draining>());
    assert_eq!((report.count(Ending::Complete), report.left()), (1, 0), "{report}");
    assert_eq!(server.ends(1).await, [Some(Seen::CloseNotify)]);
    // One that is given up is not waited for.
    let layer = ShutdownLayer::new();
    let mut connector =
        layer.layer(tower::service_fn(|_| std::future::pending::<io::Result<client::TlsStream<TcpStream>>>()));
    let connecting = connector.call(server.uri("/"));
    let drain = layer.drain();
    let (report, ()) = tokio::join!(drain.drain(LIMIT), async { drop(connecting) });
    assert_eq!((report.ended(), report.left()), (0, 0), "{report}");
    assert!(connector.call(server.uri("/")).await.unwrap_err().is::<Draining>());
}

#[tokio::test]
async fn a_connection_whose_callback_panics_is_told_all_the_same() {
    let server = Server::new("http/1.1", 1).await;
    let layer = ShutdownLayer::new().on_end(|report| panic!("as a closed standard output makes println: {report}"));
    let client = client(layer.layer(https("http/1.1")));
    get(&client, server.uri("/")).await.unwrap();
    let report = layer.drain().drain(LIMIT).await;
    assert_eq!((report.count(Ending::Complete), report.left()), (1, 0), "{report}");
}

#[tokio::test]
async fn what_is_cut_can_be_neither_flushed_nor_shut_down() {
    let (address, server) = deaf_server(b"").await;
    let layer = ShutdownLayer::new();
    let connector = layer.layer(by_hand(TlsConnector::from(Arc::new(client_config(&TLS13)))));
    let mut stream = connector.oneshot(format!("https://{address}/").parse().unwrap()).await.unwrap();
    stream.write_all(b"another protocol\r\n").await.unwrap();
    let _open = server.await.unwrap();
    let report = layer.drain().drain(Duration::from_millis(50)).await;
    assert_eq!((report.count(Ending::Aborted), report.left()), (1, 0), "{report}");
    for result in [stream.flush().await, stream.shutdown().await, stream.read(&mut [0; 9]).await.map(drop)] {
        let error = result.expect_err("it is cut");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        assert!(is_draining(&error), "{error:?}");
    }
}

#[tokio::test]
async fn what_the_server_says_unasked_is_no_reason_to_wait_or_to_abort() {
    let (address, server) = deaf_server(b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok").await;
    let (record, mut reports) = recorder();
    let policy = ShutdownPolicy::bidirectional().with_close_timeout(Duration::from_millis(100));
    let layer = ShutdownLayer::new().with_policy(policy).on_end(record);
    let client = client(layer.layer(https("http/1.1")));
    get(&client, format!("https://{address}/").parse().unwrap()).await.unwrap();
    let mut server = server.await.unwrap();
    server.write_all(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    server.flush().await.unwrap();
    // hyper drops such a connection.
    let report = next(&mut reports).await;
    assert_eq!((report.ending(), report.sent()), (Ending::TimedOut, true), "{report}");
    assert_eq!(server.read(&mut [0; 9]).await.unwrap(), 0, "close_notify");
}

#[tokio::test]
async fn a_stream_of_hypers_kind_is_wrapped_too() {
    let mut server = Server::new("http/1.1", 1).await;
    let layer = ShutdownLayer::new();
    let tls = TlsConnector::from(Arc::new(client_config(&TLS13)));
    let connector = by_hand(tls).map_response(TokioIo::new);
    let stream = layer.layer(connector).oneshot(server.uri("/")).await.unwrap();
    let report = layer.drain().drain(LIMIT).await;
    assert_eq!((report.count(Ending::Complete), report.left()), (1, 0), "{report}");
    assert_eq!(server.ends(1).await, [Some(Seen::CloseNotify)]);
    drop(stream);
}

#[tokio::test]
async fn what_is_dropped_between_two_messages_is_closed_and_what_is_cut_is_aborted() {
    let mut server = Server::new("http/1.1", 1).await;
    let tls = TlsConnector::from(Arc::new(client_config(&TLS13)));
    for (message, ending) in [("", Ending::Complete), ("GET / HTTP", Ending::Aborted)] {
        let (record, mut reports) = recorder();
        let layer = ShutdownLayer::new().on_end(record);
        let mut stream = layer.layer(by_hand(tls.clone())).oneshot(server.uri("/")).await.unwrap();
        stream.write_all(message.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        drop(stream);
        assert_eq!(next(&mut reports).await.ending(), ending, "{message:?}");
        // Of the tickets that the client has not read when it aborts, its kernel may make a reset.
        assert_eq!(server.ends(1).await == [Some(Seen::CloseNotify)], ending == Ending::Complete, "{message:?}");
    }
}

#[tokio::test]
async fn a_request_that_is_answered_early_is_written_to_its_end() {
    let (address, server) = deaf_server(ANSWER).await;
    let policy = ShutdownPolicy::bidirectional().with_close_timeout(Duration::from_millis(50));
    let layer = ShutdownLayer::new().with_policy(policy);
    let tls = TlsConnector::from(Arc::new(client_config(&TLS13)));
    let uri: Uri = format!("https://{address}/").parse().unwrap();
    let mut stream = layer.layer(by_hand(tls)).oneshot(uri).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n12").await.unwrap();
    let mut answer = [0; ANSWER.len()];
    stream.read_exact(&mut answer).await.unwrap();
    let drain = layer.drain();
    let drained = tokio::spawn({
        let drain = drain.clone();
        async move { drain.drain(LIMIT).await }
    });
    drain.begun().await;
    assert!(stream.with_session(|_| ()).is_some());
    stream.write_all(b"34").await.unwrap();
    assert!(stream.with_session(|_| ()).is_none(), "it has left with the last byte");
    let error = stream.write(b"GET").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert!(is_draining(&error));
    assert_eq!(stream.read(&mut answer).await.unwrap(), 0);
    let report = drained.await.unwrap();
    assert_eq!((report.count(Ending::TimedOut), report.left()), (1, 0), "{report}");
    drop(server.await.unwrap());
}

#[tokio::test]
async fn a_connection_without_tls_passes_as_it_is() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        assert_ne!(tcp.read(&mut [0; 1024]).await.unwrap(), 0);
        tcp.write_all(ANSWER).await.unwrap();
        tcp.read_to_end(&mut Vec::new()).await
    });
    let https = HttpsConnectorBuilder::new().with_tls_config(client_config(&TLS13)).https_or_http();
    let layer = ShutdownLayer::new();
    let client = client(layer.layer(https.enable_http1().build()));
    let uri: Uri = format!("http://{address}/").parse().unwrap();
    assert_eq!(get(&client, uri).await.unwrap(), "ok");
    assert_eq!(layer.drain().open(), 0);
    assert_eq!(layer.drain().drain(LIMIT).await.ended(), 0);
}
