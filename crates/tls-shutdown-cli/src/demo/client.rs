//! [`Client`]: HTTP/1 by hand, over tokio-rustls, so that it sees exactly how a connection ends.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::identity::server_name;

pub(crate) struct Client {
    stream: BufReader<TlsStream<TcpStream>>,
}

/// Whether the server keeps the connection for another request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Afterwards {
    KeepAlive,
    Close,
}

impl Client {
    pub(crate) async fn connect(tls: &TlsConnector, address: SocketAddr) -> io::Result<Self> {
        Self::over(tls, TcpStream::connect(address).await?).await
    }

    /// Makes the handshake over a TCP connection.
    pub(crate) async fn over(tls: &TlsConnector, tcp: TcpStream) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        let stream = tls.connect(server_name(), tcp).await?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Resolves when an idle connection ends.
    pub(crate) async fn ended(&mut self) {
        // Nothing else can come between two requests.
        let _ = self.stream.fill_buf().await;
    }

    /// Sends a request, and receives the whole answer. A failed write ends the exchange.
    pub(crate) async fn post(&mut self, path: &str, body: &[u8]) -> io::Result<Afterwards> {
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        self.stream.write_all(&[head.as_bytes(), body].concat()).await?;
        self.stream.flush().await?;
        let head = self.head().await?;
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let length = field("content-length").and_then(|length| length.parse().ok());
        let mut body = vec![0; length.ok_or(io::ErrorKind::InvalidData)?];
        self.stream.read_exact(&mut body).await?;
        Ok(if field("connection") == Some("close") { Afterwards::Close } else { Afterwards::KeepAlive })
    }

    /// Sends a GET request, and receives the head and the first byte of the answer.
    pub(crate) async fn begin_get(&mut self, path: &str, version: &str) -> io::Result<()> {
        let head = format!("GET {path} {version}\r\nHost: localhost\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await?;
        self.stream.flush().await?;
        self.head().await?;
        self.stream.read_u8().await?;
        Ok(())
    }

    /// Reads to the end of the connection, which is `Ok` after close_notify.
    pub(crate) async fn read_to_end(&mut self) -> io::Result<()> {
        self.stream.read_to_end(&mut Vec::new()).await.map(drop)
    }

    /// Reads up to the last chunk of an answer whose chunks are lines.
    pub(crate) async fn read_to_last_chunk(&mut self) -> io::Result<()> {
        let mut line = String::new();
        while line != "0\r\n" {
            line.clear();
            if self.stream.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Reads a head, and returns it in lower case.
    async fn head(&mut self) -> io::Result<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(head.to_ascii_lowercase())
    }
}
