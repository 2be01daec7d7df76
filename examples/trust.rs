//! What the clients trust.

use std::{error::Error, sync::Arc};

use clap::Args;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

#[derive(Args)]
pub(crate) struct Trust {
    /// Trust whoever answers, to try things out; by default what the system trusts
    #[arg(long)]
    insecure: bool,
}

pub(crate) fn client_config(trust: &Trust) -> Result<ClientConfig, Box<dyn Error>> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match trust.insecure {
        true => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anything(provider))),
        false => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            builder.with_root_certificates(roots)
        }
    };
    Ok(builder.with_no_client_auth())
}

#[derive(Debug)]
struct Anything(Arc<CryptoProvider>);

type Verified = Result<HandshakeSignatureValid, rustls::Error>;

#[rustfmt::skip]
impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self, _: &CertificateDer<'_>, _: &[CertificateDer<'_>], _: &ServerName<'_>, _: &[u8], _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(&self, message: &[u8], by: &CertificateDer<'_>, it: &DigitallySignedStruct) -> Verified {
        verify_tls12_signature(message, by, it, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(&self, message: &[u8], by: &CertificateDer<'_>, it: &DigitallySignedStruct) -> Verified {
        verify_tls13_signature(message, by, it, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
