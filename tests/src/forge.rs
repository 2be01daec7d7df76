//! Authentic records with any content. No TLS library would send most of them.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::{Connection, ConnectionTrafficSecrets, ProtocolVersion};

use crate::Wire;

/// Seals and opens records with the keys of a peer. The tests negotiate AES-256-GCM.
pub struct Forge {
    /// The transport of the side under test.
    pub wire: Wire,
    seals: Direction,
    opens: Direction,
    version: ProtocolVersion,
}

/// The keys of one direction.
struct Direction {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Direction {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Self {
        let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else {
            panic!("the tests negotiate AES-256-GCM");
        };
        let key = UnboundKey::new(&AES_256_GCM, key.as_ref()).expect("a key");
        Self { key: LessSafeKey::new(key), iv: iv.as_ref().try_into().expect("12 bytes"), sequence }
    }

    /// Takes the number of the next record, and its nonce in TLS 1.3.
    fn next(&mut self) -> ([u8; 8], [u8; 12]) {
        let sequence = self.sequence.to_be_bytes();
        self.sequence += 1;
        let mut nonce = self.iv;
        nonce[4..].iter_mut().zip(sequence).for_each(|(byte, sequence)| *byte ^= sequence);
        (sequence, nonce)
    }
}

impl Forge {
    /// Alert level 1.
    pub const WARNING: u8 = 1;
    /// Alert level 2.
    pub const FATAL: u8 = 2;
    /// Content type of change_cipher_spec.
    pub const CHANGE_CIPHER_SPEC: u8 = 20;
    /// Content type of an alert.
    pub const ALERT: u8 = 21;
    /// Content type of a handshake message.
    pub const HANDSHAKE: u8 = 22;
    /// Content type of application data.
    pub const DATA: u8 = 23;

    /// Takes the keys of a peer whose handshake is done.
    pub fn new(tls: Connection, wire: Wire) -> Self {
        let version = tls.protocol_version().expect("a handshake");
        let secrets = tls.dangerous_extract_secrets().expect("allowed");
        Self { wire, seals: Direction::new(secrets.tx), opens: Direction::new(secrets.rx), version }
    }

    /// Seals a record.
    pub fn record(&mut self, content_type: u8, content: &[u8]) -> Vec<u8> {
        let (sequence, mut nonce) = self.seals.next();
        let mut sealed = content.to_vec();
        let mut record;
        if self.version == ProtocolVersion::TLSv1_3 {
            sealed.push(content_type);
            let length = sealed.len() as u16 + 16;
            record = [&[Self::DATA, 3, 3][..], &length.to_be_bytes()].concat();
            self.seal(nonce, &record, &mut sealed);
        } else {
            nonce[..4].copy_from_slice(&self.seals.iv[..4]);
            nonce[4..].copy_from_slice(&sequence);
            let length = content.len() as u16;
            let additional = [&sequence[..], &[content_type, 3, 3], &length.to_be_bytes()].concat();
            self.seal(nonce, &additional, &mut sealed);
            let length = sealed.len() as u16 + 8;
            record = [&[content_type, 3, 3][..], &length.to_be_bytes(), &nonce[4..]].concat();
        }
        record.extend(sealed);
        record
    }

    /// Sends a sealed record.
    pub fn send(&mut self, content_type: u8, content: &[u8]) {
        let record = self.record(content_type, content);
        self.wire.deliver(&record);
    }

    /// Sends an alert.
    pub fn alert(&mut self, level: u8, description: u8) {
        self.send(Self::ALERT, &[level, description]);
    }

    /// Opens the records in `bytes`, of which the last may be cut. Returns their types and contents, or `None` if one is not authentic.
    pub fn open(&mut self, mut bytes: &[u8]) -> Option<Vec<(u8, Vec<u8>)>> {
        let mut records = Vec::new();
        while let Some((header, rest)) = bytes.split_first_chunk::<5>() {
            let [kind, _, _, length @ ..] = *header;
            let Some((sealed, rest)) = rest.split_at_checked(u16::from_be_bytes(length).into()) else { break };
            bytes = rest;
            let (sequence, mut nonce) = self.opens.next();
            let mut sealed = sealed.to_vec();
            let start = if self.version == ProtocolVersion::TLSv1_3 { 0 } else { 8 };
            let additional = match start {
                0 => header.to_vec(),
                _ => {
                    nonce[..4].copy_from_slice(&self.opens.iv[..4]);
                    nonce[4..].copy_from_slice(sealed.get(..start)?);
                    let length = u16::from_be_bytes(length).checked_sub(24)?;
                    [&sequence[..], &[kind, 3, 3], &length.to_be_bytes()].concat()
                }
            };
            let nonce = Nonce::assume_unique_for_key(nonce);
            let content = self.opens.key.open_within(nonce, Aad::from(additional), &mut sealed, start..).ok()?;
            records.push(match (start, content.split_last()) {
                (0, Some((kind, content))) => (*kind, content.to_vec()),
                _ => (kind, content.to_vec()),
            });
        }
        Some(records)
    }

    fn seal(&self, nonce: [u8; 12], additional: &[u8], content: &mut Vec<u8>) {
        self.seals
            .key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(additional), content)
            .expect("short enough");
    }
}
