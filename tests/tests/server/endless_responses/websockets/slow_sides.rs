//! A client or an application that is slow, or does nothing, when the server closes their WebSocket.

use std::{
    future::{pending, poll_fn},
    io,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use hyper::rt::Executor;
use tls_shutdown::{
    Ending, ShutdownPolicy,
    server::{DrainPhase, ResponseDelivery, Server},
};
use tls_shutdown_tests::{
    serving::Running,
    soon,
    time::{pass_time, turns},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    task::coop,
};

use super::{
    CLIENT_CLOSE, CLIENT_PING, FIN, GOING_AWAY, Http1, Protocol, Stream, TEXT, WebSocket, frame, handshake, unchanged,
};
use crate::endless_responses::{Http2, send_http2};

/// A client that does not read holds the Close frame back, and a write of the application. Both end.
#[tokio::test]
async fn a_client_that_reads_late_receives_its_close_frame() {
    for protocol in Protocol::BOTH {
        let WebSocket { mut running, application, mut client } = WebSocket::open(protocol).await;
        let (mut reader, mut writer) = tokio::io::split(application);
        let message = frame(FIN | TEXT, &[b'm'; 50_000]);
        let writing = tokio::spawn({
            let message = message.clone();
            async move {
                let mut whole = 0;
                while writer.write_all(&message).await.is_ok() {
                    whole += 1;
                }
                whole
            }
        });
        turns(5_000).await;
        running.signal();
        soon(running.drain.reached(DrainPhase::LastRequest)).await;
        turns(500).await;
        let mut received = Vec::new();
        while !received.ends_with(GOING_AWAY) {
            assert!(soon(client.read_buf(&mut received)).await.expect("more") > 0, "{protocol:?}");
        }
        let whole = soon(writing).await.expect("no panic");
        assert!(received == [message.repeat(whole), GOING_AWAY.to_vec()].concat(), "{protocol:?}: {whole}");
        client.write_all(CLIENT_CLOSE).await.expect("sent");
        client.flush().await.expect("sent");
        assert_eq!(soon(reader.read_u8()).await.expect("a frame"), CLIENT_CLOSE[0]);
        drop(reader);
        drop(client);
        assert_eq!(running.end().await.responses_cut(), 0, "{protocol:?}");
    }
}

/// The application waits for the client's Close frame.
#[tokio::test]
async fn a_client_that_never_answers_the_close_frame_is_waited_for_5_s() {
    for protocol in Protocol::BOTH {
        let WebSocket { mut running, application, mut client } = WebSocket::open(protocol).await;
        let (mut reader, _writer) = tokio::io::split(application);
        let reading = tokio::spawn(async move {
            let error = reader.read_u8().await.expect_err("no more bytes");
            let again = reader.read_u8().await.expect_err("no more bytes");
            (error, again.kind())
        });
        running.signal();
        let mut received = [0; GOING_AWAY.len()];
        soon(client.read_exact(&mut received)).await.expect("a frame");
        assert_eq!(received, GOING_AWAY, "{protocol:?}");
        let moment = Duration::from_millis(100);
        pass_time(ShutdownPolicy::CLOSE_TIMEOUT - moment).await;
        assert!(!reading.is_finished(), "{protocol:?}");
        pass_time(moment * 2).await;
        let (error, again) = soon(reading).await.expect("no panic");
        assert_eq!([error.kind(), again], [io::ErrorKind::TimedOut; 2], "{protocol:?}: {error}");
        // The application still holds its other half.
        assert_eq!(soon(client.read(&mut [0])).await.expect("a clean end"), 0, "{protocol:?}");
        // Over HTTP/2, the server wants no more of the request.
        let _ = soon(client.shutdown()).await;
        drop(client);
        let end = running.end().await;
        assert!(end.ending().is_clean() && end.responses_cut() == 0, "{protocol:?}: {end}");
        let report = running.report().await;
        assert_eq!((report.left(), report.responses_cut()), (0, 0), "{protocol:?}: {report}");
        assert!(report.elapsed() < ShutdownPolicy::CLOSE_TIMEOUT + Duration::from_secs(1), "{protocol:?}: {report}");
    }
}

/// The application reads on. Without a drain, nothing else would end such a connection that has reached its maximum age.
#[tokio::test]
async fn a_client_that_talks_on_after_the_close_frame_has_no_more_time() {
    for protocol in Protocol::BOTH {
        let WebSocket { mut running, mut application, mut client } = WebSocket::open(protocol).await;
        let reading = tokio::spawn(async move {
            loop {
                if let Err(error) = application.read_u8().await {
                    return error.kind();
                }
            }
        });
        running.signal();
        let mut received = [0; GOING_AWAY.len()];
        soon(client.read_exact(&mut received)).await.expect("a frame");
        let pause = Duration::from_millis(50);
        let mut time = Duration::ZERO;
        while !reading.is_finished() {
            assert!(time < ShutdownPolicy::CLOSE_TIMEOUT * 2, "{protocol:?}");
            client.write_all(&CLIENT_PING).await.expect("sent");
            client.flush().await.expect("sent");
            pass_time(pause).await;
            time += pause;
        }
        assert!(time >= ShutdownPolicy::CLOSE_TIMEOUT, "{protocol:?}: {time:?}");
        assert_eq!(soon(reading).await.expect("no panic"), io::ErrorKind::TimedOut, "{protocol:?}");
        drop(client);
        assert_eq!(running.end().await.responses_cut(), 0, "{protocol:?}");
    }
}

/// The rest of its task has used up what the task may do at once, and does not wake it.
#[tokio::test]
async fn an_application_that_was_busy_gives_up_in_time() {
    for protocol in Protocol::BOTH {
        let mut socket = WebSocket::open(protocol).await;
        socket.drain().await;
        socket.expect(GOING_AWAY).await;
        let WebSocket { mut running, mut application, client } = socket;
        let reading = tokio::spawn(async move {
            let mut read = pin!(application.read_u8());
            let mut polls = 0;
            let read = poll_fn(|cx| {
                polls += 1;
                while polls == 1
                    && let Poll::Ready(budget) = coop::poll_proceed(&mut Context::from_waker(Waker::noop()))
                {
                    budget.made_progress();
                }
                read.as_mut().poll(cx)
            });
            read.await.expect_err("no more bytes").kind()
        });
        pass_time(ShutdownPolicy::CLOSE_TIMEOUT * 2).await;
        assert!(reading.is_finished(), "{protocol:?}");
        assert_eq!(reading.await.expect("no panic"), io::ErrorKind::TimedOut, "{protocol:?}");
        drop(client);
        assert_eq!(running.end().await.responses_cut(), 0, "{protocol:?}");
    }
}

/// Half a second for close_notify, and some more for a busy machine. A client with an answer would be listened to for ten seconds.
const COURTESY: Duration = Duration::from_secs(3);

/// A WebSocket over HTTP/1 whose application has sent `message`, and waits for the client's Close frame until it may no longer.
async fn unanswered(message: &[u8]) -> (Running, Stream) {
    let WebSocket { mut running, mut application, client } = WebSocket::open(Http1).await;
    soon(application.write_all(message)).await.expect("room in the system's buffers");
    soon(application.flush()).await.expect("room in the system's buffers");
    running.signal();
    soon(running.drain.reached(DrainPhase::LastRequest)).await;
    pass_time(ShutdownPolicy::CLOSE_TIMEOUT + Duration::from_millis(100)).await;
    let error = soon(application.read_u8()).await.expect_err("no more bytes");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    (running, client)
}

/// The server has said everything, and does not wait for the client.
async fn ends_soon(mut running: Running) {
    let end = running.end().await;
    assert_eq!((end.ending(), end.responses_cut()), (Ending::Sent, 0), "{end}");
    let report = running.report().await;
    assert!(report.elapsed() < ShutdownPolicy::CLOSE_TIMEOUT + COURTESY, "{report}");
    assert_eq!((report.left(), report.lingering()), (0, 0), "{report}");
}

/// Its time is over, and its system has acknowledged everything.
#[tokio::test]
async fn a_client_that_ignores_every_end_holds_up_no_exit() {
    let (running, client) = unanswered(&frame(FIN | TEXT, b"hello")).await;
    ends_soon(running).await;
    drop(client);
}

/// Nothing of the client is polled any more, so that it answers neither close_notify nor PING.
#[tokio::test]
async fn a_client_of_http2_that_ignores_every_end_holds_up_no_exit() {
    let (freeze, frozen) = watch::channel(Frozen::No);
    let send = async |running: &Running| send_http2(running, Freezer(frozen), handshake(Http2)).await;
    let opened = WebSocket::open_sending(Http2, "websocket", unchanged, send).await;
    let WebSocket { mut running, mut application, client } = opened;
    freeze.send_replace(Frozen::Yes);
    running.signal();
    soon(running.drain.reached(DrainPhase::LastRequest)).await;
    pass_time(ShutdownPolicy::CLOSE_TIMEOUT + Duration::from_millis(100)).await;
    let error = soon(application.read_u8()).await.expect_err("no more bytes");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    ends_soon(running).await;
    drop(client);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Frozen {
    No,
    Yes,
}

/// Runs the tasks of a client until it is frozen.
#[derive(Clone)]
struct Freezer(watch::Receiver<Frozen>);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Freezer {
    fn execute(&self, task: F) {
        let mut frozen = self.0.clone();
        tokio::spawn(async move {
            let mut task = Box::pin(task);
            let has_ended = tokio::select! {
                _ = &mut task => true,
                () = async { drop(frozen.wait_for(|frozen| *frozen == Frozen::Yes).await) } => false,
            };
            if !has_ended {
                pending().await
            }
        });
    }
}

/// There is no drain, whose deadline would end it. Over HTTP/2, the stall timeout does.
#[tokio::test]
async fn a_client_that_reads_nothing_cannot_keep_a_connection_that_its_application_has_left() {
    let aged = |server: Server| server.max_connection_age(Duration::from_secs(10));
    let WebSocket { mut running, mut application, client } = WebSocket::open_with(Http1, aged).await;
    let writing = tokio::spawn(async move {
        // TLS accepts all of such a message or nothing, so that none is half-sent when the Close frame is due.
        let message = frame(FIN | TEXT, &[b'm'; 14]);
        while application.write_all(&message).await.is_ok() {}
    });
    turns(60_000).await;
    pass_time(Duration::from_secs(12)).await;
    soon(writing).await.expect("no panic");
    // The Close frame is given up, and then the closing.
    pass_time(ShutdownPolicy::STALL_TIMEOUT * 2 + Duration::from_secs(30)).await;
    let end = running.end().await;
    assert_eq!((end.ending(), end.delivery()), (Ending::TimedOut, ResponseDelivery::Cut), "{end}");
    drop(client);
}

/// Its system has not acknowledged the last message.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_that_reads_slowly_is_not_taken_for_one_that_ignores_the_end() {
    let message = frame(FIN | TEXT, &[b'm'; 400_000]);
    let (mut running, mut client) = unanswered(&message).await;
    pass_time(COURTESY).await;
    assert_eq!(running.drain.connections(), 1);
    let mut received = Vec::new();
    soon(client.read_to_end(&mut received)).await.expect("a clean end");
    assert!(received == [&message, GOING_AWAY].concat(), "{} bytes", received.len());
    drop(client);
    assert!(running.end().await.ending().is_clean());
    assert_eq!(running.report().await.left(), 0);
}

/// It is busy for longer than the client may take to answer, and then reads what has arrived.
#[tokio::test]
async fn an_application_that_reads_late_loses_nothing() {
    for protocol in Protocol::BOTH {
        let mut socket = WebSocket::open(protocol).await;
        socket.drain().await;
        socket.expect(GOING_AWAY).await;
        let message = [0x81, 0x82, 0, 0, 0, 0, b'o', b'k'];
        socket.client.write_all(&message).await.expect("sent");
        socket.client.write_all(CLIENT_CLOSE).await.expect("sent");
        socket.client.flush().await.expect("sent");
        pass_time(ShutdownPolicy::CLOSE_TIMEOUT * 2).await;
        for expected in [&message[..], CLIENT_CLOSE] {
            let mut received = vec![0; expected.len()];
            soon(socket.application.read_exact(&mut received)).await.expect("more");
            assert_eq!(received, expected, "{protocol:?}");
        }
        socket.only_the_end_is_left().await;
    }
}
