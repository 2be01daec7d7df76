//! [`FlowControl`]: how much of the bodies of one direction an HTTP/2 endpoint lets through (RFC 9113 section 5.2).

/// The window of a connection, and of a new stream.
pub(super) struct FlowControl {
    connection: i64,
    /// The window of a new stream.
    pub(super) initial: i64,
    /// The bytes of bodies that have passed.
    pub(super) data: u64,
    /// The setting that passes, and how many bytes of it have passed.
    setting: [u8; SETTING_LENGTH],
    have: usize,
}

/// A window until the endpoint changes it (RFC 9113 section 6.9.2).
const DEFAULT_WINDOW: i64 = 65_535;
/// Bytes of a setting: its identifier, and a value.
const SETTING_LENGTH: usize = 6;
const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 4;

impl Default for FlowControl {
    fn default() -> Self {
        Self { connection: DEFAULT_WINDOW, initial: DEFAULT_WINDOW, data: 0, setting: [0; SETTING_LENGTH], have: 0 }
    }
}

impl FlowControl {
    /// Whether the connection's window lets nothing through on any stream.
    pub(super) fn is_closed(&self) -> bool {
        self.connection <= 0
    }

    /// Widens the connection's window.
    pub(super) fn widen(&mut self, increment: i64) {
        self.connection += increment;
    }

    /// Notes bytes of a body that have passed.
    pub(super) fn on_data(&mut self, length: u32) {
        self.connection -= i64::from(length);
        self.data += u64::from(length);
    }

    //= https://www.rfc-editor.org/rfc/rfc9113#section-6.9.2
    //# When the value of SETTINGS_INITIAL_WINDOW_SIZE changes, a receiver MUST
    //# adjust the size of all stream flow-control windows that it maintains by
    //# the difference between the new value and the old value.
    /// Reads a part of the payload of SETTINGS. Returns the change of the windows of all streams.
    pub(super) fn read_settings(&mut self, payload: &[u8]) -> i64 {
        let before = self.initial;
        for byte in payload {
            self.setting[self.have] = *byte;
            self.have = (self.have + 1) % SETTING_LENGTH;
            let [a, b, value @ ..] = self.setting;
            if self.have == 0 && u16::from_be_bytes([a, b]) == SETTINGS_INITIAL_WINDOW_SIZE {
                self.initial = u32::from_be_bytes(value).into();
            }
        }
        self.initial - before
    }
}
