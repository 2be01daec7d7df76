//! An HTTP/2 connection from its preface to its end.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Mutex,
    task::{Poll, ready},
    time::Duration,
};

use hyper::rt::Executor;
use tokio::{task::yield_now, time::timeout};
use tracing::Instrument;

use super::{
    http_stream::{FirstBytes, HttpStream, http2::Http2Frames},
    lifetime::{ClientWait, ConnectionLifetime, Flow, until, until_pending},
};
use crate::runtime::lock::lock;

/// The executor of [`Server::http2`](super::Server::http2): hyper spawns a task for each HTTP/2 request. It spawns them
/// on Tokio, in the current `tracing` span.
#[derive(Clone, Debug)]
pub struct HyperExecutor(());

impl HyperExecutor {
    pub(super) fn new() -> Self {
        Self(())
    }
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for HyperExecutor {
    fn execute(&self, task: F) {
        tokio::spawn(task.in_current_span());
    }
}

/// Whether a client that negotiated `h2` speaks HTTP/1 all the same, as Envoy's health check does by default (envoyproxy/envoy#46848). The
/// first bytes show it. `false` if none come in time.
pub(super) async fn speaks_http1(stream: &mut HttpStream, lifetime: &ConnectionLifetime) -> bool {
    let is_other_method = poll_fn(|cx| {
        let bytes = ready!(stream.poll_first_bytes(cx)).unwrap_or_default();
        Poll::Ready(FirstBytes::of(bytes) == FirstBytes::Other && bytes.iter().take(3).all(u8::is_ascii_graphic))
    });
    let window_over = async {
        lifetime.until_last_request().await;
        lifetime.until_first_window_over().await;
        // The first bytes may be in the system's buffer, and Tokio's sockets ask the system again only after a turn of the runtime.
        yield_now().await;
    };
    tokio::select! {
        biased;
        is_other_method = is_other_method => is_other_method,
        () = window_over => false,
        () = lifetime.until_head_timeout(|| lifetime.preface_wait()) => false,
    }
}

/// How long the calls of a connection may take to end at the deadline: less than half of a drain's reserve, and longer than most round trips.
const STATUS_TIMEOUT: Duration = Duration::from_millis(400);

pub(super) async fn serve_http2<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    graceful_shutdown: fn(Pin<&mut C>),
    frames: &Mutex<Http2Frames>,
    lifetime: &ConnectionLifetime,
) -> Flow {
    let has_preface = || lock(frames).has_preface();
    // h2 waits without limit for the rest of a preface, and cannot be told to stop.
    let wait = || if has_preface() { lock(frames).wait() } else { lifetime.preface_wait() };
    let end = until(connection.as_mut(), pin!(lifetime.until_end(wait))).await?;
    if matches!(end, ClientWait::Head { .. }) {
        // h2 would wait for the rest.
        return Flow::Continue(());
    }
    if has_preface() {
        // The time of an idle client is over.
        if end == ClientWait::None {
            until(connection.as_mut(), pin!(lifetime.until_jitter_over())).await?;
        }
    } else {
        until(connection.as_mut(), pin!(lifetime.until_first_window_over())).await?;
    }
    // A request may be in the system's buffer, and Tokio's sockets ask the system again only after a turn of the runtime.
    yield_now().await;
    until_pending(connection.as_mut(), || true).await?;
    if !has_preface() {
        return Flow::Continue(());
    }
    //= https://www.rfc-editor.org/rfc/rfc9113#section-6.8
    //# A server that is attempting to gracefully shut down a connection
    //# SHOULD send an initial GOAWAY frame with the last stream identifier
    //# set to 2^31-1 and a NO_ERROR code.
    graceful_shutdown(connection.as_mut());
    // h2 sends the final GOAWAY when the client has answered its PING.
    until(connection.as_mut(), pin!(lifetime.until_ping_timeout())).await?;
    lock(frames).answer_ping();
    tokio::select! {
        biased;
        flow = until_pending(connection.as_mut(), || lock(frames).is_stuck_in_frame()) => return flow,
        () = lifetime.until_deadline() => {}
    }
    if lifetime.had_grpc_call() {
        // The tasks of the calls give h2 their status, and the connection sends it behind the messages that still wait for a window.
        let all_answered = until_pending(connection, || lock(frames).unanswered().next().is_none());
        // What does not end is cut, and the client learns that from RST_STREAM.
        let _ = timeout(STATUS_TIMEOUT, all_answered).await;
    }
    Flow::Continue(())
}
