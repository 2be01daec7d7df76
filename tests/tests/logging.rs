//! What is logged.
//!
//! This test has a process of its own, since its subscriber is that of the process.

use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::future::join_all;
use tls_shutdown::{
    Ending,
    server::{HandshakeFailure, ResponseDelivery},
};
use tls_shutdown_tests::{
    Side, VERSIONS, connect,
    log::Log,
    serving::{
        Client, Integration, Site, Untouched,
        http2::{DATA, get_path, hello},
        hyper_body, hyper_http2, hyper_request, offer,
    },
    soon,
};
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::mpsc};

#[tokio::test]
async fn each_end_is_logged_with_its_peer_and_each_phase_of_the_drain() {
    let log = Log::of_process("tls_shutdown=debug,tls_shutdown_tests=debug");
    failed_handshakes_are_logged_with_their_reason(&log).await;
    clients_that_skip_close_notify_are_no_errors(&log).await;
    the_end_has_a_peer_also_without_a_server(&log).await;
    a_log_that_panics_hides_no_end(&log).await;
    let mut site = Site::start(Integration::Server).await;
    let connect = async || {
        let tcp = TcpStream::connect(site.tcp_address()).await.unwrap();
        (tcp.local_addr().unwrap(), site.secure(Untouched::Tcp(tcp)).await)
    };
    let (peers, clients): (Vec<_>, Vec<_>) = join_all((0..10).map(|_| connect())).await.into_iter().unzip();
    site.drain().await;
    join_all(clients.into_iter().map(|client| site.serves_last(client))).await;
    site.ends_completely().await;
    let text = log.text();
    for peer in peers {
        let span = format!("connection{{peer={peer} protocol=\"http/1.1\"}}");
        let end = format!("{span}: tls_shutdown::server::connection: TLS connection ended ending=complete");
        assert!(text.contains(&end), "{end}: {text}");
    }
    for phase in ["notice", "last_request", "exit"] {
        assert!(
            text.contains(&format!(
                "INFO tls_shutdown::server::drain::handle: server drain phase={phase} connections="
            )),
            "{text}"
        );
    }
    // The span also contains what the service logs, in the tasks of HTTP/2 too.
    let mut site = Site::start(Integration::Server).await;
    let (mut requests, connection) = hyper_http2(site.connect_http2().await).await;
    assert_eq!(hyper_body(requests.send_request(hyper_request("/logged"))).await.unwrap(), "hello");
    site.drain().await;
    drop(requests);
    soon(connection).await.unwrap();
    site.ends_completely().await;
    let text = log.text();
    for event in ["the service is called", "its body is polled"] {
        assert!(
            text.contains(&format!("protocol=\"h2\"}}: tls_shutdown_tests::serving::app: {event}")),
            "{event}: {text}"
        );
    }
}

async fn failed_handshakes_are_logged_with_their_reason(log: &Log) {
    let mut site = Site::start(Integration::Server).await;
    let mut tcp = TcpStream::connect(site.tcp_address()).await.unwrap();
    let peer = tcp.local_addr().unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    soon(site.ends.recv()).await.expect("a report");
    let failed = format!(r#"the TLS handshake failed peer={peer} reason="not_tls" alert_sent=decode_error error="#);
    assert!(log.text().contains(&failed), "{failed}: {}", log.text());
    let mut config = offer("http/1.1");
    config.alpn_protocols = vec![b"nothing".to_vec()];
    assert!(Client::try_connect(site.tcp_address(), config).await.is_err());
    soon(site.ends.recv()).await.expect("a report");
    assert!(log.text().contains(r#"reason="no_common_protocol" server_name="localhost""#), "{}", log.text());
}

/// The end is logged as what it is, and not also as an error of HTTP.
async fn clients_that_skip_close_notify_are_no_errors(log: &Log) {
    let mut site = Site::start(Integration::Server).await;
    let connect = async |protocol| {
        let tcp = TcpStream::connect(site.tcp_address()).await.unwrap();
        (tcp.local_addr().unwrap(), Client::over(tcp, offer(protocol)).await)
    };
    let (http1_peer, mut http1) = connect("http/1.1").await;
    http1.is_served().await;
    drop(http1.stream.into_inner());
    let (http2_peer, mut http2) = connect("h2").await;
    http2.send([hello(), get_path(1, "/")].concat()).await;
    http2.frame_of(DATA).await;
    drop(http2.stream.into_inner());
    for _ in 0..2 {
        let report = soon(site.ends.recv()).await.expect("a report");
        assert_eq!(report.delivery(), ResponseDelivery::Sent, "{report}");
    }
    site.drain().await;
    site.report().await;
    let text = log.text();
    for peer in [http1_peer, http2_peer] {
        let lines: Vec<_> = text.lines().filter(|line| line.contains(&format!("peer={peer}"))).collect();
        assert!(lines.iter().any(|line| line.contains(r#"delivery="sent""#)), "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("the HTTP connection failed")), "{lines:?}");
    }
}

async fn the_end_has_a_peer_also_without_a_server(log: &Log) {
    for integration in [Integration::AxumServe, Integration::Tonic, Integration::AcceptLoop] {
        let mut site = Site::start(integration).await;
        let tcp = TcpStream::connect(site.tcp_address()).await.unwrap();
        let peer = tcp.local_addr().unwrap();
        drop(site.secure(Untouched::Tcp(tcp)).await);
        soon(site.ends.recv()).await.expect("a report");
        let text = log.text();
        let ends: Vec<_> = text.lines().filter(|line| line.contains(&format!("peer={peer}"))).collect();
        assert!(matches!(ends[..], [end] if end.contains("TLS connection ended ending=")), "{integration:?}: {ends:?}");
    }
}

async fn a_log_that_panics_hides_no_end(log: &Log) {
    log.panic_in(&["tls_shutdown::tls::observers", "tls_shutdown::server::connection"]);
    let (stream, _peer) = connect(Side::Client, VERSIONS[0]);
    let (sender, mut ends) = mpsc::unbounded_channel();
    let stream = stream.on_end(move |report| sender.send(report.ending()).expect("a test"));
    let panic = catch_unwind(AssertUnwindSafe(|| drop(stream))).expect_err("the panic goes on");
    assert_eq!(panic.downcast_ref(), Some(&"a log"));
    assert_eq!(ends.recv().await, Some(Ending::Aborted));

    let mut site = Site::start(Integration::Server).await;
    drop(TcpStream::connect(site.tcp_address()).await.unwrap());
    let end = soon(site.ends.recv()).await.expect("a report");
    assert_eq!(end.handshake_failure(), Some(HandshakeFailure::NothingSent));
    let mut client = Client::try_connect(site.tcp_address(), offer("http/1.1")).await.unwrap();
    client.is_served().await;
    site.drain().await;
    client.close().await;
    let end = soon(site.ends.recv()).await.expect("a report");
    assert_eq!(end.ending(), Ending::Complete);
    assert_eq!(site.ends_completely().await.connections(), 1);
    log.panic_in(&[]);
}
