//! `TlsListener` with clients that need a certificate.

use std::sync::Arc;

use rustls::{
    AlertDescription, HandshakeKind, ServerConfig,
    client::Resumption,
    crypto::ring::default_provider,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ServerSessionMemoryCache, WebPkiClientVerifier},
};
use tls_shutdown::{
    Ending,
    server::{TicketKey, TicketKeys, TlsListener},
};
use tls_shutdown_tests::{VERSIONS, certificate, client_config, server_config, serving::Client, soon};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use crate::listener::{serve, serve_and_close};

/// A self-signed certificate for clients, and a server configuration that admits this one alone.
fn admitting_one_client(
    version: &'static rustls::SupportedProtocolVersion,
) -> (rustls::ClientConfig, impl Fn() -> ServerConfig) {
    admitting_a_client_with_a_chain(version, 1)
}

/// The same for a client that sends its certificate this many times.
fn admitting_a_client_with_a_chain(
    version: &'static rustls::SupportedProtocolVersion,
    certificates: usize,
) -> (rustls::ClientConfig, impl Fn() -> ServerConfig) {
    let certified = rcgen::generate_simple_self_signed(["client".into()]).expect("a certificate");
    admitting_the_client_with(version, &certified.cert, &certified.signing_key, certificates, Admits::WithCertificate)
}

/// Whom a server admits.
#[derive(Clone, Copy)]
enum Admits {
    WithCertificate,
    /// Clients without one, too.
    WithoutCertificate,
    /// The first, but the server does not tell clients the names of its authorities.
    WithCertificateOfNoName,
}

fn admitting_the_client_with(
    version: &'static rustls::SupportedProtocolVersion,
    certificate_of_client: &rcgen::Certificate,
    key: &rcgen::KeyPair,
    certificates: usize,
    admits: Admits,
) -> (rustls::ClientConfig, impl Fn() -> ServerConfig + use<>) {
    let der = certificate_of_client.der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let (mut server_roots, mut client_roots) = (rustls::RootCertStore::empty(), rustls::RootCertStore::empty());
    server_roots.add(certificate().0).expect("a root");
    client_roots.add(der.clone()).expect("a root");
    let provider = Arc::new(default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(server_roots)
        .with_client_auth_cert(vec![der; certificates], key)
        .expect("a certificate");
    let server = move || {
        let roots = Arc::new(client_roots.clone());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        let verifier = match admits {
            Admits::WithCertificate => verifier,
            Admits::WithoutCertificate => verifier.allow_unauthenticated(),
            Admits::WithCertificateOfNoName => verifier.clear_root_hint_subjects(),
        };
        let verifier = verifier.build().expect("a verifier");
        ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate().0], certificate().1)
            .expect("a certificate")
    };
    (client, server)
}

/// A client of TLS 1.3 has finished its handshake, and sends data, before the server looks at its certificate.
#[tokio::test]
async fn the_alert_that_rejects_a_client_arrives_though_the_client_sends() {
    let (_, config) = admitting_one_client(&rustls::version::TLS13);
    let listener = TlsListener::bind("127.0.0.1:0", config()).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    serve(listener);
    for length in [1_000, 100_000, 5_000_000] {
        for _ in 0..10 {
            let mut client = Client::connect_with(address, client_config(&rustls::version::TLS13)).await;
            soon(client.stream.write_all(&vec![0; length])).await.expect("an upload that the server discards");
            let error = soon(client.stream.read_u8()).await.expect_err("the server rejects this client");
            let reason = error.get_ref().and_then(|error| error.downcast_ref());
            assert_eq!(reason, Some(&rustls::Error::AlertReceived(AlertDescription::CertificateRequired)), "{error}");
        }
    }
}

/// rustls does not verify the certificate of a resumed session again.
#[tokio::test]
async fn no_session_outlives_the_client_authentication_under_which_it_was_made() {
    for version in VERSIONS {
        let (removed, of_removed) = admitting_one_client(version);
        let (_, of_another) = admitting_one_client(version);
        let open = || server_config(version);
        let anonymous = client_config(version);
        for (client, before, after, is_admitted) in [
            (&removed, of_removed(), of_another(), false),
            (&anonymous, open(), of_another(), false),
            (&removed, of_removed(), open(), true),
        ] {
            let listener = TlsListener::bind("127.0.0.1:0", before).await.expect("a free port");
            let (sender, mut ends) = mpsc::unbounded_channel();
            let listener = listener.on_end(move |end| sender.send(end.handshake_finished()).expect("a test"));
            let address = listener.local_addr().expect("an address");
            let config = listener.config_handle();
            serve_and_close(listener);
            let mut first = Client::connect_with(address, client.clone()).await;
            first.read_to_end_and_close().await;
            assert!(soon(ends.recv()).await.expect("an end"));

            config.replace(after);
            let second = Client::try_connect(address, client.clone()).await;
            if let Ok(second) = &second {
                assert_eq!(second.stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full), "{version:?}");
            }
            drop(second);
            assert_eq!(soon(ends.recv()).await.expect("an end"), is_admitted, "{version:?}");
        }
    }
}

/// A certificate authority of this name, which is its own and only client.
fn authority(name: &str) -> (rcgen::Certificate, rcgen::KeyPair) {
    let mut parameters = rcgen::CertificateParams::new(["client".into()]).expect("a name");
    parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = rcgen::KeyPair::generate().expect("a key");
    (parameters.self_signed(&key).expect("a certificate"), key)
}

/// Ticket keys, or a storage, are shared by the servers of a group, and outlive a restart.
#[tokio::test]
async fn shared_keys_and_storages_admit_nobody_whom_a_full_handshake_does_not() {
    for version in VERSIONS {
        let (one, two) = (authority("one"), authority("two"));
        let demanding = |(certificate, key): &(rcgen::Certificate, rcgen::KeyPair), admits| {
            admitting_the_client_with(version, certificate, key, 1, admits)
        };
        let (of_one, demanding_one) = demanding(&one, Admits::WithCertificate);
        let (_, demanding_two) = demanding(&two, Admits::WithCertificate);
        let (_, asking_one) = demanding(&one, Admits::WithoutCertificate);
        let (of_one_unnamed, unnamed_one) = demanding(&one, Admits::WithCertificateOfNoName);
        let (_, unnamed_two) = demanding(&two, Admits::WithCertificateOfNoName);
        let (anonymous, open) = (client_config(version), || server_config(version));
        let storage = ServerSessionMemoryCache::new(100);
        for shares_keys in [true, false] {
            for (case, client, first, second, expected) in [
                ("from no authentication", &anonymous, open(), demanding_one(), None),
                ("from an optional certificate", &anonymous, asking_one(), demanding_one(), None),
                ("from another authority", &of_one, demanding_one(), demanding_two(), None),
                ("from another authority, without names", &of_one_unnamed, unnamed_one(), unnamed_two(), None),
                ("to no authentication", &of_one, demanding_one(), open(), Some(HandshakeKind::Full)),
                ("of a group", &of_one, demanding_one(), demanding_one(), Some(HandshakeKind::Resumed)),
                ("of an open group", &anonymous, open(), open(), Some(HandshakeKind::Resumed)),
            ] {
                let (mut client, mut kinds) = (client.clone(), Vec::new());
                client.resumption = Resumption::in_memory_sessions(8);
                for mut config in [first, second] {
                    if shares_keys {
                        let keys = TicketKeys::new([TicketKey::new([7; 32])], config.crypto_provider());
                        config.ticketer = Arc::new(keys.expect("an AEAD"));
                    } else {
                        config.session_storage = storage.clone();
                    }
                    let listener = TlsListener::bind("127.0.0.1:0", config).await.expect("a free port");
                    let (sender, mut ends) = mpsc::unbounded_channel();
                    let listener = listener.on_end(move |end| sender.send(end.handshake_finished()).expect("a test"));
                    let address = listener.local_addr().expect("an address");
                    serve_and_close(listener);
                    let mut kind = None;
                    if let Ok(mut client) = Client::try_connect(address, client.clone()).await {
                        // A client of TLS 1.3 does not know yet whether it is admitted.
                        let _ = soon(client.stream.read_u8()).await;
                        kind = client.stream.get_ref().1.handshake_kind();
                    }
                    let is_admitted = soon(ends.recv()).await.expect("an end");
                    kinds.push(kind.filter(|_| is_admitted));
                }
                assert_eq!(kinds, [Some(HandshakeKind::Full), expected], "{version:?}, {case}, keys: {shares_keys}");
            }
        }
    }
}

/// rustls accepts handshake messages of 64 KiB, and TLS allows longer ones.
#[tokio::test]
async fn a_chain_that_is_too_long_is_no_violation_of_tls() {
    for version in VERSIONS {
        for (certificates, ending) in [(100, None), (300, Some(Ending::TlsLimit))] {
            let (client, config) = admitting_a_client_with_a_chain(version, certificates);
            let listener = TlsListener::bind("127.0.0.1:0", config()).await.expect("a free port");
            let (sender, mut ends) = mpsc::unbounded_channel();
            let listener =
                listener.on_end(move |end| sender.send((end.handshake_finished(), end.ending())).expect("a test"));
            let address = listener.local_addr().expect("an address");
            serve(listener);
            let client = Client::try_connect(address, client).await;
            let (is_finished, ended) = soon(ends.recv()).await.expect("an end");
            assert_eq!(is_finished, ending.is_none(), "{version:?}: {ended:?}");
            assert!(ending.is_none_or(|ending| ending == ended), "{version:?}: {ended:?}");
            drop(client);
        }
    }
}
