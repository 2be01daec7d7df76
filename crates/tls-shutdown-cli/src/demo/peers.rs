//! The other side of the measurements of bare connections: a server that collects uploads, and a client that takes TLS off.

use std::{
    io::{self, Write},
    net::SocketAddr,
    time::Duration,
};

use rustls::HandshakeKind;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::AbortHandle,
    time::sleep,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::identity::{Identity, server_name};

/// Reads each connection to its end, then closes it.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    uploads: UnboundedReceiver<Upload>,
    task: AbortHandle,
}

/// What a collector has received on a connection.
pub(crate) struct Upload {
    pub(crate) bytes: usize,
    pub(crate) handshake: Option<HandshakeKind>,
}

impl Collector {
    /// Starts a server that is busy with something else for `delay` before it reads.
    pub(crate) async fn start(identity: &Identity, delay: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let tls = TlsAcceptor::from(identity.server());
        let (sender, uploads) = unbounded_channel();
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (tls, sender) = (tls.clone(), sender.clone());
                tokio::spawn(async move {
                    let upload = collect(tls, tcp, delay).await.unwrap_or(Upload { bytes: 0, handshake: None });
                    let _ = sender.send(upload);
                });
            }
        });
        Ok(Self { address, uploads, task: task.abort_handle() })
    }

    /// Waits for the end of the next connection.
    pub(crate) async fn next(&mut self) -> io::Result<Upload> {
        self.uploads.recv().await.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn collect(tls: TlsAcceptor, tcp: TcpStream, delay: Duration) -> io::Result<Upload> {
    let mut stream = tls.accept(tcp).await?;
    let handshake = stream.get_ref().1.handshake_kind();
    sleep(delay).await;
    let mut data = Vec::new();
    // What came before an error counts, too.
    let _ = stream.read_to_end(&mut data).await;
    let _ = stream.shutdown().await;
    Ok(Upload { bytes: data.len(), handshake })
}

/// Sends data, close_notify and `plaintext` in one segment, as a client does that goes on in plaintext at once.
pub(crate) async fn take_tls_off(tls: TlsConnector, address: SocketAddr, plaintext: &[u8]) -> io::Result<()> {
    let mut stream = tls.connect(server_name(), TcpStream::connect(address).await?).await?;
    let (tcp, session) = stream.get_mut();
    let mut segment = Vec::new();
    session.writer().write_all(b"CCC\r\n")?;
    session.send_close_notify();
    while session.wants_write() {
        session.write_tls(&mut segment)?;
    }
    segment.extend_from_slice(plaintext);
    tcp.write_all(&segment).await?;
    tcp.shutdown().await?;
    // Unread data would reset the connection.
    tcp.read_to_end(&mut Vec::new()).await?;
    Ok(())
}
