//! Ordinary code at both ends of a connection, over any transport: everything arrives, or a read fails and states the reason.

use std::{io, sync::Arc, time::Duration};

use rustls::{SupportedProtocolVersion, pki_types::ServerName};
use tls_shutdown::{ShutdownState, ShutdownStream, TlsSession};
use tls_shutdown_tests::{client_config, scripted::BIDIRECTIONAL, server_config, time::real_time};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional, split};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

pub(crate) const REQUEST: &[u8] = b"request";

/// What a shutdown keeps of an answer for a later read.
const KEPT: usize = 64 * 1024;

/// How much a peer answers, and how long after our close_notify.
pub(crate) type Answer = (usize, Duration);

/// More than the buffers hold, and less.
pub(crate) const ANSWERS: [Answer; 9] = {
    const MOMENT: Duration = Duration::from_millis(1);
    const LATE: Duration = Duration::from_millis(50);
    [
        (1, Duration::ZERO),
        (1, MOMENT),
        (1, LATE),
        (16_000, Duration::ZERO),
        (16_000, MOMENT),
        (16_000, LATE),
        (1_000_000, Duration::ZERO),
        (1_000_000, MOMENT),
        (1_000_000, LATE),
    ]
};

pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Transport for T {}

/// Both ends of a TLS connection, each of them with its default policy.
pub(crate) type Ends<T> = (ShutdownStream<client::TlsStream<T>>, ShutdownStream<server::TlsStream<T>>);

/// Connects over `transports`.
pub(crate) async fn connect<T: Transport>(version: &'static SupportedProtocolVersion, transports: (T, T)) -> Ends<T> {
    let name = ServerName::try_from("localhost").expect("a name");
    let (client, server) = tokio::join!(
        TlsConnector::from(Arc::new(client_config(version))).connect(name, transports.0),
        TlsAcceptor::from(Arc::new(server_config(version))).accept(transports.1),
    );
    (ShutdownStream::new(client.expect("a handshake")), ShutdownStream::new(server.expect("a handshake")))
}

/// Reads a request to its end, and answers after a while.
pub(crate) async fn answer<S: TlsSession>(mut server: ShutdownStream<S>, (length, delay): Answer) {
    let mut request = Vec::new();
    server.read_to_end(&mut request).await.expect("a request");
    assert_eq!(request, REQUEST);
    // A server that answers late. The callers with a paused clock do not wait for it.
    real_time(delay).await;
    server.write_all(&vec![b'a'; length]).await.expect("a reader");
    server.shutdown().await.expect("sent");
}

/// A task reads while another one shuts down.
pub(crate) async fn read_beside_the_shutdown<T: Transport>((client, server): Ends<T>, due: Answer) {
    let server = tokio::spawn(answer(server, due));
    let (mut read, mut write) = split(client);
    let reader = tokio::spawn(async move {
        let mut received = Vec::new();
        read.read_to_end(&mut received).await.map(|_| (received.len(), read))
    });
    write.write_all(REQUEST).await.expect("written");
    write.shutdown().await.expect("sent");
    let (received, read) = reader.await.expect("no panic").expect("everything");
    assert_eq!(received, due.0, "{due:?}");
    let mut client = read.unsplit(write);
    assert_eq!(client.state(), ShutdownState::Both);
    assert_eq!(client.shutdown_with(BIDIRECTIONAL).await.expect("complete").discarded(), 0);
    server.await.expect("no panic");
}

/// `shutdown()`, then `read_to_end()`.
pub(crate) async fn read_after_the_shutdown<T: Transport>((mut client, server): Ends<T>, due: Answer) {
    let server = tokio::spawn(answer(server, due));
    client.write_all(REQUEST).await.expect("written");
    client.shutdown().await.expect("the server has closed");
    let mut received = Vec::new();
    let read = client.read_to_end(&mut received).await;
    if due.0 < KEPT {
        assert_eq!((read.expect("to the end"), received.len()), (due.0, due.0), "{due:?}");
    } else {
        let error = read.expect_err("not everything was kept");
        let missing = due.0 - received.len();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let text = error.to_string();
        assert!(text.contains(&format!("{missing} bytes")) && text.contains("close_notify"), "{text}");
    }
    server.await.expect("no panic");
}

/// A proxy between two connections, by `copy_bidirectional`.
pub(crate) async fn proxy<T: Transport>((mut client, mut front): Ends<T>, (mut back, server): Ends<T>, due: Answer) {
    let server = tokio::spawn(answer(server, due));
    let proxy = tokio::spawn(async move {
        let copied = copy_bidirectional(&mut front, &mut back).await;
        (copied, front.state(), back.state())
    });
    client.write_all(REQUEST).await.expect("written");
    client.close_notify().await.expect("sent");
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.expect("to the end");
    assert_eq!(received.len(), due.0, "{due:?}");
    let (copied, front, back) = proxy.await.expect("no panic");
    assert_eq!(copied.expect("both directions"), (REQUEST.len() as u64, due.0 as u64), "{due:?}");
    assert_eq!((front, back), (ShutdownState::Both, ShutdownState::Both));
    server.await.expect("no panic");
}

/// Nobody reads, and nobody will: the shutdown waits until a server that talks has read the whole upload.
pub(crate) async fn upload<T: Transport>((mut client, mut server): Ends<T>) {
    const UPLOAD: usize = 3_000_000;
    let server = tokio::spawn(async move {
        let (mut received, mut buffer) = (0, vec![0; 100_000]);
        loop {
            match server.read(&mut buffer).await.expect("data") {
                0 => break,
                amount => received += amount,
            }
            server.write_all(&[b'.'; 1000]).await.expect("a client that takes it");
            // A server that reads as slowly as this has most of the upload in front of it when the client closes.
            real_time(Duration::from_millis(1)).await;
        }
        server.shutdown().await.expect("sent");
        received
    });
    client.write_all(&vec![0; UPLOAD]).await.expect("written");
    client.shutdown().await.expect("complete");
    assert_eq!(client.state(), ShutdownState::Both);
    drop(client);
    assert_eq!(server.await.expect("no panic"), UPLOAD);
}
