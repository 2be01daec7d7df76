//! [`Identity`]: a self-signed certificate, and configurations for servers that have it and clients that trust it.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
};
use tokio_rustls::TlsConnector;

use crate::{certificate, failure::Failure};

#[derive(Clone)]
pub(crate) struct Identity {
    server: Arc<ServerConfig>,
    certificate: CertificateDer<'static>,
}

/// A name in the certificate.
pub(crate) fn server_name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a valid name")
}

impl Identity {
    pub(crate) fn generate() -> Result<Self, Failure> {
        let cannot_set_up = |error| Failure::new(format!("cannot set up TLS: {error}"));
        let (chain, key) = certificate::generate_self_signed()?;
        let certificate = chain[0].clone();
        let mut server = ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(cannot_set_up)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(cannot_set_up)?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { server: server.into(), certificate })
    }

    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// A client without stored sessions. It offers HTTP/1.1.
    pub(crate) fn client(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates([self.certificate.clone()]);
        let mut config = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("the versions that the server has")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}
