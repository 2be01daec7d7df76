//! [`ConfigHandle`]: replaces the TLS configuration of a listener while it runs.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;

use super::client_auth::asks_for_client_certificate;

/// The name of the storage that rustls sets.
const DEFAULT_STORAGE: &str = "ServerSessionMemoryCache";

/// Replaces the configuration of a [`TlsListener`](crate::server::TlsListener), so that a new certificate needs no restart. From
/// [`TlsListener::config_handle`](crate::server::TlsListener::config_handle).
///
/// ```
/// # fn example(listener: &tls_shutdown::server::TlsListener, renewed: rustls::ServerConfig) {
/// let handle = listener.config_handle();
/// // .. later, when the certificate was renewed:
/// handle.replace(renewed);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ConfigHandle {
    current: Arc<RwLock<Arc<ServerConfig>>>,
}

impl ConfigHandle {
    pub(super) fn new(config: Arc<ServerConfig>) -> Self {
        Self { current: Arc::new(RwLock::new(config)) }
    }

    /// Uses `config` for new handshakes. Open connections do not change.
    ///
    /// If neither configuration asks clients for a certificate, the session storage and the ticketer carry over, so that clients can
    /// resume their sessions. A storage or a ticketer that `config` sets is respected (rustls's own storage in memory counts as not set).
    /// To rotate [`TicketKeys`](crate::server::TicketKeys), pass a configuration with new ones.
    ///
    /// If either one asks for client certificates, nothing carries over: rustls does not verify the certificate of a resumed session
    /// again, and the new configuration may not admit that client. Its limit: a storage or keys that you pass to both configurations
    /// still connect them. Change them together with the certificates of the clients.
    ///
    /// The question whether a configuration asks for certificates costs a handshake in memory, some milliseconds.
    pub fn replace(&self, config: impl Into<Arc<ServerConfig>>) {
        let mut config = Arc::unwrap_or_clone(config.into());
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if !asks_for_client_certificate(&current) && !asks_for_client_certificate(&config) {
            if format!("{:?}", config.session_storage).starts_with(DEFAULT_STORAGE) {
                config.session_storage = current.session_storage.clone();
            }
            if !config.ticketer.enabled() {
                config.ticketer = current.ticketer.clone();
            }
        }
        *current = Arc::new(config);
    }

    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
