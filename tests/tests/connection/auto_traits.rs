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
        Acknowledgement, ConfigHandle, ConnectionInfo, ConnectionReport, DrainBody, DrainHandle, DrainLayer,
        DrainPhase, DrainReport, DrainResponse, DrainService, InvalidTicketKey, Readiness, Server, ServerDrain,
        ServerStream, TicketKey, TicketKeys, TlsListener, UnsupportedProvider,
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
    all!(TicketKey, TicketKeys, TlsListener, UnsupportedProvider);
    // A drain holds the signal, which any future may be. A shutdown holds a timer.
    everything!(is_send: Server, ServerDrain, AsyncShutdown<TlsStream<TcpStream>>);
    everything!(is_sync: AsyncShutdown<TlsStream<TcpStream>>);
    everything!(is_unpin: Server, ServerDrain);
}
