//! Why handshakes fail: each reason, with a client that causes it.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use openssl::ssl::{Ssl, SslConnector, SslMethod, SslStream, SslVersion};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    server::{ResolvesServerCertUsingSni, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};
use tls_shutdown::{
    Alert, Ending,
    server::{ConnectionReport, HandshakeFailure, ServerDrain, TlsListener},
};
use tls_shutdown_tests::{
    VERSIONS, certificate, client_config, server_config,
    serving::{Client, LONG, offer, offering},
    soon,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
};

/// A listener in a task, and the reports of its connections.
struct Site {
    address: SocketAddr,
    ends: mpsc::UnboundedReceiver<ConnectionReport>,
    task: JoinHandle<()>,
}

impl Site {
    async fn start(config: ServerConfig, change: impl FnOnce(TlsListener) -> TlsListener) -> Self {
        let listener = TlsListener::bind("127.0.0.1:0", config).await.expect("a free port");
        let (sender, ends) = mpsc::unbounded_channel();
        let listener = change(listener).on_end(move |end| sender.send(end.clone()).expect("a test"));
        let address = listener.local_addr().expect("an address");
        Self { address, ends, task: crate::listener::serve(listener) }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a listener")
    }

    async fn end(&mut self) -> ConnectionReport {
        let end = soon(self.ends.recv()).await.expect("a report");
        assert!(!end.handshake_finished() && end.requests() == 0, "{end}");
        assert_eq!((end.tls_version(), end.handshake_kind(), end.protocol()), (None, None, None), "{end}");
        end
    }

    /// The end of a connection whose handshake has failed so.
    async fn fails(&mut self, failure: HandshakeFailure, ending: Ending) -> ConnectionReport {
        let end = self.end().await;
        assert_eq!((end.handshake_failure(), end.ending()), (Some(failure), ending), "{end}");
        assert!(end.to_string().contains(&failure.to_string()), "{end}");
        end
    }
}

/// The alert that ends the connection of a client with this configuration.
async fn alert_to(config: ClientConfig, tcp: TcpStream) -> Option<Alert> {
    let error = match Client::try_over(tcp, config).await {
        // In TLS 1.3, a client's handshake ends before the server has looked at its certificate.
        Ok(mut client) => soon(client.stream.read_u8()).await.expect_err("the handshake fails"),
        Err(error) => error,
    };
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some(Alert(u8::from(*alert))),
        _ => None,
    }
}

/// The first message of a client.
fn client_hello() -> Vec<u8> {
    let name = "localhost".try_into().expect("a name");
    let mut tls = ClientConnection::new(Arc::new(client_config(&TLS13)), name).expect("a client");
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).expect("in memory");
    hello
}

fn provider(change: impl FnOnce(&mut CryptoProvider)) -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    change(&mut provider);
    Arc::new(provider)
}

/// An authority that nobody knows. It has a name of its own, so that no other is taken for it.
fn unknown_authority() -> RootCertStore {
    let mut parameters = CertificateParams::new(Vec::new()).expect("parameters");
    parameters.distinguished_name.push(DnType::CommonName, "an authority that nobody knows");
    let key = KeyPair::generate().expect("a key");
    let mut roots = RootCertStore::empty();
    roots.add(parameters.self_signed(&key).expect("a certificate").der().clone()).expect("a root");
    roots
}

/// A server that requires a certificate.
fn requiring_a_certificate(version: &'static SupportedProtocolVersion) -> ServerConfig {
    let provider = provider(|_| ());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(unknown_authority()), provider.clone());
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_client_cert_verifier(verifier.build().expect("a verifier"))
        .with_single_cert(vec![certificate().0], certificate().1)
        .expect("a certificate")
}

#[tokio::test]
async fn a_client_that_leaves_before_or_within_the_handshake() {
    let mut site = Site::start(server_config(&TLS13), |listener| listener).await;
    drop(site.connect().await);
    let end = site.fails(HandshakeFailure::NothingSent, Ending::NotStarted).await;
    assert_eq!((end.server_name(), end.alert_sent()), (None, None));
    // Some balancers check a port so.
    let tcp = site.connect().await;
    tcp.set_zero_linger().expect("an option");
    drop(tcp);
    site.fails(HandshakeFailure::NothingSent, Ending::Reset).await;

    let hello = client_hello();
    for length in [1, hello.len() / 2] {
        let mut tcp = site.connect().await;
        tcp.write_all(&hello[..length]).await.expect("sent");
        drop(tcp);
        site.fails(HandshakeFailure::UnexpectedEof, Ending::NotStarted).await;
    }
    for (is_reset, failure, ending) in
        [(false, HandshakeFailure::UnexpectedEof, Ending::NotStarted), (true, HandshakeFailure::Reset, Ending::Reset)]
    {
        let mut tcp = site.connect().await;
        tcp.write_all(&hello).await.expect("sent");
        soon(tcp.read_u8()).await.expect("a ServerHello");
        if is_reset {
            tcp.set_zero_linger().expect("an option");
            drop(tcp);
        } else {
            tcp.shutdown().await.expect("FIN");
        }
        let end = site.fails(failure, ending).await;
        assert_eq!(end.server_name(), Some("localhost"), "{end}");
        assert!(end.handshake_error().is_some(), "{end}");
    }
}

#[tokio::test]
async fn a_client_that_is_silent() {
    let mut site =
        Site::start(server_config(&TLS13), |listener| listener.handshake_timeout(Duration::from_millis(50))).await;
    let _silent = site.connect().await;
    let end = site.fails(HandshakeFailure::TimedOut, Ending::NotStarted).await;
    assert!(end.handshake_error().is_none(), "{end}");
    let mut tcp = site.connect().await;
    tcp.write_all(&client_hello()).await.expect("sent");
    assert_eq!(site.fails(HandshakeFailure::TimedOut, Ending::NotStarted).await.server_name(), Some("localhost"));

    let mut site = Site::start(server_config(&TLS13), |listener| listener.max_handshakes(1)).await;
    let (shed, _newer) = (site.connect().await, site.connect().await);
    let end = site.fails(HandshakeFailure::Shed, Ending::NotStarted).await;
    assert_eq!(end.peer(), shed.local_addr().expect("an address"));
}

#[tokio::test]
async fn a_handshake_that_a_drain_or_its_listener_ends() {
    let drain = ServerDrain::on(std::future::ready(())).last_request(Duration::ZERO).grace_period(LONG);
    let handle = drain.handle();
    let mut site = Site::start(server_config(&TLS13), |listener| listener.with_drain(&handle)).await;
    let _silent = site.connect().await;
    let running = tokio::spawn(drain.run(std::future::pending::<()>()));
    site.fails(HandshakeFailure::Drained, Ending::NotStarted).await;
    running.abort();

    let mut site = Site::start(server_config(&TLS13), |listener| listener).await;
    let mut tcp = site.connect().await;
    tcp.write_all(&client_hello()).await.expect("sent");
    soon(tcp.read_u8()).await.expect("a ServerHello");
    site.task.abort();
    site.fails(HandshakeFailure::Aborted, Ending::NotStarted).await;
}

#[tokio::test]
async fn a_hook_that_refuses_or_panics() {
    let hook = |_: TcpStream, _: SocketAddr| async { Err(io::Error::other("not from the balancer")) };
    let mut site = Site::start(server_config(&TLS13), |listener| listener.before_tls(hook)).await;
    let _client = site.connect().await;
    let end = site.fails(HandshakeFailure::Refused, Ending::NotStarted).await;
    assert!(end.to_string().ends_with("(not from the balancer)"), "{end}");

    let hook = |_: TcpStream, _: SocketAddr| async { panic!("as a hook may") };
    let mut site = Site::start(server_config(&TLS13), |listener| listener.before_tls(hook)).await;
    let _client = site.connect().await;
    site.fails(HandshakeFailure::Aborted, Ending::NotStarted).await;
}

/// `alert_sent` is the alert that the client receives.
#[tokio::test]
async fn client_and_server_have_nothing_in_common() {
    let aes = provider(|provider| provider.cipher_suites.truncate(1));
    let chacha = provider(|provider| {
        provider.cipher_suites.retain(|suite| suite.suite() == rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
    });
    let server_without_chacha = ServerConfig::builder_with_provider(aes)
        .with_protocol_versions(&[&TLS13])
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(vec![certificate().0], certificate().1)
        .expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(certificate().0).expect("a root");
    let client_with_chacha = ClientConfig::builder_with_provider(chacha)
        .with_protocol_versions(&[&TLS13])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    for (server, client, failure, alert) in [
        (server_config(&TLS13), client_config(&TLS12), HandshakeFailure::NoCommonVersion, 70),
        (server_config(&TLS12), client_config(&TLS13), HandshakeFailure::NoCommonVersion, 70),
        (server_without_chacha, client_with_chacha, HandshakeFailure::NoCommonParameters, 40),
        (offering(&["h2"]), offer("http/1.1"), HandshakeFailure::NoCommonProtocol, 120),
    ] {
        let mut site = Site::start(server, |listener| listener).await;
        assert_eq!(alert_to(client, site.connect().await).await, Some(Alert(alert)), "{failure:?}");
        let end = site.fails(failure, Ending::NotStarted).await;
        assert_eq!((end.alert_sent(), end.server_name()), (Some(Alert(alert)), Some("localhost")), "{end}");
    }
    // OpenSSL offers TLS 1.2 alone.
    let mut site = Site::start(server_config(&TLS13), |listener| listener).await;
    let address = site.address;
    let client = spawn_blocking(move || {
        let mut connector = SslConnector::builder(SslMethod::tls_client()).expect("a connector");
        connector.set_max_proto_version(Some(SslVersion::TLS1_2)).expect("a version");
        let ssl = Ssl::new(connector.build().context()).expect("a client");
        let socket = std::net::TcpStream::connect(address).expect("a listener");
        SslStream::new(ssl, socket).expect("a client").connect().expect_err("no handshake").to_string()
    });
    let error = soon(client).await.expect("no panic");
    assert!(error.contains("protocol version"), "{error}");
    site.fails(HandshakeFailure::NoCommonVersion, Ending::NotStarted).await;
}

//= https://www.rfc-editor.org/rfc/rfc5246#appendix-E.1
//# If server supports (or is willing to use) only versions greater than
//# client_version, it MUST send a "protocol_version" alert message and
//# close the connection.
#[tokio::test]
async fn a_client_without_tls_1_2() {
    const LENGTH: u8 = 41;
    let mut site = Site::start(server_config(&TLS12), |listener| listener).await;
    for (minor, failure, alert) in [
        (1, HandshakeFailure::NoCommonVersion, 70),
        (2, HandshakeFailure::NoCommonVersion, 70),
        // It lacks an extension that TLS 1.2 need not have, and that rustls wants.
        (3, HandshakeFailure::NoCommonParameters, 40),
    ] {
        // A ClientHello with one cipher suite and no extension.
        let start = [22, 3, 1, 0, LENGTH + 4, 1, 0, 0, LENGTH, 3, minor];
        let hello = [&start[..], &[7; 32], &[0, 0, 2, 0, 47, 1, 0]].concat();
        let mut tcp = site.connect().await;
        tcp.write_all(&hello).await.expect("sent");
        let mut answer = Vec::new();
        soon(tcp.read_to_end(&mut answer)).await.expect("FIN");
        assert_eq!(answer, [21, 3, 3, 0, 2, 2, alert], "3.{minor}");
        let end = site.fails(failure, Ending::NotStarted).await;
        assert_eq!(end.alert_sent(), Some(Alert(alert)), "{end}");
    }
}

#[tokio::test]
async fn a_certificate_is_not_accepted() {
    for version in VERSIONS {
        // By the client.
        let mut site = Site::start(server_config(version), |listener| listener).await;
        let mut distrusting = client_config(version);
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
            Arc::new(unknown_authority()),
            provider(|_| ()),
        );
        distrusting.dangerous().set_certificate_verifier(verifier.build().expect("a verifier"));
        assert_eq!(alert_to(distrusting, site.connect().await).await, None, "the client sends the alert");
        let unknown_ca = Alert(48);
        let end = site.fails(HandshakeFailure::AlertReceived(unknown_ca), Ending::PeerAlert(unknown_ca)).await;
        assert_eq!((end.shutdown().alert(), end.alert_sent()), (Some(unknown_ca), None), "{end}");

        // By the server.
        let mut site = Site::start(requiring_a_certificate(version), |listener| listener).await;
        let certificate_required = Some(Alert(116));
        assert_eq!(alert_to(client_config(version), site.connect().await).await, certificate_required);
        let end = site.fails(HandshakeFailure::NoClientCertificate, Ending::NotStarted).await;
        assert_eq!(end.alert_sent(), certificate_required, "{end}");

        let mut roots = RootCertStore::empty();
        roots.add(certificate().0).expect("a root");
        let stranger = ClientConfig::builder_with_provider(provider(|_| ()))
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate().0], certificate().1)
            .expect("a certificate");
        assert_eq!(alert_to(stranger, site.connect().await).await, Some(unknown_ca));
        let end = site.fails(HandshakeFailure::ClientCertificateRejected, Ending::NotStarted).await;
        assert_eq!(end.alert_sent(), Some(unknown_ca), "{end}");
        assert!(end.to_string().contains("alert unknown_ca sent (invalid peer certificate"), "{end}");
    }
}

#[tokio::test]
async fn the_server_has_no_certificate_for_the_name() {
    let config = ServerConfig::builder_with_provider(provider(|_| ()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
    let mut site = Site::start(config, |listener| listener).await;
    assert_eq!(alert_to(client_config(&TLS13), site.connect().await).await, Some(Alert(49)), "access_denied");
    let end = site.fails(HandshakeFailure::ServerFailed, Ending::NotStarted).await;
    assert_eq!(end.server_name(), Some("localhost"), "{end}");
    assert!(end.handshake_error().expect("rustls's").to_string().contains("no server certificate"), "{end}");
}

#[tokio::test]
async fn a_client_that_does_not_speak_tls_as_it_should() {
    let mut site = Site::start(server_config(&TLS13), |listener| listener).await;
    for (first, failure, ending, alert) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], HandshakeFailure::NotTls, Ending::NotTls, Some(Alert(50))),
        (&[23, 3, 3, 0, 1, 0], HandshakeFailure::ProtocolError, Ending::ProtocolError, Some(Alert(10))),
        (&[22, 3, 1, 0, 4, 99, 0, 0, 0], HandshakeFailure::ProtocolError, Ending::ProtocolError, Some(Alert(10))),
        (&[22, 3, 1, 0, 4, 1, 255, 255, 255], HandshakeFailure::TlsLimit, Ending::TlsLimit, None),
        (&[21, 3, 3, 0, 2, 2, 80], HandshakeFailure::AlertReceived(Alert(80)), Ending::PeerAlert(Alert(80)), None),
    ] {
        let mut tcp = site.connect().await;
        tcp.write_all(first).await.expect("sent");
        tcp.shutdown().await.expect("FIN");
        let mut answer = Vec::new();
        soon(tcp.read_to_end(&mut answer)).await.expect("FIN, and no reset");
        let end = site.fails(failure, ending).await;
        assert_eq!(answer.last().map(|code| Alert(*code)), alert, "{first:?}");
        assert_eq!(end.alert_sent(), alert, "{end}");
    }
}

#[test]
fn errors_of_the_transport_are_told() {
    let error = io::Error::from(io::ErrorKind::HostUnreachable);
    assert_eq!(HandshakeFailure::of_error(&error), HandshakeFailure::Transport(io::ErrorKind::HostUnreachable));
    assert_eq!(HandshakeFailure::of_error(&error).to_string(), "the transport failed: host unreachable");
}
