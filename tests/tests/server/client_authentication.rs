//! `TlsListener` with clients that need a certificate.

use std::sync::Arc;

use rustls::{
    AlertDescription, HandshakeKind, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tls_shutdown::{Ending, server::TlsListener};
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
    let der = certified.cert.der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
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
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build().expect("a verifier");
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
