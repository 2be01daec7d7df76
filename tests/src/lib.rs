//! What the tests share: a certificate, a scripted transport with a TLS peer behind it, a forge for odd records, a server and its
//! clients over loopback.

mod forge;
pub mod hostile;
pub mod one_record;
#[cfg(feature = "servers")]
pub mod openssl_peer;
pub mod scripted;
#[cfg(feature = "servers")]
pub mod serving;

mod wire;

/// The parts of a [`Wire`]'s script.
pub mod wire_script {
    pub use crate::wire::{Buffering, Done, Full, Script, Then};
}

use std::sync::{Arc, OnceLock};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

pub use forge::Forge;
pub use wire::{Peer, Side, Wire, connect, connect_over, connect_with};

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

/// A client that trusts [`certificate`], speaks `version` and nothing else, and lets its secrets be extracted.
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

/// A server with [`certificate`] that speaks `version` and nothing else, and lets its secrets be extracted.
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

/// The examples of the README are tested here, since the library's package does not contain it where it is.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

/// So are those of the guides.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guides/unwrap.md")]
pub struct UnwrapGuide;

/// See above.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guides/kubernetes.md")]
pub struct KubernetesGuide;
