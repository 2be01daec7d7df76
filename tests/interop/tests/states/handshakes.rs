//! The server waits for a handshake, or for more of it. Only TLS has such states.

use tls_shutdown_interop::{
    client::{halting, handshake},
    within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::Instant,
};

use crate::{
    CONNECTIONS, WINDOW, exits, serves,
    sockets::{Connection, Socket},
    start, terminate,
};

states! {
    over TLS: [tcp_only, tcp_only_and_silent, in_the_handshake, in_the_handshake_and_silent]
}

async fn tcp(socket: &Socket) -> TcpStream {
    match socket.connect().await {
        Connection::Tls(tcp) => tcp,
        Connection::Plain(_) | Connection::Unix(_) => unreachable!("no handshake without TLS"),
    }
}

/// Nothing but the end of TCP, when the window is over.
async fn ends_after_the_window(connections: &mut [TcpStream], signalled: Instant) {
    for tcp in connections {
        assert_eq!(within(tcp.read_to_end(&mut Vec::new())).await.expect("no reset"), 0);
        assert!(WINDOW.contains(&signalled.elapsed()), "{:?}", signalled.elapsed());
    }
}

async fn tcp_only() {
    let (mut server, connections) = start(tcp).await;
    server.accepts().await;
    let signalled = terminate(&server).await;
    for tcp in connections {
        serves(&mut handshake(tcp, "http/1.1").await.expect("it is served")).await;
    }
    let drained = exits(server, signalled, "complete").await;
    assert_eq!((&drained["handshakes_finished"], &drained["requests"]), (&CONNECTIONS.into(), &CONNECTIONS.into()));
}

async fn tcp_only_and_silent() {
    let (mut server, mut connections) = start(tcp).await;
    server.accepts().await;
    let signalled = terminate(&server).await;
    ends_after_the_window(&mut connections, signalled).await;
    let drained = exits(server, signalled, "not_started").await;
    assert_eq!(drained["handshakes_cut"], CONNECTIONS, "{drained}");
}

async fn in_the_handshake() {
    let (go_on, told) = watch::channel(());
    let (mut server, connections) = start(tcp).await;
    // Less than any ClientHello.
    let transports = connections.into_iter().map(|tcp| halting(tcp, 100, told.clone()));
    let handshakes: Vec<_> = transports.map(|transport| tokio::spawn(handshake(transport, "http/1.1"))).collect();
    server.accepts().await;
    let signalled = terminate(&server).await;
    go_on.send_replace(());
    for handshake in handshakes {
        serves(&mut handshake.await.expect("no panic").expect("it is served")).await;
    }
    let drained = exits(server, signalled, "complete").await;
    assert_eq!((&drained["handshakes_finished"], &drained["requests"]), (&CONNECTIONS.into(), &CONNECTIONS.into()));
}

async fn in_the_handshake_and_silent() {
    // A record of 512 bytes, which begins with a ClientHello.
    const BEGINNING: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let (mut server, mut connections) = start(async |socket: &Socket| {
        let mut tcp = tcp(socket).await;
        tcp.write_all(BEGINNING).await.expect("it is sent");
        tcp
    })
    .await;
    server.accepts().await;
    let signalled = terminate(&server).await;
    ends_after_the_window(&mut connections, signalled).await;
    let drained = exits(server, signalled, "not_started").await;
    assert_eq!(drained["handshakes_cut"], CONNECTIONS, "{drained}");
}
