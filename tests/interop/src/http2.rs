//! A client of HTTP/2 by hand (RFC 9113). The test decides what it sends and whether it answers.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    client::{Client, Stream, handshake, send},
    within,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200` by its index in the static table (RFC 7541).
const STATUS_200: u8 = 0x88;

/// The kinds of frames that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A part of a body.
    Data,
    /// The head of a message.
    Headers,
    /// The end of a stream that the sender does not want any more.
    ResetStream,
    /// What the sender wants of its peer.
    Settings,
    /// A question whether the peer is there, or the answer.
    Ping,
    /// No more streams.
    GoAway,
    /// Any other.
    Other(u8),
}

impl Kind {
    const KNOWN: [(Self, u8); 6] = [
        (Self::Data, 0),
        (Self::Headers, 1),
        (Self::ResetStream, 3),
        (Self::Settings, 4),
        (Self::Ping, 6),
        (Self::GoAway, 7),
    ];

    fn from_number(number: u8) -> Self {
        Self::KNOWN.iter().find(|known| known.1 == number).map_or(Self::Other(number), |known| known.0)
    }

    fn number(self) -> u8 {
        match self {
            Self::Other(number) => number,
            kind => Self::KNOWN.iter().find(|known| known.0 == kind).expect("it is known").1,
        }
    }
}

/// A frame.
#[derive(Debug)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 is the connection itself.
    pub stream: u32,
    /// What is in it.
    pub payload: Vec<u8>,
}

impl Frame {
    fn new(kind: Kind, flags: u8, stream: u32, payload: Vec<u8>) -> Self {
        Self { kind, flags, stream, payload }
    }

    /// The head of a request for a path, which is whole or not.
    fn request(flags: u8, stream: u32, path: &str) -> Self {
        // `:method: GET` and `:scheme: https` by their indices, `:authority` and `:path` as literals of indexed names. The scheme is that
        // of the URI. Without TLS, a balancer has ended it.
        let literal = |name: u8, value: &str| {
            [&[name, u8::try_from(value.len()).expect("a short value")], value.as_bytes()].concat()
        };
        let headers = [vec![0x82, 0x87], literal(1, "localhost"), literal(4, path)].concat();
        Self::new(Kind::Headers, flags | END_HEADERS, stream, headers)
    }

    /// A request for a path. Its body follows.
    pub fn upload(stream: u32, path: &str) -> Self {
        Self::request(0, stream, path)
    }

    /// The end of a request whose answer is not wanted any more.
    pub fn cancel(stream: u32) -> Self {
        Self::new(Kind::ResetStream, 0, stream, vec![0, 0, 0, 8])
    }

    fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("a short frame").to_be_bytes();
        let head = [&length[1..], &[self.kind.number(), self.flags], &self.stream.to_be_bytes()].concat();
        [head, self.payload.clone()].concat()
    }
}

/// Whether a client answers when it is asked whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pings {
    /// As it has to.
    Answered,
    /// It never does.
    Ignored,
}

/// One connection.
pub struct Http2<S = Client> {
    client: S,
    pings: Pings,
}

impl Http2 {
    /// Connects with TLS.
    pub async fn connect(address: SocketAddr, pings: Pings) -> Self {
        let tcp = TcpStream::connect(address).await.expect("it listens");
        Self::start(handshake(tcp, "h2").await.expect("a handshake"), pings).await
    }
}

impl<S: Stream> Http2<S> {
    /// Sends the preface, and waits until the server has sent its settings and taken ours.
    pub async fn start(mut client: S, pings: Pings) -> Self {
        send(&mut client, PREFACE).await;
        let mut http2 = Self { client, pings };
        http2.send(&Frame::new(Kind::Settings, 0, 0, Vec::new())).await;
        while http2.frame().await.is_some_and(|frame| frame.kind != Kind::Settings || frame.flags != ACK) {}
        http2
    }

    /// Asks for a path, on a stream of its own.
    pub async fn get(&mut self, stream: u32, path: &str) {
        self.send(&Frame::request(END_STREAM, stream, path)).await;
    }

    /// The next frame, or `None` after the end of all data. Settings and pings are answered.
    pub async fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        if within(self.client.read(&mut head[..1])).await.expect("a frame, or the end") == 0 {
            return None;
        }
        within(self.client.read_exact(&mut head[1..])).await.expect("a whole frame");
        let mut payload = vec![0; number(&head[..3]) as usize];
        within(self.client.read_exact(&mut payload)).await.expect("a whole frame");
        let frame = Frame::new(Kind::from_number(head[3]), head[4], number(&head[5..]), payload);
        match (frame.kind, self.pings) {
            (Kind::Settings, _) if frame.flags != ACK => {
                self.send(&Frame::new(Kind::Settings, ACK, 0, Vec::new())).await;
            }
            (Kind::Ping, Pings::Answered) if frame.flags != ACK => {
                self.send(&Frame::new(Kind::Ping, ACK, 0, frame.payload.clone())).await;
            }
            _ => {}
        }
        Some(frame)
    }

    /// Receives frames until a stream has its whole answer.
    pub async fn receive_answer(&mut self, stream: u32) -> Vec<Frame> {
        let mut frames = Vec::new();
        while answer(&frames, stream).is_none() {
            frames.push(self.frame().await.expect("an answer"));
        }
        frames
    }

    /// Receives all frames up to the end of all data, and answers that with its own.
    pub async fn receive_all(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.frame().await {
            frames.push(frame);
        }
        within(self.client.shutdown()).await.expect("the server still listens");
        frames
    }

    /// Sends frames in one write. Fails if the server has reset the connection.
    pub async fn send_all(&mut self, frames: impl Iterator<Item = Frame>) -> io::Result<()> {
        let bytes: Vec<u8> = frames.flat_map(|frame| frame.encode()).collect();
        within(self.client.write_all(&bytes)).await
    }

    async fn send(&mut self, frame: &Frame) {
        send(&mut self.client, frame.encode()).await;
    }
}

/// The body of a stream's answer, if that is a whole one.
pub fn answer(frames: &[Frame], stream: u32) -> Option<Vec<u8>> {
    let frames: Vec<_> = frames.iter().filter(|frame| frame.stream == stream).collect();
    let head = frames.first()?;
    let is_well = head.kind == Kind::Headers && head.payload.first() == Some(&STATUS_200);
    let is_whole = frames.iter().any(|frame| frame.flags & END_STREAM != 0);
    let data = frames.iter().filter(|frame| frame.kind == Kind::Data).flat_map(|frame| frame.payload.clone());
    (is_well && is_whole).then(|| data.collect())
}

/// What each GOAWAY names as the last stream that is answered.
pub fn last_streams(frames: &[Frame]) -> Vec<u32> {
    let farewells = frames.iter().filter(|frame| frame.kind == Kind::GoAway);
    farewells.map(|frame| number(&frame.payload[..4])).collect()
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}
