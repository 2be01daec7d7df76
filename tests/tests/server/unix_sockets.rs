//! Unix sockets: their files, their peers, and listeners of one's own.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::{Request, body::Incoming};
use tls_shutdown::{
    Ending,
    server::{Acknowledgement, Listener, Peer, Server, Transport, UnixSocket},
};
use tls_shutdown_tests::{
    End,
    serving::{Client, LONG, Running, ScriptedBody, answer, body_of, socket_path},
    soon,
    time::turns,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::{UnixListener, UnixStream},
    sync::{
        Notify,
        mpsc::{UnboundedReceiver, unbounded_channel},
    },
};

use crate::routes::routes;

const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

async fn ask_over(path: &std::path::Path) -> Client<UnixStream> {
    let mut client = Client { stream: UnixStream::connect(path).await.expect("a server") };
    client.ask("/").await;
    assert!(client.read_message().await.0.starts_with("http/1.1 200"));
    client
}

#[tokio::test]
async fn the_file_of_a_socket_lives_as_long_as_it_listens() {
    let path = socket_path();
    let socket = UnixSocket::bind(&path).await.expect("a free path");
    assert_eq!(socket.path(), path);
    let mut running = Running::start_server(Server::new(socket), NOWHERE, |drain| drain, routes);
    let client = ask_over(&path).await;
    running.signal();
    assert_eq!({ client }.read_to_end().await, (vec![], End::Fin));
    let end = running.end().await;
    assert_eq!((end.peer(), end.transport(), end.requests()), (Peer::Unix, Transport::Unix, 1));
    assert_eq!(end.peer().to_string(), "unix");
    let report = running.report().await;
    assert_eq!((report.connections(), report.acknowledgement()), (1, Acknowledgement::Everything), "{report}");
    assert!(!path.exists());

    // The file of a server that was killed is replaced. One that is no socket is not.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a free path"));
    assert!(path.exists());
    let socket = UnixSocket::bind(&path).await.expect("nobody listens");
    // A successor has replaced the file: it stays.
    std::fs::remove_file(&path).expect("a file");
    let successor = UnixSocket::bind(&path).await.expect("a free path");
    drop(socket);
    assert!(path.exists());
    let third = UnixSocket::bind(&path).await.expect_err("the successor listens");
    assert_eq!(third.kind(), io::ErrorKind::AddrInUse);
    drop(successor);
    assert!(!path.exists());
    std::fs::write(&path, "no socket").expect("a file");
    assert!(UnixSocket::bind(&path).await.is_err());
    assert_eq!(std::fs::read_to_string(&path).expect("a file"), "no socket");
    std::fs::remove_file(&path).expect("a file");
}

/// A name that is none of a file (`unix(7)`).
#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_abstract_name_is_served() {
    let name = format!("\0{}", socket_path().display());
    let socket = UnixSocket::bind(&name).await.expect("a free name");
    assert_eq!(socket.path(), std::path::Path::new(&name));
    let taken = UnixSocket::bind(&name).await.expect_err("the first one listens");
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    let mut running = Running::start_server(Server::new(socket), NOWHERE, |drain| drain, routes);
    let client = ask_over(name.as_ref()).await;
    running.signal();
    assert_eq!({ client }.read_to_end().await, (vec![], End::Fin));
    assert_eq!(running.end().await.peer(), Peer::Unix);
    assert_eq!(running.report().await.left(), 0);
    UnixSocket::bind(&name).await.expect("a free name");
}

/// Without a descriptor, the system refuses to accept also where nothing waits.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn whether_a_connection_waits_is_known() {
    let paths = [socket_path(), socket_path()];
    let socket = UnixSocket::bind(&paths[0]).await.expect("a free path");
    let listener = UnixListener::bind(&paths[1]).expect("a free path");
    let waits = || [socket.has_waiting(), listener.has_waiting()];
    assert_eq!(waits(), [false, false]);
    let _clients = paths.each_ref().map(|path| std::os::unix::net::UnixStream::connect(path).expect("the backlog"));
    assert_eq!(waits(), [true, true]);
    std::fs::remove_file(&paths[1]).expect("a file");
}

/// Tokio's own listener never removes the file.
#[tokio::test]
async fn a_listener_of_tokio_keeps_its_file() {
    let path = socket_path();
    let server = Server::new(UnixListener::bind(&path).expect("a free path"));
    let mut running = Running::start_server(server, NOWHERE, |drain| drain, routes);
    drop(ask_over(&path).await);
    assert_eq!(running.end().await.ending(), Ending::Complete);
    running.signal();
    running.report().await;
    assert!(path.exists());
    std::fs::remove_file(&path).expect("a file");
}

/// A client that reads nothing before it has sent its whole request, of a megabyte. An answer that fits into the system's buffer arrives
/// whole. For a larger one each waits for the other, because hyper reads nothing while it writes: the stall timeout ends that.
#[tokio::test]
async fn an_early_answer_to_a_client_that_only_writes_is_whole_or_ends_in_time() {
    let path = socket_path();
    let socket = UnixSocket::bind(&path).await.expect("a free path");
    let server = Server::new(socket).stall_timeout(Duration::from_millis(500));
    let routes = |request: Request<Incoming>| {
        let length = request.uri().path()[1..].parse().expect("a length");
        std::future::ready(answer(ScriptedBody::full(length)))
    };
    let mut running = Running::start_server(server, NOWHERE, |drain| drain, routes);
    for (length, ending, cut) in [(50_000, Ending::Complete, 0), (1_000_000, Ending::TimedOut, 1)] {
        let mut client = Client { stream: UnixStream::connect(&path).await.expect("a server") };
        let head = format!("POST /{length} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
        let sent = soon(client.stream.write_all(&[head.as_bytes(), &[0; 1_000_000]].concat())).await;
        assert_eq!(sent.is_err(), cut == 1, "{sent:?}");
        let mut received = Vec::new();
        // After a reset, the system still has what came before.
        let _ = soon(client.stream.read_to_end(&mut received)).await;
        assert!(received.starts_with(b"HTTP/1.1 200"));
        assert_eq!(body_of(&received).len() < length, cut == 1, "{} bytes", received.len());
        drop(client);
        let end = running.end().await;
        assert_eq!((end.ending(), end.responses_cut()), (ending, cut), "{end}");
    }
}

/// Streams that this library does not know.
pub(crate) struct Pipes(pub(crate) UnboundedReceiver<DuplexStream>);

impl Listener for Pipes {
    type Stream = DuplexStream;
    type Peer = Peer;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(DuplexStream, Peer)>> {
        match self.0.poll_recv(cx) {
            Poll::Ready(Some(stream)) => Poll::Ready(Ok((stream, Peer::Unknown))),
            _ => Poll::Pending,
        }
    }
}

#[tokio::test]
async fn a_listener_of_ones_own_is_served() {
    let (connect, accept) = unbounded_channel();
    let server = Server::new(Pipes(accept)).connect_info(|stream| stream.custom::<DuplexStream>().map(|_| ()));
    let mut running = Running::start_server(server, NOWHERE, |drain| drain, routes);
    let open = || {
        let (ours, theirs) = tokio::io::duplex(1000);
        assert!(connect.send(theirs).is_ok(), "a server");
        Client { stream: ours }
    };
    let mut client = open();
    client.ask("/large").await;
    assert_eq!(client.read_message().await.1.len(), 300_000);
    drop(client);
    let end = running.end().await;
    assert_eq!((end.ending(), end.peer(), end.transport()), (Ending::Complete, Peer::Unknown, Transport::Custom));
    // It is in the queue when the server stops.
    let mut queued = open();
    queued.ask("/").await;
    running.signal();
    let (data, end) = queued.read_to_end().await;
    assert!(data.starts_with(b"HTTP/1.1 200") && end == End::Fin);
    drop(queued);
    let report = running.report().await;
    assert_eq!((report.requests(), report.responses_cut()), (1, 0), "{report}");
    assert_eq!(report.acknowledgement(), Acknowledgement::Unknown);
}

/// Its clients may connect until `stop` has ended.
struct Stopping {
    pipes: Pipes,
    asked: Arc<Notify>,
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Listener for Stopping {
    type Stream = DuplexStream;
    type Peer = Peer;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(DuplexStream, Peer)>> {
        self.pipes.poll_accept(cx)
    }

    fn poll_stop(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.asked.notify_one();
        self.stop.as_mut().poll(cx)
    }
}

/// The queue is emptied once more when nobody can enter it any longer.
#[tokio::test]
async fn who_connects_until_a_listener_has_stopped_is_served() {
    let (connect, accept) = unbounded_channel();
    let [asked, stopped] = [(); 2].map(|()| Arc::new(Notify::new()));
    let stop = Box::pin({
        let stopped = stopped.clone();
        async move { stopped.notified().await }
    });
    let server = Server::new(Stopping { pipes: Pipes(accept), asked: asked.clone(), stop });
    let mut running = Running::start_server(server, NOWHERE, |drain| drain, routes);
    running.signal();
    soon(asked.notified()).await;
    turns(100).await;
    let (ours, theirs) = tokio::io::duplex(1000);
    assert!(connect.send(theirs).is_ok(), "the listener was dropped");
    let mut client = Client { stream: ours };
    client.ask("/").await;
    stopped.notify_one();
    let (data, end) = client.read_to_end().await;
    assert!(data.starts_with(b"HTTP/1.1 200") && end == End::Fin);
    drop(client);
    assert!(connect.is_closed());
    let report = running.report().await;
    assert_eq!((report.requests(), report.responses_cut()), (1, 0), "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_never_stops_is_dropped_all_the_same() {
    let (connect, accept) = unbounded_channel();
    let stop = Box::pin(std::future::pending());
    let server = Server::new(Stopping { pipes: Pipes(accept), asked: Arc::default(), stop });
    let mut running = Running::start_server(server, NOWHERE, |drain| drain.grace_period(LONG), routes);
    running.signal();
    let report = running.report().await;
    assert!(connect.is_closed() && report.connections() == 0, "{report}");
}
