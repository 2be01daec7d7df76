//! Clients that cancel their requests (HTTP/2 rapid reset, CVE-2023-44487).

use tls_shutdown_tests::{
    End,
    serving::{
        Client, Running,
        http2::{self, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, RST_STREAM, frame, header_block, hello},
    },
    soon,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

/// Each request is cancelled `lag` requests later.
async fn a_flood_is_ended(flags: u8, path: &str, lag: u32) {
    let case = format!("flags {flags}, {path}, cancelled {lag} requests later");
    let mut running = Running::start(routes).await;
    let mut client = Client::connect_http2(running.address).await;
    client.send(hello()).await;
    let (mut reader, mut writer) = tokio::io::split(client.stream);
    let path = path.to_owned();
    let flood = tokio::spawn(async move {
        for first in (0..STREAMS).step_by(50) {
            let pairs = (first..first + 50).map(|number| {
                let request = request(2 * number + 1, flags | END_HEADERS, &path);
                let reset = number.checked_sub(lag).map(|number| frame(RST_STREAM, 0, 2 * number + 1, CANCEL));
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
    assert_eq!(end, End::CloseNotify, "{case}");
    let goaway = http2::frames(&frames).into_iter().rfind(|frame| frame.kind == GOAWAY).expect("a GOAWAY");
    assert_eq!(&goaway.payload[4..8], ENHANCE_YOUR_CALM, "{case}");
    let requests = running.end().await.requests();
    assert!(requests < MAX_REQUESTS, "{case}: {requests} requests");
}

#[tokio::test]
async fn a_client_that_cancels_all_its_requests_is_ended() {
    for lag in 0..=5 {
        for path in ["/", "/never", "/stop"] {
            for flags in [0, END_STREAM, PADDED, PADDED | END_STREAM] {
                a_flood_is_ended(flags, path, lag).await;
            }
        }
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
