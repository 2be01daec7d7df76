//! An HTTP server of tokio-rustls and hyper that notes how its clients end their connections.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures_util::stream::poll_fn;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, Uri,
    body::{Bytes, Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{HandshakeKind, version::TLS13};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Barrier, Notify, Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server};

use crate::{End, server_config, soon};

/// The server.
pub struct WitnessServer {
    /// Where it listens.
    pub address: SocketAddr,
    /// What its paths wait for.
    pub gates: Arc<Gates>,
    ends: mpsc::UnboundedReceiver<Option<End>>,
    resumed: Arc<AtomicUsize>,
}

impl WitnessServer {
    /// Starts a server that speaks `protocol`. `meeting` is how many requests for `/meet` wait for each other.
    pub async fn new(protocol: &'static str, meeting: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (sender, ends) = mpsc::unbounded_channel();
        let (arrived, release, requests) = (Semaphore::new(0), Notify::new(), AtomicUsize::new(0));
        let gates = Arc::new(Gates { meeting: Barrier::new(meeting), arrived, release, requests });
        let server = Self { address: listener.local_addr().expect("an address"), gates, ends, resumed: Arc::default() };
        let mut config = server_config(&TLS13);
        config.alpn_protocols = vec![protocol.into()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (gates, resumed) = (server.gates.clone(), server.resumed.clone());
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.expect("a connection");
                let (acceptor, ends, gates, resumed) =
                    (acceptor.clone(), sender.clone(), gates.clone(), resumed.clone());
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    if tls.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
                        resumed.fetch_add(1, Ordering::SeqCst);
                    }
                    let io = TokioIo::new(Witness { tls, seen: None, ends });
                    let service = service_fn(|request| answer(request, gates.clone()));
                    // The witness reports how it ends.
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

    /// The address of `path`.
    pub fn uri(&self, path: &str) -> Uri {
        format!("https://{}{path}", self.address).parse().expect("an address")
    }

    /// Waits for the ends of `count` connections. `None` is a connection that the client has not ended.
    pub async fn ends(&mut self, count: usize) -> Vec<Option<End>> {
        let mut ends = Vec::new();
        for _ in 0..count {
            ends.push(soon(self.ends.recv()).await.expect("a server"));
        }
        ends
    }

    /// The number of sessions that were resumed.
    pub fn resumed(&self) -> usize {
        self.resumed.load(Ordering::SeqCst)
    }

    /// Waits until a request for `/hold` has arrived, or the head of the answer of `/body` was sent.
    pub async fn request_has_arrived(&self) {
        soon(self.gates.arrived.acquire()).await.expect("open").forget();
    }
}

/// What the paths of the server wait for.
pub struct Gates {
    /// `/meet` waits until this many requests have come.
    meeting: Barrier,
    /// One permit for each request for `/hold` and `/body` that has come.
    arrived: Semaphore,
    /// Lets one such request be answered to its end.
    pub release: Notify,
    /// How many requests have come.
    pub requests: AtomicUsize,
}

/// The server's stream. It notes how the client ends it. Its shutdown reads on to that end.
struct Witness {
    tls: server::TlsStream<TcpStream>,
    seen: Option<End>,
    ends: mpsc::UnboundedSender<Option<End>>,
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
            Ok(()) => Some(End::CloseNotify),
            Err(error) => Some(End::of(error)),
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
