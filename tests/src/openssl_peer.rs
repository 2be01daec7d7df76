//! OpenSSL peers in threads of this process, over loopback.

use std::{
    io::{ErrorKind, Read},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use openssl::{
    pkey::PKey,
    ssl::{ErrorCode, Ssl, SslAcceptor, SslConnector, SslMethod, SslOptions, SslStream, SslVerifyMode, SslVersion},
    x509::X509,
};
use rustls::{ProtocolVersion, SupportedProtocolVersion};

use crate::{certificate, time::PATIENCE};

/// How the read half of an OpenSSL peer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saw {
    /// `SSL_ERROR_ZERO_RETURN`, which is close_notify.
    ZeroReturn,
    /// The end of the transport, without close_notify.
    UnexpectedEof,
    /// `ECONNRESET`, or `EPIPE` if FIN had come before.
    Reset,
    /// Something else.
    Other(String),
}

fn version_of(version: &SupportedProtocolVersion) -> SslVersion {
    match version.version {
        ProtocolVersion::TLSv1_2 => SslVersion::TLS1_2,
        _ => SslVersion::TLS1_3,
    }
}

/// Whether a server asks its clients for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificate {
    /// No.
    Ignored,
    /// Yes, and it ends the connection with an alert if there is none.
    Required,
}

/// The acceptor of a server with [`certificate`]. It sends session tickets.
pub fn acceptor(version: &'static SupportedProtocolVersion, client_certificate: ClientCertificate) -> SslAcceptor {
    let (certificate, key) = certificate();
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).expect("an acceptor");
    builder.set_certificate(&X509::from_der(&certificate).expect("a certificate")).expect("a certificate");
    builder.set_private_key(&PKey::private_key_from_der(key.secret_der()).expect("a key")).expect("a key");
    builder.set_min_proto_version(Some(version_of(version))).expect("a version");
    builder.set_max_proto_version(Some(version_of(version))).expect("a version");
    builder.clear_options(SslOptions::NO_TICKET);
    builder.set_session_id_context(b"tests").expect("short enough");
    if client_certificate == ClientCertificate::Required {
        builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    }
    builder.build()
}

/// Serves `connections` connections, one after the other. `peer` is called with each after its handshake.
pub fn serve<R: Send + 'static>(
    acceptor: SslAcceptor,
    connections: usize,
    peer: impl Fn(SslStream<TcpStream>) -> R + Send + 'static,
) -> (SocketAddr, JoinHandle<Vec<R>>) {
    serve_sockets(connections, move |socket| acceptor.accept(socket).ok().map(&peer))
}

/// Serves as [`serve`] does, and accepts early data. `peer` is called with that, too.
pub fn serve_early<R: Send + 'static>(
    acceptor: SslAcceptor,
    connections: usize,
    peer: impl Fn(Vec<u8>, SslStream<TcpStream>) -> R + Send + 'static,
) -> (SocketAddr, JoinHandle<Vec<R>>) {
    serve_sockets(connections, move |socket| {
        let mut ssl = Ssl::new(acceptor.context()).expect("a server");
        ssl.set_max_early_data(16_384).expect("a limit");
        let mut stream = SslStream::new(ssl, socket).expect("a server");
        let (mut early, mut buffer) = (Vec::new(), [0; 16_384]);
        loop {
            match stream.read_early_data(&mut buffer).ok()? {
                0 => break,
                amount => early.extend(&buffer[..amount]),
            }
        }
        stream.accept().ok()?;
        Some(peer(early, stream))
    })
}

fn serve_sockets<R: Send + 'static>(
    connections: usize,
    peer: impl Fn(TcpStream) -> Option<R> + Send + 'static,
) -> (SocketAddr, JoinHandle<Vec<R>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let serve = move || {
        let accept = |_| {
            let (socket, _) = listener.accept().expect("a connection");
            set_options(&socket);
            peer(socket)
        };
        (0..connections).filter_map(accept).collect()
    };
    (address, thread::spawn(serve))
}

/// Connects to `address`. `peer` is called with the stream after its handshake.
pub fn connect<R: Send + 'static>(
    version: &'static SupportedProtocolVersion,
    address: SocketAddr,
    peer: impl FnOnce(SslStream<TcpStream>) -> R + Send + 'static,
) -> JoinHandle<R> {
    thread::spawn(move || {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a connector");
        builder.set_verify(SslVerifyMode::NONE);
        builder.set_min_proto_version(Some(version_of(version))).expect("a version");
        builder.set_max_proto_version(Some(version_of(version))).expect("a version");
        let ssl = Ssl::new(builder.build().context()).expect("a client");
        let socket = TcpStream::connect(address).expect("a server");
        set_options(&socket);
        let mut stream = SslStream::new(ssl, socket).expect("a client");
        stream.connect().expect("a handshake");
        peer(stream)
    })
}

fn set_options(socket: &TcpStream) {
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    socket.set_nodelay(true).expect("an option");
}

/// Reads to the end. Returns the number of bytes, and the end.
pub fn read_to_end(stream: &mut SslStream<TcpStream>) -> (usize, Saw) {
    read_slowly(stream, 64 * 1024, Duration::ZERO)
}

/// Reads to the end, and pauses after each `piece` bytes.
pub fn read_slowly(stream: &mut SslStream<TcpStream>, piece: usize, pause: Duration) -> (usize, Saw) {
    let mut buffer = vec![0; piece];
    let mut total = 0;
    loop {
        match stream.ssl_read(&mut buffer) {
            Ok(amount) => total += amount,
            // A signal interrupts a socket that has a time limit (`signal(7)`).
            Err(error) if error.io_error().is_some_and(|error| error.kind() == ErrorKind::Interrupted) => {}
            Err(error) => return (total, end_of(&error)),
        }
        be_silent(pause);
    }
}

/// Does nothing for a time. By the real clock, which is the only one that OpenSSL's side has.
pub fn be_silent(time: Duration) {
    let (_nobody, silence) = mpsc::channel::<()>();
    let _ = silence.recv_timeout(time);
}

/// Reads raw bytes to the end of the socket, and discards them. Returns the end.
pub fn read_socket_to_end(mut socket: &TcpStream) -> Saw {
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return Saw::UnexpectedEof,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Saw::Reset,
            Err(error) => return Saw::Other(error.to_string()),
        }
    }
}

/// Waits for a message, and blocks the thread.
pub fn received<T>(receiver: &mpsc::Receiver<T>) -> T {
    receiver.recv_timeout(PATIENCE).expect("the message comes within `PATIENCE`")
}

fn end_of(error: &openssl::ssl::Error) -> Saw {
    match error.code() {
        ErrorCode::ZERO_RETURN => Saw::ZeroReturn,
        _ if error.to_string().contains("unexpected eof") => Saw::UnexpectedEof,
        _ => match error.io_error() {
            Some(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => Saw::Reset,
            None if error.code() == ErrorCode::SYSCALL => Saw::UnexpectedEof,
            _ => Saw::Other(error.to_string()),
        },
    }
}
