//! Event streams.

use std::{convert::Infallible, io, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::{
    Request, Response,
    body::Incoming,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue},
};
use tls_shutdown::server::{ConnectionInfo, DrainPhase, EndlessResponse, Server};
use tls_shutdown_tests::{
    serving::{BodyDriver, DrivenBody, Running, listener},
    soon,
    time::{pass_time, turns},
};

use super::{Once, Protocol, patient, send, unchanged};

/// A server whose only response is an event stream, and its client.
struct EventStream {
    running: Running,
    events: BodyDriver,
    body: Incoming,
}

impl EventStream {
    async fn open(protocol: Protocol) -> Self {
        Self::open_with(protocol, unchanged, &[(CONTENT_TYPE, "text/event-stream")]).await
    }

    async fn open_with(
        protocol: Protocol,
        server: impl FnOnce(Server) -> Server,
        headers: &[(HeaderName, &'static str)],
    ) -> Self {
        let (events, body) = DrivenBody::new();
        let mut response = Response::new(body);
        for (name, value) in headers {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        let response = Once::new(response);
        let answer = move |_| std::future::ready(Ok::<_, Infallible>(response.take()));
        let running = Running::start_with(listener().await, server, patient, answer);
        let request = Request::get("https://localhost/").body(Empty::new()).expect("a request");
        let body = send(&running, protocol, request).await.into_body();
        Self { running, events, body }
    }

    /// Begins the drain, and waits until everybody has seen that.
    async fn drain(&mut self) {
        self.running.signal();
        soon(self.running.drain.reached(DrainPhase::LastRequest)).await;
        turns(200).await;
    }

    /// Reads as much as `expected` is long.
    async fn expect(&mut self, expected: &str) {
        let mut read = Vec::new();
        while read.len() < expected.len() {
            let frame = soon(self.body.frame()).await.expect("more").expect("no error");
            read.extend(frame.into_data().expect("data"));
        }
        assert_eq!(String::from_utf8_lossy(&read), expected);
    }

    /// Reads to the end.
    async fn rest(&mut self) -> Result<String, hyper::Error> {
        let rest = soon((&mut self.body).collect()).await?.to_bytes();
        Ok(String::from_utf8(rest.to_vec()).expect("UTF-8"))
    }

    /// Waits for the end of the drain. Returns how many responses were cut.
    async fn cut(mut self) -> u64 {
        let cut = self.running.end().await.responses_cut();
        self.running.report().await;
        cut
    }
}

#[tokio::test]
async fn an_event_stream_ends_between_two_events() {
    for protocol in Protocol::BOTH {
        let mut stream = EventStream::open(protocol).await;
        stream.events.send("data: 1\n\n");
        stream.expect("data: 1\n\n").await;
        stream.drain().await;
        assert_eq!(stream.rest().await.expect("a whole body"), "", "{protocol:?}");
        soon(stream.events.dropped()).await;
        assert_eq!(stream.cut().await, 0, "{protocol:?}");
    }
}

#[tokio::test]
async fn an_event_that_is_half_sent_is_completed() {
    for protocol in Protocol::BOTH {
        let mut stream = EventStream::open(protocol).await;
        stream.events.send("data: 1\n\ndata: 2");
        stream.expect("data: 1\n\ndata: 2").await;
        stream.drain().await;
        for piece in ["2", "\n", "data: 2\n", "\ndata: 3\n\ndata: 4"] {
            turns(100).await;
            stream.events.send(piece);
        }
        assert_eq!(stream.rest().await.expect("a whole body"), "2\ndata: 2\n\ndata: 3\n\n", "{protocol:?}");
        assert_eq!(stream.cut().await, 0, "{protocol:?}");
    }
}

/// A proxy passes on what it has read, whatever that is.
#[tokio::test]
async fn an_event_stream_may_be_cut_at_every_byte() {
    const EVENTS: &str = ": hi\r\nid: 7\r\ndata: a\r\ndata: b\r\n\r\n: still here\r\ndata: c\r\n\r\n";
    // After the comment, and after each event.
    let ends = [6, EVENTS.find(": still").expect("there"), EVENTS.find("data: c").expect("there"), EVENTS.len()];
    for protocol in Protocol::BOTH {
        for cut in 1..EVENTS.len() {
            let mut stream = EventStream::open(protocol).await;
            let (before, after) = EVENTS.split_at(cut);
            stream.events.send(before);
            stream.expect(before).await;
            stream.drain().await;
            stream.events.send(after);
            let received = before.len() + stream.rest().await.expect("a whole body").len();
            let expected = if ends.contains(&cut) { cut } else { EVENTS.len() };
            assert_eq!(received, expected, "{protocol:?}, after {before:?}");
        }
    }
}

/// The application may say goodbye.
#[tokio::test]
async fn what_an_event_stream_yields_at_the_last_request_is_sent() {
    const FAREWELL: &str = "event: farewell\ndata: bye\n\n";
    let answer = async |request: Request<Incoming>| {
        let drain = request.extensions().get::<ConnectionInfo>().expect("inserted").drain().clone();
        let farewell = async move {
            drain.reached(DrainPhase::LastRequest).await;
            Ok::<_, io::Error>(Frame::data(Bytes::from(FAREWELL)))
        };
        let mut response = Response::new(StreamBody::new(stream::once(Box::pin(farewell)).chain(stream::pending())));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        Ok::<_, Infallible>(response)
    };
    for protocol in Protocol::BOTH {
        let mut running = Running::start_with(listener().await, unchanged, patient, answer);
        let body =
            send(&running, protocol, Request::get("https://localhost/").body(Empty::new()).expect("a request")).await;
        running.signal();
        let body = soon(body.into_body().collect()).await.expect("a whole body").to_bytes();
        assert_eq!(body, FAREWELL, "{protocol:?}");
        running.report().await;
    }
}

#[tokio::test]
async fn an_event_stream_may_be_left_to_the_application() {
    let events = (CONTENT_TYPE, "text/event-stream");
    for protocol in Protocol::BOTH {
        let left = |server: Server| server.leave_to_application(EndlessResponse::EventStream);
        for mut stream in [
            EventStream::open_with(protocol, left, std::slice::from_ref(&events)).await,
            EventStream::open_with(protocol, unchanged, &[events.clone(), (CONTENT_ENCODING, "gzip")]).await,
            EventStream::open_with(protocol, unchanged, &[events.clone(), (CONTENT_LENGTH, "18")]).await,
            EventStream::open_with(protocol, unchanged, &[(CONTENT_TYPE, "text/event-stream-of-mine")]).await,
        ] {
            stream.events.send("data: 1\n\n");
            stream.expect("data: 1\n\n").await;
            stream.drain().await;
            stream.events.send("data: 2\n\n");
            stream.expect("data: 2\n\n").await;
            let EventStream { events, running, mut body } = stream;
            drop(events);
            soon((&mut body).collect()).await.expect("a whole body");
            running.report().await;
        }
    }
}

#[tokio::test]
async fn a_half_sent_event_is_cut_at_the_deadline() {
    for protocol in Protocol::BOTH {
        let mut stream = EventStream::open(protocol).await;
        stream.events.send("data: 1");
        stream.expect("data: 1").await;
        stream.drain().await;
        stream.running.force();
        stream.rest().await.expect_err("cut");
        assert_eq!(stream.cut().await, 1, "{protocol:?}");
    }
}

#[tokio::test]
async fn an_event_stream_ends_with_an_old_connection() {
    for protocol in Protocol::BOTH {
        let aged = |server: Server| server.max_connection_age(Duration::from_secs(10));
        let mut stream =
            EventStream::open_with(protocol, aged, &[(CONTENT_TYPE, "Text/Event-Stream; charset=utf-8")]).await;
        stream.events.send("data: 1\n\n");
        stream.expect("data: 1\n\n").await;
        pass_time(Duration::from_secs(12)).await;
        assert_eq!(stream.rest().await.expect("a whole body"), "", "{protocol:?}");
        assert_eq!(stream.running.end().await.responses_cut(), 0, "{protocol:?}");
    }
}

/// It is the last response of its connection, and has its time.
#[tokio::test]
async fn an_event_stream_may_be_the_last_response_of_its_connection() {
    for protocol in Protocol::BOTH {
        let single = |server: Server| server.max_requests(1);
        let mut stream = EventStream::open_with(protocol, single, &[(CONTENT_TYPE, "text/event-stream")]).await;
        for event in ["data: 1\n\n", "data: 2\n\n"] {
            turns(200).await;
            stream.events.send(event);
            stream.expect(event).await;
        }
        stream.drain().await;
        assert_eq!(stream.rest().await.expect("a whole body"), "", "{protocol:?}");
        assert_eq!(stream.cut().await, 0, "{protocol:?}");
    }
}
