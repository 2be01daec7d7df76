//! Auto traits are a part of the public API, and no signature shows them: a private field may take one away. This compiles, or not.

use hyper_util::rt::TokioIo;
use tls_shutdown::{
    Abort, Alert, AsyncShutdown, Ending, PeerData, Plaintext, Reaper, ReaperLimits, Records, ShutdownError,
    ShutdownPolicy, ShutdownReport, ShutdownState, ShutdownStream, Unwrap, UnwrapError,
    client::{
        ClientDrain, ClientDrainReport, ClientStream, Connecting, Draining, HttpsSession, MaybeTls, ShutdownLayer,
        ShutdownService,
    },
    integrations::axum::PeerAddress,
    server::{
        AcceptedStream, Acknowledgement, ConfigHandle, ConnectionInfo, ConnectionReport, DrainBody, DrainHandle,
        DrainLayer, DrainPhase, DrainReport, DrainResponse, DrainService, InvalidTicketKey, Peer, Readiness, Server,
        ServerDrain, ServerListener, ServerStream, TicketKey, TicketKeys, TlsListener, Transport, UnixSocket,
        UnsupportedProvider,
    },
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsStream, client};

type Stream = ShutdownStream<TlsStream<TcpStream>>;

fn is_send<T: Send>() {}
fn is_sync<T: Sync>() {}
fn is_unpin<T: Unpin>() {}

macro_rules! everything {
    ($check:ident: $($type:ty),+ $(,)?) => { $($check::<$type>();)+ };
}

#[test]
fn public_types_are_send_sync_and_unpin() {
    macro_rules! all {
        ($($type:ty),+ $(,)?) => {
            everything!(is_send: $($type),+);
            everything!(is_sync: $($type),+);
            everything!(is_unpin: $($type),+);
        };
    }
    all!(Abort, Alert, Ending, PeerData, Reaper, ReaperLimits, ShutdownError, ShutdownPolicy, ShutdownReport);
    all!(ShutdownState, Unwrap, Plaintext<TcpStream>, Records<TcpStream>, Stream, UnwrapError<TlsStream<TcpStream>>);
    all!(ClientDrain, ClientDrainReport, ClientStream<TlsStream<TcpStream>>, Connecting<()>, Draining, ShutdownLayer);
    all!(HttpsSession<TokioIo<TcpStream>>, MaybeTls<client::TlsStream<TcpStream>>, ShutdownService<()>, PeerAddress);
    all!(Acknowledgement, ConfigHandle, ConnectionInfo, ConnectionReport, DrainBody<()>, DrainHandle, DrainLayer);
    all!(DrainPhase, DrainReport, DrainResponse<(), ()>, DrainService<()>, InvalidTicketKey, Readiness, ServerStream);
    all!(Peer, TicketKey, TicketKeys, TlsListener, Transport, UnixSocket, UnsupportedProvider);
    // They may hold a listener or a stream of the application.
    everything!(is_send: AcceptedStream, ServerListener);
    everything!(is_unpin: AcceptedStream, ServerListener);
    // A drain holds the signal, which any future may be. A shutdown holds a timer.
    everything!(is_send: Server, ServerDrain, AsyncShutdown<TlsStream<TcpStream>>);
    everything!(is_sync: AsyncShutdown<TlsStream<TcpStream>>);
    everything!(is_unpin: Server, ServerDrain);
}
