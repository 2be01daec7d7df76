//! [`TicketKeys`]: session tickets that a successor, or another server, can open.

use std::{fmt, sync::Arc};

use rustls::{
    ContentType, ProtocolVersion, SupportedCipherSuite,
    crypto::{
        CryptoProvider, SecureRandom,
        cipher::{AeadKey, InboundOpaqueMessage, Iv, OutboundChunks, OutboundPlainMessage, Tls13AeadAlgorithm},
    },
    server::ProducesTickets,
};

/// A secret that all servers which are to accept each other's session tickets share: 32 random bytes, and kept like a private key.
pub type TicketKey = [u8; 32];

/// Session tickets under keys that are given, so that a session can be resumed after a restart, and at each server of a group.
/// With rustls's own tickets, whose keys a process makes for itself, every deployment makes all clients do full handshakes.
///
/// The first key seals new tickets, all of them open what comes: to rotate, put a new key in front, and drop the last, as nginx's
/// `ssl_session_ticket_key` does. RFC 8446 section 4.6.1 limits a ticket's life to 7 days, [`LIFETIME`](Self::LIFETIME) to less.
///
/// It seals with the AEAD of the crypto provider's TLS 1.3 cipher suites.
///
/// ```
/// # use std::sync::Arc;
/// # fn example(
/// #     mut config: rustls::ServerConfig,
/// #     new: tls_shutdown::server::TicketKey,
/// #     old: tls_shutdown::server::TicketKey,
/// # ) -> Result<(), tls_shutdown::server::UnsupportedProvider> {
/// use tls_shutdown::server::TicketKeys;
///
/// config.ticketer = Arc::new(TicketKeys::new([new, old], config.crypto_provider())?);
/// # Ok(())
/// # }
/// ```
///
/// Its limit: who has a key can decrypt TLS 1.2 sessions that were resumed with it, and the early data of TLS 1.3; the rest of a
/// TLS 1.3 connection keeps its forward secrecy (RFC 8446 section 2.3). Rotate keys within days.
pub struct TicketKeys {
    keys: Vec<TicketKey>,
    aead: &'static dyn Tls13AeadAlgorithm,
    random: &'static dyn SecureRandom,
}

/// The crypto provider has no TLS 1.3 cipher suite with a key of 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsupportedProvider;

impl fmt::Display for UnsupportedProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the crypto provider has no TLS 1.3 cipher suite with a key of 32 bytes to seal tickets with")
    }
}

impl std::error::Error for UnsupportedProvider {}

/// What a ticket begins with; fresh for each, so that no nonce is used twice.
const IV: usize = 12;

impl TicketKeys {
    /// How long a client may keep a ticket, in seconds: 12 hours.
    pub const LIFETIME: u32 = 12 * 60 * 60;

    /// Tickets under `keys`, the first of which seals.
    ///
    /// # Errors
    ///
    /// When `provider` has no AEAD for them.
    ///
    /// # Panics
    ///
    /// If there is no key.
    pub fn new(
        keys: impl IntoIterator<Item = TicketKey>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, UnsupportedProvider> {
        let keys: Vec<_> = keys.into_iter().collect();
        assert!(!keys.is_empty(), "tickets need a key");
        let aead = provider.cipher_suites.iter().find_map(|suite| match suite {
            SupportedCipherSuite::Tls13(suite) if suite.aead_alg.key_len() == keys[0].len() => Some(suite.aead_alg),
            _ => None,
        });
        Ok(Self { keys, aead: aead.ok_or(UnsupportedProvider)?, random: provider.secure_random })
    }
}

impl ProducesTickets for TicketKeys {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        Self::LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut iv = [0; IV];
        self.random.fill(&mut iv).ok()?;
        let message = OutboundPlainMessage {
            typ: ContentType::ApplicationData,
            version: ProtocolVersion::TLSv1_3,
            payload: OutboundChunks::Single(plain),
        };
        let mut sealer = self.aead.encrypter(AeadKey::from(self.keys[0]), Iv::from(iv));
        let sealed = sealer.encrypt(message, 0).ok()?;
        Some([&iv[..], sealed.payload.as_ref()].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let (iv, sealed) = cipher.split_first_chunk::<IV>()?;
        self.keys.iter().find_map(|key| {
            let mut sealed = sealed.to_vec();
            let message =
                InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, &mut sealed);
            let mut opener = self.aead.decrypter(AeadKey::from(*key), Iv::from(*iv));
            Some(opener.decrypt(message, 0).ok()?.payload.to_vec())
        })
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKeys").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}
