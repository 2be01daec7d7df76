//! Clients that only write, at the servers of others: every byte arrives, and every connection after the first resumes its
//! session. The control is the bare stream of tokio-rustls, which leaves the session tickets unread.

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use rustls::{
    ClientConfig, HandshakeKind, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tls_shutdown::{ShutdownPolicy, ShutdownStream};
use tls_shutdown_interop::{Background, CERTIFICATE, COMPLETE, directory, end, peer_file, program, send, within};
use tokio::{io::AsyncWriteExt, net::TcpStream, process::Command};
use tokio_rustls::{TlsConnector, client::TlsStream};

const SIZES: [usize; 5] = [100, 16_000, 200_000, 1_000_000, 3_000_000];
const CONNECTIONS: usize = 50;

/// Servers that speak TLS 1.3, in which tickets come when the handshake is done.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Server {
    Openssl,
    Gnutls,
    Go,
    Java,
    Nginx,
}

/// What a server has counted in [`CONNECTIONS`] connections.
#[derive(Debug, PartialEq)]
struct Count {
    bytes: usize,
    /// `None` if the server does not report it.
    resumed: Option<usize>,
}

impl Server {
    async fn start(self) -> (Background, u16) {
        let (cert, key) = (&*CERTIFICATE.cert, &*CERTIFICATE.key);
        let connections = CONNECTIONS.to_string();
        match self {
            Self::Openssl => {
                let mut server = program("openssl", "openssl");
                server.args(["s_server", "-accept", "127.0.0.1:0", "-naccept", &connections, "-tls1_3"]);
                let mut server = Background::start(server.args(["-cert", cert, "-key", key]));
                let port = server.port("ACCEPT").await;
                (server, port)
            }
            Self::Gnutls => {
                let command = |port: u16| {
                    let mut server = program("gnutls-serv", "gnutls-bin");
                    // It counts nothing. At this level it logs the length of each record.
                    server.args(["--echo", "--debug", "5", "--port", &port.to_string()]);
                    server.args(["--x509certfile", cert, "--x509keyfile", key]);
                    server.arg("--priority=NORMAL:-VERS-ALL:+VERS-TLS1.3");
                    server
                };
                Background::start_on_free_port(command, "...done").await
            }
            Self::Go => {
                static SERVER: LazyLock<PathBuf> = LazyLock::new(|| {
                    let server = directory().join("go-server");
                    let mut build = program("go", "golang-go").into_std();
                    build.args(["build", "-o"]).arg(&server).arg(peer_file("server.go"));
                    build.env("GO111MODULE", "off").env("GOFLAGS", "").env("GOCACHE", directory().join("go-cache"));
                    let built = build.output().expect("go runs");
                    assert!(built.status.success(), "{built:?}");
                    server
                });
                let mut server = Background::start(Command::new(&*SERVER).args([cert, key, &connections]));
                let port = server.port("port").await;
                (server, port)
            }
            Self::Java => {
                // Needs the compiler, which is not in every package of `java`.
                program("javac", "default-jdk-headless");
                let mut server = program("java", "default-jdk-headless");
                let mut server =
                    Background::start(server.arg(peer_file("Server.java")).args([cert, key, &connections]));
                let port = server.port("port").await;
                (server, port)
            }
            Self::Nginx => {
                let command = |port: u16| {
                    let configuration = format!(
                        "daemon off; master_process off; pid tickets.pid; error_log stderr notice; events {{}}
                         http {{
                             client_body_temp_path tickets-body; proxy_temp_path tickets-proxy;
                             fastcgi_temp_path tickets-fastcgi; uwsgi_temp_path tickets-uwsgi;
                             scgi_temp_path tickets-scgi; client_max_body_size 0; proxy_ignore_client_abort on;
                             log_format received 'received $request_length $ssl_session_reused';
                             access_log /dev/stdout received;
                             server {{
                                 listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.3;
                                 ssl_certificate {cert}; ssl_certificate_key {key}; proxy_ssl_protocols TLSv1.3;
                                 location / {{ proxy_pass https://127.0.0.1:{port}/upstream; }}
                                 location = /upstream {{ access_log off; return 200; }}
                             }}
                         }}"
                    );
                    let file = directory().join("tickets.conf");
                    std::fs::write(&file, configuration).expect("a configuration");
                    let mut server = program("nginx", "nginx-light");
                    server.arg("-p").arg(directory()).arg("-c").arg(file).args(["-e", "stderr"]);
                    server
                };
                Background::start_on_free_port(command, "epoll").await
            }
        }
    }

    /// Waits until the server is done with all connections.
    async fn count(self, mut server: Background, size: usize) -> Count {
        let mut count = Count { bytes: 0, resumed: Some(0) };
        let mut resumed = 0;
        match self {
            // It prints what it receives.
            Self::Openssl => {
                let output = server.output().await;
                count.bytes = output.iter().filter(|byte| **byte == 0).count();
                let lines = output.split(|byte| *byte == b'\n');
                resumed = lines.filter(|line| line.windows(6).any(|word| word == b"Reused")).count();
            }
            Self::Gnutls => {
                let mut done = 0;
                while done < CONNECTIONS {
                    let line = server.line_with("").await.expect("a line");
                    if line.contains("Decrypted Packet") && line.contains("Application Data") {
                        let length = line.trim_end().rsplit(' ').next().and_then(|length| length.parse::<usize>().ok());
                        count.bytes += length.expect("a length");
                    }
                    resumed += usize::from(line.contains("selected resumption PSK"));
                    // The keys of the connection.
                    done += usize::from(line.contains("Epoch #2 freed"));
                }
            }
            Self::Go | Self::Java | Self::Nginx => {
                for _ in 0..CONNECTIONS {
                    let line = server.line_with("received").await.expect("a line");
                    let mut words = line.split_whitespace().skip(1);
                    let bytes = words.next().and_then(|bytes| bytes.parse::<usize>().ok()).expect("a number");
                    count.bytes += bytes.saturating_sub(self.head(size).len());
                    resumed += usize::from(words.any(|word| ["r", "resumed"].contains(&word)));
                }
            }
        }
        count.resumed = Some(resumed).filter(|_| self != Self::Java);
        count
    }

    /// What the server wants to read before.
    fn head(self, size: usize) -> String {
        match self {
            Self::Nginx => format!("POST / HTTP/1.1\r\nHost: l\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"),
            _ => String::new(),
        }
    }

    /// Uploads over one connection after the other. `finish` writes to each and ends it. Returns how many were resumed.
    async fn upload(self, port: u16, size: usize, finish: impl AsyncFn(TlsStream<TcpStream>, &[u8])) -> usize {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&CERTIFICATE.cert).expect("a certificate")).expect("a root");
        let config = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("a version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let bytes = [self.head(size).into_bytes(), vec![0; size]].concat();
        let mut resumed = 0;
        for _ in 0..CONNECTIONS {
            let tcp = TcpStream::connect(("127.0.0.1", port)).await.expect("a server");
            let name = ServerName::try_from("localhost").expect("a name");
            let stream = within(connector.connect(name, tcp)).await.expect("a handshake");
            resumed += usize::from(stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed));
            within(finish(stream, &bytes)).await;
        }
        resumed
    }

    /// Uploads by `tls-shutdown send`, or by the library if the server wants a request around the zeros. All connections end completely.
    /// Returns how many were resumed.
    async fn send(self, port: u16, size: usize) -> usize {
        if self == Self::Nginx {
            let finish = async |stream, bytes: &[u8]| {
                // nginx sends no close_notify if it has read ours before, which may happen with a short request. So it goes first.
                let mut stream = ShutdownStream::new(stream).with_policy(ShutdownPolicy::receive_first());
                stream.write_all(bytes).await.expect("written");
                stream.shutdown().await.expect("complete");
            };
            return self.upload(port, size, finish).await;
        }
        let arguments = ["--bytes", &size.to_string(), "--connections", &CONNECTIONS.to_string()];
        let (success, events) = send(port, &arguments, b"").await;
        assert!(success && events.len() == CONNECTIONS, "{self:?}, {size} bytes: {events:?}");
        for event in &events {
            assert_eq!((end(event), &event["bytes"]), (COMPLETE, &size.into()), "{self:?}: {event}");
        }
        events.iter().filter(|event| event["resumed"] == true).count()
    }
}

/// What the client has seen is confirmed by the server, but for Java's, which has no word for whether a session was resumed.
async fn every_byte_arrives_and_sessions_resume(server: Server) {
    for size in SIZES {
        let (process, port) = server.start().await;
        assert_eq!(server.send(port, size).await, CONNECTIONS - 1, "{server:?}, {size} bytes");
        let resumed = Some(CONNECTIONS - 1).filter(|_| server != Server::Java);
        let expected = Count { bytes: size * CONNECTIONS, resumed };
        assert_eq!(server.count(process, size).await, expected, "{server:?}, {size} bytes");
    }
}

/// The control. Returns how many bytes of the larger uploads were sent, and how many have arrived.
async fn bare_streams(server: Server, resumed: usize) -> (usize, usize) {
    let mut total = (0, 0);
    // Less than that, a server may have read before the reset comes.
    for size in SIZES.into_iter().filter(|size| *size >= 200_000) {
        let (process, port) = server.start().await;
        let finish = async |mut stream: TlsStream<TcpStream>, bytes: &[u8]| {
            // A reset may overtake even this. That is no matter: it is the server that counts.
            let _ = stream.write_all(bytes).await;
            let _ = stream.shutdown().await;
        };
        assert_eq!(server.upload(port, size, finish).await, resumed, "{server:?}, {size} bytes");
        total.0 += size * CONNECTIONS;
        total.1 += server.count(process, size).await.bytes;
    }
    total
}

async fn nothing_is_lost_but_by_bare_streams(server: Server) {
    every_byte_arrives_and_sessions_resume(server).await;
    let (sent, arrived) = bare_streams(server, 0).await;
    assert!(arrived < sent, "{server:?}: {arrived} of {sent} bytes");
}

#[tokio::test]
async fn openssl() {
    nothing_is_lost_but_by_bare_streams(Server::Openssl).await;
}

#[tokio::test]
async fn gnutls() {
    nothing_is_lost_but_by_bare_streams(Server::Gnutls).await;
}

#[tokio::test]
async fn java() {
    nothing_is_lost_but_by_bare_streams(Server::Java).await;
}

#[tokio::test]
async fn nginx() {
    nothing_is_lost_but_by_bare_streams(Server::Nginx).await;
}

/// Go sends its ticket with its Finished, so that the handshake reads it, and even a bare stream leaves nothing unread.
#[tokio::test]
async fn go() {
    every_byte_arrives_and_sessions_resume(Server::Go).await;
    let (sent, arrived) = bare_streams(Server::Go, CONNECTIONS - 1).await;
    assert_eq!(arrived, sent);
}
