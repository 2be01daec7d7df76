//! One accepted connection of `serve`, from its handshake to its end.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use hyper::server::conn::{http1, http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tls_shutdown::{Abort, ShutdownReport, ShutdownState, ShutdownStream};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    task::yield_now,
    time::{sleep, timeout},
};
use tokio_rustls::server::TlsStream;

use crate::{
    arguments::Protocol,
    events::Events,
    serve::{Phase, Server},
};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request's head may take, which bounds an idle connection, too.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
const HTTP2_STREAMS: u32 = 200;
/// RFC 9113 section 3.4.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

type Stream = ShutdownStream<TlsStream<TcpStream>>;
type Service = TowerToHyperService<axum::Router>;

/// How hyper's part of a connection ended.
enum Ending {
    Served,
    Failed(hyper::Error),
    /// It was in use at the deadline.
    Cut,
}

impl From<hyper::Result<()>> for Ending {
    fn from(result: hyper::Result<()>) -> Self {
        result.map_or_else(Self::Failed, |()| Self::Served)
    }
}

/// An accepted connection without a stream, which would tell how it ends.
struct Accepted {
    events: Arc<Events>,
    peer: SocketAddr,
    /// `None` once it is told, or the stream will tell.
    report: Option<ShutdownReport>,
}

impl Accepted {
    fn new(events: Arc<Events>, peer: SocketAddr) -> Self {
        let nothing_known = io::ErrorKind::Interrupted.into();
        Self { events, peer, report: Some(ShutdownReport::of_failed_handshake(&nothing_known)) }
    }

    fn fail(mut self, error: &io::Error) {
        self.report = Some(ShutdownReport::of_failed_handshake(error));
    }

    fn hand_over(mut self) -> (Arc<Events>, SocketAddr) {
        self.report = None;
        (self.events.clone(), self.peer)
    }
}

impl Drop for Accepted {
    /// Also where the task is dropped with the runtime.
    fn drop(&mut self) {
        if let Some(report) = self.report.take() {
            self.events.closed(self.peer, &report);
        }
    }
}

/// Serves a connection. It is told exactly once how it ended: by `Accepted` until the handshake is done, and by the stream then.
pub(crate) fn serve(server: Arc<Server>, tcp: TcpStream, peer: SocketAddr) -> impl Future<Output = ()> {
    let accepted = Accepted::new(server.events.clone(), peer);
    serve_accepted(server, tcp, accepted)
}

async fn serve_accepted(server: Arc<Server>, tcp: TcpStream, accepted: Accepted) {
    let peer = accepted.peer;
    let mut phase = server.phase.subscribe();
    let handshake = tokio::select! {
        handshake = handshake(&server, tcp) => handshake,
        () = reached(&mut phase, Phase::Deadline) => Err(io::ErrorKind::TimedOut.into()),
    };
    let tls = match handshake {
        Ok(tls) => tls,
        Err(error) => {
            tracing::debug!(%peer, %error, "the TLS handshake failed");
            return accepted.fail(&error);
        }
    };
    let is_http2 = tls.get_ref().1.alpn_protocol() == Some(Protocol::Http2.alpn());
    let (events, peer) = accepted.hand_over();
    let stream = ShutdownStream::new(tls)
        .with_policy(server.policy)
        .with_reaper(&server.reaper)
        .on_end(move |report| events.closed(peer, report));
    let service = TowerToHyperService::new(server.router.clone());
    let ending = match is_http2 {
        true => serve_http2(stream, service, phase, server.last_request).await,
        false => serve_http1(stream, service, phase, server.last_request).await,
    };
    match ending {
        Ending::Served => {}
        Ending::Failed(error) => tracing::debug!(%peer, %error, "the HTTP connection failed"),
        Ending::Cut => {
            server.cut.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn handshake(server: &Server, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    tcp.set_nodelay(true)?;
    timeout(HANDSHAKE_TIMEOUT, server.acceptor.accept(tcp)).await?
}

async fn serve_http1(
    stream: Stream,
    service: Service,
    mut phase: watch::Receiver<Phase>,
    last_request: Duration,
) -> Ending {
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        // A client may send close_notify right after its request, and wait for the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    let ending = drive_http1(&mut connection, &mut phase, last_request).await;
    match &ending {
        Ending::Served => {}
        // A response was cut, and its end may have been that of the connection.
        Ending::Failed(error) if error.is_user() => connection.into_parts().io.into_inner().abort(Abort::Reset),
        Ending::Failed(_) => close(connection.into_parts().io.into_inner(), &mut phase).await,
        Ending::Cut => cut(connection.into_parts().io.into_inner()),
    }
    ending
}

async fn drive_http1(
    connection: &mut http1::Connection<TokioIo<Stream>, Service>,
    phase: &mut watch::Receiver<Phase>,
    last_request: Duration,
) -> Ending {
    tokio::select! {
        result = &mut *connection => return result.into(),
        () = end_of_window(phase, last_request) => {}
    }
    // A request may be in the system's buffer. The runtime hears of it in its own turn, and hyper when it is polled then.
    yield_now().await;
    if let Poll::Ready(result) = poll_once(connection).await {
        return result.into();
    }
    Pin::new(&mut *connection).graceful_shutdown();
    tokio::select! {
        biased;
        result = connection => result.into(),
        () = reached(phase, Phase::Deadline) => Ending::Cut,
    }
}

/// Resolves when an idle connection has had its time for a last request.
async fn end_of_window(phase: &mut watch::Receiver<Phase>, last_request: Duration) {
    reached(phase, Phase::LastRequest).await;
    tokio::select! {
        () = sleep(last_request) => {}
        () = reached(phase, Phase::Deadline) => {}
    }
}

async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))).await
}

/// Closes a connection on which nothing was cut: an idle one, or one that hyper gave up.
async fn close(mut stream: Stream, phase: &mut watch::Receiver<Phase>) {
    tokio::select! {
        // What went wrong with it, the stream itself tells.
        _ = stream.shutdown() => {}
        () = reached(phase, Phase::Deadline) => {}
    }
}

/// Ends a connection in use. Whether the end of its response is the end of the connection is not known here.
fn cut(stream: Stream) {
    match stream.state() {
        ShutdownState::Open | ShutdownState::Received => stream.abort(Abort::Reset),
        // All was said. The reaper sees to the rest.
        _ => drop(stream),
    }
}

async fn serve_http2(
    mut stream: Stream,
    service: Service,
    mut phase: watch::Receiver<Phase>,
    last_request: Duration,
) -> Ending {
    // Once hyper has the stream, it waits for ever for a client that does not say all of its preface, cannot be told to stop, and
    // drops the stream of one that says something else. A client says it at once, in one record.
    let speaks_http2 = tokio::select! {
        biased;
        first_data = timeout(HEADER_TIMEOUT, stream.fill_buf()) => {
            first_data.is_ok_and(|data| data.is_ok_and(|data| data.starts_with(HTTP2_PREFACE)))
        }
        () = end_of_window(&mut phase, last_request) => false,
    };
    if !speaks_http2 {
        close(stream, &mut phase).await;
        return Ending::Served;
    }
    let mut connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        result = &mut connection => return result.into(),
        () = reached(&mut phase, Phase::LastRequest) => {}
    }
    Pin::new(&mut connection).graceful_shutdown();
    tokio::select! {
        biased;
        result = &mut connection => result.into(),
        // Its frames tell the client what was cut.
        () = reached(&mut phase, Phase::Deadline) => Ending::Cut,
    }
}

/// Resolves when the server drain is as far as `target`.
async fn reached(phase: &mut watch::Receiver<Phase>, target: Phase) {
    // The sender lives in the server, which each connection holds.
    let _ = phase.wait_for(|phase| *phase >= target).await;
}
