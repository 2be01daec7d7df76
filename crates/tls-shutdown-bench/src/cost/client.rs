//! Clients that know what they send and receive. They block, since they run in another process than the server.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned, client::Resumption, pki_types::ServerName};

const HTTP1_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Every window is open as far as it can be, so that the client has nothing to say while it receives.
const SETTINGS: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x04\x7f\xff\xff\xff";
const WINDOW_UPDATE: &[u8] = b"\0\0\x04\x08\0\0\0\0\0\x7f\xff\0\0";
const SETTINGS_ACK: &[u8] = b"\0\0\0\x04\x01\0\0\0\0";
const HEAD_BYTES: usize = 9;
const END_STREAM: u8 = 1;
const DATA: u8 = 0;
const HEADERS: u8 = 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Version {
    Http1,
    Http2,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Session {
    New,
    Resumed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Path {
    Small,
    Large,
}

/// Connects to one server.
pub(super) struct Client {
    address: SocketAddr,
    version: Version,
    /// `None` without TLS.
    tls: Option<Arc<ClientConfig>>,
    session: Session,
}

impl Client {
    pub(super) fn new(address: SocketAddr, version: Version, tls: Option<ClientConfig>, session: Session) -> Self {
        let tls = tls.map(|mut config| {
            config.alpn_protocols = vec![match version {
                Version::Http1 => b"http/1.1".to_vec(),
                Version::Http2 => b"h2".to_vec(),
            }];
            if session == Session::New {
                config.resumption = Resumption::disabled();
            }
            Arc::new(config)
        });
        Self { address, version, tls, session }
    }

    /// Connects, and does a request.
    pub(super) fn connect(&self) -> Connection {
        let tcp = TcpStream::connect(self.address).expect("a server");
        tcp.set_nodelay(true).expect("an option");
        let stream = match &self.tls {
            Some(config) => {
                let name = ServerName::try_from("localhost").expect("a name");
                let tls = ClientConnection::new(config.clone(), name).expect("a configuration");
                Stream::Tls(Box::new(StreamOwned::new(tls, tcp)))
            }
            None => Stream::Plain(tcp),
        };
        let mut connection = Connection { stream, version: self.version, next_stream: 1, received: Vec::new() };
        if self.version == Version::Http2 {
            connection.send(&[HTTP2_PREFACE, SETTINGS, WINDOW_UPDATE, SETTINGS_ACK].concat());
        }
        connection.request(Path::Small, 1);
        connection
    }

    /// Connects, does a request, and closes.
    pub(super) fn visit(&self) {
        self.connect().close();
    }

    /// Connects once, so that later connections are what this client is about.
    pub(super) fn prepare(&self) {
        self.visit();
        let connection = self.connect();
        if let Stream::Tls(stream) = &connection.stream {
            let expected = match self.session {
                Session::New => HandshakeKind::Full,
                Session::Resumed => HandshakeKind::Resumed,
            };
            assert_eq!(stream.conn.handshake_kind(), Some(expected));
        }
        connection.close();
    }
}

enum Stream {
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Plain(TcpStream),
}

/// A connection to a server.
pub(super) struct Connection {
    stream: Stream,
    version: Version,
    next_stream: u32,
    received: Vec<u8>,
}

impl Connection {
    /// Sends `count` requests at once, and receives the responses.
    pub(super) fn request(&mut self, path: Path, count: usize) {
        match self.version {
            Version::Http1 => {
                assert_eq!((path, count), (Path::Small, 1), "HTTP/1 is compared by small requests, one at a time");
                self.send(HTTP1_REQUEST);
                self.receive(|received| received.ends_with(b"hello").then_some(received.len()));
            }
            Version::Http2 => {
                let mut requests = Vec::new();
                for _ in 0..count {
                    requests.extend(http2_request(self.next_stream, path));
                    self.next_stream += 2;
                }
                self.send(&requests);
                let mut answered = 0;
                while answered < count {
                    answered += usize::from(self.receive_frame());
                }
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        match &mut self.stream {
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
            Stream::Plain(stream) => stream.write_all(bytes),
        }
        .expect("sent");
    }

    /// Receives until `measure` finds a whole message of some length, and takes that away.
    fn receive(&mut self, measure: impl Fn(&[u8]) -> Option<usize>) -> Vec<u8> {
        loop {
            if let Some(length) = measure(&self.received) {
                return self.received.drain(..length).collect();
            }
            let mut bytes = [0; 16 * 1024];
            let count = match &mut self.stream {
                Stream::Tls(stream) => stream.read(&mut bytes),
                Stream::Plain(stream) => stream.read(&mut bytes),
            };
            let count = count.expect("received");
            assert!(count > 0, "the server has closed");
            self.received.extend(&bytes[..count]);
        }
    }

    /// Receives a frame. Returns whether it ends a response.
    fn receive_frame(&mut self) -> bool {
        let frame = self.receive(|received| {
            let length = received.first_chunk().map(|[a, b, c]| u32::from_be_bytes([0, *a, *b, *c]) as usize)?;
            (received.len() >= HEAD_BYTES + length).then_some(HEAD_BYTES + length)
        });
        matches!(frame[..], [_, _, _, DATA | HEADERS, flags, ..] if flags & END_STREAM != 0)
    }

    /// Closes, and waits for the end of the server's half. A server that has closed may reset the connection.
    pub(super) fn close(mut self) {
        if let Stream::Tls(stream) = &mut self.stream {
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
        let tcp = self.tcp();
        let _ = tcp.shutdown(Shutdown::Write);
        while tcp.read(&mut [0; 1024]).is_ok_and(|count| count > 0) {}
    }

    /// Waits for the end of the server's half, and closes.
    pub(super) fn answer_close(mut self) {
        if let Stream::Tls(stream) = &mut self.stream {
            while stream.read(&mut [0; 1024]).expect("close_notify") > 0 {}
        }
        self.close();
    }

    fn tcp(&mut self) -> &mut TcpStream {
        match &mut self.stream {
            Stream::Tls(stream) => &mut stream.sock,
            Stream::Plain(stream) => stream,
        }
    }
}

/// HEADERS without entries in the dynamic table (RFC 7541).
fn http2_request(stream: u32, path: Path) -> Vec<u8> {
    let mut block = vec![0x82, 0x87];
    match path {
        Path::Small => block.push(0x84),
        Path::Large => block.extend(b"\x04\x06/large"),
    }
    block.extend(b"\x01\x09localhost\x0f\x2b\x05bench\x0f\x04\x03*/*");
    let length = u8::try_from(block.len()).expect("a short head");
    let mut frame = vec![0, 0, length, HEADERS, 4 | END_STREAM];
    frame.extend(stream.to_be_bytes());
    frame.extend(block);
    frame
}
