//! What the examples share, which is no concern of theirs: a configuration with a self-signed certificate.

use std::{error::Error, fs, path::Path, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

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
