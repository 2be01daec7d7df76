//! A [`Server`] over loopback with bodies that follow a script, and clients that tell how they were ended.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::{HeaderMap, Request, Response, body::Incoming};
use rustls::{ClientConfig, ServerConfig, pki_types::ServerName};
use tls_shutdown::server::{ConnectionReport, DrainHandle, DrainReport, Server, ServerDrain, TlsListener};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{client_config, server_config};

/// No test waits longer than this for an event.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// A grace that no test waits for.
pub const LONG: Duration = Duration::from_secs(3600);

/// `future`'s output, within [`PATIENCE`].
pub async fn soon<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("soon")
}

/// What a body does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It yields so many bytes, all `b'x'`.
    Data(usize),
    /// It yields trailers.
    Trailers,
    /// It yields nothing in this turn of the runtime.
    Turn,
    /// It yields nothing any more.
    Stop,
    /// It fails.
    Fail,
    /// It panics.
    Panic,
}

/// Whether a body says beforehand that nothing follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnowsItsEnd {
    /// As `Full` does.
    Yes,
    /// As a stream does.
    No,
}

/// A body that follows a script.
#[derive(Debug)]
pub struct ScriptedBody {
    steps: VecDeque<Step>,
    length: Option<u64>,
    knows_its_end: KnowsItsEnd,
}

impl ScriptedBody {
    /// A body of unknown length.
    pub fn new(steps: &[Step]) -> Self {
        Self { steps: steps.iter().copied().collect(), length: None, knows_its_end: KnowsItsEnd::No }
    }

    /// So many bytes, and it says so.
    pub fn full(length: usize) -> Self {
        Self { steps: [Step::Data(length)].into(), length: Some(length as u64), knows_its_end: KnowsItsEnd::Yes }
    }

    /// Sets whether it knows its end.
    pub fn knows_its_end(mut self, knows_its_end: KnowsItsEnd) -> Self {
        self.knows_its_end = knows_its_end;
        self
    }
}

impl Body for ScriptedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.steps.front() == Some(&Step::Stop) {
            return Poll::Pending;
        }
        match self.steps.pop_front() {
            None => Poll::Ready(None),
            Some(Step::Data(length)) => Poll::Ready(Some(Ok(Frame::data(vec![b'x'; length].into())))),
            Some(Step::Trailers) => Poll::Ready(Some(Ok(Frame::trailers(HeaderMap::new())))),
            Some(Step::Fail) => Poll::Ready(Some(Err(io::Error::other("as scripted")))),
            Some(Step::Panic) => panic!("as scripted"),
            Some(Step::Turn | Step::Stop) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.knows_its_end == KnowsItsEnd::Yes && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

/// A server configuration that offers `protocols` by ALPN.
pub fn offering(protocols: &[&str]) -> ServerConfig {
    let mut config = server_config(&rustls::version::TLS13);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config
}

/// A listener on a free port.
pub async fn listener() -> TlsListener {
    TlsListener::bind("127.0.0.1:0", offering(&["h2", "http/1.1"])).await.expect("a free port")
}

/// A server in a task.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its drain.
    pub drain: DrainHandle,
    /// How its connections ended.
    pub ends: mpsc::UnboundedReceiver<ConnectionReport>,
    signal: Option<oneshot::Sender<()>>,
    force: Option<oneshot::Sender<()>>,
    /// The server.
    pub task: JoinHandle<DrainReport>,
}

impl Running {
    /// Serves with `answer`, on a free port, with default settings.
    pub async fn start<F, R, E>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
        R: Future<Output = Result<Response<ScriptedBody>, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        Self::start_with(listener().await, |server| server, |drain| drain, answer)
    }

    /// The same, with settings.
    pub fn start_with<F, R, E>(
        listener: TlsListener,
        server: impl FnOnce(Server) -> Server,
        drain: impl FnOnce(ServerDrain) -> ServerDrain,
        answer: F,
    ) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
        R: Future<Output = Result<Response<ScriptedBody>, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let address = listener.local_addr().expect("an address");
        let (signal, signalled) = oneshot::channel();
        let (force, forced) = oneshot::channel();
        let drain = drain(ServerDrain::on(resolved(signalled)).force_on(resolved(forced)));
        let (sender, ends) = mpsc::unbounded_channel();
        let handle = drain.handle();
        let server = server(Server::new(listener))
            .on_end(move |end| {
                let _ = sender.send(end.clone());
            })
            .drain(drain);
        let task = tokio::spawn(server.serve(tower::service_fn(answer)));
        Self { address, drain: handle, ends, signal: Some(signal), force: Some(force), task }
    }

    /// The signal that begins the drain.
    pub fn signal(&mut self) {
        self.signal.take().expect("one signal").send(()).expect("a server");
    }

    /// The signal that goes to the deadline.
    pub fn force(&mut self) {
        self.force.take().expect("one signal").send(()).expect("a server");
    }

    /// The end of the next connection.
    pub async fn end(&mut self) -> ConnectionReport {
        soon(self.ends.recv()).await.expect("a connection")
    }

    /// The report of the drain.
    pub async fn report(self) -> DrainReport {
        soon(self.task).await.expect("no panic")
    }

    /// Ends the server without a drain, and waits until it is dropped.
    pub async fn cut(&mut self) {
        self.task.abort();
        let _ = soon(&mut self.task).await;
    }
}

/// A sender that is dropped is no signal.
async fn resolved(signal: oneshot::Receiver<()>) {
    if signal.await.is_err() {
        std::future::pending().await
    }
}

/// An answer with `body`.
pub fn answer(body: ScriptedBody) -> Result<Response<ScriptedBody>, Infallible> {
    Ok(Response::new(body))
}

/// How a client's read half ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By close_notify.
    CloseNotify,
    /// By FIN alone.
    Truncation,
    /// By RST.
    Reset,
}

/// A TLS client.
pub struct Client {
    /// Its stream.
    pub stream: TlsStream<TcpStream>,
}

impl Client {
    /// Connects, without ALPN.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, client_config(&rustls::version::TLS13)).await
    }

    /// Connects, and speaks HTTP/2.
    pub async fn connect_http2(address: SocketAddr) -> Self {
        let mut config = client_config(&rustls::version::TLS13);
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self::connect_with(address, config).await
    }

    /// Connects with `config`.
    pub async fn connect_with(address: SocketAddr, config: ClientConfig) -> Self {
        let tcp = soon(TcpStream::connect(address)).await.expect("a server");
        Self::over(tcp, config).await
    }

    /// Connects with a small receive buffer, so that the server cannot send much ahead.
    pub async fn connect_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("an option");
        let tcp = soon(socket.connect(address)).await.expect("a server");
        Self::over(tcp, client_config(&rustls::version::TLS13)).await
    }

    /// TLS over a connection.
    pub async fn over(tcp: TcpStream, config: ClientConfig) -> Self {
        tcp.set_nodelay(true).expect("an option");
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = soon(TlsConnector::from(Arc::new(config)).connect(name, tcp)).await.expect("a handshake");
        Self { stream }
    }

    /// Sends.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("sent");
        self.stream.flush().await.expect("sent");
    }

    /// Asks for `path` by HTTP/1.1.
    pub async fn ask(&mut self, path: &str) {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    }

    /// Reads to the end: what came, and how it ended.
    pub async fn read_to_end(&mut self) -> (Vec<u8>, End) {
        let mut data = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match soon(self.stream.read(&mut buffer)).await {
                Ok(0) => return (data, End::CloseNotify),
                Ok(amount) => data.extend_from_slice(&buffer[..amount]),
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return (data, End::Truncation),
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error:?}");
                    return (data, End::Reset);
                }
            }
        }
    }

    /// Reads an HTTP/1 message with a Content-Length, or without a body.
    pub async fn read_message(&mut self) -> (String, Vec<u8>) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon(self.stream.read_u8()).await.expect("a head"));
        }
        let head = String::from_utf8(head).expect("a head").to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
        soon(self.stream.read_exact(&mut body)).await.expect("a body");
        (head, body)
    }
}

/// HTTP/2 frames, by hand.
pub mod http2 {
    use tokio::io::AsyncReadExt;

    use super::{Client, End, soon};

    /// What a client says first, without SETTINGS.
    pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    /// `:method: GET`, `:scheme: https`, `:path: /`, `:authority: a`, as HPACK has them.
    pub const GET: &[u8] = &[0x82, 0x87, 0x84, 0x41, 0x01, b'a'];

    /// Type of a frame.
    pub const DATA: u8 = 0;
    /// Type of a frame.
    pub const HEADERS: u8 = 1;
    /// Type of a frame.
    pub const RST_STREAM: u8 = 3;
    /// Type of a frame.
    pub const SETTINGS: u8 = 4;
    /// Type of a frame.
    pub const PING: u8 = 6;
    /// Type of a frame.
    pub const GOAWAY: u8 = 7;
    /// Type of a frame.
    pub const WINDOW_UPDATE: u8 = 8;
    /// Type of a frame.
    pub const CONTINUATION: u8 = 9;

    /// END_STREAM, and ACK.
    pub const END_STREAM: u8 = 1;
    /// END_HEADERS.
    pub const END_HEADERS: u8 = 4;
    /// PADDED.
    pub const PADDED: u8 = 8;

    /// A frame.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Frame {
        /// Its type.
        pub kind: u8,
        /// Its flags.
        pub flags: u8,
        /// Its stream.
        pub stream: u32,
        /// The rest.
        pub payload: Vec<u8>,
    }

    /// The bytes of a frame.
    pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = u32::try_from(payload.len()).expect("a length").to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// A request without a body.
    pub fn get(stream: u32) -> Vec<u8> {
        frame(HEADERS, END_HEADERS | END_STREAM, stream, GET)
    }

    /// The preface and empty SETTINGS.
    pub fn hello() -> Vec<u8> {
        [&PREFACE[..], &frame(SETTINGS, 0, 0, &[])].concat()
    }

    impl Client {
        /// The next frame.
        pub async fn next_frame(&mut self) -> Option<Frame> {
            let mut head = [0; 9];
            soon(self.stream.read_exact(&mut head)).await.ok()?;
            let [a, b, c, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            soon(self.stream.read_exact(&mut payload)).await.ok()?;
            Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
        }

        /// The next frame of this type.
        pub async fn frame_of(&mut self, kind: u8) -> Frame {
            loop {
                let frame = self.next_frame().await.expect("a frame");
                if frame.kind == kind {
                    return frame;
                }
            }
        }

        /// All frames to the end. What is no whole frame is an error.
        pub async fn frames_to_end(&mut self) -> (Vec<Frame>, End) {
            let (data, end) = self.read_to_end().await;
            (frames(&data), end)
        }
    }

    /// The frames in `data`, which has to end with one.
    pub fn frames(mut data: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(([a, b, c, kind, flags, d, e, f, g], rest)) = data.split_first_chunk() {
            let (payload, rest) = rest.split_at(u32::from_be_bytes([0, *a, *b, *c]) as usize);
            let stream = u32::from_be_bytes([*d, *e, *f, *g]);
            frames.push(Frame { kind: *kind, flags: *flags, stream, payload: payload.to_vec() });
            data = rest;
        }
        assert!(data.is_empty(), "half a frame");
        frames
    }

    /// The streams that GOAWAY frames name as the last.
    pub fn goaways(frames: &[Frame]) -> Vec<u32> {
        let last = |frame: &Frame| u32::from_be_bytes(*frame.payload.first_chunk().expect("a stream"));
        frames.iter().filter(|frame| frame.kind == GOAWAY).map(last).collect()
    }

    /// Whether `stream` was answered to its end.
    pub fn is_answered(frames: &[Frame], stream: u32) -> bool {
        frames.iter().any(|frame| {
            frame.stream == stream && matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0
        })
    }
}
