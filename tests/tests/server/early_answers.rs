//! Answers that are sent before the whole request has come.

use tls_shutdown_tests::{
    End,
    serving::{
        Client, Running, ScriptedBody, answer, body_of,
        http2::{self, END_HEADERS, END_STREAM, HEADERS, PADDED, RST_STREAM, WINDOW_UPDATE, frame, get_path, hello},
    },
    soon,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::routes::routes;

#[tokio::test]
async fn an_early_answer_arrives_whole() {
    let running = Running::start(|_| async { answer(ScriptedBody::full(300_000)) }).await;
    for _ in 0..10 {
        let mut client = Client::connect(running.address).await;
        let (mut reader, mut writer) = tokio::io::split(client.stream);
        let upload = tokio::spawn(async move {
            let _ = writer.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;
            let _ = writer.write_all(&vec![0; 1_000_000]).await;
            let _ = writer.flush().await;
            writer
        });
        let writer = soon(upload).await.expect("no panic");
        let mut head = vec![0; 1000];
        soon(reader.read_exact(&mut head)).await.expect("an answer");
        client = Client { stream: reader.unsplit(writer) };
        let (rest, end) = client.read_to_end().await;
        assert_eq!(end, End::CloseNotify);
        assert_eq!(body_of(&[head, rest].concat()).len(), 300_000);
    }
}

/// `:method: POST`, `:scheme: https`, `:path`, `content-length`, `:authority: a`.
fn post(stream: u32, path: &str, length: &str) -> Vec<u8> {
    let literal =
        |name: u8, value: &str| [&[name, u8::try_from(value.len()).expect("short")], value.as_bytes()].concat();
    let head =
        [vec![0x83, 0x87], literal(0x04, path), literal(0x41, "a"), [&[0x0f], &literal(0x0d, length)[..]].concat()];
    frame(HEADERS, END_HEADERS, stream, &head.concat())
}

//= https://www.rfc-editor.org/rfc/rfc9113#section-8.1.1
//# For malformed requests, a server MAY send an HTTP response prior to
//# closing or resetting the stream.
/// curl ends an upload this way when it has seen a status of 400 or more. Only a part of the answer fits into the first windows.
#[tokio::test]
async fn an_early_answer_over_http2_arrives_whole_though_the_upload_is_cut_short() {
    let mut running = Running::start(routes).await;
    for padding in [None, Some(0), Some(100)] {
        let mut client = Client::connect_http2(running.address).await;
        client.send([hello(), post(1, "/many", "1000000"), frame(http2::DATA, 0, 1, &[0; 1000])].concat()).await;
        client.frame_of(HEADERS).await;
        client.send(end_of_data(1, padding)).await;
        let more = 300_000_u32.to_be_bytes();
        client.send([frame(WINDOW_UPDATE, 0, 1, &more), frame(WINDOW_UPDATE, 0, 0, &more)].concat()).await;
        let mut body = 0;
        let end = loop {
            let frame = client.next_frame().await.expect("a frame");
            assert_ne!(frame.kind, RST_STREAM, "{frame:?} after {body} bytes");
            if frame.kind == http2::DATA {
                body += frame.payload.len();
                if frame.flags & END_STREAM != 0 {
                    break client.frame_of(RST_STREAM).await;
                }
            }
        };
        assert_eq!(body, 300_000, "{padding:?}");
        assert_eq!(end.payload, [0; 4], "the rest of the upload is not wanted, which is no error");
        // The connection is still of use.
        client.send(get_path(3, "/")).await;
        assert_eq!(client.frame_of(http2::DATA).await.stream, 3);
        drop(client);
        let end = running.end().await;
        assert_eq!((end.requests(), end.responses_cut()), (2, 0));
    }
}

#[tokio::test]
async fn a_response_that_stands_still_is_reset_if_its_request_was_cut_short() {
    let running = Running::start(routes).await;
    let mut client = Client::connect_http2(running.address).await;
    client.send([hello(), post(1, "/stop", "1000000")].concat()).await;
    client.frame_of(HEADERS).await;
    client.send(end_of_data(1, None)).await;
    let end = client.frame_of(RST_STREAM).await;
    assert_eq!((end.stream, &end.payload[..]), (1, &[0, 0, 0, 1][..]), "PROTOCOL_ERROR");
    client.send(get_path(3, "/")).await;
    assert_eq!(client.frame_of(http2::DATA).await.stream, 3);
}

/// An empty DATA frame that ends its stream, padded or not.
fn end_of_data(stream: u32, padding: Option<u8>) -> Vec<u8> {
    match padding {
        None => frame(http2::DATA, END_STREAM, stream, &[]),
        Some(length) => {
            let payload = [vec![length], vec![0; usize::from(length)]].concat();
            frame(http2::DATA, END_STREAM | PADDED, stream, &payload)
        }
    }
}
