//! What a drain does with every protocol.

use std::sync::Arc;

use futures_util::future::join_all;
use rustls::ClientConnection;
use tls_shutdown::{
    Ending,
    server::{Acknowledgement, DrainPhase},
};
use tls_shutdown_tests::{
    serving::{
        Integration::{self, AcceptLoop, Tonic, UnixServer},
        LARGE, Site, Untouched,
        http2::{PREFACE, SETTINGS, WINDOW_UPDATE, frame, get_path},
        narrow_socket, offer,
    },
    soon,
    time::leap,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    task::spawn_blocking,
};

use crate::ways_to_serve::{CONNECTIONS, SHORT, all, each};

/// The notice ends in the moment in which they connect, so that the listener finds both together.
#[tokio::test]
async fn connections_that_the_system_has_accepted_are_served() {
    for integration in Integration::every().into_iter().filter(|integration| integration.owns_socket()) {
        let mut site = Site::start_with(integration, |drain| drain.notice(SHORT)).await;
        site.stop();
        soon(site.handle.reached(DrainPhase::Notice)).await;
        let queued: Vec<_> = (0..CONNECTIONS).map(|_| site.queue()).collect();
        leap(2 * SHORT).await;
        all(queued, async |untouched| site.serves_last(site.secure(untouched).await).await).await;
        let report = site.ends_completely().await;
        assert_eq!(report.connections(), CONNECTIONS as u64, "{integration:?}");
        let handshakes = if Integration::tls().contains(&integration) { CONNECTIONS as u64 } else { 0 };
        assert_eq!((report.handshakes_finished(), report.handshakes_cut()), (handshakes, 0), "{integration:?}");
    }
}

#[tokio::test]
async fn handshakes_in_progress_are_served() {
    for integration in Integration::tls() {
        let mut site = Site::start(integration).await;
        let (silent, mut begun) = (each(|| site.connect_untouched()).await, Vec::new());
        for _ in 0..CONNECTIONS {
            let mut tcp = std::net::TcpStream::connect(site.tcp_address()).unwrap();
            let name = "localhost".try_into().expect("a name");
            let mut tls = ClientConnection::new(Arc::new(offer("http/1.1")), name).unwrap();
            tls.write_tls(&mut tcp).unwrap();
            begun.push(rustls::StreamOwned::new(tls, tcp));
        }
        // A later connection has ended, so that the server has accepted all of these.
        drop(site.connect().await);
        soon(site.ends.recv()).await.unwrap();
        site.drain().await;
        all(silent, async |untouched| site.serves_last(site.secure(untouched).await).await).await;
        let handshakes = begun.into_iter().map(|mut stream| {
            spawn_blocking(move || {
                while stream.conn.is_handshaking() {
                    stream.conn.complete_io(&mut stream.sock).unwrap();
                }
            })
        });
        join_all(handshakes).await;
        let report = site.report().await;
        assert_eq!((report.handshakes_finished(), report.handshakes_cut()), (2 * CONNECTIONS as u64, 0), "{report}");
    }
}

#[tokio::test]
async fn a_connection_without_a_request_has_its_window() {
    for integration in Integration::every() {
        let mut site = Site::start(integration).await;
        let fresh = each(|| site.connect()).await;
        site.drain().await;
        all(fresh, async |client| site.serves_last(client).await).await;
        site.ends_completely().await;
    }
}

#[tokio::test]
async fn at_the_deadline_there_is_a_close_notify() {
    for integration in Integration::SERVERS.into_iter().chain([AcceptLoop]) {
        let mut site = Site::start_with(integration, |drain| drain.grace_period(4 * SHORT)).await;
        let clients = each(async || {
            let mut client = site.connect().await;
            match integration {
                AcceptLoop => {
                    client.send("stay\n").await;
                    client.read_until("\n").await;
                }
                _ => {
                    client.send("GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
                    client.head().await;
                }
            }
            client
        });
        let clients = clients.await;
        site.drain().await;
        all(clients, async |mut client| {
            assert_eq!(client.read_to_end_and_close().await.1, integration.orderly_end(), "{integration:?}")
        })
        .await;
        let report = site.ends_completely().await;
        assert!(!report.time_in(DrainPhase::Deadline).is_zero(), "{integration:?}: {report}");
    }
}

/// A request for `/large`, and windows for all of its answer.
fn large_over_http2() -> Vec<u8> {
    let window = (LARGE as u32).to_be_bytes();
    let settings = frame(SETTINGS, 0, 0, &[&[0, 4][..], &window].concat());
    [&PREFACE[..], &settings, &frame(WINDOW_UPDATE, 0, 0, &window), &get_path(1, "/large")].concat()
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn the_exit_waits_for_acknowledgements() {
    // What a Unix socket accepts is at the peer.
    for integration in Integration::every().into_iter().filter(|integration| *integration != UnixServer) {
        let mut site = Site::start(integration).await;
        let narrow = Untouched::Tcp(narrow_socket(site.tcp_address(), 4096).await);
        let mut client = site.secure(narrow).await;
        match integration {
            AcceptLoop => client.send(&format!("{}\n", ".".repeat(LARGE))).await,
            Tonic => client.send(large_over_http2()).await,
            _ => client.send("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").await,
        }
        // HTTP/2 begins with frames that are no answer. Most of the answer is in the buffers of the system now.
        soon(client.stream.read_exact(&mut vec![0; LARGE / 4])).await.unwrap();
        soon(client.stream.shutdown()).await.unwrap();
        let end = soon(site.ends.recv()).await.unwrap();
        assert_eq!(end.ending(), Ending::Complete);
        site.drain().await;
        soon(site.handle.reached(DrainPhase::Exit)).await;
        assert!(!site.is_finished(), "{integration:?}: {}", site.report().await);
        client.read_to_end_and_close().await;
        let report = site.report().await;
        assert_eq!(report.acknowledgement(), Acknowledgement::Everything, "{integration:?}");
    }
}

#[tokio::test]
async fn each_connection_is_told_and_counted() {
    for integration in Integration::every() {
        let mut site = Site::start(integration).await;
        let clients = each(|| site.connect()).await;
        drop(site.connect_untouched().await);
        let end = soon(site.ends.recv()).await.unwrap();
        let has_tls = Integration::tls().contains(&integration);
        // A client without TLS that has sent nothing has ended in order.
        let ending = if has_tls { Ending::NotStarted } else { Ending::Complete };
        assert_eq!((end.ending(), end.handshake_finished(), end.was_upgraded()), (ending, !has_tls, false));
        site.drain().await;
        all(clients, async |client| site.serves_last(client).await).await;
        let (handle, mut ends) = (site.handle.clone(), std::mem::replace(&mut site.ends, mpsc::unbounded_channel().1));
        let report = site.ends_completely().await;
        assert_eq!((report.connections(), handle.connections()), (CONNECTIONS as u64, 0), "{integration:?}");
        let requests = if integration.is_layered() { CONNECTIONS as u64 } else { 0 };
        assert_eq!(report.requests(), requests, "{integration:?}");
        for _ in 0..CONNECTIONS {
            assert_eq!(soon(ends.recv()).await.unwrap().ending(), Ending::Complete, "{integration:?}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_stays_silent_gets_close_notify() {
    for integration in Integration::SERVERS.into_iter().chain([AcceptLoop]) {
        let mut site = Site::start_with(integration, |drain| drain.last_request(SHORT)).await;
        let silent = each(|| site.connect()).await;
        site.drain().await;
        all(silent, async |mut client| {
            assert_eq!(client.read_to_end_and_close().await, (String::new(), integration.orderly_end()))
        })
        .await;
        site.ends_completely().await;
    }
}
