//! [`ConfigHandle`]: replaces the TLS configuration of a listener while it runs.

use std::{
    io::{self, ErrorKind},
    sync::{Arc, PoisonError, RwLock},
};

use rustls::ServerConfig;

use super::{client_auth::asks_for_client_certificate, pem::PemFiles};

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
    /// Where the configuration came from, if that is known.
    files: Option<Arc<PemFiles>>,
}

impl ConfigHandle {
    pub(super) fn new(config: Arc<ServerConfig>) -> Self {
        Self { current: Arc::new(RwLock::new(config)), files: None }
    }

    pub(super) fn from_files(files: PemFiles) -> io::Result<Self> {
        let config = Self::new(Arc::new(files.read()?));
        Ok(Self { files: Some(Arc::new(files)), ..config })
    }

    /// Reads the files of [`TlsListener::bind_pem`](crate::server::TlsListener::bind_pem) again, and [replaces](Self::replace) the
    /// configuration. If a file is bad, the old configuration stays in use. Reads files, and so blocks for a moment.
    ///
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use tls_shutdown::server::TlsListener;
    /// use tokio::signal::unix::{SignalKind, signal};
    ///
    /// let listener = TlsListener::bind_pem("0.0.0.0:8443", "cert.pem", "key.pem").await?;
    /// let (handle, mut hangup) = (listener.config_handle(), signal(SignalKind::hangup())?);
    /// tokio::spawn(async move {
    ///     while hangup.recv().await.is_some() {
    ///         if let Err(error) = handle.reload_pem() {
    ///             eprintln!("the old certificate stays in use: {error}");
    ///         }
    ///     }
    /// });
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// A file cannot be read, contains no certificate or no key, or the key is that of another certificate. The error names the file.
    /// [`Unsupported`](ErrorKind::Unsupported) if the listener was not made by `bind_pem`.
    pub fn reload_pem(&self) -> io::Result<()> {
        let no_files = || io::Error::new(ErrorKind::Unsupported, "the listener was made without PEM files");
        self.replace(self.files.as_ref().ok_or_else(no_files)?.read()?);
        Ok(())
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
