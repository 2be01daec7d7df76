//! Endless responses end with the server, and the application knows nothing of that.

mod event_streams;
mod grpc;
mod websockets;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::{http1, http2},
    rt::bounds::Http2ClientConnExec,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tls_shutdown::server::{Server, ServerDrain};
use tls_shutdown_tests::{
    serving::{Client, LONG, Running, offer},
    soon,
};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// How a client and the server speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}
use Protocol::{Http1, Http2};

impl Protocol {
    const BOTH: [Self; 2] = [Http1, Http2];
}

/// Sends a request on a new connection. Returns the head of the response.
async fn send(running: &Running, protocol: Protocol, request: Request<Empty<Bytes>>) -> Response<Incoming> {
    if protocol == Http2 {
        return send_http2(running, TokioExecutor::new(), request).await;
    }
    let io = TokioIo::new(Client::connect_with(running.address, offer("http/1.1")).await.stream);
    let (mut requests, connection) = soon(http1::handshake(io)).await.expect("a connection");
    tokio::spawn(connection.with_upgrades());
    soon(requests.send_request(request)).await.expect("a response")
}

/// Sends a request over HTTP/2. The tasks of the client run in `executor`.
async fn send_http2<E>(running: &Running, executor: E, request: Request<Empty<Bytes>>) -> Response<Incoming>
where
    E: Http2ClientConnExec<Empty<Bytes>, TokioIo<TlsStream<TcpStream>>> + Unpin + Send + Sync + Clone + 'static,
{
    let io = TokioIo::new(Client::connect_http2(running.address).await.stream);
    let (mut requests, connection) = soon(http2::handshake(executor, io)).await.expect("a connection");
    tokio::spawn(connection);
    soon(requests.send_request(request)).await.expect("a response")
}

/// A value that the service takes at its first call.
#[derive(Debug)]
struct Once<T>(Arc<Mutex<Option<T>>>);

impl<T> Once<T> {
    fn new(value: T) -> Self {
        Self(Arc::new(Mutex::new(Some(value))))
    }

    fn take(&self) -> T {
        self.0.lock().expect("no panic").take().expect("one call")
    }
}

impl<T> Clone for Once<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// An idle connection ends at once, and nothing else does before the test says so.
fn patient(drain: ServerDrain) -> ServerDrain {
    drain.grace_period(LONG).last_request(std::time::Duration::ZERO)
}

fn unchanged(server: Server) -> Server {
    server
}
