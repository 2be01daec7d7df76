//! TLS taken off a connection to OpenSSL.

use std::{
    io::{self, Write},
    sync::Arc,
};

use rustls::pki_types::ServerName;
use tls_shutdown::{Records, ShutdownStream, Unwrap};
use tls_shutdown_tests::{
    VERSIONS, client_config,
    openssl_peer::{self, ClientCertificate, acceptor},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

const PLAIN: &[u8] = b"220 plain text, and more of it\r\n";

#[tokio::test]
async fn openssl_goes_on_in_plaintext() {
    for version in VERSIONS {
        let (address, peer) = openssl_peer::serve(acceptor(version, ClientCertificate::Ignored), 1, |mut peer| {
            let (_, saw) = openssl_peer::read_to_end(&mut peer);
            peer.shutdown().expect("close_notify");
            let mut socket = peer.get_ref();
            socket.write_all(PLAIN).expect("sent");
            let mut answer = [0; 4];
            io::Read::read_exact(&mut socket, &mut answer).expect("an answer");
            (saw, answer)
        });
        let connector = TlsConnector::from(Arc::new(client_config(version)));
        let tcp = TcpStream::connect(address).await.expect("a server");
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = connector.connect(name, Records::new(tcp)).await.expect("a handshake");
        let mut plain = ShutdownStream::new(tls).into_plaintext(Unwrap::Initiate).await.expect("TLS is off");
        let mut read = [0; PLAIN.len()];
        plain.read_exact(&mut read).await.expect("all of it");
        assert_eq!(read, PLAIN);
        plain.write_all(b"QUIT").await.expect("written");
        let seen = tokio::task::spawn_blocking(|| peer.join().expect("no panic")).await.expect("no panic");
        assert_eq!(seen, [(openssl_peer::Saw::ZeroReturn, *b"QUIT")]);
    }
}
