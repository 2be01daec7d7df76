//! Clients that cancel their requests (HTTP/2 rapid reset, CVE-2023-44487).

use std::{net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use tls_shutdown::Ending;
use tls_shutdown_tests::{
    End,
    serving::{
        Client, Running,
        http2::{
            self, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, RST_STREAM, WINDOW_UPDATE, frame, header_block,
            hello, pong,
        },
    },
    soon,
    time::leap,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use crate::routes::routes;

const CANCEL: &[u8] = &[0, 0, 0, 8];
const ENHANCE_YOUR_CALM: &[u8] = &[0, 0, 0, 11];
/// More streams than any client of this kind is left.
const STREAMS: u32 = 20_000;
/// The most streams that such a client is left.
const MAX_REQUESTS: u64 = 1_000;

fn request(stream: u32, flags: u8, path: &str) -> Vec<u8> {
    let block = header_block(path);
    match flags & PADDED {
        0 => frame(HEADERS, flags, stream, &block),
        _ => frame(HEADERS, flags, stream, &[&[3][..], &block, &[0; 3]].concat()),
    }
}

/// How a client floods.
#[derive(Clone, Copy, Debug)]
struct Flood {
    flags: u8,
    path: &'static str,
    /// Each request is cancelled so many requests later.
    lag: u32,
}

impl Flood {
    fn every(paths: &[&'static str]) -> impl Iterator<Item = Self> {
        (0..=5).flat_map(move |lag| {
            paths.iter().flat_map(move |path| {
                [0, END_STREAM, PADDED, PADDED | END_STREAM].map(move |flags| Self { flags, path, lag })
            })
        })
    }

    /// Requests and cancels. Returns what came, and the end.
    async fn run(self, address: SocketAddr) -> (Vec<u8>, End) {
        let mut client = Client::connect_http2(address).await;
        client.send(hello()).await;
        let (mut reader, mut writer) = tokio::io::split(client.stream);
        let flood = tokio::spawn(async move {
            for first in (0..STREAMS).step_by(50) {
                let pairs = (first..first + 50).map(|number| {
                    let request = request(2 * number + 1, self.flags | END_HEADERS, self.path);
                    let reset = number.checked_sub(self.lag);
                    let reset = reset.map(|number| frame(RST_STREAM, 0, 2 * number + 1, CANCEL));
                    [request, reset.unwrap_or_default()].concat()
                });
                if writer.write_all(&pairs.collect::<Vec<_>>().concat()).await.is_err() {
                    break;
                }
            }
            let _ = writer.flush().await;
            writer
        });
        let mut frames = Vec::new();
        let end = loop {
            let mut buffer = vec![0; 64 * 1024];
            match soon(reader.read(&mut buffer)).await {
                Ok(0) => break End::CloseNotify,
                Ok(amount) => frames.extend_from_slice(&buffer[..amount]),
                Err(error) => break End::of(&error),
            }
        };
        drop((soon(flood).await.expect("no panic"), reader));
        (frames, end)
    }

    /// Asserts that each of so many connections is ended.
    async fn is_ended(self, connections: usize) {
        let mut running = Running::start(routes).await;
        for (frames, end) in join_all((0..connections).map(|_| self.run(running.address))).await {
            assert_eq!(end, End::CloseNotify, "{self:?}");
            let goaway = http2::frames(&frames).into_iter().rfind(|frame| frame.kind == GOAWAY).expect("a GOAWAY");
            assert_eq!(&goaway.payload[4..8], ENHANCE_YOUR_CALM, "{self:?}");
            let requests = running.end().await.requests();
            assert!(requests < MAX_REQUESTS, "{self:?}: {requests} requests");
        }
    }
}

#[tokio::test]
async fn a_client_that_cancels_all_its_requests_is_ended() {
    for flood in Flood::every(&["/", "/never", "/stop"]) {
        flood.is_ended(1).await;
    }
}

#[tokio::test]
async fn ten_connections_that_cancel_all_their_requests_are_ended() {
    for flood in Flood::every(&["/never"]) {
        flood.is_ended(10).await;
    }
}

#[tokio::test]
async fn a_client_that_cancels_one_request_in_fifteen_is_served() {
    let mut running = Running::start(routes).await;
    let mut client = Client::connect_http2(running.address).await;
    client.send(hello()).await;
    let mut answered = 0;
    for number in 0..5_000 {
        let stream = 2 * number + 1;
        if number % 15 == 0 {
            let reset = frame(RST_STREAM, 0, stream, CANCEL);
            client.send([request(stream, END_HEADERS, "/never"), reset].concat()).await;
        } else {
            client.send(request(stream, END_HEADERS | END_STREAM, "/")).await;
            answered += 1;
            while client.frame_of(http2::DATA).await.flags & END_STREAM == 0 {}
        }
    }
    soon(client.stream.shutdown()).await.expect("sent");
    drop(client);
    assert!(running.end().await.requests() >= answered);
}

/// Two requests a second.
#[tokio::test]
async fn a_client_that_cancels_one_request_in_fifteen_is_served_for_an_hour() {
    const PACE: Duration = Duration::from_millis(500);
    let mut running = Running::start(routes).await;
    let mut client = Client::connect_http2(running.address).await;
    // The window of the connection is large enough for all answers.
    client.send([hello(), frame(WINDOW_UPDATE, 0, 0, &1_000_000_u32.to_be_bytes())].concat()).await;
    let began = Instant::now();
    let mut number = 0;
    while began.elapsed() < Duration::from_secs(3600) {
        let stream = 2 * number + 1;
        if number % 15 == 0 {
            let reset = frame(RST_STREAM, 0, stream, CANCEL);
            client.send([request(stream, END_HEADERS, "/never"), reset].concat()).await;
        } else {
            client.send(request(stream, END_HEADERS | END_STREAM, "/")).await;
            is_answered(&mut client, stream).await;
        }
        number += 1;
        leap(PACE).await;
    }
    soon(client.stream.shutdown()).await.expect("sent");
    drop(client);
    let end = running.end().await;
    assert_eq!(end.ending(), Ending::Complete, "{end}");
}

/// Receives the answer on a stream. Answers pings.
async fn is_answered(client: &mut Client, stream: u32) {
    loop {
        let frame = client.next_frame().await.expect("a frame");
        match frame.kind {
            http2::PING if frame.flags == 0 => client.send(pong(&frame)).await,
            http2::DATA if frame.stream == stream && frame.flags & END_STREAM != 0 => return,
            GOAWAY => panic!("the connection ends after {stream}"),
            _ => {}
        }
    }
}
