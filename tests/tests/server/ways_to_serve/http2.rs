//! HTTP/2.

use http_body_util::BodyExt;
use tls_shutdown_tests::{
    serving::{
        AnyStream, Client, Integration, Site,
        http2::{GOAWAY, PING, SETTINGS, goaways, hello, pong},
        hyper_http2, hyper_request,
    },
    soon,
};
use tokio::io::AsyncWriteExt;

use crate::ways_to_serve::{SHORT, all, each};

/// The last stream in the first GOAWAY: every stream is still served.
const ANNOUNCED: u32 = (1 << 31) - 1;

/// Connects for HTTP/2, and reads the server's SETTINGS.
async fn settled(site: &Site) -> Client<AnyStream> {
    let mut client = site.connect_http2().await;
    client.send(hello()).await;
    assert_eq!(client.next_frame().await.map(|frame| frame.kind), Some(SETTINGS));
    client
}

/// Reads up to the next GOAWAY. Returns its last stream.
async fn next_goaway(client: &mut Client<AnyStream>) -> u32 {
    goaways(&[client.frame_of(GOAWAY).await])[0]
}

#[tokio::test]
async fn endless_http2_responses_are_told_to_end() {
    for integration in Integration::http2() {
        let mut site = Site::start(integration).await;
        let begun = each(async || {
            let (mut requests, connection) = hyper_http2(site.connect_http2().await).await;
            let response = soon(requests.send_request(hyper_request("/endless"))).await.unwrap();
            (requests, connection, response)
        });
        let begun = begun.await;
        site.drain().await;
        all(begun, async |(requests, connection, response)| {
            assert_eq!(soon(response.into_body().collect()).await.unwrap().to_bytes(), "begun,farewell");
            drop(requests);
            soon(connection).await.unwrap();
        })
        .await;
        site.ends_completely().await;
    }
}

#[tokio::test]
async fn http2_streams_in_progress_are_finished() {
    for integration in Integration::http2() {
        let mut site = Site::start(integration).await;
        let begun = each(async || {
            let (mut requests, connection) = hyper_http2(site.connect_http2().await).await;
            let response = soon(requests.send_request(hyper_request("/wait"))).await.unwrap();
            (requests, connection, response)
        });
        let begun = begun.await;
        site.drain().await;
        site.release();
        all(begun, async |(requests, connection, response)| {
            assert_eq!(soon(response.into_body().collect()).await.unwrap().to_bytes(), "begun,released");
            // `axum::serve` would send GOAWAY only at the end of the window.
            drop(requests);
            soon(connection).await.unwrap();
        })
        .await;
        site.ends_completely().await;
    }
}

#[tokio::test]
async fn http2_clients_get_two_goaways_and_close_notify() {
    for integration in Integration::http2() {
        // `axum::serve` sends GOAWAY only at the end of the window.
        let mut site = Site::start_with(integration, |drain| drain.last_request(SHORT)).await;
        let idle = each(|| settled(&site)).await;
        site.drain().await;
        all(idle, async |mut client| {
            assert_eq!(next_goaway(&mut client).await, ANNOUNCED);
            let ping = client.next_frame().await.expect("a PING");
            assert_eq!(ping.kind, PING);
            client.send(pong(&ping)).await;
            assert_eq!(next_goaway(&mut client).await, 0);
            assert_eq!(client.next_frame().await, None);
            client.stream.shutdown().await.unwrap();
        })
        .await;
        site.ends_completely().await;
    }
}

#[tokio::test]
async fn an_http2_client_that_never_answers_a_ping_is_waited_for_within_bounds() {
    for integration in Integration::SERVERS {
        let mut site = Site::start_with(integration, |drain| drain.ping_timeout(SHORT)).await;
        let idle = each(|| settled(&site)).await;
        site.drain().await;
        all(idle, async |mut client| {
            assert_eq!((next_goaway(&mut client).await, next_goaway(&mut client).await), (ANNOUNCED, 0));
            assert_eq!(client.next_frame().await, None);
            client.stream.shutdown().await.unwrap();
        })
        .await;
        site.ends_completely().await;
    }
}
