//! `close_notify()`, after which the application reads on.

use std::io;

use tls_shutdown::{Alert, Ending};
use tls_shutdown_tests::{
    Forge, connect,
    scripted::{BIDIRECTIONAL, each_kind, ending, shut_down_now},
    wire_script::Then,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_test::{assert_pending, assert_ready, task};

//= https://www.rfc-editor.org/rfc/rfc8446#section-6.1
//# This does not have any effect on its read side of the connection.
//= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
//# SSL_shutdown() only closes the write direction.
//= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
//# It is not possible to call SSL_write() after calling SSL_shutdown().
//= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
//# SSL_read() should be called until all data is received.
#[tokio::test(start_paused = true)]
async fn close_notify_leaves_the_read_half_open() {
    for (side, version) in each_kind() {
        let (mut stream, mut peer) = connect(side, version);
        assert_ready!(task::spawn(stream.write_all(b"all")).poll()).expect("written");
        let report = assert_ready!(task::spawn(Box::pin(stream.close_notify())).poll()).expect("sent");
        assert_eq!(report.ending(), Ending::Sent);
        assert_eq!(peer.receive(), Ok((b"all".to_vec(), true)));
        assert!(!peer.wire.is_finished(), "the transport stays");
        let error = assert_ready!(task::spawn(stream.write_all(b"late")).poll()).expect_err("closed");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_ready!(task::spawn(stream.flush()).poll()).expect("nothing to flush");

        peer.send(b"an answer");
        let mut data = Vec::new();
        let mut read = task::spawn(stream.read_to_end(&mut data));
        assert_pending!(read.poll());
        peer.close_notify();
        assert!(read.is_woken());
        assert_ready!(read.poll()).expect("to the end");
        drop(read);
        assert_eq!(data, b"an answer");
        assert_eq!(ending(shut_down_now(&mut stream, BIDIRECTIONAL)), Ending::Complete);
        assert!(peer.wire.is_finished());
        assert_eq!(peer.receive(), Ok((vec![], true)), "one close_notify");
    }
}

#[tokio::test(start_paused = true)]
async fn reading_after_close_notify_tells_every_end() {
    for (side, version) in each_kind() {
        for (then, kind) in [
            (Then::End, io::ErrorKind::UnexpectedEof),
            (Then::Error(io::ErrorKind::ConnectionReset), io::ErrorKind::ConnectionReset),
        ] {
            let (mut stream, mut peer) = connect(side, version);
            assert_ready!(task::spawn(Box::pin(stream.close_notify())).poll()).expect("sent");
            peer.send(b"some");
            peer.wire.script(|script| script.then = then);
            let mut data = Vec::new();
            let error = assert_ready!(task::spawn(stream.read_to_end(&mut data)).poll()).expect_err("cut");
            assert_eq!((error.kind(), &data[..]), (kind, &b"some"[..]));
        }
        let (mut stream, peer) = connect(side, version);
        assert_ready!(task::spawn(Box::pin(stream.close_notify())).poll()).expect("sent");
        peer.into_forge().alert(Forge::FATAL, 80);
        for _ in 0..2 {
            let error = assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect_err("an alert");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        assert_eq!(ending(shut_down_now(&mut stream, BIDIRECTIONAL)), Ending::PeerAlert(Alert(80)));
    }
}
