//! Uploads and early answers: what a wrong close would lose.

use std::{
    io::Write,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    task::Poll,
    thread::JoinHandle,
    time::Duration,
};

use futures_util::poll;
use rustls::pki_types::ServerName;
use tls_shutdown::{Ending, Reaper, ShutdownReport, ShutdownStream};
use tls_shutdown_tests::{
    Side, VERSIONS, client_config,
    openssl_peer::{ClientCertificate, Saw, acceptor, read_to_end, received, serve, serve_early},
    scripted::{BIDIRECTIONAL, UNIDIRECTIONAL},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::coop::unconstrained,
};
use tokio_rustls::TlsConnector;

use crate::{Openssl, UPLOAD, connect_to, joined, pair};

/// The uploads as the server has seen them: the length and the end of each.
type Uploads = JoinHandle<Vec<(usize, Saw)>>;

/// Serves uploads. The server begins to read each one after a message in the channel.
fn upload_to(acceptor: openssl::ssl::SslAcceptor, connections: usize) -> (SocketAddr, Sender<()>, Uploads) {
    let (read, told_to_read) = mpsc::channel();
    let (address, peer) = serve(acceptor, connections, move |mut peer| {
        received(&told_to_read);
        let seen = read_to_end(&mut peer);
        let _ = peer.shutdown();
        seen
    });
    (address, read, peer)
}

/// Awaits `sending`. The server begins to read when `sending` has to wait for it, or is done.
async fn ahead_of_the_server<F: Future>(read: &Sender<()>, sending: F) -> F::Output {
    let mut sending = pin!(unconstrained(sending));
    let sent = poll!(&mut sending);
    read.send(()).expect("a server");
    match sent {
        Poll::Ready(output) => output,
        Poll::Pending => sending.await,
    }
}

//= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
//# When a client only writes and never reads from the connection, and the
//# server has sent a session ticket to establish a session, the client
//# might not be able to resume the session because it did not received
//# and process the session ticket from the server.
#[tokio::test]
async fn a_write_only_client_loses_nothing_and_resumes() {
    for version in VERSIONS {
        let (address, read, peer) = upload_to(acceptor(version, ClientCertificate::Ignored), 5);
        let connector = TlsConnector::from(Arc::new(client_config(version)));
        for connection in 0..5 {
            let tls = connect_to(address, &connector).await.expect("a handshake");
            let resumed = tls.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            assert_eq!(resumed, connection > 0, "{version:?}");
            let mut stream = ShutdownStream::new(tls);
            ahead_of_the_server(&read, async {
                stream.write_all(&vec![0; UPLOAD]).await.expect("written");
                stream.shutdown().await.expect("complete");
            })
            .await;
        }
        let seen = tokio::task::spawn_blocking(|| peer.join().expect("no panic")).await.expect("no panic");
        assert_eq!(seen, vec![(UPLOAD, Saw::ZeroReturn); 5]);
    }
}

/// A bidirectional close receives the ticket, so that the next connection sends its data with its first bytes. The control does not wait
/// for the ticket, and sends no early data.
#[tokio::test]
async fn a_write_only_client_sends_early_data_on_its_next_connection() {
    const DATA: [u8; 1000] = [7; 1000];
    for (policy, is_early) in [(BIDIRECTIONAL, true), (UNIDIRECTIONAL, false)] {
        let acceptor = acceptor(&rustls::version::TLS13, ClientCertificate::Ignored);
        let (address, peer) = serve_early(acceptor, 2, |early, mut peer| {
            let (late, saw) = read_to_end(&mut peer);
            let _ = peer.shutdown();
            (early, late, saw)
        });
        let mut config = client_config(&rustls::version::TLS13);
        config.enable_early_data = true;
        let connector = TlsConnector::from(Arc::new(config)).early_data(true);
        for accepted in [false, is_early] {
            let socket = TcpStream::connect(address).await.expect("a server");
            let name = ServerName::try_from("localhost").expect("a name");
            let mut stream = ShutdownStream::new(connector.connect(name, socket).await.expect("a handshake"));
            stream.write_all(&DATA).await.expect("written");
            stream.shutdown_with(policy).await.expect("closed");
            assert_eq!(stream.get_ref().get_ref().1.is_early_data_accepted(), accepted, "{policy:?}");
        }
        let seen = tokio::task::spawn_blocking(|| peer.join().expect("no panic")).await.expect("no panic");
        match is_early {
            true => {
                let second = (DATA.to_vec(), 0, Saw::ZeroReturn);
                assert_eq!(seen, [(vec![], DATA.len(), Saw::ZeroReturn), second]);
            }
            // The unread ticket causes a reset. How much arrives before it is open.
            false => assert!(seen.iter().all(|(early, ..)| early.is_empty())),
        }
    }
}

/// The control: the same with the stream of tokio-rustls.
#[tokio::test]
async fn the_bare_stream_loses_that_upload() {
    let version = &rustls::version::TLS13;
    let (address, read, peer) = upload_to(acceptor(version, ClientCertificate::Ignored), 5);
    let connector = TlsConnector::from(Arc::new(client_config(version)));
    for _ in 0..5 {
        let mut stream = connect_to(address, &connector).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full), "no ticket was kept");
        ahead_of_the_server(&read, async {
            stream.write_all(&vec![0; UPLOAD]).await.expect("written");
            stream.shutdown().await.expect("nothing is noticed");
            drop(stream);
        })
        .await;
    }
    let seen = tokio::task::spawn_blocking(|| peer.join().expect("no panic")).await.expect("no panic");
    assert!(seen.iter().all(|(amount, saw)| *amount < UPLOAD && *saw != Saw::ZeroReturn), "{seen:?}");
}

/// Answers an upload before it has come. Returns what the client has of the answer, and the report.
async fn answer_early(reaper: Option<&Reaper>) -> (Vec<u8>, ShutdownReport) {
    const BODY: usize = 4_000_000;
    let version = &rustls::version::TLS13;
    let (closed, is_closed) = mpsc::channel();
    // The client reads the answer only when all is sent. It sends the second half after the server has closed.
    let upload_then_read = move |mut peer: Openssl| {
        let half = vec![0; BODY / 2];
        let sent = peer.write_all(&half).and_then(|()| {
            received(&is_closed);
            peer.write_all(&half)
        });
        let mut answer = Vec::new();
        if sent.is_ok() {
            let _ = std::io::Read::read_to_end(&mut peer, &mut answer);
        }
        answer
    };
    let (stream, peer) = pair(Side::Server, version, upload_then_read).await;
    let (report_sender, report) = oneshot::channel();
    let mut stream = stream.on_end(move |report| report_sender.send(*report).expect("awaited"));
    if let Some(reaper) = reaper {
        stream = stream.with_reaper(reaper);
    }
    stream.read_exact(&mut [0; 100]).await.expect("the head");
    stream.write_all(&vec![b'4'; 300_000]).await.expect("written");
    stream.shutdown().await.expect("sent");
    drop(stream);
    // Without a reaper the reset may have ended the client already.
    let _ = closed.send(());
    let answer = joined(peer).await;
    (answer, report.await.expect("once"))
}

//= https://www.rfc-editor.org/rfc/rfc9112#section-9.6
//# First, the server performs a half-close by closing only the write side
//# of the read/write connection.
//= https://www.rfc-editor.org/rfc/rfc9112#section-9.6
//# The server then continues to read from the connection until it
//# receives a corresponding close by the client, or until the server is
//# reasonably certain that its own TCP stack has received the client's
//# acknowledgement of the packet(s) containing the server's last
//# response.
#[tokio::test]
async fn an_early_answer_arrives_whole() {
    let reaper = Reaper::new();
    let (answer, report) = answer_early(Some(&reaper)).await;
    assert_eq!(answer.len(), 300_000);
    assert_eq!((report.ending(), report.sent()), (Ending::Sent, true));
    assert_eq!(reaper.wait_idle(Duration::from_secs(10)).await, 0);
    assert_eq!(reaper.shed(), 0);
}

/// The control: the same without a reaper.
#[tokio::test]
async fn without_a_reaper_an_early_answer_is_lost() {
    let (answer, report) = answer_early(None).await;
    assert!(answer.len() < 300_000, "{}", answer.len());
    assert_eq!(report.ending(), Ending::Sent);
}
