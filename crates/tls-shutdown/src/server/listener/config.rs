//! [`ConfigHandle`]: replaces the TLS configuration of a listener while it runs.

use std::{
    io::{self, ErrorKind},
    mem,
    sync::{Arc, Mutex},
    time::Duration,
};

use rustls::ServerConfig;

use super::{bound_sessions::bind_sessions, client_auth::client_auth, pem::PemFiles};
use crate::{
    runtime::lock::lock,
    server::retirement::{ConfigOfConnection, Retirements},
};

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
    current: Arc<Mutex<CurrentConfig>>,
    retirements: Retirements,
    /// Where the configuration came from, if that is known.
    files: Option<Arc<PemFiles>>,
}

#[derive(Debug)]
struct CurrentConfig {
    config: Arc<ServerConfig>,
    /// How many configurations came before.
    number: u64,
}

impl ConfigHandle {
    pub(super) fn new(mut config: Arc<ServerConfig>) -> Self {
        if let Some(auth) = client_auth(&config) {
            bind_sessions(Arc::make_mut(&mut config), &auth);
        }
        let current = Arc::new(Mutex::new(CurrentConfig { config, number: 0 }));
        Self { current, retirements: Retirements::default(), files: None }
    }

    pub(super) fn from_files(files: PemFiles) -> io::Result<Self> {
        let config = Self::new(Arc::new(files.read()?));
        Ok(Self { files: Some(Arc::new(files)), ..config })
    }

    /// Reads the files of [`TlsListener::bind_pem`](crate::server::TlsListener::bind_pem) again, and uses the certificate and its
    /// key for new handshakes. If a file is bad, the old certificate stays in use. Reads files, and so blocks for a moment. If they
    /// are on a network, call it in [`spawn_blocking`](tokio::task::spawn_blocking).
    ///
    /// Everything else of the current configuration stays, also if it was [replaced](Self::replace) meanwhile: client authentication, ALPN,
    /// the session storage and the ticketer. If the current configuration has a certificate resolver of its own, the files replace that.
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
        let certificate = self.files.as_ref().ok_or_else(no_files)?.read()?.cert_resolver;
        let previous = {
            let mut current = lock(&self.current);
            let mut config = ServerConfig::clone(&current.config);
            config.cert_resolver = certificate;
            current.replace(config)
        };
        // Its drop may call the application, which may use this handle.
        drop(previous);
        Ok(())
    }

    /// Uses `config` for new handshakes. Open connections do not change: [`retire_connections`](Self::retire_connections) ends them.
    ///
    /// If neither configuration asks clients for a certificate, the session storage and the ticketer carry over, so that clients can
    /// resume their sessions. A storage or a ticketer that `config` sets is respected (rustls's own storage in memory counts as not set).
    /// To rotate [`TicketKeys`](crate::server::TicketKeys), pass a configuration with new ones.
    ///
    /// If either one asks for client certificates, nothing carries over: rustls does not verify the certificate of a resumed session
    /// again, and the new configuration may not admit that client. A storage or keys that you pass to both configurations carry sessions over
    /// on two conditions: both name the same authorities to clients, and both require a certificate or neither does. A verifier that names
    /// no authorities shares sessions with no other configuration. Its limit: the names are all that is compared. If an authority gets a new
    /// key, a client is revoked, or your own verifier changes its mind, change the storage and the keys, too.
    ///
    /// To learn what certificates a configuration asks for, this makes a handshake in memory, which takes some milliseconds. It presents a
    /// certificate of its own, so no certificate resolver is asked. A client verifier is asked whether it
    /// [offers](rustls::server::danger::ClientCertVerifier::offer_client_auth) client authentication. It may use this handle, except for
    /// `replace` itself. Other threads continue to make handshakes meanwhile, under the old configuration.
    pub fn replace(&self, config: impl Into<Arc<ServerConfig>>) {
        let mut new = Arc::unwrap_or_clone(config.into());
        let auth = client_auth(&new);
        if let Some(auth) = &auth {
            bind_sessions(&mut new, auth);
        }
        loop {
            let (old, number) = {
                let current = lock(&self.current);
                (current.config.clone(), current.number)
            };
            let mut config = new.clone();
            // The application is asked without the lock.
            if auth.is_none() && client_auth(&old).is_none() {
                if format!("{:?}", config.session_storage).starts_with(DEFAULT_STORAGE) {
                    config.session_storage = old.session_storage.clone();
                }
                if !config.ticketer.enabled() {
                    config.ticketer = old.ticketer.clone();
                }
            }
            let mut current = lock(&self.current);
            // Another thread may have replaced it meanwhile.
            if current.number == number {
                current.replace(config);
                return;
            }
        }
    }

    /// Ends the connections that were made under earlier configurations, each at a random time within `within`, so that their clients do
    /// not all connect anew at once. They end as at their [maximum age](crate::server::Server::max_connection_age): with a last request, or
    /// with GOAWAY. Call it after [`replace`](Self::replace) or [`reload_pem`](Self::reload_pem). A connection that was retired before keeps
    /// its time if that is the earlier one.
    ///
    /// Its limit: it ends the connections of a [`Server`](crate::server::Server). Those of `axum::serve`, tonic's own server and accept loops
    /// of your own stay open.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # fn example(handle: &tls_shutdown::server::ConfigHandle) -> std::io::Result<()> {
    /// // The old key has leaked: within ten minutes, nobody uses it any more.
    /// handle.reload_pem()?;
    /// handle.retire_connections(Duration::from_secs(600));
    /// # Ok(())
    /// # }
    /// ```
    pub fn retire_connections(&self, within: Duration) {
        let before = lock(&self.current).number;
        self.retirements.retire(before, within);
    }

    pub(super) fn current(&self) -> Arc<ServerConfig> {
        lock(&self.current).config.clone()
    }

    /// The configuration for a new connection.
    pub(super) fn for_connection(&self) -> (Arc<ServerConfig>, ConfigOfConnection) {
        let current = lock(&self.current);
        (current.config.clone(), self.retirements.of_connection(current.number))
    }
}

impl CurrentConfig {
    fn replace(&mut self, config: ServerConfig) -> Arc<ServerConfig> {
        self.number += 1;
        mem::replace(&mut self.config, Arc::new(config))
    }
}
