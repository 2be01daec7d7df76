//! Clients that do not look at their sockets while the server drains.

use std::time::Duration;

use tls_shutdown::{
    Ending,
    server::{Acknowledgement, TlsListener},
};
use tls_shutdown_tests::{
    client_config, server_config,
    serving::{Client, http2},
    soon,
    time::rest,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::drain::{SHORT, idle, start};

/// A drain waits for courtesies half a second, and listens to a client with an answer for ten seconds.
const AT_ONCE: Duration = Duration::from_secs(4);

/// More than a client needs to read its last response.
const IDLE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn idle_clients_that_do_not_look_hold_up_no_exit() {
    let mut running = start(|drain| drain.last_request(SHORT).ping_timeout(SHORT)).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(idle(&running).await);
        clients.push(Client::connect(running.address).await);
        let mut client = Client::connect_http2(running.address).await;
        client.send(http2::hello()).await;
        client.send(http2::get(1)).await;
        while client.frame_of(http2::DATA).await.flags & http2::END_STREAM == 0 {}
        clients.push(client);
    }
    rest(IDLE).await;
    running.signal();
    for _ in 0..15 {
        let end = running.end().await;
        assert_eq!((end.ending(), end.responses_cut()), (Ending::Sent, 0));
    }
    let report = running.report().await;
    assert!(report.elapsed() < AT_ONCE, "{report}");
    assert_eq!((report.lingering(), report.left()), (0, 0), "{report}");
    assert_eq!(report.acknowledgement(), Acknowledgement::Everything, "{report}");
    for mut client in clients {
        assert_eq!(client.read_to_end().await.1, tls_shutdown_tests::End::CloseNotify);
    }
}

/// A client has not read what it has just received.
#[tokio::test]
async fn a_client_that_was_just_answered_is_waited_for() {
    let mut running = start(|drain| drain.last_request(Duration::ZERO)).await;
    let client = idle(&running).await;
    running.signal();
    for _ in 0..4 {
        rest(Duration::from_secs(1)).await;
    }
    assert_eq!(running.drain.connections(), 1);
    drop(client);
    running.report().await;
}

#[tokio::test]
async fn a_failed_handshake_holds_up_no_exit_though_its_client_sends() {
    let mut running = start(|drain| drain.last_request(SHORT)).await;
    let mut client = TcpStream::connect(running.address).await.expect("a listener");
    client.write_all(b"GET / HTTP/1.1\r\n").await.expect("sent");
    let (mut reading, mut writing) = client.into_split();
    let mut alert = [0; 7];
    soon(reading.read_exact(&mut alert)).await.expect("an alert");
    let flood = tokio::spawn(async move { while writing.write_all(&[0; 1000]).await.is_ok() {} });
    running.signal();
    let report = running.report().await;
    assert!(report.elapsed() < AT_ONCE, "{report}");
    assert_eq!(report.lingering(), 0, "{report}");
    soon(flood).await.expect("no panic");
}

/// Outside of a drain nobody is in a hurry.
#[tokio::test]
async fn the_linger_of_a_failed_handshake_has_its_time_in_service() {
    let listener = TlsListener::bind("127.0.0.1:0", server_config(&rustls::version::TLS13)).await.expect("a free port");
    let reaper = tls_shutdown::Reaper::new();
    let listener = listener.with_reaper(&reaper);
    let address = listener.local_addr().expect("an address");
    crate::listener::serve(listener);
    let mut client = TcpStream::connect(address).await.expect("a listener");
    client.write_all(b"GET / HTTP/1.1\r\n").await.expect("sent");
    soon(client.read_exact(&mut [0; 7])).await.expect("an alert");
    let _other = Client::connect_with(address, client_config(&rustls::version::TLS13)).await;
    rest(IDLE).await;
    assert_eq!(reaper.closings(), 1);
}
