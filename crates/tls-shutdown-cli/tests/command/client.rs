//! A client without this library: tokio-rustls, and HTTP written by hand.

use std::{io, net::SocketAddr, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::process::{CERTIFICATE, within};

/// The certificates that a client trusts.
pub(crate) enum Trust<'a> {
    TheCertificate,
    File(&'a str),
    Nothing,
}

pub(crate) async fn handshake(tcp: TcpStream, alpn: &str, trust: Trust<'_>) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let file = match trust {
        Trust::TheCertificate => Some(CERTIFICATE.cert()),
        Trust::File(file) => Some(file),
        Trust::Nothing => None,
    };
    if let Some(file) = file {
        roots.add(CertificateDer::from_pem_file(file).expect("a certificate")).expect("a root");
    }
    let mut config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let name = ServerName::try_from("localhost").expect("a name");
    within(TlsConnector::from(Arc::new(config)).connect(name, tcp)).await
}

pub(crate) async fn connect(address: SocketAddr) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(address).await.expect("the server listens");
    handshake(tcp, "http/1.1", Trust::TheCertificate).await.expect("handshake")
}

pub(crate) async fn request(stream: &mut TlsStream<TcpStream>, line: &str) {
    let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    within(stream.write_all(head.as_bytes())).await.expect("the request is sent");
}

/// A response, or the first part of one.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// Reads the head of a response, and the body if its length is known.
pub(crate) async fn response(stream: &mut TlsStream<TcpStream>) -> Response {
    let mut received = Vec::new();
    loop {
        let amount = within(stream.read_buf(&mut received)).await.expect("a response");
        assert_ne!(amount, 0, "the connection ended: {}", String::from_utf8_lossy(&received));
        if let Some(response) = Response::parse(&received)
            && response.content_length().is_none_or(|length| response.body.len() >= length)
        {
            return response;
        }
    }
}

/// Reads to the end of the connection. The result is `Ok` if a close_notify ended it.
pub(crate) async fn read_to_end(stream: &mut TlsStream<TcpStream>) -> (Vec<u8>, io::Result<()>) {
    let mut received = Vec::new();
    let end = within(stream.read_to_end(&mut received)).await.map(|_| ());
    (received, end)
}

impl Response {
    pub(crate) fn parse(received: &[u8]) -> Option<Self> {
        let end = received.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&received[..end]).to_lowercase();
        Some(Self { head, body: received[end..].to_vec() })
    }

    fn content_length(&self) -> Option<usize> {
        self.head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
    }
}
