//! Whether a configuration asks clients for a certificate. rustls does not tell, so that a handshake in memory finds it out.

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, KeyLog, NoKeyLog, ServerConfig, ServerConnection,
    SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::NoServerSessionStorage,
    sign::CertifiedKey,
};

/// More flights than a handshake has.
const MAX_FLIGHTS: usize = 8;

/// Whether clients are asked for a certificate. `true` also if the handshake fails, so that nothing is known.
pub(super) fn asks_for_client_certificate(config: &ServerConfig) -> bool {
    let asked = Arc::new(Asked::default());
    !matches!(handshake(config, asked.clone()), Ok(Outcome::Finished)) || asked.0.load(Ordering::Relaxed)
}

enum Outcome {
    Finished,
    Stuck,
}

fn handshake(config: &ServerConfig, asked: Arc<Asked>) -> Result<Outcome, Error> {
    let mut config = config.clone();
    // The handshake leaves no session and no secret behind.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.key_log = Arc::new(NoKeyLog) as Arc<dyn KeyLog>;
    let provider = config.crypto_provider().clone();
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAll(schemes)))
        .with_client_cert_resolver(asked);
    client.alpn_protocols.clone_from(&config.alpn_protocols);
    let name = ServerName::try_from("localhost").map_err(|_| Error::General("a name".to_owned()))?;
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut server = ServerConnection::new(Arc::new(config))?;
    for _ in 0..MAX_FLIGHTS {
        let mut flight = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut flight).map_err(|error| Error::General(error.to_string()))?;
        }
        pass(&flight, |bytes| server.read_tls(bytes).map(|_| server.process_new_packets()))?;
        let mut flight = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut flight).map_err(|error| Error::General(error.to_string()))?;
        }
        pass(&flight, |bytes| client.read_tls(bytes).map(|_| client.process_new_packets()))?;
        if !client.is_handshaking() && !server.is_handshaking() {
            return Ok(Outcome::Finished);
        }
    }
    Ok(Outcome::Stuck)
}

fn pass<T>(
    mut flight: &[u8],
    mut read: impl FnMut(&mut dyn Read) -> std::io::Result<Result<T, Error>>,
) -> Result<(), Error> {
    while !flight.is_empty() {
        read(&mut flight).map_err(|error| Error::General(error.to_string()))??;
    }
    Ok(())
}

/// Notes that the server asks for a certificate, and has none.
#[derive(Debug, Default)]
struct Asked(AtomicBool);

impl ResolvesClientCert for Asked {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        true
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
