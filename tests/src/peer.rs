//! The TLS peer at the other end of a [`Wire`], and the connection between both. It needs no runtime.

use std::{
    io::{self, Read, Write},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use rustls::{
    ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection, SupportedProtocolVersion,
    pki_types::ServerName,
};
use tls_shutdown::ShutdownStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::{Wire, client_config, forge::Forge, server_config};

/// Which side of the connection is under test. The peer is the other side.
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

    /// Takes the records that are to be sent, without sending them.
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

    /// Takes what the side under test has sent. Returns the application data, and whether close_notify came.
    pub fn receive(&mut self) -> Result<(Vec<u8>, bool), rustls::Error> {
        let bytes = self.wire.script(|script| std::mem::take(&mut script.outbound));
        let mut bytes = &bytes[..];
        let mut data = Vec::new();
        loop {
            let state = self.tls.process_new_packets()?;
            let mut chunk = vec![0; state.plaintext_bytes_to_read()];
            self.tls.reader().read_exact(&mut chunk).expect("all of it");
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

    /// Replaces the peer by a forge of records with its keys.
    pub fn into_forge(self) -> Forge {
        Forge::new(self.tls, self.wire)
    }
}

/// Connects. Returns the stream under test and its peer. The handshake is done, and nothing but tickets is in flight.
pub fn connect(side: Side, version: &'static SupportedProtocolVersion) -> (ShutdownStream<TlsStream<Wire>>, Peer) {
    connect_with(side, client_config(version), server_config(version))
}

/// Connects as [`connect`] does, with these configurations.
pub fn connect_with(side: Side, client: ClientConfig, server: ServerConfig) -> (ShutdownStream<TlsStream<Wire>>, Peer) {
    connect_over(side, client, server, |wire| wire)
}

/// Connects as [`connect_with`] does, with a wrapper between the TLS stream and the transport.
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
