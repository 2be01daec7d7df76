//! Every ending that OpenSSL can cause.

use std::{
    io::Write,
    net::Shutdown,
    pin::pin,
    sync::{Arc, mpsc},
    time::Duration,
};

use futures_util::poll;
use openssl::ssl::{ShutdownState as Flags, SslStream};
use tls_shutdown::{Abort, Alert, Ending, PeerData, ShutdownPolicy, ShutdownReport, ShutdownStream};
use tls_shutdown_tests::{
    Side, VERSIONS, client_config,
    openssl_peer::{ClientCertificate, Saw, acceptor, read_socket_to_end, read_to_end, received, serve},
    scripted::{BIDIRECTIONAL, UNIDIRECTIONAL},
    server_config,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{Openssl, answer, connect_to, joined, pair};

fn answer_and_keep_tcp(peer: Openssl) -> Saw {
    let socket = peer.get_ref().try_clone().expect("a socket");
    let saw = answer(peer);
    // TCP stays open until we close it: our FIN is here already, so that only a wait for the peer's FIN would hang.
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
    // The connection stays open for as long as the process.
    std::mem::forget(peer);
    saw
}

fn reset(mut peer: Openssl) -> Saw {
    let (_, saw) = read_to_end(&mut peer);
    reset_socket(&peer);
    saw
}

fn reset_socket(peer: &Openssl) {
    rustix::net::sockopt::set_socket_linger(peer.get_ref(), Some(Duration::ZERO)).expect("an option");
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

/// What a peer does after our close_notify, and how our shutdown ends.
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
            // A TLS 1.3 client has not read its tickets, so that its system resets the connection.
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
    // A server refuses a client without a certificate after the client has finished its TLS 1.3 handshake.
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
                // The client reads its tickets first. Unread bytes would turn FIN into a reset.
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

/// Tokio asks the system again only after the runtime has had its turn: it believes that there is nothing to read.
#[tokio::test]
async fn last_words_are_found_behind_a_reset_that_came_with_them() {
    let version = &rustls::version::TLS13;
    let (close, told_to_close) = mpsc::channel();
    let (closed, is_closed) = mpsc::channel();
    let (address, peer) = serve(acceptor(version, ClientCertificate::Ignored), 1, move |mut peer| {
        peer.write_all(b"first data").expect("sent");
        received(&told_to_close);
        peer.write_all(b"last data").expect("sent");
        peer.shutdown().expect("close_notify");
        // It has not read what we have sent: this close is a reset.
        drop(peer);
        closed.send(()).expect("awaited");
    });
    let connector = TlsConnector::from(Arc::new(client_config(version)));
    let mut stream = ShutdownStream::new(connect_to(address, &connector).await.expect("a handshake"));
    stream.write_all(b"unread").await.expect("written");
    stream.flush().await.expect("written");
    // With the data come the tickets. A read that waits then has learnt from the system that there is nothing more.
    stream.read_exact(&mut [0; 10]).await.expect("data");
    assert!(poll!(pin!(stream.read(&mut [0; 9]))).is_pending());
    close.send(()).expect("awaited");
    // This blocks the runtime, so that tokio learns nothing of the end.
    received(&is_closed);
    let report = stream.shutdown_with(BIDIRECTIONAL).await.expect("their close_notify had come");
    assert_eq!((report.ending(), report.received()), (Ending::Complete, true));
    peer.join().expect("no panic");
}
