//! HTTP/2 frames, by hand.

use tokio::io::AsyncReadExt;

use crate::{
    End,
    serving::{Client, ClientStream},
    soon,
};

/// What a client sends first. SETTINGS follow.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `:method: GET`, `:scheme: https`, `:path: /`, `:authority: a`, as HPACK has them.
pub const GET: &[u8] = &[0x82, 0x87, 0x84, 0x41, 0x01, b'a'];

/// The type of a DATA frame.
pub const DATA: u8 = 0;
/// The type of a HEADERS frame.
pub const HEADERS: u8 = 1;
/// The type of a RST_STREAM frame.
pub const RST_STREAM: u8 = 3;
/// The type of a SETTINGS frame.
pub const SETTINGS: u8 = 4;
/// The type of a PING frame.
pub const PING: u8 = 6;
/// The type of a GOAWAY frame.
pub const GOAWAY: u8 = 7;
/// The type of a WINDOW_UPDATE frame.
pub const WINDOW_UPDATE: u8 = 8;
/// The type of a CONTINUATION frame.
pub const CONTINUATION: u8 = 9;

/// The flag of the last frame of a stream. It is also ACK, of SETTINGS and PING.
pub const END_STREAM: u8 = 1;
/// The flag of the last frame of a header block.
pub const END_HEADERS: u8 = 4;
/// The flag of a frame with padding.
pub const PADDED: u8 = 8;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// What follows the frame's head.
    pub payload: Vec<u8>,
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).expect("a length").to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A request without a body.
pub fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, GET)
}

/// A request for `path` without a body.
pub fn get_path(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &header_block(path))
}

/// `:method: GET`, `:scheme: https`, `:path`, `:authority: a`, as HPACK has them.
pub fn header_block(path: &str) -> Vec<u8> {
    let path = [&[0x04, u8::try_from(path.len()).expect("short")], path.as_bytes()].concat();
    [&[0x82, 0x87], &path[..], &[0x41, 0x01, b'a']].concat()
}

/// The same with a Content-Length of two digits.
pub fn header_block_with_length(path: &str, length: u8) -> Vec<u8> {
    [&header_block(path)[..], &[0x0f, 0x0d, 2], length.to_string().as_bytes()].concat()
}

/// The answer to a PING.
pub fn pong(ping: &Frame) -> Vec<u8> {
    frame(PING, 1, 0, &ping.payload)
}

/// The preface and empty SETTINGS.
pub fn hello() -> Vec<u8> {
    [&PREFACE[..], &frame(SETTINGS, 0, 0, &[])].concat()
}

impl<S: ClientStream> Client<S> {
    /// Reads the next frame. Returns `None` at the end of the stream.
    ///
    /// # Panics
    ///
    /// If the connection ends in another way, or within a frame.
    pub async fn next_frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        if soon(self.stream.read(&mut head[..1])).await.expect("a frame or close_notify") == 0 {
            return None;
        }
        soon(self.stream.read_exact(&mut head[1..])).await.expect("a whole frame");
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        soon(self.stream.read_exact(&mut payload)).await.expect("a whole frame");
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// Reads up to the next frame of this type.
    pub async fn frame_of(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next_frame().await.expect("a frame");
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Reads all frames to the end, which must not be within a frame.
    pub async fn frames_to_end(&mut self) -> (Vec<Frame>, End) {
        let (data, end) = self.read_to_end().await;
        (frames(&data), end)
    }
}

/// The frames in `data`, which must end with a whole one.
pub fn frames(mut data: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(([a, b, c, kind, flags, d, e, f, g], rest)) = data.split_first_chunk() {
        let (payload, rest) = rest.split_at(u32::from_be_bytes([0, *a, *b, *c]) as usize);
        let stream = u32::from_be_bytes([*d, *e, *f, *g]);
        frames.push(Frame { kind: *kind, flags: *flags, stream, payload: payload.to_vec() });
        data = rest;
    }
    assert!(data.is_empty(), "half a frame");
    frames
}

/// The streams that GOAWAY frames name as the last.
pub fn goaways(frames: &[Frame]) -> Vec<u32> {
    let last = |frame: &Frame| u32::from_be_bytes(*frame.payload.first_chunk().expect("a stream"));
    frames.iter().filter(|frame| frame.kind == GOAWAY).map(last).collect()
}

/// Whether the response on `stream` is whole.
pub fn is_answered(frames: &[Frame], stream: u32) -> bool {
    frames
        .iter()
        .any(|frame| frame.stream == stream && matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0)
}
