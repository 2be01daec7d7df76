//! A client that speaks TLS by tokio-rustls, and HTTP/1 by hand.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf},
    net::{TcpSocket, TcpStream, UnixStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{End, client_config, soon};

/// A client, over TLS if nothing else is said.
pub struct Client<S = TlsStream<TcpStream>> {
    /// Its stream.
    pub stream: S,
}

/// A stream of which is known how its peer ends it in order.
pub trait ClientStream: AsyncRead + AsyncWrite + Unpin + Send {
    /// That end.
    fn orderly_end(&self) -> End;
}

impl ClientStream for TlsStream<TcpStream> {
    fn orderly_end(&self) -> End {
        End::CloseNotify
    }
}

impl ClientStream for TcpStream {
    fn orderly_end(&self) -> End {
        End::Fin
    }
}

impl ClientStream for UnixStream {
    fn orderly_end(&self) -> End {
        End::Fin
    }
}

impl ClientStream for DuplexStream {
    fn orderly_end(&self) -> End {
        End::Fin
    }
}

/// Any of these streams.
pub struct AnyStream(Box<dyn ClientStream>);

impl AnyStream {
    /// Forgets the type of a stream.
    pub fn new(stream: impl ClientStream + 'static) -> Self {
        Self(Box::new(stream))
    }
}

impl ClientStream for AnyStream {
    fn orderly_end(&self) -> End {
        self.0.orderly_end()
    }
}

impl AsyncRead for AnyStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for AnyStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }
}

impl Client {
    /// Connects without ALPN.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, client_config(&rustls::version::TLS13)).await
    }

    /// Connects for HTTP/2.
    pub async fn connect_http2(address: SocketAddr) -> Self {
        Self::connect_with(address, offer("h2")).await
    }

    /// Connects with `config`.
    pub async fn connect_with(address: SocketAddr, config: ClientConfig) -> Self {
        let tcp = soon(TcpStream::connect(address)).await.expect("a server");
        Self::over(tcp, config).await
    }

    /// Connects with a small receive buffer, so that the server cannot send much ahead.
    pub async fn connect_narrow(address: SocketAddr) -> Self {
        Self::over(narrow_socket(address, 4096).await, client_config(&rustls::version::TLS13)).await
    }

    /// Makes the TLS handshake over a connection.
    pub async fn over(tcp: TcpStream, config: ClientConfig) -> Self {
        Self::try_over(tcp, config).await.expect("a handshake")
    }

    /// Connects with `config`. The handshake may fail.
    pub async fn try_connect(address: SocketAddr, config: ClientConfig) -> io::Result<Self> {
        let tcp = soon(TcpStream::connect(address)).await.expect("a server");
        Self::try_over(tcp, config).await
    }

    /// Makes the TLS handshake over a connection, which may fail.
    pub async fn try_over(tcp: TcpStream, config: ClientConfig) -> io::Result<Self> {
        tcp.set_nodelay(true).expect("an option");
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = soon(TlsConnector::from(Arc::new(config)).connect(name, tcp)).await?;
        Ok(Self { stream })
    }
}

impl Client<TcpStream> {
    /// Connects without TLS.
    pub async fn connect_plain(address: SocketAddr) -> Self {
        Self { stream: soon(TcpStream::connect(address)).await.expect("a server") }
    }
}

impl<S: ClientStream> Client<S> {
    /// Sends `bytes`.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("sent");
        self.stream.flush().await.expect("sent");
    }

    /// Sends a GET request for `path` over HTTP/1.1.
    pub async fn ask(&mut self, path: &str) {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    }

    /// Reads to the end. Returns what came, and the end.
    pub async fn read_to_end(&mut self) -> (Vec<u8>, End) {
        let mut data = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match soon(self.stream.read(&mut buffer)).await {
                Ok(0) => return (data, self.stream.orderly_end()),
                Ok(amount) => data.extend_from_slice(&buffer[..amount]),
                Err(error) => return (data, End::of(&error)),
            }
        }
    }

    /// Reads to the end, and answers that with close_notify. Returns what came, and the end.
    pub async fn read_to_end_and_close(&mut self) -> (String, End) {
        let (data, end) = self.read_to_end().await;
        // The connection may be gone already.
        let _ = soon(self.stream.shutdown()).await;
        (String::from_utf8_lossy(&data).into_owned(), end)
    }

    /// Sends close_notify, and reads to the end.
    pub async fn close(&mut self) -> End {
        soon(self.stream.shutdown()).await.expect("sent");
        self.read_to_end().await.1
    }

    /// Reads up to `end`, and nothing behind it.
    pub async fn read_until(&mut self, end: &str) -> String {
        let mut read = Vec::new();
        while !read.ends_with(end.as_bytes()) {
            let byte = soon(self.stream.read_u8()).await;
            read.push(byte.unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&read))));
        }
        String::from_utf8(read).expect("UTF-8")
    }

    /// Reads the head of an HTTP/1 message. Returns it in lower case.
    pub async fn head(&mut self) -> String {
        self.read_until("\r\n\r\n").await.to_ascii_lowercase()
    }

    /// Reads an HTTP/1 message with a Content-Length, or without a body.
    pub async fn read_message(&mut self) -> (String, Vec<u8>) {
        let head = self.head().await;
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
        soon(self.stream.read_exact(&mut body)).await.expect("a body");
        (head, body)
    }
}

/// A client configuration that offers `protocol` by ALPN.
pub fn offer(protocol: &str) -> ClientConfig {
    let mut config = client_config(&rustls::version::TLS13);
    config.alpn_protocols = vec![protocol.into()];
    config
}

/// Connects a socket whose receive buffer has this size.
pub async fn narrow_socket(address: SocketAddr, buffer: u32) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(buffer).expect("an option");
    soon(socket.connect(address)).await.expect("a server")
}

/// What follows the head of an HTTP/1 message.
pub fn body_of(message: &[u8]) -> &[u8] {
    let head = message.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    &message[head + 4..]
}
