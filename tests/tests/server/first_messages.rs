//! Clients that begin with something else than a ClientHello.

use std::sync::Arc;

use rustls::{ServerConnection, version::TLS13};
use tls_shutdown::{Alert, Ending, server::TlsListener};
use tls_shutdown_tests::{server_config, soon, time::turns};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use crate::listener::serve;

/// What rustls answers when nothing else is between it and the client.
fn answer_of_rustls(first: &[u8]) -> Vec<u8> {
    let mut tls = ServerConnection::new(Arc::new(server_config(&TLS13))).expect("a server");
    tls.read_tls(&mut &*first).expect("room");
    let _ = tls.process_new_packets();
    let mut answer = Vec::new();
    tls.write_tls(&mut answer).expect("in memory");
    answer
}

const INAPPROPRIATE: &[u8] = &[21, 3, 3, 0, 2, 2, 10];
const NO_TLS: &[u8] = &[21, 3, 3, 0, 2, 2, 50];

//= https://www.rfc-editor.org/rfc/rfc8446#section-5
//# If a TLS implementation receives an unexpected record type, it MUST
//# terminate the connection with an "unexpected_message" alert.
#[tokio::test]
async fn a_first_message_that_is_no_client_hello_is_answered_by_an_alert() {
    let cases: [(&[u8], &[u8], Ending); 8] = [
        (b"GET / HTTP/1.1\r\n\r\n", NO_TLS, Ending::NotTls),
        (&[24, 3, 3, 0, 3, 1, 0, 0], NO_TLS, Ending::NotTls),
        (&[23, 3, 3, 0, 5, 1, 2, 3, 4, 5], INAPPROPRIATE, Ending::ProtocolError),
        (&[20, 3, 3, 0, 1, 1], INAPPROPRIATE, Ending::ProtocolError),
        // ServerHelloDone.
        (&[22, 3, 3, 0, 4, 14, 0, 0, 0], INAPPROPRIATE, Ending::ProtocolError),
        // No alert answers an alert. OpenSSL's client begins with this one if it has no version to offer.
        (&[21, 3, 3, 0, 2, 2, 80], &[], Ending::PeerAlert(Alert(80))),
        (&[21, 3, 3, 0, 2, 1, 0], &[], Ending::NotStarted),
        (&[], &[], Ending::NotStarted),
    ];
    let listener = TlsListener::bind("127.0.0.1:0", server_config(&TLS13)).await.expect("a free port");
    let (sender, mut ends) = mpsc::unbounded_channel();
    let listener = listener.on_end(move |end| sender.send(end.ending()).expect("a test"));
    let address = listener.local_addr().expect("an address");
    serve(listener);
    for (first, expected, ending) in cases {
        assert_eq!(answer_of_rustls(first), expected, "{first:?}");
        for piece in [1, first.len().max(1)] {
            let mut client = TcpStream::connect(address).await.expect("a listener");
            client.set_nodelay(true).expect("an option");
            for piece in first.chunks(piece) {
                // What the server has refused, it discards.
                client.write_all(piece).await.expect("sent");
                turns(5).await;
            }
            client.shutdown().await.expect("FIN");
            let mut answer = Vec::new();
            soon(client.read_to_end(&mut answer)).await.expect("FIN, and no reset");
            assert_eq!(answer, expected, "{first:?} in pieces of {piece}");
            assert_eq!(soon(ends.recv()).await, Some(ending), "{first:?} in pieces of {piece}");
        }
    }
}

/// The server sends FIN behind the alert although the client keeps its half open.
#[tokio::test]
async fn an_alert_to_a_first_message_is_followed_by_fin() {
    let listener = TlsListener::bind("127.0.0.1:0", server_config(&TLS13)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    serve(listener);
    let mut client = TcpStream::connect(address).await.expect("a listener");
    client.write_all(&[23, 3, 3, 0, 1, 0]).await.expect("sent");
    let mut answer = Vec::new();
    soon(client.read_to_end(&mut answer)).await.expect("FIN, and no reset");
    assert_eq!(answer, INAPPROPRIATE);
}
