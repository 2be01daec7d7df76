//! Clients that end their half of the connection behind a request, send more bytes, and receive slowly. RFC 8446 section 6.1 has the server
//! ignore what follows a closure alert. The kernel would reset the connection over it, and destroy what it has not sent yet of the answer.

use std::{fmt, future::IntoFuture, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::Path, routing::get};
use rustls::SupportedProtocolVersion;
use tls_shutdown::{
    Ending, Reaper, ShutdownPolicy, ShutdownStream,
    server::{Server, ServerDrain, TlsListener},
};
use tls_shutdown_tests::{
    End, Forge, VERSIONS, Wire, client_config, server_config,
    serving::{Client, body_of, narrow_socket},
    soon,
    time::real_time,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// Those that send close_notify.
const POLICIES: [ShutdownPolicy; 3] =
    [ShutdownPolicy::unidirectional(), ShutdownPolicy::bidirectional(), ShutdownPolicy::receive_first()];
/// How long after its close_notify the client sends more, in milliseconds.
const DELAYS: [u64; 4] = [0, 10, 50, 200];
/// The length of an answer: much more than the client's receive buffer.
const LENGTH: usize = 300_000;
/// Some answers are longer than the send buffer, too.
const LONG: usize = 3_000_000;
const CLOSE_NOTIFY: [u8; 2] = [Forge::WARNING, 0];

/// What the client sends after its close_notify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Late {
    SecondCloseNotify,
    Junk,
    Plaintext,
}

impl Late {
    const EVERY: [Self; 3] = [Self::SecondCloseNotify, Self::Junk, Self::Plaintext];

    fn bytes(self, forge: &mut Forge) -> Vec<u8> {
        match self {
            Self::SecondCloseNotify => forge.record(Forge::ALERT, &CLOSE_NOTIFY),
            Self::Junk => b"\x15\x03\x03\x00\x02xx junk".to_vec(),
            Self::Plaintext => b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        }
    }
}

/// A way to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Server,
    AxumServe,
    /// A loop over [`TlsListener::accept`], with HTTP by hand.
    Listener,
    /// A loop over tokio's listener, with a stream and a reaper.
    Stream,
}

impl Way {
    const EVERY: [Self; 4] = [Self::Server, Self::AxumServe, Self::Listener, Self::Stream];

    /// Serves. Returns the address, and how the connections end.
    async fn serve(
        self,
        version: &'static SupportedProtocolVersion,
        policy: ShutdownPolicy,
    ) -> (SocketAddr, UnboundedReceiver<Ending>) {
        let app = Router::new().route("/bytes/{length}", get(async |Path(length): Path<usize>| vec![b'.'; length]));
        let (sender, ends) = unbounded_channel();
        let tell = move |ending| {
            let _ = sender.send(ending);
        };
        if self == Self::Stream {
            let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = tcp.local_addr().expect("an address");
            let acceptor = TlsAcceptor::from(Arc::new(server_config(version)));
            tokio::spawn(async move {
                let reaper = Reaper::new();
                loop {
                    let (tcp, _) = tcp.accept().await.expect("a client");
                    let (accepting, reaper, tell) = (acceptor.accept(tcp), reaper.clone(), tell.clone());
                    tokio::spawn(async move {
                        let stream = ShutdownStream::new(accepting.await.expect("a handshake"));
                        let stream = stream.with_policy(policy).with_reaper(&reaper);
                        answer(stream.on_end(move |report| tell(report.ending()))).await;
                    });
                }
            });
            return (address, ends);
        }
        let listener = TlsListener::from_tcp(wide_listener(), server_config(version));
        let address = listener.local_addr().expect("an address");
        let mut listener = listener.with_policy(policy).on_end(move |end| tell(end.ending()));
        match self {
            Self::Server => {
                let drain = ServerDrain::on(std::future::pending());
                tokio::spawn(Server::new(listener).drain(drain).serve(app));
            }
            Self::AxumServe => {
                tokio::spawn(axum::serve(listener, app).into_future());
            }
            Self::Listener | Self::Stream => {
                tokio::spawn(async move {
                    while let Some((stream, _)) = listener.accept().await {
                        tokio::spawn(answer(stream));
                    }
                });
            }
        }
        (address, ends)
    }
}

/// A listener whose sockets take much that their peers do not read.
fn wide_listener() -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_send_buffer_size(1_000_000).expect("an option");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    socket.listen(1024).expect("a listener")
}

/// Reads a request, writes the answer, and shuts the stream down.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut request).await.expect("a request"), 0);
    }
    let request = String::from_utf8(request).expect("UTF-8");
    let length = request.split(['/', ' ']).nth(3).and_then(|length| length.parse().ok()).expect("a length");
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("written");
    stream.write_all(&vec![b'.'; length]).await.expect("written");
    stream.shutdown().await.expect("the goal");
}

/// When the client sends its close_notify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HalfClose {
    /// In one write with the request.
    WithTheRequest,
    /// When the answer has begun. The system of the server has the whole answer then, and the server's close_notify, too.
    InTheAnswer,
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    half_close: HalfClose,
    length: usize,
    late: Late,
    delay: u64,
}

impl Case {
    /// Those that a server can serve.
    fn every(way: Way) -> Vec<Self> {
        use HalfClose::{InTheAnswer, WithTheRequest};
        // hyper ends a connection whose client closes its half before the answer is written, and `axum::serve` cannot configure that.
        let half_closes = if way == Way::AxumServe { &[InTheAnswer][..] } else { &[WithTheRequest, InTheAnswer] };
        let mut cases = Vec::new();
        for half_close in half_closes.iter().copied() {
            for late in Late::EVERY {
                cases.extend(DELAYS.map(|delay| Self { half_close, length: LENGTH, late, delay }));
                if half_close == WithTheRequest {
                    cases.push(Self { half_close, length: LONG, late, delay: DELAYS[2] });
                }
            }
        }
        cases
    }
}

/// What a client has received: the length of the body, whether close_notify came last, and how TCP ended.
#[derive(PartialEq, Eq)]
struct Received(usize, bool, Option<End>);

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, close_notify: {}, then {:?}", self.0, self.1, self.2)
    }
}

/// Requests, half-closes, sends more bytes, and then receives.
async fn receive(address: SocketAddr, version: &'static SupportedProtocolVersion, case: Case) -> Received {
    let tcp = narrow_socket(address, 4096).await;
    let (mut tcp, tls) = Client::over(tcp, client_config(version)).await.stream.into_inner();
    let mut forge = Forge::new(tls.into(), Wire::default());
    let request = format!("GET /bytes/{} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", case.length);
    let request = forge.record(Forge::DATA, request.as_bytes());
    let close_notify = forge.record(Forge::ALERT, &CLOSE_NOTIFY);
    let mut sealed = Vec::new();
    if case.half_close == HalfClose::InTheAnswer {
        tcp.write_all(&request).await.expect("sent");
        // More than the session tickets.
        while sealed.len() < 2000 {
            assert_ne!(soon(tcp.read_buf(&mut sealed)).await.expect("an answer"), 0);
        }
        tcp.write_all(&close_notify).await.expect("sent");
    } else {
        tcp.write_all(&[request, close_notify].concat()).await.expect("sent");
    }
    // The server may already have ended the TLS connection, which the client cannot see before it reads.
    real_time(Duration::from_millis(case.delay)).await;
    tcp.write_all(&case.late.bytes(&mut forge)).await.expect("sent");
    let mut buffer = vec![0; 16 * 1024];
    let end = loop {
        match soon(tcp.read(&mut buffer)).await {
            Ok(0) => break None,
            Ok(amount) => sealed.extend_from_slice(&buffer[..amount]),
            Err(error) => break Some(End::of(&error)),
        }
    };
    let records = forge.open(&sealed).expect("authentic records");
    let is_closed =
        records.last().is_some_and(|(kind, content)| (*kind, &content[..]) == (Forge::ALERT, &CLOSE_NOTIFY));
    let data: Vec<u8> =
        records.into_iter().filter(|(kind, _)| *kind == Forge::DATA).flat_map(|(_, content)| content).collect();
    Received(if data.is_empty() { 0 } else { body_of(&data).len() }, is_closed, end)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_after_the_clients_close_notify_destroy_no_answer() {
    let mut runs = 0;
    for way in Way::EVERY {
        for version in VERSIONS {
            for policy in POLICIES {
                let (address, mut ends) = way.serve(version, policy).await;
                let mut clients = JoinSet::new();
                for case in Case::every(way) {
                    clients.spawn(async move { (case, receive(address, version, case).await) });
                }
                runs += clients.len();
                while let Some(client) = clients.join_next().await {
                    let (case, received) = client.expect("no panic");
                    let kind = format!("{way:?}, {version:?}, {policy:?}, {case:?}");
                    assert_eq!(received, Received(case.length, true, None), "{kind}");
                    assert_eq!(soon(ends.recv()).await, Some(Ending::Complete), "{kind}, or another one");
                }
            }
        }
    }
    println!("{runs} of {runs}");
}
