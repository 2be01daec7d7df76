//! What the examples share, which is no concern of theirs: arguments, and configurations for a self-signed certificate.

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
    /// HOST:PORT, to listen at or to connect to
    pub address: String,
    /// A file with the server's certificate; a server makes one, with a key, if it is not there
    pub cert: PathBuf,
}

impl Arguments {
    /// Those of this program. Without them it ends, and tells its usage.
    pub fn parse() -> Self {
        Parser::parse()
    }
}

/// A configuration for `localhost` with the certificate and the key that are in `file`, which is made if it is not there.
///
/// # Errors
///
/// When the file can be neither read nor written, or is no such file.
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

/// A configuration that trusts the certificate in `file`.
///
/// # Errors
///
/// When there is none.
pub fn client_config(file: impl AsRef<Path>) -> Result<ClientConfig, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file)?)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth())
}

/// An error, and what is behind it.
pub fn reasons(error: &(dyn Error + 'static)) -> String {
    successors(Some(error), |&error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
