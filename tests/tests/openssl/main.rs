//! Closings against OpenSSL over loopback, as client and as server, and what each side sees.
//!
//! They share a process: OpenSSL runs in threads of it, and nothing changes the process itself.

mod endings;
mod plaintext;
mod reaper;
mod uploads;

use std::{net::SocketAddr, sync::Arc, thread::JoinHandle};

use openssl::ssl::{ShutdownState as Flags, SslStream};
use rustls::{SupportedProtocolVersion, pki_types::ServerName};
use tls_shutdown::ShutdownStream;
use tls_shutdown_tests::{
    Side, client_config,
    openssl_peer::{ClientCertificate, Saw, acceptor, connect, read_to_end, serve},
    server_config,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// Our side.
pub(crate) type Stream = ShutdownStream<TlsStream<TcpStream>>;

/// The other side.
pub(crate) type Openssl = SslStream<std::net::TcpStream>;

pub(crate) async fn connect_to(address: SocketAddr, connector: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    connector.connect(name, socket).await.map(TlsStream::from)
}

/// Connects a stream of ours, which is on this side, to OpenSSL, which calls `peer`.
pub(crate) async fn pair<R: Send + 'static>(
    side: Side,
    version: &'static SupportedProtocolVersion,
    peer: impl Fn(Openssl) -> R + Send + 'static,
) -> (Stream, JoinHandle<Vec<R>>) {
    let stream;
    let handle;
    match side {
        Side::Client => {
            let (address, peer) = serve(acceptor(version, ClientCertificate::Ignored), 1, peer);
            let connector = TlsConnector::from(Arc::new(client_config(version)));
            stream = connect_to(address, &connector).await.expect("a handshake");
            handle = peer;
        }
        Side::Server => {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let peer = connect(version, listener.local_addr().expect("an address"), peer);
            let (socket, _) = listener.accept().await.expect("a connection");
            let acceptor = TlsAcceptor::from(Arc::new(server_config(version)));
            stream = acceptor.accept(socket).await.expect("a handshake").into();
            handle = std::thread::spawn(|| vec![peer.join().expect("no panic")]);
        }
    }
    (ShutdownStream::new(stream), handle)
}

/// Waits for the peer. Returns what it saw.
pub(crate) async fn joined<R: Send + 'static>(peer: JoinHandle<Vec<R>>) -> R {
    let results = tokio::task::spawn_blocking(|| peer.join().expect("no panic")).await.expect("no panic");
    results.into_iter().next().expect("one connection")
}

/// Reads to the end, and answers with close_notify.
pub(crate) fn answer(mut peer: Openssl) -> Saw {
    let (_, saw) = read_to_end(&mut peer);
    peer.shutdown().expect("close_notify");
    assert_eq!(peer.get_shutdown(), Flags::SENT | Flags::RECEIVED);
    saw
}

/// More than the buffers on both sides hold.
pub(crate) const UPLOAD: usize = 3_000_000;
