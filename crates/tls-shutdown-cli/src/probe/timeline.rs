//! [`Timeline`]: the TLS records and TCP segments of one connection, in the order in which this side saw them.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The content types of TLS records (RFC 9846 section 5.1).
const CONTENT_TYPES: [(u8, &str); 4] =
    [(20, "change_cipher_spec"), (21, "alert"), (22, "handshake"), (23, "encrypted data")];
const HEADER_BYTES: usize = 5;
/// How many entries of a connection are kept, half of them from its beginning and half from its end. A server must not fill the memory.
const MAX_ENTRIES: usize = 1_000;

/// One connection as it passes. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Timeline(Arc<Mutex<Track>>);

#[derive(Debug)]
struct Track {
    purpose: &'static str,
    begin: Instant,
    /// The last record of each run of one kind is by itself: it may turn out to be close_notify.
    entries: Vec<Entry>,
    client: Scanner,
    server: Scanner,
    /// Whether the server has sent a byte since TLS began.
    is_server_heard: bool,
}

/// Who has sent something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    Client,
    Server,
}

/// Records of one kind that passed one after the other, or a segment.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Since the beginning of the connection.
    pub(crate) at: Duration,
    pub(crate) sender: Sender,
    pub(crate) what: What,
    count: u32,
    bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Syn,
    SynAck,
    /// Bytes that are no TLS record.
    Plaintext,
    /// A record with this name of its content type.
    Record(&'static str),
    CloseNotify,
    Fin,
    Reset,
    /// Records and segments for which there was no room.
    Omitted,
}

impl Timeline {
    pub(crate) fn begin(purpose: &'static str) -> Self {
        Self(Arc::new(Mutex::new(Track {
            purpose,
            begin: Instant::now(),
            entries: Vec::new(),
            client: Scanner::Plaintext,
            server: Scanner::Plaintext,
            is_server_heard: false,
        })))
    }

    /// What the connection was made for.
    pub(crate) fn purpose(&self) -> &'static str {
        self.lock().purpose
    }

    /// What has passed. Records of one kind that follow each other are one entry.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        for entry in &self.lock().entries {
            match entries.last_mut() {
                Some(last) if last.is_like(entry) => last.absorb(entry),
                _ => entries.push(entry.clone()),
            }
        }
        entries
    }

    /// The bytes from now on are TLS records.
    pub(crate) fn begin_tls(&self) {
        let mut track = self.lock();
        [track.client, track.server] = [Scanner::Header(Vec::new()), Scanner::Header(Vec::new())];
        track.is_server_heard = false;
    }

    /// Whether the server has sent a byte since [`begin_tls`](Self::begin_tls).
    pub(crate) fn is_server_heard(&self) -> bool {
        self.lock().is_server_heard
    }

    /// Adds bytes that have passed.
    pub(crate) fn add_bytes(&self, sender: Sender, bytes: &[u8]) {
        let mut track = self.lock();
        track.is_server_heard |= sender == Sender::Server;
        let scanner = match sender {
            Sender::Client => &mut track.client,
            Sender::Server => &mut track.server,
        };
        for (what, bytes) in scanner.scan(bytes) {
            track.add(sender, what, bytes);
        }
    }

    /// Adds a segment, but no second FIN or RST of the same sender.
    pub(crate) fn add_segment(&self, sender: Sender, what: What) {
        let mut track = self.lock();
        if !track.entries.iter().any(|entry| (entry.sender, entry.what) == (sender, what)) {
            track.add(sender, what, 0);
        }
    }

    /// States that the last record of this sender was its close_notify, which only its receiver can decrypt.
    pub(crate) fn was_close_notify(&self, sender: Sender) {
        let mut track = self.lock();
        let is_record = |entry: &&mut Entry| entry.sender == sender && matches!(entry.what, What::Record(_));
        if let Some(last) = track.entries.iter_mut().rev().find(is_record) {
            last.what = What::CloseNotify;
        }
    }

    /// How the server has ended TCP so far.
    pub(crate) fn server_end(&self) -> Option<What> {
        let track = self.lock();
        let is_end = |entry: &&Entry| entry.sender == Sender::Server && matches!(entry.what, What::Fin | What::Reset);
        track.entries.iter().rfind(is_end).map(|entry| entry.what)
    }

    fn lock(&self) -> MutexGuard<'_, Track> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Track {
    fn add(&mut self, sender: Sender, what: What, bytes: usize) {
        let entry = Entry { at: self.begin.elapsed(), sender, what, count: 1, bytes };
        match &mut self.entries[..] {
            [.., run, last] if run.is_like(last) && last.is_like(&entry) => {
                run.absorb(last);
                *last = entry;
            }
            _ => self.entries.push(entry),
        }
        if self.entries.len() > MAX_ENTRIES {
            self.omit_one();
        }
    }

    /// Makes room: the oldest entry of the second half becomes a part of what was omitted of its sender.
    fn omit_one(&mut self) {
        let begin = MAX_ENTRIES / 2;
        let omitted = self.entries[begin..].iter().take_while(|entry| entry.what == What::Omitted).count();
        let end = begin + omitted;
        let oldest = Entry { what: What::Omitted, ..self.entries.remove(end) };
        match self.entries[begin..end].iter_mut().find(|entry| entry.is_like(&oldest)) {
            Some(entry) => entry.absorb(&oldest),
            None => self.entries.insert(end, oldest),
        }
    }
}

impl Entry {
    /// Whether both are of one sender and of one kind.
    fn is_like(&self, other: &Self) -> bool {
        (self.sender, self.what) == (other.sender, other.what)
    }

    fn absorb(&mut self, other: &Self) {
        self.count += other.count;
        self.bytes += other.bytes;
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count > 1 {
            write!(f, "{} x ", self.count)?;
        }
        f.write_str(match self.what {
            What::Syn => "SYN",
            What::SynAck => "SYN, ACK",
            What::Plaintext => "plaintext",
            What::Record(name) => name,
            What::CloseNotify => "close_notify",
            What::Fin => "FIN",
            What::Reset => "RST",
            What::Omitted => "not shown",
        })?;
        match self.bytes {
            0 => Ok(()),
            bytes => write!(f, ", {bytes} bytes"),
        }
    }
}

/// Finds records in bytes that are split anywhere.
#[derive(Debug)]
enum Scanner {
    Plaintext,
    /// The next header, as far as it has passed.
    Header(Vec<u8>),
    /// A record, how long it is, and how much of it is still to come.
    Record(&'static str, usize, usize),
}

impl Scanner {
    /// Returns each record that is whole now, with its length.
    fn scan(&mut self, mut bytes: &[u8]) -> Vec<(What, usize)> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            match self {
                Self::Plaintext => {
                    found.push((What::Plaintext, bytes.len()));
                    return found;
                }
                Self::Header(header) => {
                    let amount = (HEADER_BYTES - header.len()).min(bytes.len());
                    header.extend_from_slice(&bytes[..amount]);
                    bytes = &bytes[amount..];
                    let name = CONTENT_TYPES.iter().find(|(number, _)| *number == header[0]).map(|(_, name)| *name);
                    // The legacy version is 3.1 or 3.3.
                    match (name, &header[1..]) {
                        (Some(name), [3, _, 0, 0]) => {
                            found.push((What::Record(name), HEADER_BYTES));
                            *self = Self::Header(Vec::new());
                        }
                        (Some(name), [3, _, high, low]) => {
                            let length = usize::from(u16::from_be_bytes([*high, *low]));
                            *self = Self::Record(name, HEADER_BYTES + length, length);
                        }
                        (Some(_), [] | [3, ..]) if header.len() < HEADER_BYTES => {}
                        _ => {
                            found.push((What::Plaintext, header.len()));
                            *self = Self::Plaintext;
                        }
                    }
                }
                Self::Record(name, length, left) => {
                    let amount = (*left).min(bytes.len());
                    bytes = &bytes[amount..];
                    *left -= amount;
                    if *left == 0 {
                        found.push((What::Record(name), *length));
                        *self = Self::Header(Vec::new());
                    }
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_wherever_their_bytes_are_split() {
        let bytes = [&[22, 3, 1, 0, 2, 9, 9][..], &[23, 3, 3, 0, 1, 9], &[21, 3, 3, 0, 2, 1, 0], b"HTTP"].concat();
        let expected =
            [(What::Record("handshake"), 7), (What::Record("encrypted data"), 6), (What::Record("alert"), 7)];
        for size in 1..=bytes.len() {
            let mut scanner = Scanner::Header(Vec::new());
            let found: Vec<_> = bytes.chunks(size).flat_map(|piece| scanner.scan(piece)).collect();
            assert_eq!(found[..3], expected, "pieces of {size} bytes");
            let plaintext: usize = found[3..].iter().map(|(_, length)| length).sum();
            assert!(found[3..].iter().all(|(what, _)| *what == What::Plaintext) && plaintext == 4, "{found:?}");
        }
    }

    /// No byte follows that would show it.
    #[test]
    fn a_record_without_content_is_whole_with_its_header() {
        let mut scanner = Scanner::Header(Vec::new());
        for (kind, name) in CONTENT_TYPES {
            assert_eq!(scanner.scan(&[kind, 3, 3, 0, 0]), [(What::Record(name), HEADER_BYTES)]);
        }
    }

    /// A time line with so many records of the server.
    fn flooded(records: usize) -> Timeline {
        let timeline = Timeline::begin("a flood");
        timeline.begin_tls();
        for _ in 0..records {
            timeline.add_bytes(Sender::Server, &[23, 3, 3, 0, 1, 9]);
        }
        timeline
    }

    fn shown(timeline: &Timeline) -> Vec<String> {
        timeline.entries().iter().map(|entry| entry.to_string()).collect()
    }

    #[test]
    fn records_of_one_kind_take_the_room_of_two() {
        let timeline = flooded(100_000);
        assert_eq!(shown(&timeline), ["100000 x encrypted data, 600000 bytes"]);
        assert!(timeline.lock().entries.len() <= 2);
        timeline.was_close_notify(Sender::Server);
        assert_eq!(shown(&timeline), ["99999 x encrypted data, 599994 bytes", "close_notify, 6 bytes"]);
    }

    #[test]
    fn what_has_no_room_is_counted() {
        const COUNT: usize = 10_000;
        let timeline = flooded(2);
        for _ in 0..COUNT {
            timeline.add_bytes(Sender::Client, &[22, 3, 3, 0, 1, 9]);
            timeline.add_bytes(Sender::Server, &[23, 3, 3, 0, 1, 9]);
        }
        timeline.add_segment(Sender::Server, What::Fin);
        let entries = timeline.entries();
        assert!(entries.len() <= MAX_ENTRIES + 2, "{}", entries.len());
        assert_eq!(entries.iter().map(|entry| entry.count as usize).sum::<usize>(), 2 * COUNT + 3);
        assert_eq!(entries.iter().map(|entry| entry.bytes).sum::<usize>(), 12 * COUNT + 12);
        let shown = shown(&timeline);
        assert_eq!(shown.first().map(String::as_str), Some("2 x encrypted data, 12 bytes"));
        assert_eq!(shown.last().map(String::as_str), Some("FIN"));
        assert_eq!(shown.iter().filter(|entry| entry.contains("not shown")).count(), 2, "one for each side");
    }
}
