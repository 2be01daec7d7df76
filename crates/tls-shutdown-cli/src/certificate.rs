//! Certificates: the one that `serve` presents, those of its clients, and those that `send` and `probe` trust.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use crate::{
    arguments::{IdentityArguments, Protocol, ServeArguments},
    failure::Failure,
};

/// The names in the self-signed certificate.
const SELF_SIGNED_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The certificate of `serve`, and what it is made of.
pub(crate) struct ServerCertificate {
    arguments: ServeArguments,
    /// Made once: clients may have been told to trust it.
    self_signed: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl ServerCertificate {
    pub(crate) fn new(arguments: &ServeArguments) -> Result<Self, Failure> {
        let self_signed = if arguments.cert.is_none() { Some(generate_self_signed()?) } else { None };
        Ok(Self { arguments: arguments.clone(), self_signed })
    }

    /// Whether it has files that can be read again.
    pub(crate) fn has_files(&self) -> bool {
        self.arguments.cert.is_some() || self.arguments.client_ca.is_some()
    }

    /// Reads the files. Returns the configuration of a server.
    pub(crate) fn config(&self) -> Result<ServerConfig, Failure> {
        let (chain, key) = match (&self.arguments.cert, &self.arguments.key, &self.self_signed) {
            (Some(cert), Some(key), _) => (load_certificates(cert)?, load_key(key)?),
            (_, _, Some((chain, key))) => (chain.clone(), key.clone_key()),
            _ => generate_self_signed()?,
        };
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::new(format!("cannot set up TLS: {error}")))?;
        let builder = match &self.arguments.client_ca {
            Some(file) => builder.with_client_cert_verifier(client_verifier(file, provider)?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            let advice = match error {
                Error::InconsistentKeys(_) => "; pass the certificate's own key with --key",
                _ => "",
            };
            Failure::new(format!("cannot use this certificate with this key: {error}{advice}"))
        })?;
        let names = self.arguments.alpn.iter().copied().flat_map(Protocol::alpn);
        config.alpn_protocols = names.map(|name| name.as_bytes().to_vec()).collect();
        Ok(config)
    }
}

/// Requires certificates that are signed by one in `file`.
fn client_verifier(file: &Path, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, Failure> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots_from_file(file)?), provider)
        .build()
        .map_err(|error| Failure::new(format!("cannot require certificates of {}: {error}", file.display())))
}

/// Returns the configuration of all connections. They must share it, because it stores the tickets for resumption.
pub(crate) fn client_config(arguments: &IdentityArguments) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::new(format!("cannot set up TLS: {error}")))?;
    let builder = match arguments.insecure {
        true => builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAll(provider))),
        false => builder.with_root_certificates(match &arguments.ca {
            Some(file) => roots_from_file(file)?,
            None => system_roots()?,
        }),
    };
    Ok(builder.with_no_client_auth())
}

/// Returns a certificate for [`SELF_SIGNED_NAMES`] and its key.
pub(crate) fn generate_self_signed() -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Failure> {
    let certified = rcgen::generate_simple_self_signed(SELF_SIGNED_NAMES.map(str::to_owned))
        .map_err(|error| Failure::new(format!("cannot generate a self-signed certificate: {error}")))?;
    Ok((vec![certified.cert.into()], certified.signing_key.into()))
}

fn load_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let read = |pem: &[u8]| CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let pem = fs::read(file).map_err(|error| cannot_read("certificate", file, &pem::Error::Io(error)))?;
    let certificates = read(&pem).map_err(|error| cannot_read("certificate", file, &error))?;
    match (certificates.len(), begun_certificates(&pem)) {
        (found, begun) if begun > found => Err(Failure::new(format!(
            "{}: only {found} of {begun} certificates can be read: each must begin with the line -----BEGIN CERTIFICATE-----, without \
             a space, a byte order mark or the END of another before it",
            file.display()
        ))),
        (0, _) => Err(cannot_read("certificate", file, &pem::Error::NoItemsFound)),
        _ => Ok(certificates),
    }
}

/// The certificates that a PEM file seems to contain. Its reader skips one whose first line it does not recognize, and says nothing.
fn begun_certificates(pem: &[u8]) -> usize {
    let is_begin = |line: &&str| {
        let line = line.trim_start_matches('\u{feff}').trim();
        // Files without a newline at their end were joined if END stands before it. A line that is commented out begins otherwise.
        line.starts_with("-----") && line.contains("-----BEGIN ") && line.ends_with(" CERTIFICATE-----")
    };
    String::from_utf8_lossy(pem).lines().filter(is_begin).count()
}

fn load_key(file: &Path) -> Result<PrivateKeyDer<'static>, Failure> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| cannot_read("private key", file, &error))
}

fn cannot_read(what: &str, file: &Path, error: &pem::Error) -> Failure {
    let file = file.display();
    Failure::new(match error {
        pem::Error::Io(error) => format!("cannot read the {what} {file}: {error}"),
        pem::Error::NoItemsFound => {
            format!("{file} contains no {what} in PEM format: convert DER, or decrypt what is encrypted, with openssl")
        }
        // rustls prints the marker as numbers.
        pem::Error::MissingSectionEnd { .. } => format!("the {what} in {file} is cut off: an END line is missing"),
        error => format!("the {what} in {file} is not valid PEM: {error}"),
    })
}

fn roots_from_file(file: &Path) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in load_certificates(file)? {
        roots
            .add(certificate)
            .map_err(|error| Failure::new(format!("cannot use a certificate in {}: {error}", file.display())))?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(Failure::new("this system has no trusted certificates: pass some with --ca, or use --insecure"));
    }
    Ok(roots)
}

/// Trusts every certificate. It still checks that the server has the private key.
#[derive(Debug)]
struct TrustAll(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
