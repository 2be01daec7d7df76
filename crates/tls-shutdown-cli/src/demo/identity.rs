//! [`Identity`]: a self-signed certificate, and configurations for servers that have it and clients that trust it.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use rustls::{ClientConfig, RootCertStore, ServerConfig, client::Resumption, crypto::ring, pki_types::ServerName};
use tokio_rustls::TlsConnector;

use crate::{certificate, failure::Failure};

#[derive(Clone)]
pub(crate) struct Identity {
    server: Arc<ServerConfig>,
    client: ClientConfig,
}

/// A name in the certificate.
pub(crate) fn server_name() -> ServerName<'static> {
    IpAddr::from(Ipv4Addr::LOCALHOST).into()
}

impl Identity {
    pub(crate) fn generate() -> Result<Self, Failure> {
        let cannot_set_up = |error| Failure::new(format!("cannot set up TLS: {error}"));
        let (chain, key) = certificate::generate_self_signed()?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(chain.iter().cloned());
        let provider = Arc::new(ring::default_provider());
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(cannot_set_up)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(cannot_set_up)?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(cannot_set_up)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { server: server.into(), client })
    }

    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// A client without stored sessions. It offers HTTP/1.1.
    pub(crate) fn client(&self) -> TlsConnector {
        let mut config = self.client.clone();
        config.resumption = Resumption::in_memory_sessions(8);
        TlsConnector::from(Arc::new(config))
    }
}
