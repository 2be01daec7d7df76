//! [`TlsSession`] and [`TlsConnection`]: a TLS stream as its two parts, the transport and the rustls connection.

use std::{
    io::{self, Read, Write},
    ops::Deref,
    panic::{self, AssertUnwindSafe},
};

use rustls::{ClientConnection, CommonState, ProtocolVersion, ServerConnection};
use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::tls::socket::socket_of;

/// A TLS stream whose transport and rustls connection are accessible: the three `TlsStream` types of tokio-rustls.
///
/// Implement it for a type that wraps one of these. [`parts`](Self::parts) must always return the same transport and the same
/// connection, and the type's own reads and writes must go through them. A [`ShutdownStream`](crate::ShutdownStream) reads and closes by them,
/// past the type's own methods. Methods that this trait gets in later versions have a default.
///
/// ```
/// use tls_shutdown::{ShutdownStream, TlsSession};
///
/// fn alpn<S: TlsSession>(stream: &mut ShutdownStream<S>) -> Option<&[u8]> {
///     let (_, connection) = stream.get_mut().parts();
///     connection.common_state().alpn_protocol()
/// }
/// ```
pub trait TlsSession: AsyncRead + AsyncBufRead + AsyncWrite + Unpin {
    /// The carrier of the TLS records, usually a [`TcpStream`].
    type Transport: AsyncRead + AsyncWrite + Unpin + 'static;

    /// The transport, and the rustls connection over it.
    fn parts(&mut self) -> (&mut Self::Transport, TlsConnection<'_>);

    /// The transport.
    fn transport(&self) -> &Self::Transport;

    /// Ends TLS without sending anything, and returns the transport.
    fn into_transport(self) -> Self::Transport;

    /// The TCP socket under the transport, for operations that only the kernel offers. The default finds a [`TcpStream`], also under
    /// [`Records`](crate::Records) and [`Plaintext`](crate::Plaintext).
    ///
    /// Return it only if the transport passes on written bytes unchanged: close_notify may be written to the socket itself, and a
    /// [`Reaper`](crate::Reaper) that lingers reads from it.
    fn socket(transport: &Self::Transport) -> Option<&TcpStream> {
        socket_of(transport)
    }

    /// The transport.
    fn transport_mut(&mut self) -> &mut Self::Transport {
        self.parts().0
    }

    /// The rustls connection.
    #[inline]
    fn connection(&mut self) -> TlsConnection<'_> {
        self.parts().1
    }
}

macro_rules! is_session {
    ($stream:ty, $side:ident) => {
        impl<T: AsyncRead + AsyncWrite + Unpin + 'static> TlsSession for $stream {
            type Transport = T;

            #[inline]
            fn parts(&mut self) -> (&mut T, TlsConnection<'_>) {
                let (transport, connection) = self.get_mut();
                (transport, TlsConnection::$side(connection))
            }

            fn transport(&self) -> &T {
                self.get_ref().0
            }

            fn into_transport(self) -> T {
                self.into_inner().0
            }
        }
    };
}

is_session!(tokio_rustls::client::TlsStream<T>, Client);
is_session!(tokio_rustls::server::TlsStream<T>, Server);

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> TlsSession for tokio_rustls::TlsStream<T> {
    type Transport = T;

    fn parts(&mut self) -> (&mut T, TlsConnection<'_>) {
        match self {
            Self::Client(stream) => stream.parts(),
            Self::Server(stream) => stream.parts(),
        }
    }

    fn transport(&self) -> &T {
        self.get_ref().0
    }

    fn into_transport(self) -> T {
        match self {
            Self::Client(stream) => stream.into_transport(),
            Self::Server(stream) => stream.into_transport(),
        }
    }
}

/// The rustls connection of either side.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsConnection<'a> {
    /// The connection of a client.
    Client(&'a mut ClientConnection),
    /// The connection of a server.
    Server(&'a mut ServerConnection),
}

macro_rules! either_side {
    ($connection:expr, $name:ident => $call:expr) => {
        match $connection {
            TlsConnection::Client($name) => $call,
            TlsConnection::Server($name) => $call,
        }
    };
}

/// What can be read without asking the transport.
pub(crate) enum NextRead<'a> {
    /// Decrypted application data, not empty.
    Data(&'a [u8]),
    /// The peer's close_notify; everything before it was read.
    ZeroReturn,
    /// The transport's end, without close_notify, and rustls's error for it.
    TransportEnd(io::Error),
    /// Nothing yet.
    Nothing,
}

impl<'a> TlsConnection<'a> {
    /// What both sides know of the connection: ALPN, protocol version, certificates.
    pub fn common_state(self) -> &'a CommonState {
        either_side!(self, connection => connection)
    }

    #[inline]
    fn state(&self) -> &CommonState {
        either_side!(self, connection => connection.deref())
    }

    #[inline]
    pub(crate) fn is_handshaking(&self) -> bool {
        self.state().is_handshaking()
    }

    /// The number of TLS 1.3 session tickets that were received.
    pub(crate) fn tickets(&self) -> u32 {
        match self {
            Self::Client(client) => client.tls13_tickets_received(),
            Self::Server(_) => 0,
        }
    }

    /// Whether a client has received `tickets` of them, or, in TLS 1.2, cannot receive more. `false` for a server.
    pub(crate) fn has_tickets(&self, tickets: u32) -> bool {
        match self {
            Self::Client(client) if client.protocol_version() == Some(ProtocolVersion::TLSv1_2) => true,
            Self::Client(client) => client.tls13_tickets_received() >= tickets,
            Self::Server(_) => false,
        }
    }

    #[inline]
    pub(crate) fn next_read(self) -> NextRead<'a> {
        let chunk = either_side!(self, connection => connection.reader().into_first_chunk());
        match chunk {
            Ok([]) => NextRead::ZeroReturn,
            Ok(data) => NextRead::Data(data),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => NextRead::TransportEnd(error),
            Err(_) => NextRead::Nothing,
        }
    }

    pub(crate) fn consume(&mut self, amount: usize) {
        either_side!(self, connection => io::BufRead::consume(&mut connection.reader(), amount));
    }

    /// Processes the records that were read.
    ///
    /// Must not be called after close_notify was received: rustls 0.23.46 panics if an empty handshake record came before it.
    #[inline]
    pub(crate) fn process(&mut self) -> Result<(), rustls::Error> {
        either_side!(self, connection => connection.process_new_packets()).map(|_| ())
    }

    /// The same, and survives a panic in rustls. `Err(None)` is the error that a panic has lost.
    ///
    /// Once close_notify is queued, rustls 0.23 assumes that a fatal alert was sent, and has a `debug_assert` against a second one. A
    /// single invalid record of the peer then panics in a build whose rustls has debug assertions (rustls#959). The call is
    /// synchronous, and rustls sets the connection's error state before it panics, so it is safe to catch the panic. The panic
    /// hook still runs, and `panic = "abort"` still aborts. A panic in the user's session store or verifier, which rustls calls from
    /// here, is caught too.
    ///
    /// Users can switch the assertion off with `debug-assertions = false` in `[profile.dev.package.rustls]`.
    pub(crate) fn process_after_close_notify(&mut self) -> Result<(), Option<rustls::Error>> {
        panic::catch_unwind(AssertUnwindSafe(|| self.process())).map_err(|_| None)?.map_err(Some)
    }

    #[inline]
    pub(crate) fn read_tls(&mut self, from: &mut dyn Read) -> io::Result<usize> {
        either_side!(self, connection => connection.read_tls(from))
    }

    /// Whether there is no application data, and some may still come.
    #[inline]
    pub(crate) fn wants_read(&self) -> bool {
        self.state().wants_read()
    }

    pub(crate) fn write_tls(&mut self, to: &mut dyn Write) -> io::Result<usize> {
        either_side!(self, connection => connection.write_tls(to))
    }

    pub(crate) fn wants_write(&self) -> bool {
        self.state().wants_write()
    }

    pub(crate) fn send_close_notify(&mut self) {
        either_side!(self, connection => connection.send_close_notify());
    }
}
