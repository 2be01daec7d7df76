//! Pooled connections that are too old, or idle for too long.

use std::time::Duration;

use tls_shutdown::client::ShutdownLayer;
use tls_shutdown_tests::{End, soon, time::rest, witness::WitnessServer};
use tower::Layer;

use crate::{get, https, pooled, recorder};

const SECOND: Duration = Duration::from_secs(1);
const PROTOCOLS: [&str; 2] = ["http/1.1", "h2"];

#[tokio::test]
async fn an_old_connection_is_closed_and_the_next_request_makes_a_new_one() {
    for protocol in PROTOCOLS {
        let mut server = WitnessServer::new(protocol, 1).await;
        let layer = ShutdownLayer::new().max_connection_age(SECOND * 10);
        let client = pooled(layer.layer(https(protocol)));
        for _ in 0..3 {
            get(&client, server.uri("/")).await.unwrap();
            rest(SECOND * 3).await;
            assert_eq!(layer.drain().open(), 1, "{protocol}: its use does not make it younger");
        }
        rest(SECOND * 2).await;
        assert_eq!(server.ends(1).await, [Some(End::CloseNotify)], "{protocol}");
        get(&client, server.uri("/")).await.unwrap();
        assert_eq!(layer.drain().open(), 1, "{protocol}");
    }
}

#[tokio::test]
async fn what_is_in_flight_on_an_old_connection_is_finished() {
    for protocol in PROTOCOLS {
        let mut server = WitnessServer::new(protocol, 1).await;
        let layer = ShutdownLayer::new().max_connection_age(SECOND).idle_timeout(SECOND);
        let client = pooled(layer.layer(https(protocol)));
        let request = tokio::spawn({
            let (client, uri) = (client.clone(), server.uri("/hold"));
            async move { get(&client, uri).await }
        });
        server.request_has_arrived().await;
        rest(SECOND * 5).await;
        assert_eq!(layer.drain().open(), 1, "{protocol}");
        server.gates.release.notify_one();
        assert_eq!(soon(request).await.unwrap().unwrap(), "held", "{protocol}");
        assert_eq!(server.ends(1).await, [Some(End::CloseNotify)], "{protocol}");
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_in_use_is_not() {
    for protocol in PROTOCOLS {
        let mut server = WitnessServer::new(protocol, 1).await;
        let (record, mut reports) = recorder();
        let layer = ShutdownLayer::new().idle_timeout(SECOND * 10).on_end(record);
        let client = pooled(layer.layer(https(protocol)));
        for _ in 0..5 {
            get(&client, server.uri("/")).await.unwrap();
            rest(SECOND * 9).await;
            assert_eq!(layer.drain().open(), 1, "{protocol}");
        }
        assert!(reports.try_recv().is_err(), "{protocol}: all over one connection");
        rest(SECOND * 2).await;
        assert_eq!(server.ends(1).await, [Some(End::CloseNotify)], "{protocol}");
        get(&client, server.uri("/")).await.unwrap();
    }
}
