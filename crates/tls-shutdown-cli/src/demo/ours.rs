//! Our side: the same programs as in [`bare`](super::bare), with this library and its defaults.

use std::{io, sync::Arc};

use axum::Router;
use rustls::ServerConfig;
use tls_shutdown::{
    Records, ShutdownStream, Unwrap,
    server::{Server, ServerDrain, TlsListener},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{identity::server_name, site::GRACE_PERIOD};

/// Serves until `stopped` resolves, then drains.
pub(crate) async fn serve(
    listener: std::net::TcpListener,
    config: Arc<ServerConfig>,
    application: Router,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let drain = ServerDrain::on(stopped).grace_period(GRACE_PERIOD);
    Server::new(TlsListener::from_std(listener, config)?).drain(drain).serve(application).await;
    Ok(())
}

/// Writes `data` to a server.
pub(crate) async fn upload(tls: TlsConnector, tcp: TcpStream, data: &[u8]) -> io::Result<()> {
    let mut stream = ShutdownStream::new(tls.connect(server_name(), tcp).await?);
    stream.write_all(data).await?;
    stream.flush().await?;
    stream.shutdown().await
}

/// Reads to the end of TLS, takes TLS off, and reads the plaintext that follows.
pub(crate) async fn read_plaintext_after_tls(tls: TlsAcceptor, tcp: TcpStream) -> io::Result<Vec<u8>> {
    let mut stream = ShutdownStream::new(tls.accept(Records::new(tcp)).await?);
    stream.read_to_end(&mut Vec::new()).await?;
    let mut tcp = stream.into_plaintext(Unwrap::Reply).await?;
    let mut plaintext = Vec::new();
    tcp.read_to_end(&mut plaintext).await?;
    Ok(plaintext)
}
