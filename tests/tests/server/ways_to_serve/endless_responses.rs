//! Endless responses of an application that knows nothing of the drain.

use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, ext::Protocol, header::CONTENT_TYPE};
use hyper_util::rt::TokioIo;
use tls_shutdown::server::DrainPhase;
use tls_shutdown_tests::{
    serving::{Integration, Site, hyper_body, hyper_http2, hyper_request},
    soon,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Code, Status};

use crate::ways_to_serve::{SHORT, all, each};

/// A Close frame of the server with code 1001.
const GOING_AWAY: &[u8] = &[0x88, 2, 0x03, 0xe9];
/// The client's answer, masked with zeros.
const CLIENT_CLOSE: &[u8] = &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];

#[tokio::test]
async fn event_streams_end_between_two_events() {
    for integration in Integration::http1().into_iter().filter(|integration| integration.is_layered()) {
        let mut site = Site::start(integration).await;
        let begun = each(async || {
            let mut client = site.connect().await;
            client.send("GET /events HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
            client.read_until("data: begun\n\n").await;
            client
        });
        let begun = begun.await;
        site.drain().await;
        all(begun, async |mut client| {
            assert_eq!(client.read_to_end_and_close().await, (String::new(), integration.orderly_end()));
        })
        .await;
        site.ends_completely().await;
    }
    for integration in Integration::http2().into_iter().filter(|integration| integration.is_layered()) {
        let mut site = Site::start(integration).await;
        let begun = each(async || {
            let (mut requests, connection) = hyper_http2(site.connect_http2().await).await;
            let response = soon(requests.send_request(hyper_request("/events"))).await;
            (requests, connection, response)
        });
        let begun = begun.await;
        site.drain().await;
        all(begun, async |(requests, connection, response)| {
            assert_eq!(hyper_body(async { response }).await.expect("a whole body"), "data: begun\n\n");
            drop(requests);
            soon(connection).await.expect("no panic");
        })
        .await;
        site.ends_completely().await;
    }
}

#[tokio::test]
async fn websockets_are_closed_with_1001() {
    for integration in Integration::http1().into_iter().filter(|integration| integration.is_layered()) {
        let mut site = Site::start(integration).await;
        let open = each(async || {
            let mut client = site.connect().await;
            client
                .send("GET /websocket HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
                .await;
            assert!(client.head().await.starts_with("http/1.1 101"));
            client
        });
        let open = open.await;
        site.drain().await;
        all(open, async |mut client| {
            client.send(CLIENT_CLOSE).await;
            assert_eq!(client.read_to_end().await, (GOING_AWAY.to_vec(), integration.orderly_end()));
            soon(client.stream.shutdown()).await.expect("sent");
        })
        .await;
        site.ends_completely().await;
    }
}

#[tokio::test]
async fn websockets_over_http2_are_closed_with_1001() {
    for integration in Integration::http1().into_iter().filter(|integration| integration.is_layered()) {
        let mut site = Site::start(integration).await;
        let open = each(async || {
            let (mut requests, connection) = hyper_http2(site.connect_http2().await).await;
            let mut request = hyper_request("/websocket");
            *request.method_mut() = Method::CONNECT;
            request.extensions_mut().insert(Protocol::from_static("websocket"));
            let response = soon(requests.send_request(request)).await.expect("a response");
            let socket = soon(hyper::upgrade::on(response)).await.expect("an upgrade");
            (requests, connection, TokioIo::new(socket))
        });
        let open = open.await;
        site.drain().await;
        all(open, async |(requests, connection, mut socket)| {
            soon(socket.write_all(CLIENT_CLOSE)).await.expect("sent");
            let mut received = Vec::new();
            soon(socket.read_to_end(&mut received)).await.expect("a clean end");
            assert_eq!(received, GOING_AWAY, "{integration:?}");
            drop((socket, requests));
            soon(connection).await.expect("no panic");
        })
        .await;
        site.ends_completely().await;
    }
}

#[tokio::test]
async fn grpc_calls_are_unavailable_at_the_deadline() {
    for integration in Integration::http2().into_iter().filter(|integration| integration.is_layered()) {
        let mut site = Site::start_with(integration, |drain| drain.grace_period(4 * SHORT)).await;
        let open = each(async || {
            let (mut requests, connection) = hyper_http2(site.connect_http2().await).await;
            let request = Request::post("https://localhost/call").header(CONTENT_TYPE, "application/grpc");
            let response = requests.send_request(request.body(Empty::new()).expect("a request"));
            (requests, connection, soon(response).await.expect("a response"))
        });
        let open = open.await;
        site.drain().await;
        all(open, async |(requests, connection, response)| {
            let body = soon(response.into_body().collect()).await.expect("no reset");
            let status = body.trailers().and_then(Status::from_header_map).expect("a status");
            assert_eq!((status.code(), &body.to_bytes()[5..]), (Code::Unavailable, &b"begun"[..]), "{integration:?}");
            drop(requests);
            soon(connection).await.expect("no panic");
        })
        .await;
        let report = site.ends_completely().await;
        assert!(!report.time_in(DrainPhase::Deadline).is_zero(), "{integration:?}: {report}");
    }
}
