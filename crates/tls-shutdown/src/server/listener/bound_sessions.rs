//! Sessions that only servers with the same client authentication resume.
//!
//! rustls does not verify the certificate of a resumed session again, and does not ask for one that the session lacks. Tickets under shared
//! keys would open a server that demands certificates to the clients of one that does not.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, hash::HashAlgorithm},
    server::{ProducesTickets, StoresServerSessions},
};

use super::client_auth::ClientAuth;

/// Binds the tickets and the stored sessions of `config` to the client authentication that it asks for.
pub(super) fn bind_sessions(config: &mut ServerConfig, auth: &ClientAuth) {
    let label = Label::new(auth, config.crypto_provider());
    config.ticketer = Arc::new(BoundTickets { tickets: config.ticketer.clone(), label: label.clone() });
    config.session_storage = Arc::new(BoundStorage { storage: config.session_storage.clone(), label });
}

/// What sessions of one client authentication begin with.
#[derive(Clone, Debug)]
struct Label(Arc<[u8]>);

impl Label {
    /// Servers of a group may have different providers, and need the same label: the hash is that of TLS 1.3.
    fn new(auth: &ClientAuth, provider: &CryptoProvider) -> Self {
        let mut hashes =
            provider.cipher_suites.iter().filter_map(|suite| suite.tls13()).map(|suite| suite.common.hash_provider);
        let sha256 = hashes.clone().find(|hash| hash.algorithm() == HashAlgorithm::SHA256);
        let mut unique = [0; 32];
        if auth.roots.is_empty() {
            // Nothing tells whether another server admits the same clients. Without random bytes there is no handshake, either.
            let _ = provider.secure_random.fill(&mut unique);
        }
        let content =
            [&b"tls-shutdown client authentication"[..], &[auth.is_required.into()], &auth.roots, &unique].concat();
        match sha256.or_else(|| hashes.next()) {
            Some(hash) => Self(hash.hash(&content).as_ref().into()),
            None => Self(content.into()),
        }
    }

    fn put_before(&self, bytes: &[u8]) -> Vec<u8> {
        [&self.0, bytes].concat()
    }
}

/// Tickets whose content begins with the label.
#[derive(Debug)]
struct BoundTickets {
    tickets: Arc<dyn ProducesTickets>,
    label: Label,
}

impl ProducesTickets for BoundTickets {
    fn enabled(&self) -> bool {
        self.tickets.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.tickets.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.tickets.encrypt(&self.label.put_before(plain))
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.tickets.decrypt(cipher)?.strip_prefix(&self.label.0[..]).map(<[u8]>::to_vec)
    }
}

/// Sessions whose key begins with the label.
#[derive(Debug)]
struct BoundStorage {
    storage: Arc<dyn StoresServerSessions>,
    label: Label,
}

impl StoresServerSessions for BoundStorage {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.storage.put(self.label.put_before(&key), value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.storage.get(&self.label.put_before(key))
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.storage.take(&self.label.put_before(key))
    }

    fn can_cache(&self) -> bool {
        self.storage.can_cache()
    }
}
