//! Whether a configuration asks clients for a certificate, and for which. rustls does not tell, so that a handshake in memory finds it out.

use std::{
    io,
    net::Ipv4Addr,
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, DigitallySignedStruct, Error, KeyLog, NoKeyLog, ProtocolVersion,
    ServerConfig, ServerConnection, SignatureAlgorithm, SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::NoServerSessionStorage,
    sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey},
};

/// More flights than a handshake has.
const MAX_FLIGHTS: usize = 8;

/// What a configuration asks of its clients.
#[derive(Debug)]
pub(super) struct ClientAuth {
    /// Whether a client without a certificate is refused.
    pub(super) is_required: bool,
    /// The sorted names of the authorities whose certificates are admitted, each behind its length. Empty if the verifier names none.
    pub(super) roots: Vec<u8>,
}

/// What certificate clients are asked for, or `None` if they are asked for none. Required also if the handshake fails, because nothing is
/// known then.
///
/// The handshake presents a certificate of its own: a resolver that chooses by server name may have none for the name that this client
/// would ask for. The configuration's verifier of clients is asked what it offers, but never for a decision.
pub(super) fn client_auth(config: &ServerConfig) -> Option<ClientAuth> {
    let asked = Arc::new(Asked::default());
    let is_required = handshake(config, asked.clone()).is_err();
    match asked.0.get() {
        Some(roots) => Some(ClientAuth { is_required, roots: roots.clone() }),
        None => is_required.then(|| ClientAuth { is_required, roots: Vec::new() }),
    }
}

fn handshake(config: &ServerConfig, asked: Arc<Asked>) -> Result<(), Error> {
    let mut config = config.clone();
    // The handshake leaves no session and no secret behind.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.key_log = Arc::new(NoKeyLog) as Arc<dyn KeyLog>;
    let provider = config.crypto_provider().clone();
    let certificate = CertifiedKey::new(vec![CertificateDer::from(vec![0])], Arc::new(UnsignedKey::new(&provider)));
    config.cert_resolver = Arc::new(SingleCertAndKey::from(certificate));
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAll(schemes)))
        .with_client_cert_resolver(asked);
    client.alpn_protocols.clone_from(&config.alpn_protocols);
    let mut client = ClientConnection::new(Arc::new(client), ServerName::from(Ipv4Addr::LOCALHOST))?;
    let mut server = ServerConnection::new(Arc::new(config))?;
    for _ in 0..MAX_FLIGHTS {
        pass(&mut client, &mut server)?;
        pass(&mut server, &mut client)?;
        if !client.is_handshaking() && !server.is_handshaking() {
            return Ok(());
        }
    }
    Err(Error::HandshakeNotComplete)
}

/// Passes on what `from` has to say.
fn pass<F, T>(from: &mut ConnectionCommon<F>, to: &mut ConnectionCommon<T>) -> Result<(), Error> {
    let failed = |error: io::Error| Error::General(error.to_string());
    let mut flight = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut flight).map_err(failed)?;
    }
    let mut flight = &flight[..];
    while !flight.is_empty() {
        to.read_tls(&mut flight).map_err(failed)?;
        to.process_new_packets()?;
    }
    Ok(())
}

/// Notes whose certificate the server asks for, and has none.
#[derive(Debug, Default)]
struct Asked(OnceLock<Vec<u8>>);

impl ResolvesClientCert for Asked {
    fn resolve(&self, roots: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let mut roots = roots.to_vec();
        roots.sort_unstable();
        self.0.get_or_init(|| roots.iter().flat_map(|root| [&root.len().to_be_bytes(), *root].concat()).collect());
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A key whose signatures are empty, which needs no cryptography. [`TrustAll`] accepts them.
#[derive(Debug)]
struct UnsignedKey(SignatureAlgorithm);

impl UnsignedKey {
    /// A key that the cipher suites of `provider` can use. Those of TLS 1.3 can use any.
    fn new(provider: &CryptoProvider) -> Self {
        let mut suites =
            provider.cipher_suites.iter().filter(|suite| suite.version().version == ProtocolVersion::TLSv1_2);
        let all_need_rsa = suites.all(|suite| suite.usable_for_signature_algorithm(SignatureAlgorithm::RSA));
        Self(if all_need_rsa { SignatureAlgorithm::RSA } else { SignatureAlgorithm::ECDSA })
    }
}

impl SigningKey for UnsignedKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.first().map(|scheme| Box::new(NoSignature(*scheme)) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0
    }
}

#[derive(Debug)]
struct NoSignature(SignatureScheme);

impl Signer for NoSignature {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(Vec::new())
    }

    fn scheme(&self) -> SignatureScheme {
        self.0
    }
}

/// The server is ours.
#[derive(Debug)]
struct TrustAll(Vec<SignatureScheme>);

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use rustls::{crypto::ring::default_provider, server::ResolvesServerCertUsingSni};

    use super::*;

    /// Some of them need a key of RSA, and others one of elliptic curves.
    #[test]
    fn the_handshake_finishes_with_each_cipher_suite() {
        for suite in default_provider().cipher_suites {
            let provider = CryptoProvider { cipher_suites: vec![suite], ..default_provider() };
            let config = ServerConfig::builder_with_provider(Arc::new(provider))
                .with_protocol_versions(&[suite.version()])
                .expect("a version")
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
            assert!(client_auth(&config).is_none(), "{suite:?}");
        }
    }
}
