//! Closings against OpenSSL, over loopback, as client and as server: what each side has seen.

use std::{
    io::Write,
    net::{Shutdown, SocketAddr},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use openssl::ssl::{ShutdownState as Flags, SslStream};
use rustls::{SupportedProtocolVersion, pki_types::ServerName};
use tls_shutdown::{
    Abort, Alert, Ending, PeerData, Reaper, ReaperLimits, ShutdownPolicy, ShutdownReport, ShutdownStream,
};
use tls_shutdown_tests::{
    Side, VERSIONS, client_config,
    openssl_peer::{
        ClientCertificate, Saw, acceptor, connect, read_paced, read_socket_to_end, read_to_end, serve, serve_early,
        wait,
    },
    server_config,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

type Stream = ShutdownStream<TlsStream<TcpStream>>;
type Openssl = SslStream<std::net::TcpStream>;

const BIDIRECTIONAL: ShutdownPolicy = ShutdownPolicy::bidirectional();
const UNIDIRECTIONAL: ShutdownPolicy = ShutdownPolicy::unidirectional();

async fn connect_to(address: SocketAddr, connector: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    connector.connect(name, socket).await.map(TlsStream::from)
}

/// A stream of ours and an OpenSSL peer that does what `peer` says.
async fn pair<R: Send + 'static>(
    side: Side,
    version: &'static SupportedProtocolVersion,
    peer: fn(Openssl) -> R,
) -> (Stream, JoinHandle<Vec<R>>) {
    let stream;
    let handle;
    match side {
        Side::Client => {
            let (address, peer) = serve(acceptor(version, ClientCertificate::Ignored), 1, peer);
            let connector = TlsConnector::from(Arc::new(client_config(version)));
            stream = connect_to(address, &connector).await.expect("a handshake");
            handle = peer;
        }
        Side::Server => {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let peer = connect(version, listener.local_addr().expect("an address"), peer);
            let (socket, _) = listener.accept().await.expect("a connection");
            let acceptor = TlsAcceptor::from(Arc::new(server_config(version)));
            stream = acceptor.accept(socket).await.expect("a handshake").into();
            handle = std::thread::spawn(|| vec![peer.join().expect("no panic")]);
        }
    }
    (ShutdownStream::new(stream), handle)
}

async fn joined<R: Send + 'static>(peer: JoinHandle<Vec<R>>) -> R {
    let results = tokio::task::spawn_blocking(|| peer.join().expect("no panic")).await.expect("no panic");
    results.into_iter().next().expect("one connection")
}

fn answer(mut peer: Openssl) -> Saw {
    let (_, saw) = read_to_end(&mut peer);
    peer.shutdown().expect("close_notify");
    assert_eq!(peer.get_shutdown(), Flags::SENT | Flags::RECEIVED);
    saw
}

fn answer_and_keep_tcp(peer: Openssl) -> Saw {
    let socket = peer.get_ref().try_clone().expect("a socket");
    let saw = answer(peer);
    // Open until we close: our FIN is here already, so that only a wait for *its* FIN would hang.
    let _ = read_socket_to_end(&socket);
    saw
}

fn end_without_close_notify(mut peer: Openssl) -> Saw {
    let (_, saw) = read_to_end(&mut peer);
    peer.get_ref().shutdown(Shutdown::Write).expect("FIN");
    saw
}

fn stay_silent(mut peer: Openssl) -> Saw {
    let (_, saw) = read_to_end(&mut peer);
    let _ = read_socket_to_end(peer.get_ref());
    wait(Duration::from_millis(700));
    saw
}

fn reset(mut peer: Openssl) -> Saw {
    let (_, saw) = read_to_end(&mut peer);
    reset_socket(&peer);
    saw
}

fn reset_socket(peer: &Openssl) {
    let socket = TcpStreamOptions(peer.get_ref());
    socket.set_zero_linger();
}

/// `SO_LINGER` of a std socket, which std cannot set yet.
struct TcpStreamOptions<'a>(&'a std::net::TcpStream);

impl TcpStreamOptions<'_> {
    fn set_zero_linger(&self) {
        rustix::net::sockopt::set_socket_linger(self.0, Some(Duration::ZERO)).expect("an option");
    }
}

const LATE: usize = 100_000;

fn send_late_data(mut peer: Openssl) -> Saw {
    let (_, saw) = read_to_end(&mut peer);
    let _ = peer.write_all(&[0; LATE]);
    let _ = peer.shutdown();
    saw
}

fn go_on_in_plaintext(mut peer: Openssl) -> Saw {
    let (_, saw) = read_to_end(&mut peer);
    peer.get_mut().write_all(b"220 plain text\r\n").expect("sent");
    let _ = read_socket_to_end(peer.get_ref());
    saw
}

fn send_a_bad_record(mut peer: Openssl) -> Saw {
    let (_, saw) = read_to_end(&mut peer);
    peer.get_mut().write_all(&[[23, 3, 3, 0, 40].as_slice(), &[7; 40]].concat()).expect("sent");
    let _ = read_socket_to_end(peer.get_ref());
    saw
}

/// What a peer does once it has seen our close_notify, and what our shutdown makes of it.
struct Case {
    description: &'static str,
    peer: fn(Openssl) -> Saw,
    policy: ShutdownPolicy,
    ending: Ending,
    received: bool,
}

//= https://www.rfc-editor.org/rfc/rfc8446#section-6.1
//# Both parties need not wait to receive a "close_notify" alert before
//# closing their read side of the connection, though doing so would
//# introduce the possibility of truncation.
//= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
//# It is acceptable for an application to only send its shutdown alert
//# and then close the underlying connection without waiting for the
//# peer's response.
#[tokio::test]
async fn every_ending_that_openssl_can_cause() {
    let case = |description, peer, policy, ending, received| Case { description, peer, policy, ending, received };
    let short = BIDIRECTIONAL.with_close_timeout(Duration::from_millis(300));
    let cases = [
        case("answers", answer, BIDIRECTIONAL, Ending::Complete, true),
        case("answers, and keeps TCP", answer_and_keep_tcp, BIDIRECTIONAL, Ending::Complete, true),
        case("is not waited for", stay_silent, UNIDIRECTIONAL, Ending::Sent, false),
        case("ends TCP only", end_without_close_notify, BIDIRECTIONAL, Ending::Truncated, false),
        case("never answers", stay_silent, short, Ending::TimedOut, false),
        case("resets", reset, BIDIRECTIONAL, Ending::Reset, false),
        case("sends late data", send_late_data, BIDIRECTIONAL, Ending::Complete, true),
        case(
            "sends too much",
            send_late_data,
            BIDIRECTIONAL.with_max_drain_bytes(LATE as u64 - 1),
            Ending::DrainLimit,
            false,
        ),
        case(
            "sends what is rejected",
            send_late_data,
            BIDIRECTIONAL.with_peer_data(PeerData::Reject),
            Ending::PeerData,
            false,
        ),
        case("goes on in plaintext", go_on_in_plaintext, BIDIRECTIONAL, Ending::NotTls, false),
        case("sends a bad record", send_a_bad_record, BIDIRECTIONAL, Ending::ProtocolError, false),
    ];
    for case in cases {
        for side in Side::BOTH {
            for version in VERSIONS {
                let what = format!("a peer of our {side:?} in {version:?} that {}", case.description);
                let (mut stream, peer) = pair(side, version, case.peer).await;
                stream.write_all(b"data").await.expect("written");
                stream.flush().await.expect("flushed");
                let outcome = stream.shutdown_with(case.policy).await;
                let reached = matches!(case.ending, Ending::Complete | Ending::Sent);
                assert_eq!(outcome.is_ok(), reached, "{what}: {outcome:?}");
                let report = outcome.unwrap_or_else(|error| *error.report());
                let got = (report.ending(), report.sent(), report.received());
                assert_eq!(got, (case.ending, true, case.received), "{what}");
                if case.description == "sends late data" {
                    assert_eq!(report.discarded(), LATE as u64, "{what}");
                }
                assert_eq!(joined(peer).await, Saw::ZeroReturn, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn quiet_leaves_the_peer_with_a_truncation() {
    fn read(mut peer: Openssl) -> Saw {
        read_to_end(&mut peer).1
    }
    for side in Side::BOTH {
        for version in VERSIONS {
            let (mut stream, peer) = pair(side, version, read).await;
            let report = stream.shutdown_with(ShutdownPolicy::quiet()).await.expect("quiet");
            assert_eq!((report.ending(), report.sent(), report.received()), (Ending::Quiet, false, false));
            drop(stream);
            // The tickets that a TLS 1.3 client has not read make a reset of it.
            let unread = side == Side::Client && version == &rustls::version::TLS13;
            let expected = if unread { Saw::Reset } else { Saw::UnexpectedEof };
            assert_eq!(joined(peer).await, expected, "{side:?} {version:?}");
        }
    }
}

#[tokio::test]
async fn a_peer_that_closes_first_is_answered() {
    fn close_first(mut peer: Openssl) -> (Saw, Flags) {
        peer.shutdown().expect("close_notify");
        let (_, saw) = read_to_end(&mut peer);
        (saw, peer.get_shutdown())
    }
    for side in Side::BOTH {
        for version in VERSIONS {
            for policy in [UNIDIRECTIONAL, BIDIRECTIONAL, ShutdownPolicy::receive_first()] {
                let (mut stream, peer) = pair(side, version, close_first).await;
                assert_eq!(stream.read(&mut [0; 9]).await.expect("zero-return"), 0);
                let report = stream.shutdown_with(policy).await.expect("complete");
                assert_eq!(report.ending(), Ending::Complete);
                drop(stream);
                assert_eq!(joined(peer).await, (Saw::ZeroReturn, Flags::SENT | Flags::RECEIVED));
            }
        }
    }
}

#[tokio::test]
async fn a_truncation_a_reset_and_an_alert_are_not_answered() {
    fn cut(mut peer: Openssl) -> Saw {
        peer.write_all(b"part of it").expect("sent");
        peer.get_ref().shutdown(Shutdown::Write).expect("FIN");
        read_to_end(&mut peer).1
    }
    for side in Side::BOTH {
        for version in VERSIONS {
            let (mut stream, peer) = pair(side, version, cut).await;
            stream.read_to_end(&mut Vec::new()).await.expect_err("cut");
            let error = stream.shutdown_with(BIDIRECTIONAL).await.expect_err("truncated");
            assert_eq!((error.ending(), error.report().sent()), (Ending::Truncated, false));
            drop(stream);
            assert_eq!(joined(peer).await, Saw::UnexpectedEof, "truncation has not become complete");
        }
    }
    // A server that wants a certificate says so after the client has finished its TLS 1.3 handshake.
    let version = &rustls::version::TLS13;
    let (address, _peer) = serve(acceptor(version, ClientCertificate::Required), 1, |_| ());
    let connector = TlsConnector::from(Arc::new(client_config(version)));
    let mut stream = ShutdownStream::new(connect_to(address, &connector).await.expect("a handshake"));
    let error = stream.shutdown_with(BIDIRECTIONAL).await.expect_err("an alert");
    assert_eq!(error.ending(), Ending::PeerAlert(Alert(116)), "{error}");
    assert_eq!(error.report().alert().and_then(Alert::name), Some("certificate_required"));
}

//= https://www.rfc-editor.org/rfc/rfc9112#section-9.8
//# A response that has neither chunked transfer coding nor Content-Length
//# is complete only if a valid closure alert has been received.
#[tokio::test]
async fn an_abort_and_a_drop_are_no_close() {
    enum How {
        Abort(Abort),
        Drop,
    }
    for side in Side::BOTH {
        for version in VERSIONS {
            for (how, saw) in [
                (How::Abort(Abort::Fin), Saw::UnexpectedEof),
                (How::Abort(Abort::Reset), Saw::Reset),
                (How::Drop, Saw::UnexpectedEof),
            ] {
                // The client reads its tickets first, so that no unread byte makes a reset of FIN.
                let (mut stream, peer) = pair(side, version, |mut peer: Openssl| {
                    peer.write_all(b"go").expect("sent");
                    read_to_end(&mut peer)
                })
                .await;
                stream.read_exact(&mut [0; 2]).await.expect("data");
                stream.write_all(b"some").await.expect("written");
                stream.flush().await.expect("flushed");
                match how {
                    How::Abort(abort) => stream.abort(abort),
                    How::Drop => drop(stream),
                }
                let (amount, end) = joined(peer).await;
                assert_eq!(end, saw, "{side:?} {version:?}");
                assert!(end == Saw::Reset || amount == 4);
            }
        }
    }
}

const UPLOAD: usize = 3_000_000;

fn upload_to(acceptor: openssl::ssl::SslAcceptor, connections: usize) -> (SocketAddr, JoinHandle<Vec<(usize, Saw)>>) {
    serve(acceptor, connections, |mut peer| {
        wait(Duration::from_millis(300));
        let seen = read_to_end(&mut peer);
        let _ = peer.shutdown();
        seen
    })
}

//= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
//# When a client only writes and never reads from the connection, and the
//# server has sent a session ticket to establish a session, the client
//# might not be able to resume the session because it did not received
//# and process the session ticket from the server.
#[tokio::test]
async fn a_write_only_client_loses_nothing_and_resumes() {
    for version in VERSIONS {
        let (address, peer) = upload_to(acceptor(version, ClientCertificate::Ignored), 5);
        let connector = TlsConnector::from(Arc::new(client_config(version)));
        for connection in 0..5 {
            let tls = connect_to(address, &connector).await.expect("a handshake");
            let resumed = tls.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            assert_eq!(resumed, connection > 0, "{version:?}");
            let mut stream = ShutdownStream::new(tls);
            stream.write_all(&vec![0; UPLOAD]).await.expect("written");
            stream.shutdown().await.expect("complete");
        }
        let seen = tokio::task::spawn_blocking(|| peer.join().expect("no panic")).await.expect("no panic");
        assert_eq!(seen, vec![(UPLOAD, Saw::ZeroReturn); 5]);
    }
}

/// A bidirectional close keeps the ticket, and the next connection's data goes out with its first bytes. The control, which does
/// not wait for the ticket, has none to send data with.
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
            assert_eq!(stream.session().get_ref().1.is_early_data_accepted(), accepted, "{policy:?}");
        }
        let seen = tokio::task::spawn_blocking(|| peer.join().expect("no panic")).await.expect("no panic");
        match is_early {
            true => {
                let second = (DATA.to_vec(), 0, Saw::ZeroReturn);
                assert_eq!(seen, [(vec![], DATA.len(), Saw::ZeroReturn), second]);
            }
            // What arrives of that is up to the reset that the unread ticket causes.
            false => assert!(seen.iter().all(|(early, ..)| early.is_empty())),
        }
    }
}

/// The control: the same with the stream of tokio-rustls.
#[tokio::test]
async fn the_bare_stream_loses_that_upload() {
    let version = &rustls::version::TLS13;
    let (address, peer) = upload_to(acceptor(version, ClientCertificate::Ignored), 5);
    let connector = TlsConnector::from(Arc::new(client_config(version)));
    for _ in 0..5 {
        let mut stream = connect_to(address, &connector).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full), "no ticket was kept");
        stream.write_all(&vec![0; UPLOAD]).await.expect("written");
        stream.shutdown().await.expect("nothing is noticed");
    }
    let seen = tokio::task::spawn_blocking(|| peer.join().expect("no panic")).await.expect("no panic");
    assert!(seen.iter().all(|(amount, saw)| *amount < UPLOAD && *saw != Saw::ZeroReturn), "{seen:?}");
}

/// What a server's early answer needs: a reaper that lingers.
async fn answer_early(reaper: Option<&Reaper>) -> (Vec<u8>, ShutdownReport) {
    const BODY: usize = 4_000_000;
    let version = &rustls::version::TLS13;
    fn upload_then_read(mut peer: Openssl) -> Vec<u8> {
        // A client that looks at the answer only when all is sent, and pauses in the middle.
        let half = vec![0; BODY / 2];
        let sent = peer.write_all(&half).and_then(|()| {
            wait(Duration::from_millis(500));
            peer.write_all(&half)
        });
        let mut answer = Vec::new();
        if sent.is_ok() {
            let _ = std::io::Read::read_to_end(&mut peer, &mut answer);
        }
        answer
    }
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

#[tokio::test]
async fn the_reaper_hears_a_late_close_notify() {
    for version in VERSIONS {
        let reaper = Reaper::new();
        let (report_sender, report) = oneshot::channel();
        let (stream, peer) = pair(Side::Server, version, answer).await;
        let mut stream =
            stream.with_reaper(&reaper).on_end(move |report| report_sender.send(*report).expect("awaited"));
        stream.shutdown().await.expect("sent");
        drop(stream);
        let report = report.await.expect("once");
        assert_eq!(report.ending(), Ending::Complete, "whoever was first");
        assert!(report.elapsed() > Duration::ZERO);
        assert_eq!(joined(peer).await, Saw::ZeroReturn);
        assert_eq!(reaper.wait_idle(Duration::from_secs(10)).await, 0);
    }
}

#[tokio::test]
async fn a_slow_reader_gets_all_from_a_dropped_stream() {
    fn read_slowly(mut peer: Openssl) -> (usize, Saw) {
        read_paced(&mut peer, 16 * 1024, Duration::from_millis(2))
    }
    for side in Side::BOTH {
        let version = &rustls::version::TLS13;
        let reaper = Reaper::new();
        let (stream, peer) = pair(side, version, read_slowly).await;
        let mut stream = stream.with_reaper(&reaper);
        stream.write_all(&vec![0; UPLOAD]).await.expect("written");
        // Dropped in the middle of its shutdown: the reaper goes on where it was.
        let dropped = tokio::time::timeout(Duration::from_millis(20), stream.shutdown_with(BIDIRECTIONAL)).await;
        assert!(dropped.is_err(), "the peer needs longer");
        drop(stream);
        assert_eq!(joined(peer).await, (UPLOAD, Saw::ZeroReturn));
        assert_eq!(reaper.wait_idle(Duration::from_secs(10)).await, 0);
    }
}

#[tokio::test]
async fn a_full_reaper_sheds_the_oldest() {
    let reaper = Reaper::with_limits(ReaperLimits::new().with_max_closings(2));
    let mut reports = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..3 {
        let (stream, peer) = pair(Side::Server, &rustls::version::TLS13, read_to_nowhere).await;
        let (report_sender, report) = oneshot::channel();
        let mut stream =
            stream.with_reaper(&reaper).on_end(move |report| report_sender.send(*report).expect("awaited"));
        stream.shutdown().await.expect("sent");
        drop(stream);
        reports.push(report);
        peers.push(peer);
    }
    let mut reports = reports.into_iter();
    assert_eq!(reports.next().expect("three").await.expect("once").ending(), Ending::Sent);
    assert_eq!((reaper.shed(), reaper.closings()), (1, 2));
    for report in reports {
        assert_eq!(report.await.expect("once").ending(), Ending::Sent);
    }
    for peer in peers {
        joined(peer).await;
    }
    assert_eq!(reaper.wait_idle(Duration::from_secs(20)).await, 0);
}

fn read_to_nowhere(mut peer: Openssl) -> Saw {
    let (_, saw) = read_to_end(&mut peer);
    // Silent, with TCP open, for longer than a test that waits for the shed one would take.
    wait(Duration::from_millis(500));
    saw
}

#[test]
fn a_stream_may_be_dropped_anywhere() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let closing = |runtime: &tokio::runtime::Runtime, reaper: &Reaper| {
        let (report_sender, report) = std::sync::mpsc::channel();
        let stream = runtime.block_on(async {
            let (stream, _peer) = pair(Side::Server, &rustls::version::TLS13, answer).await;
            let mut stream =
                stream.with_reaper(reaper).on_end(move |report| report_sender.send(*report).expect("awaited"));
            stream.shutdown().await.expect("sent");
            stream
        });
        (stream, report)
    };
    let patience = Duration::from_secs(20);

    // On a thread without a runtime: the reaper has its own.
    let home = runtime();
    let reaper = home.block_on(async { Reaper::new() });
    let (stream, report) = closing(&home, &reaper);
    std::thread::spawn(|| drop(stream)).join().expect("no panic");
    assert_eq!(report.recv_timeout(patience).expect("once").ending(), Ending::Complete);

    // After the runtime is gone: the connection just ends.
    let (stream, report) = closing(&home, &reaper);
    drop(home);
    drop(stream);
    assert_eq!(report.recv_timeout(patience).expect("once").ending(), Ending::Sent);
    assert_eq!(reaper.closings(), 0);

    // A reaper that was made without a runtime takes that of the thread, or none.
    let reaper = Reaper::new();
    let other = runtime();
    let (stream, report) = closing(&other, &reaper);
    drop(stream);
    assert_eq!(report.recv_timeout(patience).expect("once").ending(), Ending::Sent);
    let (stream, report) = closing(&other, &reaper);
    other.block_on(async { drop(stream) });
    assert_eq!(report.recv_timeout(patience).expect("once").ending(), Ending::Complete);
}

#[tokio::test]
async fn failed_handshakes_have_endings_too() {
    use openssl::ssl::{Ssl, SslConnector, SslMethod, SslVersion};
    let refused: fn(std::net::TcpStream) = |socket| {
        let connector = SslConnector::builder(SslMethod::tls_client()).expect("a connector").build();
        let ssl = Ssl::new(connector.context()).expect("a client");
        let mut stream = SslStream::new(ssl, socket).expect("a client");
        let _ = stream.connect();
    };
    let cases: [(Ending, fn(std::net::TcpStream)); 5] = [
        (Ending::NotStarted, drop),
        (Ending::NotTls, |mut socket| {
            socket.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
            let _ = read_socket_to_end(&socket);
        }),
        (Ending::PeerAlert(Alert(48)), refused),
        (Ending::NotStarted, |socket| {
            let mut connector = SslConnector::builder(SslMethod::tls_client()).expect("a connector");
            connector.set_max_proto_version(Some(SslVersion::TLS1_2)).expect("a version");
            let ssl = Ssl::new(connector.build().context()).expect("a client");
            let _ = SslStream::new(ssl, socket).expect("a client").connect();
        }),
        (Ending::ProtocolError, |mut socket| {
            socket.write_all(&[22, 3, 1, 0, 4, 99, 0, 0, 0]).expect("sent");
            let _ = read_socket_to_end(&socket);
        }),
    ];
    for (ending, client) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let client = std::thread::spawn(move || client(std::net::TcpStream::connect(address).expect("a server")));
        let (socket, _) = listener.accept().await.expect("a connection");
        let acceptor = TlsAcceptor::from(Arc::new(server_config(&rustls::version::TLS13)));
        let error = acceptor.accept(socket).await.expect_err("no handshake");
        assert_eq!(ShutdownReport::of_failed_handshake(&error).ending(), ending, "{error}");
        client.join().expect("no panic");
    }
}
