//! The bare side: tokio-rustls, hyper and hyper-util, used as their documentation shows it. Nothing is left out that it shows.

use std::{io, pin::pin};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{identity::server_name, site::GRACE_PERIOD};

/// Serves until `stopped` resolves, then shuts down gracefully.
///
/// The loop is that of <https://hyper.rs/guides/1/server/graceful-shutdown> and of hyper-util's example `server_graceful.rs`, to which
/// the documentation of `GracefulShutdown` refers. The handshake within the spawned task is that of axum's example `low-level-rustls`. The
/// watcher is made before it, which is what `GracefulShutdown::watcher` is for.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    application: Router,
    stopped: impl Future<Output = ()>,
) -> io::Result<()> {
    let server = auto::Builder::new(TokioExecutor::new());
    let graceful = GracefulShutdown::new();
    let mut stopped = pin!(stopped);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (tcp, _) = accepted?;
                let (tls, server, application) = (tls.clone(), server.clone(), application.clone());
                let watcher = graceful.watcher();
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(tcp).await else { return };
                    let service = TowerToHyperService::new(application);
                    let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
                    // The clients count what becomes of it.
                    let _ = watcher.watch(connection).await;
                });
            }
            () = &mut stopped => break,
        }
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = sleep(GRACE_PERIOD) => {}
    }
    Ok(())
}

/// Writes `data` to a server.
///
/// The documentation of tokio-rustls asks for a flush, and that of `AsyncWriteExt::shutdown` in tokio says of a stream that is shut down
/// that its value "can be dropped cleanly". A shutdown flushes.
pub(crate) async fn upload(tls: TlsConnector, tcp: TcpStream, data: &[u8]) -> io::Result<()> {
    let mut stream = tls.connect(server_name(), tcp).await?;
    stream.write_all(data).await?;
    stream.flush().await?;
    stream.shutdown().await
}

/// Reads to the end of TLS, takes TLS off, and reads the plaintext that follows.
///
/// `TlsStream::into_inner` is the only way of tokio-rustls to continue on the same connection.
pub(crate) async fn read_plaintext_after_tls(tls: TlsAcceptor, tcp: TcpStream) -> io::Result<Vec<u8>> {
    let mut stream = tls.accept(tcp).await?;
    stream.read_to_end(&mut Vec::new()).await?;
    let (mut tcp, _) = stream.into_inner();
    let mut plaintext = Vec::new();
    tcp.read_to_end(&mut plaintext).await?;
    Ok(plaintext)
}
