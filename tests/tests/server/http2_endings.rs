//! How HTTP/2 connections end, on every path.

use std::{io::Write, time::Duration};

use tls_shutdown::{Ending, server::ServerDrain};
use tls_shutdown_tests::{
    End,
    serving::{
        Client, Running, body_of,
        http2::{
            self, CONTINUATION, END_HEADERS, END_STREAM, GET, HEADERS, PING, RST_STREAM, SETTINGS, frame, get,
            get_path, goaways, header_block, header_block_with_length, hello, is_answered,
        },
        listener,
    },
    soon,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::routes::routes;

#[tokio::test]
async fn http2_that_is_dropped_is_told_what_is_cut() {
    let mut running = Running::start(routes).await;
    let mut client = Client::connect_http2(running.address).await;
    client.send([hello(), get_path(1, "/"), get_path(3, "/stop"), get_path(5, "/never")].concat()).await;
    let mut before = Vec::new();
    while !(is_answered(&before, 1) && before.iter().any(|frame| frame.stream == 3 && frame.kind == http2::DATA)) {
        before.push(client.next_frame().await.expect("a frame"));
    }
    running.cut().await;
    let (frames, end) = client.frames_to_end().await;
    let cancelled: Vec<_> = frames
        .iter()
        .filter(|frame| frame.kind == RST_STREAM)
        .map(|frame| (frame.stream, &frame.payload[..]))
        .collect();
    assert_eq!(cancelled, [(3, &[0, 0, 0, 8][..]), (5, &[0, 0, 0, 8])]);
    assert_eq!((goaways(&frames), end), (vec![5], End::CloseNotify));
    drop(client);
    let end = running.end().await;
    assert_eq!((end.requests(), end.responses_cut()), (3, 2));
}

#[tokio::test]
async fn http2_that_is_rubbish_ends_with_close_notify() {
    for rubbish in [
        b"PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n".to_vec(),
        vec![0; 100],
        [hello(), frame(http2::DATA, 0, 1, b"no stream")].concat(),
        [hello(), frame(PING, 0, 0, b"short")].concat(),
        [hello(), frame(HEADERS, END_HEADERS | END_STREAM, 2, GET)].concat(),
        [hello(), frame(HEADERS, 0, 1, GET), frame(PING, 0, 0, &[0; 8])].concat(),
        [hello(), [0xff; 100].to_vec()].concat(),
    ] {
        let mut running = Running::start(routes).await;
        let mut client = Client::connect_http2(running.address).await;
        client.send(&rubbish).await;
        let (_, end) = client.frames_to_end().await;
        drop(client);
        assert_eq!(end, End::CloseNotify, "{rubbish:?}");
        assert_eq!(running.end().await.responses_cut(), 0, "{rubbish:?}");
    }
}

/// Envoy's health check does that by default, and would take the server for dead.
#[tokio::test]
async fn a_client_that_negotiated_http2_and_speaks_http1_is_served() {
    let mut running = Running::start(routes).await;
    let mut client = Client::connect_http2(running.address).await;
    for _ in 0..2 {
        client.ask("/").await;
        let (head, body) = client.read_message().await;
        assert!(head.starts_with("http/1.1 200") && body.len() == 10, "{head}");
    }
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    let (data, end) = client.read_to_end().await;
    assert_eq!((body_of(&data).len(), end), (10, End::CloseNotify));
    drop(client);
    let end = running.end().await;
    assert_eq!((end.requests(), end.responses_cut()), (3, 0));
}

#[tokio::test]
async fn http2_floods_end() {
    let continuations = |count| {
        let mut flood = [hello(), frame(HEADERS, END_STREAM, 1, GET)].concat();
        for _ in 0..count {
            // `x: y` each time, as a literal that is not indexed.
            flood.extend(frame(CONTINUATION, 0, 1, &[0, 1, b'x', 1, b'y'].repeat(2000)));
        }
        flood
    };
    let resets = {
        let mut flood = hello();
        for stream in (1..20_000).step_by(2) {
            flood.extend([get(stream), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat());
        }
        flood
    };
    for flood in [continuations(1000), resets] {
        let mut running = Running::start(routes).await;
        let mut client = Client::connect_http2(running.address).await;
        let _ = soon(client.stream.write_all(&flood)).await;
        let (data, end) = client.read_to_end().await;
        drop(client);
        assert_eq!(end, End::CloseNotify, "{}", data.len());
        running.end().await;
    }
    // Every PING is answered. A server that drains ends the flood nevertheless.
    let quick = |drain: ServerDrain| drain.ping_timeout(Duration::from_millis(50));
    let mut running = Running::start_with(listener().await, |server| server, quick, routes);
    let mut client = Client::connect_http2(running.address).await;
    client.send(hello()).await;
    client.frame_of(SETTINGS).await;
    let (mut reader, mut writer) = tokio::io::split(client.stream);
    let flood = tokio::spawn(async move {
        let pings = frame(PING, 0, 0, &[0; 8]).repeat(100);
        while writer.write_all(&pings).await.is_ok() && writer.flush().await.is_ok() {}
    });
    let read = tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        while matches!(reader.read(&mut buffer).await, Ok(1..)) {}
    });
    running.signal();
    soon(read).await.expect("no panic");
    flood.abort();
    running.end().await;
}

#[tokio::test]
async fn http2_responses_that_the_service_cuts_are_counted() {
    for (failing, cut) in [("/fail", 1), ("/panic", 1), ("/body-fail", 1), ("/body-panic", 1), ("/", 0)] {
        let mut running = Running::start(routes).await;
        let mut client = Client::connect_http2(running.address).await;
        client.send([hello(), get_path(1, failing)].concat()).await;
        while client.next_frame().await.expect("a frame").stream != 1 {}
        client.send(get_path(3, "/")).await;
        while client.frame_of(http2::DATA).await.stream != 3 {}
        drop(client);
        let end = running.end().await;
        assert_eq!((end.requests(), end.responses_cut()), (2, cut), "{failing}");
    }
}

/// The service has them, or receives them when h2 has already reset them. Their client receives no response.
#[tokio::test]
async fn requests_that_h2_resets_before_an_answer_are_counted_and_those_that_it_refuses_are_not() {
    let post = |stream| frame(HEADERS, END_HEADERS, stream, &header_block_with_length("/never", 10));
    let (short, trailers) = (frame(http2::DATA, END_STREAM, 1, b"short"), frame(HEADERS, END_HEADERS, 1, &[]));
    let no_window = frame(http2::WINDOW_UPDATE, 0, 1, &0x7fff_ffff_u32.to_be_bytes());
    // A connection header is malformed (RFC 9113 section 8.2.2).
    let malformed = frame(HEADERS, END_HEADERS | END_STREAM, 1, &[GET, b"\0\x0aconnection\x05close"].concat());
    for (first, second, requests, cut) in [
        (post(1), short.clone(), 2, 1),
        ([post(1), short].concat(), vec![], 2, 1),
        (post(1), trailers, 2, 1),
        (get_path(1, "/never"), no_window, 2, 1),
        (malformed, vec![], 1, 0),
    ] {
        let mut running = Running::start(routes).await;
        let mut client = Client::connect_http2(running.address).await;
        // The response to the second request shows that the service has the first one.
        client.send([hello(), first, get(3)].concat()).await;
        let mut before = Vec::new();
        while !is_answered(&before, 3) {
            before.push(client.next_frame().await.expect("a frame"));
        }
        client.send(second).await;
        while resets(&before).is_empty() {
            before.push(client.next_frame().await.expect("a frame"));
        }
        assert_eq!(client.close().await, End::CloseNotify);
        drop(client);
        let end = running.end().await;
        assert_eq!((end.requests(), end.responses_cut(), resets(&before)), (requests, cut, vec![1]), "{end}");
    }
}

/// It may still read, and must learn what became of its requests.
#[tokio::test]
async fn an_http2_client_that_says_close_notify_hears_what_is_unanswered() {
    let mut running = Running::start(routes).await;
    let mut client = Client::connect_http2(running.address).await;
    let half_sent = frame(HEADERS, END_HEADERS, 1, &header_block("/never"));
    client.send([hello(), half_sent, get(3)].concat()).await;
    while client.frame_of(http2::DATA).await.flags & END_STREAM == 0 {}
    client.stream.shutdown().await.expect("sent");
    let (frames, end) = client.frames_to_end().await;
    assert_eq!((&resets(&frames)[..], &goaways(&frames)[..], end), (&[1][..], &[3][..], End::CloseNotify));
    drop(client);
    let end = running.end().await;
    assert_eq!((end.ending(), end.requests(), end.responses_cut()), (Ending::Complete, 2, 1), "{end}");
}

fn resets(frames: &[http2::Frame]) -> Vec<u32> {
    frames.iter().filter(|frame| frame.kind == RST_STREAM).map(|frame| frame.stream).collect()
}

/// Sends requests and close_notify in one write.
async fn send_and_close(client: &mut Client, requests: &[u8]) {
    let tls = client.stream.get_mut().1;
    tls.writer().write_all(requests).expect("buffered");
    tls.send_close_notify();
    client.stream.flush().await.expect("sent");
}

/// Their body ends at the next turn, or after many. close_notify ends only what the client sends (RFC 8446 section 6.1).
#[tokio::test]
async fn whole_http2_requests_before_close_notify_are_answered() {
    let mut running = Running::start(routes).await;
    for _ in 0..20 {
        let mut client = Client::connect_http2(running.address).await;
        let requests = [hello(), get(1), get_path(3, "/chunks"), frame(HEADERS, END_HEADERS, 5, GET)];
        send_and_close(&mut client, &[&requests.concat()[..], &frame(http2::DATA, END_STREAM, 5, b"body")].concat())
            .await;
        let (frames, end) = client.frames_to_end().await;
        assert!([1, 3, 5].iter().all(|stream| is_answered(&frames, *stream)), "{frames:?}");
        assert_eq!((&resets(&frames)[..], end), (&[][..], End::CloseNotify));
        drop(client);
        let end = running.end().await;
        assert_eq!((end.ending(), end.requests(), end.responses_cut()), (Ending::Complete, 3, 0), "{end}");
    }
}

/// The client can open its windows no more.
#[tokio::test]
async fn a_response_beyond_the_windows_of_a_client_that_said_close_notify_is_reset_and_counted() {
    let mut running = Running::start(routes).await;
    let mut client = Client::connect_http2(running.address).await;
    send_and_close(&mut client, &[hello(), get(1), get_path(3, "/large")].concat()).await;
    let (frames, end) = client.frames_to_end().await;
    assert!(is_answered(&frames, 1), "{frames:?}");
    let received: usize =
        frames.iter().filter(|frame| frame.kind == http2::DATA).map(|frame| frame.payload.len()).sum();
    assert_eq!((received, &resets(&frames)[..], end), (65_535, &[3][..], End::CloseNotify));
    drop(client);
    let end = running.end().await;
    assert_eq!((end.ending(), end.requests(), end.responses_cut()), (Ending::Complete, 2, 1), "{end}");
}

//= https://www.rfc-editor.org/rfc/rfc9113#section-3.4
//# Clients and servers MUST treat an invalid connection preface as a
//# connection error (Section 5.4.1) of type PROTOCOL_ERROR.
#[tokio::test]
async fn an_invalid_preface_is_a_protocol_error() {
    let mut running = Running::start(routes).await;
    for preface in ["PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "\0\0\0\x04\0\0\0\0\0 settings without a preface"] {
        let mut client = Client::connect_http2(running.address).await;
        client.send(preface).await;
        let (frames, end) = client.frames_to_end().await;
        let goaway = frames.iter().find(|frame| frame.kind == http2::GOAWAY).expect("told");
        assert_eq!((&goaway.payload[..], end), (&[0, 0, 0, 0, 0, 0, 0, 1][..], End::CloseNotify));
        drop(client);
        running.end().await;
    }
}

#[tokio::test]
async fn clients_that_reset_a_stream_have_not_lost_a_response() {
    let mut running = Running::start(routes).await;
    let mut client = Client::connect_http2(running.address).await;
    client
        .send([hello(), get_path(1, "/never"), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), get_path(3, "/")].concat())
        .await;
    while client.frame_of(http2::DATA).await.flags & END_STREAM == 0 {}
    running.cut().await;
    assert_eq!(client.frames_to_end().await.1, End::CloseNotify);
    drop(client);
    assert_eq!(running.end().await.responses_cut(), 0);
}
