//! Clients without anything of this project: TLS by tokio-rustls, or a socket alone; HTTP/1 by hand.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::{Arc, LazyLock},
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, copy_bidirectional, duplex},
    net::{TcpStream, UnixStream},
    sync::watch,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{CERTIFICATE, within};

/// A client's end of a connection with TLS.
pub type Client<T = TcpStream> = TlsStream<T>;

/// A client's end of a connection, with TLS or without.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {
    /// What a read of no byte reports: the end of all data, as the server has sent it on purpose.
    fn end_of_data(&self) -> Last;
}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for Client<T> {
    fn end_of_data(&self) -> Last {
        Last::CloseNotify
    }
}

impl Stream for TcpStream {
    fn end_of_data(&self) -> Last {
        Last::Fin
    }
}

impl Stream for UnixStream {
    fn end_of_data(&self) -> Last {
        Last::Fin
    }
}

impl<S: Stream + ?Sized> Stream for Box<S> {
    fn end_of_data(&self) -> Last {
        (**self).end_of_data()
    }
}

/// What ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Last {
    /// The server's close_notify.
    CloseNotify,
    /// FIN alone.
    Fin,
    /// A reset.
    Reset,
}

/// The configuration of all clients. It does not resume sessions, so that each connection is like the first.
static TRUST: LazyLock<ClientConfig> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(&CERTIFICATE.cert).expect("a certificate");
    roots.add(certificate).expect("a root");
    let mut config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config
});

/// Makes a handshake over a transport, and offers one protocol.
pub async fn handshake<T>(transport: T, protocol: &str) -> io::Result<Client<T>>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut config = TRUST.clone();
    config.alpn_protocols = vec![protocol.into()];
    let name = ServerName::try_from("localhost").expect("a name");
    within(TlsConnector::from(Arc::new(config)).connect(name, transport)).await
}

/// Connects for HTTP/1.
pub async fn connect(address: SocketAddr) -> Client {
    let tcp = TcpStream::connect(address).await.expect("it listens");
    handshake(tcp, "http/1.1").await.expect("a handshake")
}

/// Sends some bytes.
pub async fn send(client: &mut impl Stream, bytes: impl AsRef<[u8]>) {
    within(client.write_all(bytes.as_ref())).await.expect("it can be sent");
    within(client.flush()).await.expect("it can be sent");
}

/// Asks for a path.
pub async fn get(client: &mut impl Stream, path: &str) {
    send(client, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
}

/// Receives up to this text. Returns what was received, which may be more.
pub async fn receive_until(client: &mut impl Stream, text: &str) -> Vec<u8> {
    let mut received = Vec::new();
    while !received.windows(text.len()).any(|window| window == text.as_bytes()) {
        let amount = within(client.read_buf(&mut received)).await.expect("more");
        assert_ne!(amount, 0, "the connection ended: {}", String::from_utf8_lossy(&received));
    }
    received
}

/// Receives to the end. Returns what came, and the end.
pub async fn receive_all(client: &mut impl Stream) -> (Vec<u8>, Last) {
    let mut received = Vec::new();
    let last = match within(client.read_to_end(&mut received)).await {
        Ok(_) => client.end_of_data(),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Last::Fin,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Last::Reset,
        Err(error) => panic!("{error}"),
    };
    (received, last)
}

/// A response of HTTP/1, as far as it came.
#[derive(Debug)]
pub struct Response {
    /// In lower case.
    pub head: String,
    /// As it was sent: its chunks, if there are such, are still to be seen.
    pub body: Vec<u8>,
}

impl Response {
    /// A response, once its head is whole.
    pub fn parse(received: &[u8]) -> Option<Self> {
        let end = received.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&received[..end]).to_lowercase();
        Some(Self { head, body: received[end..].to_vec() })
    }

    /// Whether the server announces that no other will follow.
    pub fn is_last(&self) -> bool {
        self.head.contains("\r\nconnection: close\r\n")
    }
}

/// A transport that sends only this many bytes, until `go_on` changes.
pub fn halting(mut tcp: TcpStream, bytes: usize, mut go_on: watch::Receiver<()>) -> DuplexStream {
    let (near, mut far) = duplex(64 * 1024);
    tokio::spawn(async move {
        let mut first = vec![0; bytes];
        far.read_exact(&mut first).await?;
        tcp.write_all(&first).await?;
        // A sender that is dropped lets it go on, too.
        let _ = go_on.changed().await;
        copy_bidirectional(&mut far, &mut tcp).await
    });
    near
}
