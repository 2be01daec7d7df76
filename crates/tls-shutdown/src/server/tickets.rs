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
use zeroize::Zeroize;

use crate::runtime::debug::debug_struct;

/// The secret of session tickets: 32 random bytes. All servers that accept each other's tickets share it. Protect it like a private key.
///
/// [`Debug`](fmt::Debug) does not print it. Its memory is overwritten when it is dropped.
///
/// ```
/// use tls_shutdown::server::TicketKey;
///
/// # fn example() -> Result<TicketKey, Box<dyn std::error::Error>> {
/// let key = TicketKey::try_from(std::fs::read("ticket.key")?)?;
/// # Ok(key)
/// # }
/// assert_eq!(TicketKey::try_from(vec![0; 48]).unwrap_err().to_string(), "a ticket key has 32 bytes, not 48");
/// ```
#[derive(Clone)]
pub struct TicketKey([u8; Self::LENGTH]);

/// The conversion to a [`TicketKey`] failed, because there are not 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidTicketKey {
    length: usize,
}

impl TicketKey {
    const LENGTH: usize = 32;

    /// Creates a key from its bytes, which must be random.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Creates a random key.
    ///
    /// # Errors
    ///
    /// The provider has no random bytes.
    pub fn generate(provider: &CryptoProvider) -> Result<Self, rustls::Error> {
        let mut key = Self([0; Self::LENGTH]);
        provider.secure_random.fill(&mut key.0)?;
        Ok(key)
    }

    /// The secret bytes, to pass them to another server.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<&[u8]> for TicketKey {
    type Error = InvalidTicketKey;

    fn try_from(bytes: &[u8]) -> Result<Self, InvalidTicketKey> {
        bytes.try_into().map(Self).map_err(|_| InvalidTicketKey { length: bytes.len() })
    }
}

impl TryFrom<Vec<u8>> for TicketKey {
    type Error = InvalidTicketKey;

    /// Overwrites the vector.
    fn try_from(mut bytes: Vec<u8>) -> Result<Self, InvalidTicketKey> {
        let key = Self::try_from(&bytes[..]);
        bytes[..].zeroize();
        key
    }
}

impl Drop for TicketKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey(..)")
    }
}

impl fmt::Display for InvalidTicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a ticket key has {} bytes, not {}", TicketKey::LENGTH, self.length)
    }
}

impl std::error::Error for InvalidTicketKey {}

/// Session tickets under keys that you choose, so that clients resume their sessions after a restart, and at every server of a group.
/// rustls's own tickets use keys of one process: after every deployment, all clients do full handshakes.
///
/// The first key encrypts new tickets. All keys decrypt. To rotate, insert a new key in front and remove the last one, as with nginx's
/// `ssl_session_ticket_key`. A ticket is valid for [`LIFETIME`](Self::LIFETIME); RFC 9846 section 4.6.1 allows 7 days.
///
/// It uses the AEAD of the crypto provider's TLS 1.3 cipher suites.
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
/// A resumed session is not asked for the client's certificate again. So a [`TlsListener`](super::TlsListener) and a
/// [`TlsAcceptor`](super::TlsAcceptor) that ask for certificates accept only tickets of those that ask for the same, see
/// [`ConfigHandle::replace`](super::ConfigHandle::replace). For other acceptors, use keys that no server with other clients has.
///
/// Its limit: the owner of a key can decrypt TLS 1.2 sessions with tickets under it, and TLS 1.3 early data. The rest of a TLS 1.3 connection
/// keeps its forward secrecy (RFC 9846 section 2.3). Rotate the keys within days.
pub struct TicketKeys {
    keys: Vec<TicketKey>,
    aead: &'static dyn Tls13AeadAlgorithm,
    random: &'static dyn SecureRandom,
}

/// The crypto provider has no TLS 1.3 cipher suite with a key of 32 bytes. [`TicketKeys::new`] returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsupportedProvider;

impl fmt::Display for UnsupportedProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the crypto provider has no TLS 1.3 cipher suite with a key of 32 bytes, which tickets need")
    }
}

impl std::error::Error for UnsupportedProvider {}

/// The bytes of the nonce. A ticket begins with it. It is random for each ticket, so that no nonce is used twice.
const NONCE: usize = 12;

impl TicketKeys {
    /// How long a client may use a ticket, in seconds: 12 hours.
    pub const LIFETIME: u32 = 12 * 60 * 60;

    /// Creates tickets under `keys`. The first key encrypts.
    ///
    /// # Errors
    ///
    /// `provider` has no AEAD for these keys.
    ///
    /// # Panics
    ///
    /// There is no key.
    pub fn new(
        keys: impl IntoIterator<Item = TicketKey>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, UnsupportedProvider> {
        let keys: Vec<_> = keys.into_iter().collect();
        assert!(!keys.is_empty(), "tickets need a key");
        let aead = provider.cipher_suites.iter().find_map(|suite| match suite {
            SupportedCipherSuite::Tls13(suite) if suite.aead_alg.key_len() == TicketKey::LENGTH => Some(suite.aead_alg),
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
        let mut nonce = [0; NONCE];
        self.random.fill(&mut nonce).ok()?;
        let message = OutboundPlainMessage {
            typ: ContentType::ApplicationData,
            version: ProtocolVersion::TLSv1_3,
            payload: OutboundChunks::Single(plain),
        };
        let mut encrypter = self.aead.encrypter(AeadKey::from(self.keys[0].0), Iv::from(nonce));
        let encrypted = encrypter.encrypt(message, 0).ok()?;
        Some([&nonce[..], encrypted.payload.as_ref()].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let (nonce, encrypted) = cipher.split_first_chunk::<NONCE>()?;
        self.keys.iter().find_map(|key| {
            let mut encrypted = encrypted.to_vec();
            let message =
                InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, &mut encrypted);
            let mut decrypter = self.aead.decrypter(AeadKey::from(key.0), Iv::from(*nonce));
            Some(decrypter.decrypt(message, 0).ok()?.payload.to_vec())
        })
    }
}

debug_struct!({} TicketKeys, |tickets| { keys: tickets.keys.len() });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_32_bytes_and_is_not_printed() {
        let key = TicketKey::try_from(vec![7; 32]).expect("32 bytes");
        assert_eq!((key.as_bytes(), format!("{key:?}").as_str()), (&[7; 32], "TicketKey(..)"));
        let error = TicketKey::try_from(&[7; 48][..]).expect_err("48 bytes");
        assert_eq!(error.to_string(), "a ticket key has 32 bytes, not 48");
    }
}
