//! What is logged.
//!
//! This test has a process of its own, since its subscriber is that of the process.

use futures_util::future::join_all;
use tls_shutdown_tests::{
    log::Log,
    serving::{Integration, Site, Untouched, hyper_body, hyper_http2, hyper_request},
    soon,
};
use tokio::net::TcpStream;

#[tokio::test]
async fn each_end_is_logged_with_its_peer_and_each_phase_of_the_drain() {
    let log = Log::of_process("tls_shutdown=debug,tls_shutdown_tests=debug");
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
        let end = format!("{span}: tls_shutdown::tls::driver::outcome: TLS connection ended ending=complete");
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
