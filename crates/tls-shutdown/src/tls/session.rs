//! Every touch of rustls and tokio-rustls: [`TlsSession`] opens a TLS stream up, the rest of the crate never does.
//!
//! From the moment close_notify is queued, the connection is driven here, on the transport and the rustls connection
//! themselves: tokio-rustls would write what rustls queues behind close_notify, and would not survive what a peer can make
//! rustls do then.

use std::{
    any::Any,
    io::{self, Read, Write},
    ops::Range,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::{ClientConnection, CommonState, InvalidMessage, ProtocolVersion, ServerConnection};
use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::{
    tls::close_state::Event,
    tls::records::{self, NotTls, RecordWalk, Records},
    tls::report::{Alert, Ending, ShutdownReport},
    tls::socket,
};

/// A TLS stream that can be opened up, so that this crate can close it: tokio-rustls's client, server and either streams.
///
/// It can be implemented for a type that wraps one of those. [`parts`](Self::parts) must always give the same transport and the
/// same connection, and the stream's own reads and writes must go through them.
pub trait TlsSession: AsyncRead + AsyncBufRead + AsyncWrite + Unpin {
    /// What carries the TLS records, as a rule a [`TcpStream`].
    type Transport: AsyncRead + AsyncWrite + Unpin + 'static;

    /// The transport, and the rustls connection over it.
    fn parts(&mut self) -> (&mut Self::Transport, TlsConnection<'_>);

    /// Ends TLS without a word, and gives the transport.
    fn into_transport(self) -> Self::Transport;

    /// The TCP socket under the transport, for what only the kernel can do. By default that is the transport itself, if it is a
    /// [`TcpStream`], or a [`TcpStream`] as hyper-util's `HttpConnector` gives it to hyper-rustls; also under [`Records`] and
    /// [`Plaintext`](crate::Plaintext).
    fn socket(transport: &Self::Transport) -> Option<&TcpStream> {
        socket_of(transport)
    }
}

/// The socket under a transport of which it is known that it hands over what is written as it is.
pub(crate) fn socket_of(transport: &dyn Any) -> Option<&TcpStream> {
    let socket = under(transport, |socket: &TcpStream| socket);
    #[cfg(feature = "tower")]
    let socket = socket.or_else(|| under(transport, |io: &HyperTransport| io.inner().inner()));
    socket
}

/// The socket of a transport of type `T`, by itself or under what this library puts over it.
fn under<'a, T: 'static>(transport: &'a dyn Any, socket: impl FnOnce(&'a T) -> &'a TcpStream) -> Option<&'a TcpStream> {
    let transport = transport
        .downcast_ref()
        .or_else(|| transport.downcast_ref().map(Records::transport))
        .or_else(|| transport.downcast_ref().map(records::Plaintext::transport))
        .or_else(|| transport.downcast_ref().map(Records::transport).map(records::Plaintext::transport));
    transport.map(socket)
}

/// The rustls connection of either side.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsConnection<'a> {
    /// Of a client.
    Client(&'a mut ClientConnection),
    /// Of a server.
    Server(&'a mut ServerConnection),
}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> TlsSession for tokio_rustls::client::TlsStream<T> {
    type Transport = T;

    fn parts(&mut self) -> (&mut T, TlsConnection<'_>) {
        let (transport, connection) = self.get_mut();
        (transport, TlsConnection::Client(connection))
    }

    fn into_transport(self) -> T {
        self.into_inner().0
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> TlsSession for tokio_rustls::server::TlsStream<T> {
    type Transport = T;

    fn parts(&mut self) -> (&mut T, TlsConnection<'_>) {
        let (transport, connection) = self.get_mut();
        (transport, TlsConnection::Server(connection))
    }

    fn into_transport(self) -> T {
        self.into_inner().0
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> TlsSession for tokio_rustls::TlsStream<T> {
    type Transport = T;

    fn parts(&mut self) -> (&mut T, TlsConnection<'_>) {
        match self {
            Self::Client(stream) => stream.parts(),
            Self::Server(stream) => stream.parts(),
        }
    }

    fn into_transport(self) -> T {
        match self {
            Self::Client(stream) => stream.into_transport(),
            Self::Server(stream) => stream.into_transport(),
        }
    }
}

/// What hyper-rustls makes of a socket of hyper-util's `HttpConnector`: tokio to hyper, and back to tokio.
#[cfg(feature = "tower")]
type HyperTransport = hyper_util::rt::TokioIo<hyper_util::rt::TokioIo<TcpStream>>;

#[cfg(feature = "hyper-rustls")]
impl<T> crate::client::IntoTls for hyper_rustls::MaybeHttpsStream<T>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    type Session = tokio_rustls::client::TlsStream<hyper_util::rt::TokioIo<T>>;

    fn into_tls(self) -> crate::client::MaybeTls<Self::Session> {
        match self {
            Self::Https(stream) => stream.into_inner().into_tls(),
            Self::Http(transport) => crate::client::MaybeTls::Plain(hyper_util::rt::TokioIo::new(transport)),
        }
    }
}

macro_rules! either_side {
    ($connection:expr, $name:ident => $call:expr) => {
        match $connection {
            TlsConnection::Client($name) => $call,
            TlsConnection::Server($name) => $call,
        }
    };
}

/// What there is to read without asking the transport.
pub(crate) enum Plaintext<'a> {
    /// Decrypted application data, not empty.
    Data(&'a [u8]),
    /// The peer's close_notify, everything before it having been read.
    ZeroReturn,
    /// The transport's end, without close_notify.
    TransportEnd,
    /// Nothing yet.
    Nothing,
}

impl<'a> TlsConnection<'a> {
    fn common(&self) -> &CommonState {
        either_side!(self, connection => connection)
    }

    pub(crate) fn is_server(&self) -> bool {
        matches!(self, Self::Server(_))
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.common().is_handshaking()
    }

    #[cfg(feature = "tower")]
    pub(crate) fn chose_http2(&self) -> bool {
        self.common().alpn_protocol() == Some(b"h2")
    }

    /// TLS 1.3 session tickets received.
    pub(crate) fn tickets(&self) -> u32 {
        match self {
            Self::Client(client) => client.tls13_tickets_received(),
            Self::Server(_) => 0,
        }
    }

    /// Whether a client has `tickets` of them, or, in TLS 1.2, cannot receive any more. A server never has.
    pub(crate) fn keeps_tickets(&self, tickets: u32) -> bool {
        match self {
            Self::Client(client) if client.protocol_version() == Some(ProtocolVersion::TLSv1_2) => true,
            Self::Client(client) => client.tls13_tickets_received() >= tickets,
            Self::Server(_) => false,
        }
    }

    pub(crate) fn plaintext(self) -> Plaintext<'a> {
        let chunk = either_side!(self, connection => connection.reader().into_first_chunk());
        match chunk {
            Ok([]) => Plaintext::ZeroReturn,
            Ok(data) => Plaintext::Data(data),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Plaintext::TransportEnd,
            Err(_) => Plaintext::Nothing,
        }
    }

    pub(crate) fn consume(&mut self, amount: usize) {
        either_side!(self, connection => io::BufRead::consume(&mut connection.reader(), amount));
    }

    /// Processes what was read, and survives a panic in there.
    ///
    /// Once close_notify is queued, rustls 0.23 takes a fatal alert for sent, and has a `debug_assert` that none is sent twice:
    /// a single odd record of the peer then panics in a build whose rustls has debug assertions (rustls#959). The call is
    /// synchronous, and has put the connection into its error state before it panics, so it is safe to catch. The panic hook
    /// still runs, `panic = "abort"` still aborts, and the error itself is lost: `None`. So is a panic of the user's own session
    /// store or verifier, which is called from there.
    ///
    /// Users can switch the assertion off with `debug-assertions = false` in `[profile.dev.package.rustls]`.
    ///
    /// It must not be called once close_notify was received: an empty handshake record before that makes rustls 0.23.46 look
    /// for it in a buffer that is gone, and panic.
    fn process(&mut self) -> Result<(), Option<rustls::Error>> {
        panic::catch_unwind(AssertUnwindSafe(|| either_side!(self, connection => connection.process_new_packets())))
            .map_err(|_| None)?
            .map(|_| ())
            .map_err(Some)
    }

    fn read_tls(&mut self, from: &mut dyn Read) -> io::Result<usize> {
        either_side!(self, connection => connection.read_tls(from))
    }

    fn write_tls(&mut self, to: &mut dyn Write) -> io::Result<usize> {
        either_side!(self, connection => connection.write_tls(to))
    }

    fn wants_write(&self) -> bool {
        self.common().wants_write()
    }

    fn send_close_notify(&mut self) {
        either_side!(self, connection => connection.send_close_notify());
    }
}

/// Finishes a 0-RTT handshake, writes all application data, and flushes the transport. Adds to `written` what the transport
/// accepts.
pub(crate) fn poll_flush_data<S: TlsSession>(
    session: &mut S,
    cx: &mut Context<'_>,
    written: &mut u64,
) -> Poll<io::Result<()>> {
    let (transport, mut connection) = session.parts();
    while connection.wants_write() {
        let mut adapter = Transport { transport, cx };
        match connection.write_tls(&mut adapter) {
            Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Ok(amount) => *written += amount as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
    // Only the stream itself knows of early data that the server has rejected and that is to be written again.
    Pin::new(session).poll_flush(cx)
}

/// What follows close_notify on the transport.
#[derive(Clone, Copy)]
pub(crate) enum Follower {
    Fin,
    Other,
}

/// close_notify, sealed, on its way to the transport, with what had to go before it.
#[derive(Debug)]
pub(crate) struct LastWords {
    bytes: [u8; Self::SIZE],
    unwritten: Range<usize>,
}

impl Default for LastWords {
    fn default() -> Self {
        Self { bytes: [0; Self::SIZE], unwritten: 0..0 }
    }
}

impl LastWords {
    /// An alert is a record of 31 bytes at most; an answer to a HelloRequest and one to a KeyUpdate may go before it.
    const SIZE: usize = 256;

    /// The number of bytes that the transport has not accepted.
    pub(crate) fn len(&self) -> usize {
        self.unwritten.len()
    }

    /// Has rustls seal close_notify, and takes it out of rustls's queue. `Refused` where it does not: it has ended writing
    /// itself, after a fatal error, or since the connection's keys are worn out (RFC 9846 section 5.5), and data may be lost.
    ///
    /// Out of the queue, since more may come to be queued behind it when the application reads on: an answer to a HelloRequest,
    /// a fatal alert. That must stay where it is (RFC 9846 section 6.1).
    pub(crate) fn seal<S: TlsSession>(&mut self, session: &mut S) -> Result<(), Ending> {
        let (_, mut connection) = session.parts();
        connection.send_close_notify();
        let mut free = &mut self.bytes[..];
        while connection.wants_write() && !free.is_empty() {
            connection.write_tls(&mut free).map_err(|_| Ending::Refused)?;
        }
        self.unwritten = 0..Self::SIZE - free.len();
        match self.unwritten.is_empty() || connection.wants_write() {
            true => Err(Ending::Refused),
            false => Ok(()),
        }
    }

    //= https://www.rfc-editor.org/rfc/rfc8446#section-4.6.3
    //# If the request_update field is set to "update_requested", then the
    //# receiver MUST send a KeyUpdate of its own with request_update set to
    //# "update_not_requested" prior to sending its next Application Data
    //# record.
    /// Writes it. There is no next application data record, so that nothing follows.
    pub(crate) fn poll_write<T: AsyncWrite + Unpin + 'static>(
        &mut self,
        transport: &mut T,
        follower: Follower,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.unwritten.is_empty() {
            let bytes = &self.bytes[self.unwritten.clone()];
            let written = match follower {
                Follower::Fin => socket::poll_write_before_fin(transport, cx, bytes),
                Follower::Other => Pin::new(&mut *transport).poll_write(cx, bytes),
            };
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                amount => self.unwritten.start += amount,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Tries once to write the fatal alert that a peer's error has made rustls queue; only where no close_notify went before.
pub(crate) fn try_write_fatal_alert<S: TlsSession>(session: &mut S, cx: &mut Context<'_>) {
    let (transport, mut connection) = session.parts();
    // The peer's error is what is reported; that the alert did not get out adds nothing.
    let _ = connection.write_tls(&mut Transport { transport, cx });
}

/// Reads once from the transport and processes it. Gives the number of bytes, 0 at the transport's end; a failure is the event
/// that it means. What was decrypted before a failure is still there to be read.
pub(crate) fn poll_read_records<S: TlsSession>(
    session: &mut S,
    cx: &mut Context<'_>,
    walk: &mut RecordWalk,
) -> Poll<Result<usize, Event>> {
    let (transport, mut connection) = session.parts();
    let mut adapter = Walked { transport: Transport { transport, cx }, walk };
    let amount = match connection.read_tls(&mut adapter) {
        Ok(amount) => amount,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
        Err(error) => return Poll::Ready(Err(event_of_read_error(&error))),
    };
    if amount == 0 {
        return Poll::Ready(Ok(0));
    }
    Poll::Ready(match connection.process() {
        Ok(_) => Ok(amount),
        Err(error) => Err(Event::ReadFailed(match ending_of_tls_error(error.as_ref()) {
            Ending::ProtocolError | Ending::NotTls if error.is_none() && walk.is_lost() => Ending::NotTls,
            // rustls also calls an unknown type *inside* an authentic record an invalid content type.
            Ending::NotTls if !walk.is_lost() => Ending::ProtocolError,
            ending => ending,
        })),
    })
}

/// What a failed read of a TLS stream, or of the transport under it, means.
pub(crate) fn event_of_read_error(error: &io::Error) -> Event {
    match tls_error(error) {
        Some(tls) => event_of_tls_error(Some(tls)),
        None if error.get_ref().is_some_and(|error| error.is::<NotTls>()) => Event::ReadFailed(Ending::NotTls),
        None if error.kind() == io::ErrorKind::UnexpectedEof => Event::TransportEnd,
        None => Event::ReadFailed(Ending::of_transport_error(error.kind())),
    }
}

/// What a failed write or flush by the application means: in a 0-RTT handshake, what a failed read does.
pub(crate) fn event_of_write_error<S: TlsSession>(session: &mut S, error: &io::Error) -> Event {
    let is_handshaking = session.parts().1.is_handshaking();
    match event_of_read_error(error) {
        Event::TransportEnd if is_handshaking => Event::ReadFailed(Ending::NotStarted),
        event if is_handshaking || tls_error(error).is_some() => event,
        _ => Event::WriteFailed(Ending::of_transport_error(error.kind())),
    }
}

/// What an error of rustls means; `None` for one that was lost in a panic.
pub(crate) fn event_of_tls_error(error: Option<&rustls::Error>) -> Event {
    Event::ReadFailed(ending_of_tls_error(error))
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn ending_of_tls_error(error: Option<&rustls::Error>) -> Ending {
    match error {
        Some(rustls::Error::AlertReceived(alert)) => Ending::PeerAlert(Alert(u8::from(*alert))),
        Some(rustls::Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        )) => Ending::NotTls,
        _ => Ending::ProtocolError,
    }
}

impl ShutdownReport {
    /// The report of a connection whose TLS handshake failed with `error`, for those who count every accepted connection: there
    /// is no stream then that could tell.
    ///
    /// The ending is what the peer did: an alert, a reset, bytes that are not TLS, a violation of the protocol; and
    /// [`Ending::NotStarted`] for everything else: a peer that went away or stayed silent, a certificate that we refused, a
    /// version or cipher suite that is not shared.
    pub fn of_failed_handshake(error: &io::Error) -> Self {
        use rustls::Error;
        let ending = match (tls_error(error), event_of_read_error(error)) {
            // We did not like the certificate, or have nothing in common: nobody has broken the protocol.
            (Some(Error::InvalidCertificate(_) | Error::PeerIncompatible(_) | Error::NoApplicationProtocol), _) => {
                Ending::NotStarted
            }
            (_, Event::ReadFailed(ending)) if !matches!(ending, Ending::Transport(_)) => ending,
            _ => Ending::NotStarted,
        };
        let mut report = Self::new(ending);
        if let Ending::PeerAlert(alert) = ending {
            report.alert = Some(alert);
        }
        report
    }
}

/// An asynchronous transport as rustls wants it: synchronous, `Pending` being `WouldBlock`.
struct Transport<'a, 'b, T> {
    transport: &'a mut T,
    cx: &'a mut Context<'b>,
}

impl<T: AsyncRead + Unpin> Read for Transport<'_, '_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(buffer);
        match Pin::new(&mut *self.transport).poll_read(self.cx, &mut buffer) {
            Poll::Ready(result) => result.map(|()| buffer.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<T: AsyncWrite + Unpin> Write for Transport<'_, '_, T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match Pin::new(&mut *self.transport).poll_write(self.cx, buffer) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn write_vectored(&mut self, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match Pin::new(&mut *self.transport).poll_write_vectored(self.cx, buffers) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Shows what is read to a [`RecordWalk`].
struct Walked<'a, 'b, T> {
    transport: Transport<'a, 'b, T>,
    walk: &'a mut RecordWalk,
}

impl<T: AsyncRead + Unpin> Read for Walked<'_, '_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let amount = self.transport.read(buffer)?;
        self.walk.pass(&buffer[..amount]);
        Ok(amount)
    }
}

#[cfg(test)]
mod tests {
    use tokio_rustls::client::TlsStream;

    use super::*;
    use crate::tls::records::Plaintext;

    fn is_found<T>(transport: &T) -> bool
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        TlsStream::<T>::socket(transport).is_some()
    }

    #[tokio::test]
    async fn the_socket_is_found_under_what_this_library_puts_over_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let connect = || async move { TcpStream::connect(address).await.expect("a connection") };
        assert!(is_found(&connect().await));
        assert!(is_found(&Records::new(connect().await)));
        assert!(is_found(&Plaintext::new(connect().await)));
        assert!(is_found(&Records::new(Plaintext::new(connect().await))));
        #[cfg(feature = "tower")]
        {
            let transport = || async move { HyperTransport::new(hyper_util::rt::TokioIo::new(connect().await)) };
            assert!(is_found(&transport().await));
            assert!(is_found(&Records::new(transport().await)));
        }
        assert!(!is_found(&tokio::io::duplex(1).0));
    }
}
