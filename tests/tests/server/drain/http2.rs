//! HTTP/2 connections in a drain.

use http_body_util::BodyExt;
use hyper::{Request, body::Incoming};
use tls_shutdown_tests::{
    End,
    serving::{
        Client, LONG, Running, ScriptedBody, answer,
        http2::{
            self, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM, frame, get, get_path, goaways,
            header_block, hello, is_answered, pong,
        },
        listener,
    },
    soon,
    time::{pass_time, turns},
};
use tokio::sync::mpsc;

use crate::drain::{SHORT, start};

#[tokio::test]
async fn http2_is_drained_with_two_goaways() {
    let mut running = start(|drain| drain.ping_timeout(LONG)).await;
    let mut client = Client::connect_http2(running.address).await;
    client.send([hello(), get(1)].concat()).await;
    while client.frame_of(http2::DATA).await.flags & 1 == 0 {}
    running.signal();
    assert_eq!(goaways(&[client.frame_of(http2::GOAWAY).await]), [(1 << 31) - 1]);
    let ping = client.frame_of(PING).await;
    // It is on its way when the client learns of the drain.
    client.send(get(3)).await;
    client.send(pong(&ping)).await;
    let (frames, end) = client.frames_to_end().await;
    assert!(is_answered(&frames, 3));
    assert_eq!((goaways(&frames), end), (vec![3], End::CloseNotify));
    drop(client);
    let report = running.report().await;
    assert_eq!((report.requests(), report.responses_cut()), (1, 0), "{report}");
}

#[tokio::test]
async fn http2_clients_that_never_answer_ping_do_not_hold_the_drain_up() {
    for (sent, last, answered) in [
        (hello(), vec![(1 << 31) - 1, 0], false),
        ([hello(), get_path(1, "/told")].concat(), vec![(1 << 31) - 1, 1], true),
        // A frame whose end does not come.
        ([hello(), frame(PING, 0, 0, &[0; 8])[..5].to_vec()].concat(), vec![(1 << 31) - 1, 0], false),
        // Nothing of the preface, and half of it.
        (vec![], vec![0], false),
        (PREFACE[..10].to_vec(), vec![0], false),
    ] {
        let mut running = start(|drain| drain.ping_timeout(SHORT).last_request(SHORT)).await;
        let mut client = Client::connect_http2(running.address).await;
        client.send(&sent).await;
        turns(50).await;
        running.signal();
        let (frames, end) = client.frames_to_end().await;
        assert_eq!((goaways(&frames), end), (last, End::CloseNotify), "{sent:?}");
        assert_eq!(is_answered(&frames, 1), answered, "{sent:?}");
        drop(client);
        assert_eq!(running.report().await.responses_cut(), 0, "{sent:?}");
    }
}

/// A service may answer first, with 202 for example, and then read the request in a task. The server ends in the middle of a frame of it.
#[tokio::test]
async fn a_request_behind_its_response_is_received_to_its_end() {
    let data = frame(http2::DATA, END_STREAM, 1, &[b'x'; 1000]);
    for (ends_by, limit) in [("drain", LONG), ("idle timeout", SHORT), ("age", SHORT)] {
        let (sender, mut bodies) = mpsc::unbounded_channel();
        let mut running = Running::start_with(
            listener().await,
            |server| match ends_by {
                "idle timeout" => server.idle_timeout(limit),
                "age" => server.max_connection_age(limit),
                _ => server,
            },
            |drain| drain.ping_timeout(SHORT).grace_period(LONG),
            move |request: Request<Incoming>| {
                let sender = sender.clone();
                tokio::spawn(
                    async move { sender.send(request.into_body().collect().await.map(|body| body.to_bytes())) },
                );
                async { answer(ScriptedBody::full(10)) }
            },
        );
        let mut client = Client::connect_http2(running.address).await;
        client.send([hello(), frame(HEADERS, END_HEADERS, 1, &header_block("/"))].concat()).await;
        while client.frame_of(http2::DATA).await.flags & END_STREAM == 0 {}
        client.send(&data[..500]).await;
        turns(50).await;
        if ends_by == "drain" {
            running.signal();
        }
        pass_time(SHORT * 3).await;
        client.send(&data[500..]).await;
        let body = soon(bodies.recv()).await.expect("a service").expect("all of it");
        assert_eq!(body.len(), 1000, "{ends_by}");
        let (frames, end) = client.frames_to_end().await;
        assert_eq!((goaways(&frames), end), (vec![(1 << 31) - 1, 1], End::CloseNotify), "{ends_by}");
        drop(client);
        let end = running.end().await;
        assert_eq!((end.requests(), end.responses_cut()), (1, 0), "{ends_by}: {end}");
    }
}

/// A request whose head has not come completely is not served, and the client may repeat it elsewhere.
#[tokio::test]
async fn half_a_header_block_is_no_request() {
    for (before, last) in [(vec![], 0), (get_path(1, "/told"), 1)] {
        let mut running = start(|drain| drain.ping_timeout(SHORT).last_request(SHORT)).await;
        let mut client = Client::connect_http2(running.address).await;
        client.send([hello(), before, frame(HEADERS, END_STREAM, 3, &header_block("/told"))].concat()).await;
        turns(50).await;
        running.signal();
        let (frames, end) = client.frames_to_end().await;
        assert_eq!((goaways(&frames), end), (vec![(1 << 31) - 1, last], End::CloseNotify));
        assert_eq!(is_answered(&frames, 1), last == 1);
        drop(client);
        assert_eq!(running.report().await.responses_cut(), 0);
    }
}

#[tokio::test]
async fn http2_streams_at_the_deadline_are_reset() {
    let mut running = start(|drain| drain).await;
    let mut client = Client::connect_http2(running.address).await;
    client.send([hello(), get_path(1, "/stop")].concat()).await;
    client.frame_of(http2::DATA).await;
    running.signal();
    assert_eq!(goaways(&[client.frame_of(http2::GOAWAY).await]), [(1 << 31) - 1]);
    running.force();
    let (frames, end) = client.frames_to_end().await;
    let reset = frames.iter().find(|frame| frame.kind == RST_STREAM).expect("told");
    assert_eq!((reset.stream, &reset.payload[..]), (1, &[0, 0, 0, 8][..]));
    assert_eq!((goaways(&frames), end), (vec![1], End::CloseNotify));
    drop(client);
    assert_eq!(running.report().await.responses_cut(), 1);
}
