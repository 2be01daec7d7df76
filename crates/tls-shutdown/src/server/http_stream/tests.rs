//! What hyper and h2 do, and do not document. This folder relies on it: if an update makes one of these tests fail, the code has to change
//! as well.

use std::{collections::VecDeque, convert::Infallible, future::pending, pin::pin};

use hyper::{
    Request, Response,
    body::Incoming,
    server::conn::{http1, http2 as hyper_http2},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::timeout,
};

use super::{
    http2::{
        PREFACE, PROTOCOL_ERROR,
        tests::{frame, request_head},
    },
    *,
};
use crate::{
    http::h2_scanner::{ACK, DATA, END_STREAM, GOAWAY, HEAD_LENGTH, PING, RST_STREAM, SETTINGS},
    server::HyperExecutor,
};

type Reply = Result<Response<String>, Infallible>;

const HOUR: Duration = Duration::from_secs(3600);

async fn large(_: Request<Incoming>) -> Reply {
    Ok(Response::new("x".repeat(100_000)))
}

async fn never(_request: Request<Incoming>) -> Reply {
    pending().await
}

/// A transport that gives hyper these pieces to read, and nothing where there is `None`. It accepts a few bytes at a time.
struct Script {
    pieces: VecDeque<Option<Vec<u8>>>,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    calls: usize,
    calls_at_read: Vec<usize>,
    written: usize,
    written_at_flush: Vec<usize>,
}

impl AsyncRead for Script {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut log = lock(&self.log);
        let calls = log.calls;
        log.calls_at_read.push(calls);
        drop(log);
        match self.pieces.pop_front() {
            Some(Some(mut piece)) => {
                let rest = piece.split_off(piece.len().min(buffer.remaining()));
                buffer.put_slice(&piece);
                if !rest.is_empty() {
                    self.pieces.push_front(Some(rest));
                }
                Poll::Ready(Ok(()))
            }
            Some(None) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let length = buffer.len().min(999);
        lock(&self.log).written += length;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut log = lock(&self.log);
        let written = log.written;
        log.written_at_flush.push(written);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// `Http1Messages` takes a response for complete when it is flushed.
#[tokio::test]
async fn hyper_flushes_only_when_its_buffer_is_empty() {
    let log = Arc::new(Mutex::new(Log::default()));
    let pieces = [Some(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n".to_vec())].into();
    let io = TokioIo::new(Script { pieces, log: log.clone() });
    http1::Builder::new().serve_connection(io, service_fn(large)).await.expect("a response");
    let log = lock(&log);
    assert!(log.written > 100_000 && log.written_at_flush.contains(&log.written));
    assert!(log.written_at_flush.iter().all(|at| [0, log.written].contains(at)), "{:?}", log.written_at_flush);
}

/// `HttpStream` checks whether the client is gone.
#[tokio::test(start_paused = true)]
async fn hyper_does_not_read_while_the_service_answers() {
    let (mut client, server) = duplex(1000);
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("room");
    drop(client);
    let mut builder = http1::Builder::new();
    let connection = builder.half_close(true).serve_connection(TokioIo::new(server), service_fn(never));
    assert!(timeout(HOUR, connection).await.is_err());
}

/// `serve_http1` waits for the rest.
#[tokio::test]
async fn hyper_discards_a_partial_head_at_its_graceful_shutdown() {
    let (mut client, server) = duplex(1_000_000);
    client.write_all(b"GET / HTTP/1.1\r\n\r\nGET / HT").await.expect("room");
    let connection = http1::Builder::new().serve_connection(TokioIo::new(server), service_fn(large));
    let mut connection = pin!(connection);
    assert!(poll_once(connection.as_mut()).await.is_pending());
    connection.as_mut().graceful_shutdown();
    connection.await.expect("no error");
}

async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// Runs an HTTP/2 connection while `client` does something.
macro_rules! with {
    ($connection:ident, $client:expr) => {
        tokio::select! {
            biased;
            value = $client => value,
            end = $connection.as_mut() => panic!("{end:?}"),
        }
    };
}

/// An HTTP/2 client that has sent its preface and `frames`, and the server's connection.
macro_rules! http2 {
    ($client:ident, $connection:ident, $service:expr, $frames:expr) => {
        let (mut $client, server) = duplex(1_000_000);
        $client.write_all(&[PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[]), $frames].concat()).await.expect("room");
        let builder = hyper_http2::Builder::new(HyperExecutor::new());
        let mut $connection = pin!(builder.serve_connection(TokioIo::new(server), service_fn($service)));
    };
}

async fn next_frame(client: &mut DuplexStream) -> Option<Vec<u8>> {
    let mut frame = vec![0; HEAD_LENGTH];
    client.read_exact(&mut frame).await.ok()?;
    frame.resize(HEAD_LENGTH + usize::from(frame[1]) * 256 + usize::from(frame[2]), 0);
    client.read_exact(&mut frame[HEAD_LENGTH..]).await.ok()?;
    Some(frame)
}

async fn frame_of_kind(client: &mut DuplexStream, kind: u8, flags: u8) -> Vec<u8> {
    loop {
        let frame = next_frame(client).await.expect("a frame");
        if (frame[3], frame[4]) == (kind, flags) {
            return frame;
        }
    }
}

/// `Http2Frames` answers it.
#[tokio::test]
async fn h2_sends_a_ping_behind_its_first_goaway() {
    http2!(client, connection, never, vec![]);
    with!(connection, frame_of_kind(&mut client, SETTINGS, ACK));
    connection.as_mut().graceful_shutdown();
    let goaway = with!(connection, frame_of_kind(&mut client, GOAWAY, 0));
    assert_eq!(goaway, frame(GOAWAY, 0, 0, &[0x7f, 255, 255, 255, 0, 0, 0, 0]));
    let ping = with!(connection, next_frame(&mut client)).expect("a frame");
    assert_eq!(ping[3..5], [PING, 0]);
    client.write_all(&frame(PING, ACK, 0, &ping[HEAD_LENGTH..])).await.expect("room");
    connection.await.expect("no error");
    assert_eq!(next_frame(&mut client).await, Some(frame(GOAWAY, 0, 0, &[0; 8])));
}

/// `early_end` prevents it.
#[tokio::test]
async fn h2_resets_the_response_to_a_request_that_is_cut_short() {
    // h2 ignores the end of a request that the service has dropped.
    let service = |request| {
        tokio::spawn(never(request));
        async { Ok::<_, Infallible>(Response::new("x".repeat(100_000))) }
    };
    http2!(client, connection, service, request_head(1));
    with!(connection, frame_of_kind(&mut client, DATA, 0));
    client.write_all(&frame(DATA, END_STREAM, 1, &[0; 10])).await.expect("room");
    let reset = with!(connection, frame_of_kind(&mut client, RST_STREAM, 0));
    assert_eq!(reset, frame(RST_STREAM, 0, 1, &PROTOCOL_ERROR.to_be_bytes()));
}

/// `early_end` learns by that which request the service has.
#[tokio::test]
async fn h2_gives_the_service_what_it_has_before_it_reads_again() {
    let log = Arc::new(Mutex::new(Log::default()));
    let preface = [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[])].concat();
    let pieces = [Some(preface), Some(request_head(1)), None, Some(request_head(3)), None].into();
    let calls = log.clone();
    let service = service_fn(move |request| {
        lock(&calls).calls += 1;
        never(request)
    });
    let io = TokioIo::new(Script { pieces, log: log.clone() });
    let mut connection = pin!(hyper_http2::Builder::new(HyperExecutor::new()).serve_connection(io, service));
    while lock(&log).calls < 2 {
        assert!(poll_once(connection.as_mut()).await.is_pending());
    }
    assert!(poll_once(connection.as_mut()).await.is_pending());
    // The reads after the pause behind the first request, and after the one behind the second.
    let log = lock(&log);
    let reads: Vec<_> = log.calls_at_read.iter().skip_while(|calls| **calls == 0).collect();
    assert!(reads.starts_with(&[&1, &1, &2]), "{reads:?}");
}

/// `HttpStream` sends the frames that are missing.
#[tokio::test]
async fn h2_ends_without_a_frame_when_its_client_closes() {
    http2!(client, connection, never, request_head(1));
    with!(connection, frame_of_kind(&mut client, SETTINGS, ACK));
    client.shutdown().await.expect("no error");
    let _ = connection.as_mut().await;
    while let Some(frame) = next_frame(&mut client).await {
        assert!(![GOAWAY, RST_STREAM].contains(&frame[3]));
    }
}

/// `serve_http2` gives it up.
#[tokio::test(start_paused = true)]
async fn h2_waits_without_limit_for_the_rest_of_a_preface_or_frame() {
    let (mut client, server) = duplex(1000);
    client.write_all(&PREFACE[..10]).await.expect("room");
    let builder = hyper_http2::Builder::new(HyperExecutor::new());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(server), service_fn(never)));
    connection.as_mut().graceful_shutdown();
    assert!(timeout(HOUR, connection).await.is_err());

    http2!(client, connection, never, vec![0]);
    with!(connection, frame_of_kind(&mut client, SETTINGS, ACK));
    connection.as_mut().graceful_shutdown();
    assert!(timeout(HOUR, connection).await.is_err());
}
