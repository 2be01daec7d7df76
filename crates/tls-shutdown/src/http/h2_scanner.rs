//! HTTP/2 frames (RFC 9113 section 4.1), scanned in bytes that may be cut anywhere.
#![cfg_attr(not(feature = "server"), expect(dead_code, reason = "the client uses less than the server"))]

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
pub(crate) const HEAD_LENGTH: usize = 9;
/// The position of the flags in it.
pub(crate) const FLAGS: usize = 4;

/// Follows the frames of one direction of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct FrameScanner {
    /// The head of the frame that passes, and the length of its padding if it is padded DATA.
    head: [u8; HEAD_LENGTH + 1],
    /// Bytes of `head` that have passed.
    have: usize,
    /// Bytes of the payload that are still to come.
    left: usize,
    /// The first bytes of the payload: all of a PING or a WINDOW_UPDATE, the stream of a GOAWAY.
    payload: [u8; 8],
    kept: usize,
    /// The flags of the HEADERS whose header block continues in CONTINUATION.
    block: Option<u8>,
    frames: u64,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameHead {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    /// Bytes of the payload. The padding of DATA does not count.
    pub(crate) data: usize,
}

/// A frame that has passed.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    /// Bytes of the payload, with the padding.
    pub(crate) length: u32,
    pub(crate) payload: [u8; 8],
    /// Whether it ends its stream in this direction.
    pub(crate) ends_stream: bool,
}

impl FrameScanner {
    /// Whether a frame of any type may begin here.
    pub(crate) fn is_between(&self) -> bool {
        self.have == 0 && self.block.is_none()
    }

    /// The number of frames that have passed.
    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }

    /// Takes the rest of a frame from `bytes`. Returns the frame if that is all of it.
    #[cfg(feature = "tower")]
    pub(crate) fn next_frame(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        self.head(bytes)?;
        let (payload, rest) = bytes.split_at(bytes.len().min(self.left));
        *bytes = rest;
        self.payload(payload)
    }

    /// Takes the rest of a frame's head from `bytes`. Returns the head if that is all of it, and again until its payload passes.
    pub(crate) fn head(&mut self, bytes: &mut &[u8]) -> Option<FrameHead> {
        // Most heads come whole.
        if self.have == 0
            && let Some((head, rest)) = bytes.split_first_chunk::<HEAD_LENGTH>()
        {
            self.head[..HEAD_LENGTH].copy_from_slice(head);
            self.have = HEAD_LENGTH;
            self.begin_payload();
            *bytes = rest;
        }
        while self.have < self.head_length() {
            let (piece, rest) = bytes.split_at(bytes.len().min(self.head_length() - self.have));
            if piece.is_empty() {
                return None;
            }
            self.head[self.have..][..piece.len()].copy_from_slice(piece);
            self.have += piece.len();
            *bytes = rest;
            if self.have == HEAD_LENGTH {
                self.begin_payload();
            } else if self.have > HEAD_LENGTH {
                self.left -= 1;
            }
        }
        let [_, _, _, kind, flags, a, b, c, d, padding] = self.head;
        let padding = if self.have > HEAD_LENGTH { usize::from(padding) } else { 0 };
        let stream = u32::from_be_bytes([a, b, c, d]) & EVERY_STREAM;
        Some(FrameHead { kind, flags, stream, data: self.left.saturating_sub(padding) })
    }

    fn begin_payload(&mut self) {
        let [a, b, c, ..] = self.head;
        self.left = u32::from_be_bytes([0, a, b, c]) as usize;
        self.kept = 0;
    }

    /// Takes the rest of a payload from `bytes`, and does not look at it.
    #[cfg(feature = "server")]
    pub(crate) fn skip_payload(&mut self, bytes: &mut &[u8]) {
        let amount = bytes.len().min(self.left);
        *bytes = &bytes[amount..];
        self.left -= amount;
        if self.left == 0 {
            self.have = 0;
        }
    }

    /// Whether the next byte is the first one of a frame.
    #[cfg(feature = "server")]
    pub(crate) fn is_at_head(&self) -> bool {
        self.have == 0
    }

    /// The head that has passed.
    pub(crate) fn head_bytes(&self) -> &[u8] {
        &self.head[..self.have]
    }

    /// The number of bytes of the payload that are still to come. Valid once the head has passed.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Notes the next bytes of the payload. Returns the frame if they are the last.
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

    /// The first byte of padded DATA is the length of its padding.
    fn head_length(&self) -> usize {
        match self.head {
            [_, _, _, DATA, flags, ..]
                if self.have >= HEAD_LENGTH && flags & PADDED != 0 && self.head[..3] != [0; 3] =>
            {
                HEAD_LENGTH + 1
            }
            _ => HEAD_LENGTH,
        }
    }

    fn frame(&mut self) -> Frame {
        let [x, y, z, kind, flags, a, b, c, d, _] = self.head;
        let length = u32::from_be_bytes([0, x, y, z]);
        let stream = u32::from_be_bytes([a, b, c, d]) & EVERY_STREAM;
        let ends_stream = match kind {
            HEADERS if flags & END_HEADERS == 0 => {
                self.block = Some(flags);
                false
            }
            DATA | HEADERS => flags & END_STREAM != 0,
            CONTINUATION if flags & END_HEADERS != 0 => self.block.take().is_some_and(|flags| flags & END_STREAM != 0),
            _ => kind == RST_STREAM,
        };
        Frame { kind, flags, stream, length, payload: self.payload, ends_stream }
    }
}
