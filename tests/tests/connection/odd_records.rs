//! Records that no peer should send, and every peer can.

use std::sync::mpsc;

use rustls::SupportedProtocolVersion;
use tls_shutdown::{Alert, Ending};
use tls_shutdown_tests::{
    Forge, Side, VERSIONS, connect,
    scripted::{BIDIRECTIONAL, each_kind, ending, shut_down, shut_down_now},
    wire_script::Then,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_test::{assert_pending, assert_ready, task};

#[tokio::test(start_paused = true)]
async fn a_forged_close_notify_never_completes() {
    for (side, version) in each_kind() {
        let (_, mut peer) = connect(side, version);
        peer.tls.send_close_notify();
        let length = peer.records().len();
        // The RFCs make the version a constant, and in TLS 1.3 the outer type too. rustls uses the constants, whatever was received: a
        // change there has no effect.
        let constant = if version == &rustls::version::TLS13 { 0..3 } else { 1..3 };
        for bit in (0..length * 8).filter(|bit| !constant.contains(&(bit / 8))) {
            let (mut stream, mut peer) = connect(side, version);
            peer.tls.send_close_notify();
            let mut records = peer.records();
            records[bit / 8] ^= 1 << (bit % 8);
            peer.wire.deliver(&records);
            peer.wire.script(|script| script.then = Then::End);
            let outcome = shut_down_now(&mut stream, BIDIRECTIONAL);
            assert_ne!(ending(outcome), Ending::Complete, "bit {bit} in {version:?}");
            let written = peer.receive().expect("no alert after close_notify");
            assert_eq!(written, (vec![], true));
        }
    }
}

/// What a peer may send after our close_notify, and how the closing ends.
struct Odd {
    description: &'static str,
    versions: &'static [&'static SupportedProtocolVersion],
    sides: &'static [Side],
    records: fn(&mut Forge),
    endings: &'static [Ending],
}

const EITHER: &[Side] = &Side::BOTH;

const CLIENT: &[Side] = &[Side::Client];

const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

const ANY: &[&SupportedProtocolVersion] = &VERSIONS;

const fn odd(
    description: &'static str,
    versions: &'static [&'static SupportedProtocolVersion],
    sides: &'static [Side],
    endings: &'static [Ending],
    records: fn(&mut Forge),
) -> Odd {
    Odd { description, versions, sides, endings, records }
}

fn close_notify(forge: &mut Forge) {
    forge.alert(Forge::WARNING, 0);
}

fn repeat(forge: &mut Forge, times: usize, content_type: u8, content: &[u8]) {
    (0..times).for_each(|_| forge.send(content_type, content));
    close_notify(forge);
}

const KEY_UPDATE_REQUESTED: [u8; 5] = [24, 0, 0, 1, 1];

const ODD: &[Odd] = &[
    odd("user_canceled x1", ANY, EITHER, &[Ending::Complete], |forge| repeat(forge, 1, Forge::ALERT, &[1, 90])),
    odd("user_canceled x4", ANY, EITHER, &[Ending::Complete], |forge| repeat(forge, 4, Forge::ALERT, &[1, 90])),
    odd("user_canceled x5", ANY, EITHER, &[Ending::TlsLimit], |forge| repeat(forge, 5, Forge::ALERT, &[1, 90])),
    odd("user_canceled, fatal", ANY, EITHER, &[Ending::PeerAlert(Alert(90))], |forge| {
        repeat(forge, 1, Forge::ALERT, &[2, 90])
    }),
    odd("no_renegotiation, warning, 1.2", TLS12, EITHER, &[Ending::Complete], |forge| {
        repeat(forge, 1, Forge::ALERT, &[1, 100])
    }),
    odd(
        "no_renegotiation, warning, 1.3",
        TLS13,
        EITHER,
        &[Ending::PeerAlert(Alert(100)), Ending::ProtocolError],
        |forge| repeat(forge, 1, Forge::ALERT, &[1, 100]),
    ),
    odd("internal_error, warning, 1.2", TLS12, EITHER, &[Ending::Complete], |forge| {
        repeat(forge, 1, Forge::ALERT, &[1, 80])
    }),
    odd(
        "internal_error, warning, 1.3",
        TLS13,
        EITHER,
        &[Ending::PeerAlert(Alert(80)), Ending::ProtocolError],
        |forge| repeat(forge, 1, Forge::ALERT, &[1, 80]),
    ),
    odd(
        "unknown alert, warning, 1.3",
        TLS13,
        EITHER,
        &[Ending::PeerAlert(Alert(200)), Ending::ProtocolError],
        |forge| repeat(forge, 1, Forge::ALERT, &[1, 200]),
    ),
    odd("unknown alert level", ANY, EITHER, &[Ending::PeerAlert(Alert(0)), Ending::ProtocolError], |forge| {
        repeat(forge, 1, Forge::ALERT, &[7, 0])
    }),
    odd("internal_error, fatal", ANY, EITHER, &[Ending::PeerAlert(Alert(80))], |forge| {
        repeat(forge, 1, Forge::ALERT, &[2, 80])
    }),
    odd("close_notify, fatal", ANY, EITHER, &[Ending::Complete], |forge| forge.alert(Forge::FATAL, 0)),
    odd("32 empty records", ANY, EITHER, &[Ending::Complete], |forge| repeat(forge, 32, Forge::DATA, &[])),
    odd("33 empty records", ANY, EITHER, &[Ending::TlsLimit], |forge| repeat(forge, 33, Forge::DATA, &[])),
    odd("empty alert", ANY, EITHER, &[Ending::ProtocolError], |forge| repeat(forge, 1, Forge::ALERT, &[])),
    odd("alert of 1 byte", ANY, EITHER, &[Ending::ProtocolError], |forge| repeat(forge, 1, Forge::ALERT, &[1])),
    odd("alert of 3 bytes", ANY, EITHER, &[Ending::ProtocolError], |forge| repeat(forge, 1, Forge::ALERT, &[1, 0, 0])),
    odd("two alerts in one record", ANY, EITHER, &[Ending::ProtocolError], |forge| {
        repeat(forge, 1, Forge::ALERT, &[1, 90, 1, 0])
    }),
    odd("data behind close_notify", ANY, EITHER, &[Ending::Complete], |forge| {
        close_notify(forge);
        forge.send(Forge::DATA, b"ignored");
    }),
    odd("change_cipher_spec, 1.2", TLS12, EITHER, &[Ending::ProtocolError], |forge| {
        repeat(forge, 1, Forge::CHANGE_CIPHER_SPEC, &[1])
    }),
    odd("change_cipher_spec inside, 1.3", TLS13, EITHER, &[Ending::ProtocolError], |forge| {
        repeat(forge, 1, Forge::CHANGE_CIPHER_SPEC, &[1])
    }),
    odd("unknown type inside", TLS13, EITHER, &[Ending::ProtocolError], |forge| repeat(forge, 1, 99, b"what")),
    odd("HelloRequest x1", TLS12, CLIENT, &[Ending::Complete], |forge| repeat(forge, 1, Forge::HANDSHAKE, &[0; 4])),
    odd("HelloRequest x2", TLS12, CLIENT, &[Ending::TlsLimit], |forge| repeat(forge, 2, Forge::HANDSHAKE, &[0; 4])),
    odd("KeyUpdate(requested) cut, then close_notify", TLS13, EITHER, &[Ending::ProtocolError], |forge| {
        repeat(forge, 1, Forge::HANDSHAKE, &KEY_UPDATE_REQUESTED[..3])
    }),
    odd("CertificateRequest", TLS13, CLIENT, &[Ending::ProtocolError], |forge| {
        repeat(forge, 1, Forge::HANDSHAKE, &[13, 0, 0, 15, 0, 0, 12, 0, 13, 0, 8, 0, 6, 4, 3, 5, 3, 6, 3])
    }),
    odd("plaintext", ANY, EITHER, &[Ending::NotTls], |forge| forge.wire.deliver(b"220 plain text\r\n")),
    odd("a record that does not decrypt", ANY, EITHER, &[Ending::ProtocolError], |forge| {
        let mut record = forge.record(Forge::DATA, b"data");
        record[9] ^= 1;
        forge.wire.deliver(&record);
    }),
    odd("a record that is too long", ANY, EITHER, &[Ending::ProtocolError], |forge| {
        forge.wire.deliver(&[23, 3, 3, 0xff, 0xff, 0])
    }),
    odd("plain alert", ANY, EITHER, &[Ending::ProtocolError], |forge| forge.wire.deliver(&[21, 3, 3, 0, 2, 1, 0])),
];

//= https://www.rfc-editor.org/rfc/rfc8446#section-6.1
//# Any data received after a closure alert has been received MUST be
//# ignored.
//= https://www.rfc-editor.org/rfc/rfc9846#section-6.1
//# Receiving implementations SHOULD continue to read data from the peer
//# until a "close_notify" is received, though they MAY log or otherwise
//# record them.
#[tokio::test(start_paused = true)]
async fn every_odd_record_after_our_close_notify_has_a_defined_ending() {
    for odd in ODD {
        for (side, version) in each_kind() {
            if !odd.versions.contains(&version) || !odd.sides.contains(&side) {
                continue;
            }
            let what = format!("{} to a {side:?} of {version:?}", odd.description);
            let (mut stream, mut peer) = connect(side, version);
            let mut shutdown = shut_down(&mut stream, BIDIRECTIONAL);
            assert_pending!(shutdown.poll());
            assert_eq!(peer.receive(), Ok((vec![], true)), "{what}");
            let mut forge = peer.into_forge();
            forge.send(Forge::DATA, b"some data");
            (odd.records)(&mut forge);
            let outcome = assert_ready!(shutdown.poll(), "{}", what);
            drop(shutdown);
            let report = *outcome.as_ref().unwrap_or_else(|error| error.report());
            assert!(odd.endings.contains(&report.ending()), "{what}: {outcome:?}");
            assert_eq!(report.discarded(), 9, "{what}: what came before is counted");
            assert_eq!(report.received(), report.ending() == Ending::Complete, "{what}");
            // Nothing is ever written after close_notify, whatever the stream has to do later.
            assert_ready!(task::spawn(stream.flush()).poll()).expect("nothing to flush");
            assert_eq!(ending(shut_down_now(&mut stream, BIDIRECTIONAL)), report.ending(), "{what}");
            let _ = task::spawn(stream.read(&mut [0; 9])).poll();
            drop(stream);
            assert_eq!(forge.wire.script(|script| script.outbound.len()), 0, "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn odd_records_read_by_the_application_after_close_notify() {
    for odd in ODD {
        for (side, version) in each_kind() {
            if !odd.versions.contains(&version) || !odd.sides.contains(&side) {
                continue;
            }
            let (mut stream, mut peer) = connect(side, version);
            assert_ready!(task::spawn(Box::pin(stream.close_notify())).poll()).expect("sent");
            assert_eq!(peer.receive(), Ok((vec![], true)));
            let mut forge = peer.into_forge();
            forge.send(Forge::DATA, b"some data");
            (odd.records)(&mut forge);
            let mut data = Vec::new();
            let outcome = assert_ready!(task::spawn(stream.read_to_end(&mut data)).poll());
            assert_eq!(outcome.is_ok(), odd.endings == [Ending::Complete], "{}", odd.description);
            assert_eq!(data, b"some data", "{}", odd.description);
            assert_eq!(forge.wire.script(|script| script.outbound.len()), 0, "{}", odd.description);
        }
    }
}

/// The ending is the same, whether the application's read or the shutdown has met the record. Data before the record comes first, also if
/// the application reads it in pieces.
#[tokio::test(start_paused = true)]
async fn odd_records_read_by_the_application_have_the_same_ending() {
    for odd in ODD {
        for (side, version) in each_kind() {
            if !odd.versions.contains(&version) || !odd.sides.contains(&side) {
                continue;
            }
            let what = format!("{} to a {side:?} of {version:?}", odd.description);
            let (stream, peer) = connect(side, version);
            let (told, told_by) = mpsc::channel();
            let mut stream = stream.on_end(move |report| told.send(report.ending()).expect("awaited"));
            let mut forge = peer.into_forge();
            forge.send(Forge::DATA, b"some ");
            forge.send(Forge::DATA, b"data");
            (odd.records)(&mut forge);
            let mut data = vec![0; 9];
            for piece in data.chunks_mut(2) {
                assert_ready!(task::spawn(stream.read_exact(piece)).poll(), "{}", what).expect(&what);
            }
            assert_eq!(data, b"some data", "{what}");
            let outcome = assert_ready!(task::spawn(stream.read_to_end(&mut data)).poll(), "{}", what);
            assert_eq!(data, b"some data", "{what}");
            assert_eq!(outcome.is_ok(), odd.endings == [Ending::Complete], "{what}: {outcome:?}");
            let again = assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll(), "{}: waits for no more", what);
            assert_eq!(again.map_err(|error| error.kind()), outcome.map(|_| 0).map_err(|error| error.kind()), "{what}");
            // After a failure of TLS, the shutdown is refused, and the report states the failure.
            let _ = shut_down_now(&mut stream, BIDIRECTIONAL);
            drop(stream);
            let ending = told_by.try_recv().expect("told");
            assert!(odd.endings.contains(&ending), "{what}: {ending:?}");
        }
    }
}

//= https://www.rfc-editor.org/rfc/rfc8446#section-4.6.3
//# If the request_update field is set to "update_requested", then the
//# receiver MUST send a KeyUpdate of its own with request_update set to
//# "update_not_requested" prior to sending its next Application Data
//# record.
#[tokio::test(start_paused = true)]
async fn key_updates_are_followed_and_not_answered() {
    let version = &rustls::version::TLS13;
    for side in Side::BOTH {
        // rustls's own limit is 32 requests.
        for (requests, expected) in
            [(1, Ending::Complete), (2, Ending::Complete), (32, Ending::Complete), (33, Ending::TlsLimit)]
        {
            let (mut stream, mut peer) = connect(side, version);
            assert_pending!(shut_down(&mut stream, BIDIRECTIONAL).poll());
            assert_eq!(peer.receive(), Ok((vec![], true)));
            (0..requests).for_each(|_| peer.tls.refresh_traffic_keys().expect("TLS 1.3"));
            peer.send(b"under new keys");
            peer.close_notify();
            let outcome = shut_down_now(&mut stream, BIDIRECTIONAL);
            assert_eq!(ending(outcome.clone()), expected, "{requests} requests");
            let discarded = outcome.unwrap_or_else(|error| *error.report()).discarded();
            assert_eq!(discarded, if expected == Ending::Complete { 14 } else { 0 });
            assert_eq!(peer.wire.script(|script| script.outbound.len()), 0);
        }
    }
}
