//! How much of its responses an HTTP/2 client lets through (RFC 9113 section 5.2).

/// The window of a connection, and what the windows of its streams begin with.
pub(super) struct Windows {
    connection: i64,
    initial: i64,
    /// The setting of which a part has come.
    setting: [u8; SETTING],
    have: usize,
}

/// The window before the client says something else (RFC 9113 section 6.9.2).
const DEFAULT: i64 = 65_535;
/// Bytes of a setting: its identifier, and a value.
const SETTING: usize = 6;
const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 4;

impl Windows {
    pub(super) fn new() -> Self {
        Self { connection: DEFAULT, initial: DEFAULT, setting: [0; SETTING], have: 0 }
    }

    /// The window of a new stream.
    pub(super) fn initial(&self) -> i64 {
        self.initial
    }

    /// Whether nothing goes through on any stream.
    pub(super) fn are_closed(&self) -> bool {
        self.connection <= 0
    }

    /// The client lets more through.
    pub(super) fn widen(&mut self, increment: i64) {
        self.connection += increment;
    }

    /// So much of a response was sent.
    pub(super) fn sent(&mut self, length: i64) {
        self.connection -= length;
    }

    //= https://www.rfc-editor.org/rfc/rfc9113#section-6.9.2
    //# When the value of SETTINGS_INITIAL_WINDOW_SIZE changes, a receiver MUST
    //# adjust the size of all stream flow-control windows that it maintains by
    //# the difference between the new value and the old value.
    /// Takes a part of the payload of SETTINGS. Tells by how much the windows of all streams change.
    pub(super) fn set(&mut self, payload: &[u8]) -> i64 {
        let before = self.initial;
        for byte in payload {
            self.setting[self.have] = *byte;
            self.have = (self.have + 1) % SETTING;
            let [a, b, value @ ..] = self.setting;
            if self.have == 0 && u16::from_be_bytes([a, b]) == SETTINGS_INITIAL_WINDOW_SIZE {
                self.initial = u32::from_be_bytes(value).into();
            }
        }
        self.initial - before
    }
}
