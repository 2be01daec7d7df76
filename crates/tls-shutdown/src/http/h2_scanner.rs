//! HTTP/2 frames (RFC 9113 section 4.1), followed through a stream of bytes that is cut anywhere.
#![cfg_attr(not(feature = "server"), expect(dead_code, reason = "the layer asks for less than the server does"))]

pub(crate) const DATA: u8 = 0x0;
pub(crate) const HEADERS: u8 = 0x1;
pub(crate) const RST_STREAM: u8 = 0x3;
pub(crate) const SETTINGS: u8 = 0x4;
pub(crate) const PING: u8 = 0x6;
pub(crate) const GOAWAY: u8 = 0x7;
pub(crate) const WINDOW_UPDATE: u8 = 0x8;
pub(crate) const CONTINUATION: u8 = 0x9;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;

/// The greatest stream identifier: the GOAWAY that has it only announces the final one (RFC 9113 section 6.8).
pub(crate) const EVERY_STREAM: u32 = (1 << 31) - 1;

/// Bytes of a frame's head.
pub(crate) const HEAD: usize = 9;
/// Where in it the flags are.
pub(crate) const FLAGS: usize = 4;

/// Follows the frames of one direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Walk {
    /// The head of the frame that passes, and the length of its padding, if it is DATA that has any.
    head: [u8; HEAD + 1],
    /// Bytes of `head` that are there.
    have: usize,
    /// Bytes of the payload that are still to come.
    left: usize,
    /// The first bytes of the payload: all of a PING or a WINDOW_UPDATE, the stream of a GOAWAY.
    payload: [u8; 8],
    kept: usize,
    /// The flags of the HEADERS whose block goes on in CONTINUATION.
    block: Option<u8>,
    frames: u64,
}

/// What the head of a frame tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    /// Bytes of the payload without padding, if it is DATA.
    pub(crate) data: usize,
}

/// A frame that has passed to its end.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    /// Bytes of the payload, padding and all.
    pub(crate) length: u32,
    pub(crate) payload: [u8; 8],
    /// Whether it ends its stream, as far as the side that has sent it goes.
    pub(crate) ends_stream: bool,
}

impl Walk {
    /// Whether a frame may begin here, of whatever type.
    pub(crate) fn is_between(&self) -> bool {
        self.have == 0 && self.block.is_none()
    }

    /// How many frames have passed.
    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }

    /// Walks to the end of the next frame, if `bytes` go as far, and takes them away.
    pub(crate) fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        self.head(bytes)?;
        let (payload, rest) = bytes.split_at(bytes.len().min(self.left));
        *bytes = rest;
        self.payload(payload)
    }

    /// Takes what is missing of a frame's head from `bytes`. `None` until all of it is there.
    pub(crate) fn head(&mut self, bytes: &mut &[u8]) -> Option<Head> {
        while self.have < self.head_length() {
            let (piece, rest) = bytes.split_at(bytes.len().min(self.head_length() - self.have));
            if piece.is_empty() {
                return None;
            }
            self.head[self.have..][..piece.len()].copy_from_slice(piece);
            self.have += piece.len();
            *bytes = rest;
            if self.have == HEAD {
                let [a, b, c, ..] = self.head;
                self.left = u32::from_be_bytes([0, a, b, c]) as usize;
                self.kept = 0;
            } else if self.have > HEAD {
                self.left -= 1;
            }
        }
        let [_, _, _, kind, flags, a, b, c, d, padding] = self.head;
        let padding = if self.have > HEAD { usize::from(padding) } else { 0 };
        let stream = u32::from_be_bytes([a, b, c, d]) & EVERY_STREAM;
        Some(Head { kind, flags, stream, data: self.left.saturating_sub(padding) })
    }

    /// The head that has passed.
    pub(crate) fn head_bytes(&self) -> &[u8] {
        &self.head[..self.have]
    }

    /// Bytes of the payload that are still to come, once the head has passed.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Takes note of the next bytes of the payload. Gives the frame when they were the last.
    pub(crate) fn payload(&mut self, bytes: &[u8]) -> Option<Frame> {
        let keep = bytes.len().min(self.payload.len() - self.kept);
        self.payload[self.kept..][..keep].copy_from_slice(&bytes[..keep]);
        self.kept += keep;
        self.left -= bytes.len();
        if self.left > 0 {
            return None;
        }
        self.have = 0;
        self.frames += 1;
        Some(self.frame())
    }

    /// The length of DATA's padding is its first byte.
    fn head_length(&self) -> usize {
        match self.head {
            [_, _, _, DATA, flags, ..] if self.have >= HEAD && flags & PADDED != 0 && self.head[..3] != [0; 3] => {
                HEAD + 1
            }
            _ => HEAD,
        }
    }

    fn frame(&mut self) -> Frame {
        let [x, y, z, kind, flags, a, b, c, d, _] = self.head;
        let length = u32::from_be_bytes([0, x, y, z]);
        let stream = u32::from_be_bytes([a, b, c, d]) & EVERY_STREAM;
        let ends_stream = match kind {
            DATA => flags & END_STREAM != 0,
            HEADERS if flags & END_HEADERS == 0 => {
                self.block = Some(flags);
                false
            }
            HEADERS => flags & END_STREAM != 0,
            CONTINUATION if flags & END_HEADERS != 0 => self.block.take().is_some_and(|flags| flags & END_STREAM != 0),
            _ => kind == RST_STREAM,
        };
        Frame { kind, flags, stream, length, payload: self.payload, ends_stream }
    }
}
