//! Code that the examples share: arguments, and configurations for a self-signed certificate.

use std::{
    error::Error,
    fs,
    iter::successors,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Parser;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// The arguments of most examples.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// The HOST:PORT to listen on or to connect to
    pub address: String,
    /// The file with the server's certificate and key. A server creates it if it does not exist
    pub cert: PathBuf,
}

impl Arguments {
    /// Parses the arguments of this program. Prints the usage and exits if they are wrong.
    pub fn parse() -> Self {
        Parser::parse()
    }
}

/// Returns a configuration for `localhost` with the certificate and the key in `file`. Creates the file if it does not exist.
///
/// # Errors
///
/// If the file cannot be read or written, or has no certificate or key.
pub fn server_config(file: impl AsRef<Path>, protocols: &[&str]) -> Result<ServerConfig, Box<dyn Error>> {
    let file = file.as_ref();
    if !file.exists() {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        fs::write(file, certified.cert.pem() + &certified.signing_key.serialize_pem())?;
    }
    let (certificate, key) = (CertificateDer::from_pem_file(file)?, PrivateKeyDer::from_pem_file(file)?);
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(config)
}

/// Returns a configuration that trusts the certificate in `file`.
///
/// # Errors
///
/// If the file has no certificate.
pub fn client_config(file: impl AsRef<Path>) -> Result<ClientConfig, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file)?)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth())
}

/// The error and its sources, in one line.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    successors(Some(error), |&error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
