//! [`ConfigHandle`]: replaces the TLS configuration of a listener while it runs.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;

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
    /// Session storage, and the ticketer if `config` sets none, carry over from the previous configuration, so that clients can resume
    /// their sessions. To rotate [`TicketKeys`](crate::server::TicketKeys), pass a configuration with new ones.
    pub fn replace(&self, config: impl Into<Arc<ServerConfig>>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let mut config = Arc::unwrap_or_clone(config.into());
        config.session_storage = current.session_storage.clone();
        if !config.ticketer.enabled() {
            config.ticketer = current.ticketer.clone();
        }
        *current = Arc::new(config);
    }

    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
