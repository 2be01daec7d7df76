//! Clients in the middle of their TCP handshake when a drain closes the listening socket (Linux).

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    time::Duration,
};

use socket2::{Domain, SockFilter, Socket, Type};
use tls_shutdown::server::{DrainPhase, Server, ServerListener, TcpSocket, TlsListener};
use tls_shutdown_tests::{
    serving::{LONG, Running, offering},
    soon,
    time::turns,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::drain::routes;

/// A client that receives nothing. Its handshake stays in progress.
fn unfinished(address: SocketAddr) -> Socket {
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let nothing = [SockFilter::new(0x06, 0, 0, 0)];
    client.attach_filter(&nothing).expect("Linux has filters");
    client.set_nonblocking(true).expect("an option");
    client.connect(&address.into()).expect_err("it takes a while");
    client
}

/// Who connects while the drain waits for this handshake. `None` if the server's system does not answer.
async fn late_client(listener: ServerListener, address: SocketAddr) -> Option<io::Result<TcpStream>> {
    let _unfinished = unfinished(address);
    let server = Server::new(listener);
    let mut running = Running::start_server(server, address, |drain| drain.grace_period(LONG), routes);
    running.signal();
    soon(running.drain.reached(DrainPhase::LastRequest)).await;
    turns(50).await;
    let late = timeout(Duration::from_millis(100), TcpStream::connect(address)).await.ok();
    let report = running.report().await;
    assert_eq!(report.connections(), 0, "{report}");
    late
}

async fn tls() -> (TlsListener, SocketAddr) {
    let listener = TlsListener::bind("127.0.0.1:0", offering(&["http/1.1"])).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

#[tokio::test]
async fn a_drain_stops_new_handshakes_on_a_socket_that_nobody_else_has() {
    let (listener, address) = tls().await;
    let late = late_client(listener.into(), address).await;
    assert!(late.is_none(), "{late:?}");
    let socket = TcpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let address = socket.local_addr().expect("an address");
    let late = late_client(socket.into(), address).await;
    assert!(late.is_none(), "{late:?}");
}

/// A successor may have the socket, and must hear its clients.
#[tokio::test]
async fn a_drain_stops_no_handshakes_on_a_socket_that_another_process_may_have() {
    let (lent, address) = tls().await;
    lent.as_fd().expect("it listens");
    let late = late_client(lent.into(), address).await.map(|late| late.map_err(|error| error.kind()).err());
    assert_eq!(late, Some(Some(ErrorKind::ConnectionRefused)));
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = tcp.local_addr().expect("an address");
    let late = late_client(tcp.into(), address).await.map(|late| late.map_err(|error| error.kind()).err());
    assert_eq!(late, Some(Some(ErrorKind::ConnectionRefused)));
}
