//! Connections that TLS itself has ended.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, SupportedCipherSuite, Tls12CipherSuite, crypto::CipherSuiteCommon};
use tls_shutdown::{Alert, Ending};
use tls_shutdown_tests::{
    Forge, Side, certificate, connect, connect_with,
    scripted::{BIDIRECTIONAL, POLICIES, RECEIVE_FIRST, each_kind, shut_down_now},
    server_config,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_test::{assert_ready, task};

//= https://www.rfc-editor.org/rfc/rfc8446#section-6.1
//# Each party MUST send a "close_notify" alert before closing its write
//# side of the connection, unless it has already sent some error alert.
//= https://www.rfc-editor.org/rfc/rfc8446#section-6.2
//# Upon transmission or receipt of a fatal alert message, both parties
//# MUST immediately close the connection.
//= https://docs.openssl.org/1.1.1/man3/SSL_shutdown/#description
//# Note that SSL_shutdown() must not be called if a previous fatal error
//# has occurred on a connection i.e. if SSL_get_error() has returned
//# SSL_ERROR_SYSCALL or SSL_ERROR_SSL.
#[tokio::test(start_paused = true)]
async fn nothing_is_said_after_a_fatal_error() {
    for (side, version) in each_kind() {
        for (alert, description) in [(Forge::FATAL, 80), (Forge::FATAL, 20)] {
            let (mut stream, peer) = connect(side, version);
            let wire = peer.wire.clone();
            peer.into_forge().alert(alert, description);
            assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect_err("an alert");
            for policy in POLICIES {
                let error = shut_down_now(&mut stream, policy).expect_err("refused");
                assert_eq!((error.ending(), error.report().alert()), (Ending::Refused, Some(Alert(description))));
            }
            assert_eq!(wire.script(|script| script.log.clone()), []);
        }
        // Nothing follows our own fatal alert either.
        let (mut stream, mut peer) = connect(side, version);
        let mut record = {
            peer.tls.send_close_notify();
            peer.records()
        };
        *record.last_mut().expect("a tag") ^= 1;
        peer.wire.deliver(&record);
        assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect_err("a bad record");
        peer.receive().expect_err("our fatal alert");
        assert_eq!(shut_down_now(&mut stream, BIDIRECTIONAL).expect_err("refused").ending(), Ending::Refused);
        assert_eq!(peer.wire.script(|script| script.outbound.len()), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn before_our_close_notify_a_bad_record_is_answered_with_an_alert() {
    for (side, version) in each_kind() {
        let (mut stream, mut peer) = connect(side, version);
        peer.tls.send_close_notify();
        let mut records = peer.records();
        *records.last_mut().expect("a tag") ^= 1;
        peer.wire.deliver(&records);
        let error = shut_down_now(&mut stream, RECEIVE_FIRST).expect_err("a bad record");
        assert_eq!((error.ending(), error.report().sent()), (Ending::ProtocolError, false));
        let answer = peer.receive().expect_err("a fatal alert");
        assert_eq!(answer, rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
    }
}

/// rustls 0.23.46 panics if it has to process anything after these two records.
#[tokio::test(start_paused = true)]
async fn an_empty_handshake_record_before_close_notify_hurts_nobody() {
    for side in Side::BOTH {
        for policy in POLICIES {
            let (mut stream, peer) = connect(side, &rustls::version::TLS13);
            let wire = peer.wire.clone();
            let mut forge = peer.into_forge();
            let records = [forge.record(Forge::HANDSHAKE, &[]), forge.record(Forge::ALERT, &[1, 0])].concat();
            wire.deliver(&records);
            assert_eq!(assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect("zero-return"), 0);
            assert_ready!(task::spawn(stream.write_all(b"an answer")).poll()).expect("written");
            let report = shut_down_now(&mut stream, policy).expect("complete");
            assert_eq!((report.ending(), report.sent()), (Ending::Complete, true));
        }
    }
}

/// At the limit of its keys, rustls ends writing itself. It accepts further data and drops it.
#[tokio::test(start_paused = true)]
async fn worn_out_keys_are_never_complete() {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain_mut(|suite| match suite {
        SupportedCipherSuite::Tls12(tls12) if suite_name(tls12).ends_with("ECDSA_WITH_AES_256_GCM_SHA384") => {
            let common = CipherSuiteCommon { confidentiality_limit: 10, ..copy_of(&tls12.common) };
            let Tls12CipherSuite { prf_provider, kx, sign, aead_alg, .. } = **tls12;
            *suite = SupportedCipherSuite::Tls12(Box::leak(Box::new(Tls12CipherSuite {
                common,
                prf_provider,
                kx,
                sign,
                aead_alg,
            })));
            true
        }
        _ => false,
    });
    let mut roots = RootCertStore::empty();
    roots.add(certificate().0).expect("a root");
    let client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (mut stream, mut peer) = connect_with(Side::Client, client, server_config(&rustls::version::TLS12));
    for _ in 0..30 {
        assert_ready!(task::spawn(stream.write_all(b"x")).poll()).expect("taken");
        assert_ready!(task::spawn(stream.flush()).poll()).expect("taken");
    }
    peer.close_notify();
    let error = shut_down_now(&mut stream, BIDIRECTIONAL).expect_err("data is lost");
    assert_eq!((error.ending(), error.report().sent()), (Ending::Refused, false));
    assert!(peer.receive().expect("records").0.len() < 30);
}

fn suite_name(suite: &Tls12CipherSuite) -> String {
    format!("{:?}", suite.common.suite)
}

fn copy_of(common: &CipherSuiteCommon) -> CipherSuiteCommon {
    CipherSuiteCommon {
        suite: common.suite,
        hash_provider: common.hash_provider,
        confidentiality_limit: common.confidentiality_limit,
    }
}
