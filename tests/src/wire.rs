//! A transport whose every answer is scripted, and the TLS peer at its other end, both without a runtime.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use rustls::{
    ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection, SupportedProtocolVersion,
    pki_types::ServerName,
};
use tls_shutdown::ShutdownStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::{client_config, forge::Forge, server_config};

/// The transport. Clones are handles to the same one, by which a test scripts it.
#[derive(Clone, Debug, Default)]
pub struct Wire(Arc<Mutex<Script>>);

/// What the transport answers, and what was done to it.
#[derive(Debug)]
pub struct Script {
    /// Bytes to be read.
    pub inbound: VecDeque<u8>,
    /// What a read gives after that: `Pending`, the end, or an error.
    pub then: Then,
    /// Bytes that one call reads or writes at most.
    pub piece: usize,
    /// Bytes that are still accepted for writing.
    pub room: usize,
    /// What a write gives without room.
    pub full: Full,
    /// Whether bytes go out only when the transport is flushed, as from OpenSSL's buffering BIO.
    pub buffering: Buffering,
    /// Polls of flush, and of shutdown, that are `Pending` first.
    pub flush_delay: usize,
    /// See `flush_delay`.
    pub finish_delay: usize,
    /// What a finished shutdown gives.
    pub finish_error: Option<io::ErrorKind>,
    /// Bytes accepted, and not yet taken by the peer.
    pub outbound: Vec<u8>,
    /// Bytes in a buffering transport.
    pub buffered: Vec<u8>,
    /// What was done, in order.
    pub log: Vec<Done>,
    /// Number of polls of a read.
    pub reads: usize,
    wakers: Vec<Waker>,
}

/// What follows the last byte to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing yet.
    Pending,
    /// FIN.
    End,
    /// An error.
    Error(io::ErrorKind),
}

/// What a write without room gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// `Pending`.
    Pending,
    /// An error.
    Error(io::ErrorKind),
}

/// Whether written bytes wait for a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffering {
    /// They are out at once.
    Off,
    /// They wait.
    UntilFlush,
}

/// What was done to the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// This many bytes were accepted.
    Written(usize),
    /// It was flushed.
    Flushed,
    /// Its write side was shut down.
    Finished,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            inbound: VecDeque::new(),
            then: Then::Pending,
            piece: usize::MAX,
            room: usize::MAX,
            full: Full::Pending,
            buffering: Buffering::Off,
            flush_delay: 0,
            finish_delay: 0,
            finish_error: None,
            outbound: Vec::new(),
            buffered: Vec::new(),
            log: Vec::new(),
            reads: 0,
            wakers: Vec::new(),
        }
    }
}

impl Wire {
    /// Changes the script, and wakes who waits for the transport.
    pub fn script<R>(&self, change: impl FnOnce(&mut Script) -> R) -> R {
        let mut script = self.lock();
        let result = change(&mut script);
        let wakers = std::mem::take(&mut script.wakers);
        drop(script);
        wakers.iter().for_each(Waker::wake_by_ref);
        result
    }

    /// Gives `bytes` to be read.
    pub fn deliver(&self, bytes: &[u8]) {
        self.script(|script| script.inbound.extend(bytes));
    }

    /// Makes room for what a test does, so that the transport does not allocate while it does it.
    pub fn reserve(&self) {
        let mut script = self.lock();
        script.log.reserve(1000);
        script.outbound.reserve(1 << 20);
        script.wakers.reserve(1000);
    }

    /// How many hold the transport.
    pub fn handles(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// Whether FIN is out.
    pub fn is_finished(&self) -> bool {
        self.lock().log.contains(&Done::Finished)
    }

    fn lock(&self) -> MutexGuard<'_, Script> {
        self.0.lock().expect("no test panics with the script in hand")
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut script = self.lock();
        script.reads += 1;
        let amount = script.inbound.len().min(buffer.remaining()).min(script.piece);
        if amount > 0 {
            let bytes: Vec<u8> = script.inbound.drain(..amount).collect();
            buffer.put_slice(&bytes);
            return Poll::Ready(Ok(()));
        }
        match script.then {
            Then::End => Poll::Ready(Ok(())),
            Then::Error(kind) => Poll::Ready(Err(kind.into())),
            Then::Pending => {
                script.wakers.push(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut script = self.lock();
        let amount = bytes.len().min(script.room).min(script.piece);
        if amount == 0 && !bytes.is_empty() {
            return match script.full {
                Full::Error(kind) => Poll::Ready(Err(kind.into())),
                Full::Pending => {
                    script.wakers.push(cx.waker().clone());
                    Poll::Pending
                }
            };
        }
        script.room = script.room.saturating_sub(amount);
        script.log.push(Done::Written(amount));
        match script.buffering {
            Buffering::Off => script.outbound.extend(&bytes[..amount]),
            Buffering::UntilFlush => script.buffered.extend(&bytes[..amount]),
        }
        Poll::Ready(Ok(amount))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut script = self.lock();
        if script.flush_delay > 0 {
            script.flush_delay -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let buffered = std::mem::take(&mut script.buffered);
        script.outbound.extend(buffered);
        script.log.push(Done::Flushed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut script = self.lock();
        if script.finish_delay > 0 {
            script.finish_delay -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        script.log.push(Done::Finished);
        script.finish_error.map_or(Poll::Ready(Ok(())), |kind| Poll::Ready(Err(kind.into())))
    }
}

/// Which side of the connection is under test. The peer is the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The server.
    Server,
}

impl Side {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Client, Self::Server];
}

/// The TLS peer at the other end of a [`Wire`].
pub struct Peer {
    /// Its rustls connection.
    pub tls: Connection,
    /// The transport of the side under test.
    pub wire: Wire,
}

impl Peer {
    /// Sends application data.
    pub fn send(&mut self, data: &[u8]) {
        self.tls.writer().write_all(data).expect("buffered");
        self.flush();
    }

    /// Sends close_notify.
    pub fn close_notify(&mut self) {
        self.tls.send_close_notify();
        self.flush();
    }

    /// The records that are to be sent, without sending them.
    pub fn records(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut records).expect("a vector takes all");
        }
        records
    }

    fn flush(&mut self) {
        let records = self.records();
        self.wire.deliver(&records);
    }

    /// Takes what the side under test has sent: the application data in it, and whether close_notify was.
    pub fn receive(&mut self) -> Result<(Vec<u8>, bool), rustls::Error> {
        let bytes = self.wire.script(|script| std::mem::take(&mut script.outbound));
        let mut bytes = &bytes[..];
        let mut data = Vec::new();
        loop {
            let state = self.tls.process_new_packets()?;
            let mut chunk = vec![0; state.plaintext_bytes_to_read()];
            self.tls.reader().read_exact(&mut chunk).expect("as told");
            data.extend(chunk);
            if state.peer_has_closed() {
                assert!(bytes.is_empty(), "{} bytes after close_notify", bytes.len());
            }
            if bytes.is_empty() {
                return Ok((data, state.peer_has_closed()));
            }
            self.tls.read_tls(&mut bytes).expect("in memory");
        }
    }

    /// Ends the peer, and gives its sending keys to a forge of records.
    pub fn into_forge(self) -> Forge {
        Forge::new(self.tls, self.wire)
    }
}

/// A connected stream under test, whose handshake is done, and its peer; nothing is in flight, tickets apart.
pub fn connect(side: Side, version: &'static SupportedProtocolVersion) -> (ShutdownStream<TlsStream<Wire>>, Peer) {
    connect_with(side, client_config(version), server_config(version))
}

/// As [`connect`], with these configurations.
pub fn connect_with(side: Side, client: ClientConfig, server: ServerConfig) -> (ShutdownStream<TlsStream<Wire>>, Peer) {
    connect_over(side, client, server, |wire| wire)
}

/// As [`connect_with`], with something between the TLS stream and the transport.
pub fn connect_over<T>(
    side: Side,
    client: ClientConfig,
    server: ServerConfig,
    between: impl FnOnce(Wire) -> T,
) -> (ShutdownStream<TlsStream<T>>, Peer)
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let wire = Wire::default();
    let name = ServerName::try_from("localhost").expect("a name");
    let early_data = client.enable_early_data;
    let (mut handshake, tls): (Pin<Box<dyn Future<Output = _>>>, Connection) = match side {
        Side::Client => {
            let connect =
                TlsConnector::from(Arc::new(client)).early_data(early_data).connect(name, between(wire.clone()));
            let peer = ServerConnection::new(Arc::new(server)).expect("a server");
            (Box::pin(async { connect.await.map(TlsStream::from) }), peer.into())
        }
        Side::Server => {
            let accept = TlsAcceptor::from(Arc::new(server)).accept(between(wire.clone()));
            let peer = ClientConnection::new(Arc::new(client), name).expect("a client");
            (Box::pin(async { accept.await.map(TlsStream::from) }), peer.into())
        }
    };
    let mut peer = Peer { tls, wire: wire.clone() };
    let mut cx = Context::from_waker(Waker::noop());
    let stream = loop {
        if let Poll::Ready(stream) = pin!(&mut handshake).as_mut().poll(&mut cx) {
            break io::Result::<TlsStream<T>>::expect(stream, "a handshake");
        }
        peer.receive().expect("a handshake");
        peer.flush();
    };
    if !stream.get_ref().1.is_handshaking() {
        peer.receive().expect("a handshake");
        peer.flush();
        wire.script(|script| script.log.clear());
    }
    (ShutdownStream::new(stream), peer)
}
