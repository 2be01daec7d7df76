//! Configurations that are replaced while the application is asked about them.

use std::sync::{Arc, Mutex, OnceLock, mpsc};

use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, HandshakeKind, RootCertStore, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::{
        ClientHello, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use tls_shutdown::server::{ConfigHandle, TlsListener};
use tls_shutdown_tests::{VERSIONS, certificate, server_config, serving::Client, soon};
use tokio::{io::AsyncReadExt, net::TcpStream, sync::oneshot};

use crate::listener::{serve, serve_and_close};

/// Offers no client authentication. Before it says so, it waits, and uses the handle.
#[derive(Debug)]
struct Slow {
    asked: Mutex<Option<oneshot::Sender<()>>>,
    answer: Mutex<mpsc::Receiver<()>>,
    handle: OnceLock<ConfigHandle>,
}

impl ClientCertVerifier for Slow {
    fn offer_client_auth(&self) -> bool {
        if let Some(asked) = self.asked.lock().expect("no panic").take() {
            asked.send(()).expect("a test");
            if self.answer.lock().expect("no panic").recv().is_ok() {
                self.handle.get().expect("a handle").retire_connections(std::time::Duration::ZERO);
            }
        }
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        unreachable!("no client is asked for a certificate")
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        unreachable!("no client is asked for a certificate")
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        unreachable!("no client is asked for a certificate")
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// The application may take its time, and may use the handle: nobody waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_go_on_while_a_configuration_is_replaced() {
    let (asked, was_asked) = oneshot::channel();
    let (answer, answers) = mpsc::channel();
    let verifier = Arc::new(Slow { asked: Some(asked).into(), answer: Mutex::new(answers), handle: OnceLock::new() });
    let (chain, key) = certificate();
    let new = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.clone())
        .with_single_cert(vec![chain], key)
        .expect("a certificate");
    let listener = TlsListener::bind("127.0.0.1:0", server_config(&rustls::version::TLS13)).await.expect("a free port");
    let (address, handle) = (listener.local_addr().expect("an address"), listener.config_handle());
    verifier.handle.set(handle.clone()).expect("once");
    serve(listener);
    let (replaced, was_replaced) = oneshot::channel();
    std::thread::spawn(move || {
        handle.replace(new);
        replaced.send(())
    });
    soon(was_asked).await.expect("a question");
    Client::connect(address).await;
    answer.send(()).expect("a verifier");
    soon(was_replaced).await.expect("no panic");
    Client::connect(address).await;
}

/// Has a certificate for one name alone.
#[derive(Debug)]
struct ByName(&'static str, Arc<CertifiedKey>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        (hello.server_name() == Some(self.0)).then(|| self.1.clone())
    }
}

#[tokio::test]
async fn sessions_go_on_where_certificates_are_chosen_by_name() {
    const NAME: &str = "one.example";
    let certified = rcgen::generate_simple_self_signed([NAME.into()]).expect("a certificate");
    let chain = vec![certified.cert.der().clone()];
    let mut roots = RootCertStore::empty();
    roots.add(chain[0].clone()).expect("a root");
    let provider = Arc::new(default_provider());
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let certified = CertifiedKey::from_der(chain, key.into(), &provider).expect("a key");
    let resolver = Arc::new(ByName(NAME, Arc::new(certified)));
    for version in VERSIONS {
        let config = || {
            ServerConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(&[version])
                .expect("a version")
                .with_no_client_auth()
                .with_cert_resolver(resolver.clone())
        };
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let listener = TlsListener::bind("127.0.0.1:0", config()).await.expect("a free port");
        let (address, handle) = (listener.local_addr().expect("an address"), listener.config_handle());
        serve_and_close(listener);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let tcp = TcpStream::connect(address).await.expect("a listener");
            let name = ServerName::try_from(NAME).expect("a name");
            let mut stream = soon(connector.connect(name, tcp)).await.expect("a handshake");
            // The ticket comes before the end.
            soon(stream.read_to_end(&mut Vec::new())).await.expect("a clean end");
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(expected), "{version:?}");
            handle.replace(config());
        }
    }
}
