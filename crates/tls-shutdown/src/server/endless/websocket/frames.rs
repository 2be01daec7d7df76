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
        let opcode = self.head[0] & OPCODE;
        if opcode < CONTROL {
            self.in_message = self.head[0] & FIN == 0;
        }
        self.has_closed |= opcode == CLOSE;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with this first byte, whose payload has this length.
    fn frame(first: u8, length: usize, mask: u8) -> Vec<u8> {
        let mut frame = match length {
            0..126 => vec![first, mask | length as u8],
            126..0x1_0000 => [&[first, mask | 126], &(length as u16).to_be_bytes()[..]].concat(),
            _ => [&[first, mask | 127], &(length as u64).to_be_bytes()[..]].concat(),
        };
        frame.resize(frame.len() + length + if mask == 0 { 0 } else { 4 }, 0x88);
        frame
    }

    #[test]
    fn messages_end_where_they_end_wherever_their_bytes_are_split() {
        let (text, begin, middle, end, ping) = (0x81, 0x01, 0x00, 0x80, 0x89);
        // Each frame, and whether a message ends with it.
        let frames = [
            (frame(text, 0, 0), true),
            (frame(text, 125, 0), true),
            (frame(begin, 126, 0), false),
            (frame(ping, 3, 0), false),
            (frame(middle, 0, 0), false),
            (frame(middle, 300, MASKED), false),
            (frame(end, 1, 0), true),
            (frame(ping, 0, 0), true),
            (frame(text, 0x1_0000, 0), true),
        ];
        let bytes: Vec<u8> = frames.iter().flat_map(|(frame, _)| frame).copied().collect();
        let mut ends = vec![0];
        let mut length = 0;
        for (frame, is_end) in &frames {
            length += frame.len();
            ends.extend(is_end.then_some(length));
        }
        for cut in 0..=bytes.len() {
            let mut scanner = FrameScanner::default();
            scanner.pass(&bytes[..cut]);
            assert_eq!(scanner.is_between_messages(), ends.contains(&cut), "after {cut}");
            let next_end = ends.iter().find(|end| **end >= cut).expect("the last");
            assert_eq!(scanner.rest_of_message(&bytes[cut..]), next_end - cut, "after {cut}");
            assert!(!scanner.has_closed());
            scanner.pass(&bytes[cut..]);
            scanner.pass(&frame(0x88, 2, 0));
            assert!(scanner.has_closed() && scanner.is_between_messages());
        }
    }

    #[test]
    fn control_frames_are_told_apart_from_data() {
        let (ping, text) = (frame(0x89, 10, 0), frame(0x81, 10, 0));
        let both = [&ping[..], &text].concat();
        for cut in 0..=ping.len() {
            let mut scanner = FrameScanner::default();
            assert_eq!(scanner.pass_control_frame(&both[..cut]), (cut > 0).then_some(cut));
            let rest = scanner.pass_control_frame(&both[cut..]);
            assert_eq!(rest, (cut < ping.len()).then_some(ping.len() - cut), "after {cut}");
        }
    }
}
