//! WebSocket frames (RFC 6455 section 5.2), followed in bytes that may be cut anywhere.

const FIN: u8 = 0x80;
const OPCODE: u8 = 0x0f;
/// Opcodes from here on are those of control frames.
const CONTROL: u8 = 0x8;
const CLOSE: u8 = 0x8;
const MASKED: u8 = 0x80;

/// The longest head of a frame: two bytes, a length of eight and a mask of four.
const MAX_HEAD_LENGTH: usize = 14;

/// Follows the frames of one direction of a WebSocket.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FrameScanner {
    head: [u8; MAX_HEAD_LENGTH],
    /// Bytes of `head` that have passed.
    have: usize,
    /// Bytes of the payload that are still to come, once the head has passed.
    left: u64,
    /// Whether a message of several frames has begun and not ended. Control frames may come in between (RFC 6455 section 5.4).
    in_message: bool,
    has_closed: bool,
}

impl FrameScanner {
    /// Whether no message is half-sent, and no frame.
    pub(super) fn is_between_messages(&self) -> bool {
        self.have == 0 && !self.in_message
    }

    /// Whether a Close frame has passed.
    pub(super) fn has_closed(&self) -> bool {
        self.has_closed
    }

    /// Follows all of `bytes`.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.pass_frame(&mut bytes);
        }
    }

    /// How many of `bytes` belong to the message that is half-sent, with the control frames in it.
    pub(super) fn rest_of_message(mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() && !self.is_between_messages() {
            self.pass_frame(&mut rest);
        }
        bytes.len() - rest.len()
    }

    /// Takes the rest of a control frame from `bytes`. Returns how many bytes that were, or `None` if the frame is none of control.
    pub(super) fn pass_control_frame(&mut self, bytes: &[u8]) -> Option<usize> {
        let first = if self.have == 0 { *bytes.first()? } else { self.head[0] };
        if first & OPCODE < CONTROL {
            return None;
        }
        let mut rest = bytes;
        self.pass_frame(&mut rest);
        Some(bytes.len() - rest.len())
    }

    /// Takes the rest of a frame from `bytes`, as far as it is there.
    fn pass_frame(&mut self, bytes: &mut &[u8]) {
        while self.have < self.head_length() {
            let Some((byte, rest)) = bytes.split_first() else { return };
            self.head[self.have] = *byte;
            self.have += 1;
            *bytes = rest;
            if self.have == self.head_length() {
                self.left = self.payload_length();
            }
        }
        let payload = self.left.min(bytes.len() as u64);
        self.left -= payload;
        *bytes = &bytes[payload as usize..];
        if self.left > 0 {
            return;
        }
        self.have = 0;
        match self.head[0] & OPCODE {
            CLOSE => self.has_closed = true,
            CONTROL.. => {}
            _ => self.in_message = self.head[0] & FIN == 0,
        }
    }

    fn head_length(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let extended = match self.head[1] & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.head[1] & MASKED == 0 { 0 } else { 4 };
        2 + extended + mask
    }

    fn payload_length(&self) -> u64 {
        let [_, length, extended @ ..] = &self.head;
        let [a, b, c, d, e, f, g, h, ..] = *extended;
        match length & !MASKED {
            126 => u64::from(u16::from_be_bytes([a, b])),
            127 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            length => u64::from(length),
        }
    }
}
