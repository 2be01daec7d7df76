//! A certificate, and TLS configurations that use it.

use std::sync::{Arc, OnceLock};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};

/// TLS 1.2 and TLS 1.3.
pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// A self-signed certificate for `localhost` and 127.0.0.1, and its key, both DER.
pub fn certificate() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    static CERTIFICATE: OnceLock<(CertificateDer<'static>, Vec<u8>)> = OnceLock::new();
    let (certificate, key) = CERTIFICATE.get_or_init(|| {
        let names = ["localhost".into(), "127.0.0.1".into()];
        let certified = rcgen::generate_simple_self_signed(names).expect("a certificate");
        (certified.cert.der().clone(), certified.signing_key.serialize_der())
    });
    (certificate.clone(), PrivatePkcs8KeyDer::from(key.clone()).into())
}

/// A client that trusts [`certificate`] and speaks only `version`. Its secrets can be extracted.
pub fn client_config(version: &'static SupportedProtocolVersion) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate().0).expect("a root");
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.enable_secret_extraction = true;
    config
}

/// A server with [`certificate`] that speaks only `version`. Its secrets can be extracted.
pub fn server_config(version: &'static SupportedProtocolVersion) -> ServerConfig {
    let (certificate, key) = certificate();
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate");
    config.enable_secret_extraction = true;
    config
}

/// A server that admits only clients with [`certificate`], and such a client.
pub fn mutual_tls() -> (ServerConfig, ClientConfig) {
    let (provider, mut roots) = (Arc::new(default_provider()), RootCertStore::empty());
    roots.add(certificate().0).expect("a root");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider.clone());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.build().expect("a verifier"))
        .with_single_cert(vec![certificate().0], certificate().1)
        .expect("a certificate");
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate().0], certificate().1)
        .expect("a certificate");
    (server, client)
}
