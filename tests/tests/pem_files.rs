//! `TlsListener::bind_pem` and `ConfigHandle::reload_pem`.
//!
//! This test has a process of its own, since the crypto provider is that of the process.

use std::{fs, io::ErrorKind, path::PathBuf};

use rustls::{
    AlertDescription, ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use tls_shutdown::server::TlsListener;
use tls_shutdown_tests::{
    client_config,
    log::Log,
    mutual_tls,
    serving::{Client, Running, ScriptedBody, answer, offering},
    soon,
};
use tokio::io::AsyncReadExt;

/// Writes a new certificate and its key. Returns the certificate.
fn write_certificate(chain: &PathBuf, key: &PathBuf) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(chain, made.cert.pem()).expect("a file");
    fs::write(key, made.signing_key.serialize_pem()).expect("a file");
    made.cert.into()
}

/// A client that trusts the certificate in this file.
fn trusting(chain: &PathBuf, protocol: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(chain).expect("a certificate")).expect("a root");
    let mut config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.into()];
    config
}

#[tokio::test]
async fn certificates_come_from_files_and_are_read_again() {
    let log = Log::of_process("tls_shutdown=info");
    let file =
        |name: &str| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("pem-{}-{name}", std::process::id()));
    let (chain, key, other) = (file("chain.pem"), file("key.pem"), file("other-key.pem"));
    let bind = || TlsListener::bind_pem("127.0.0.1:0", &chain, &key);

    let error = bind().await.expect_err("there is no provider");
    assert!(error.to_string().contains("install_default"), "{error}");
    ring::default_provider().install_default().expect("the first one");
    let error = bind().await.expect_err("there is no file");
    assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("chain.pem"), "{error}");

    let first = write_certificate(&chain, &key);
    let listener = bind().await.expect("good files");
    let taken = listener.local_addr().expect("an address").to_string();
    let error = TlsListener::bind_pem(&taken, &chain, &key).await.expect_err("somebody listens there");
    assert!(error.kind() == ErrorKind::AddrInUse && error.to_string().contains(&taken), "{error}");
    let handle = listener.config_handle();
    let service = |_| async { answer(ScriptedBody::full(1)) };
    let mut running = Running::start_with(listener, |server| server, |drain| drain, service);
    let presented = async |protocol: &'static str| {
        let client = Client::connect_with(running.address, trusting(&chain, protocol)).await;
        let (_, tls) = client.stream.get_ref();
        assert_eq!(tls.alpn_protocol(), Some(protocol.as_bytes()));
        tls.peer_certificates().expect("a chain")[0].clone().into_owned()
    };
    for protocol in ["h2", "http/1.1", "http/1.0"] {
        assert_eq!(presented(protocol).await, first);
    }

    let second = write_certificate(&chain, &key);
    handle.reload_pem().expect("good files");
    assert_eq!(presented("h2").await, second);
    // The key of another certificate, no key, and no file.
    fs::rename(&key, &other).expect("a file");
    let stranger = rcgen::KeyPair::generate().expect("a key");
    let (stranger, encrypted) = (stranger.serialize_pem(), "-----BEGIN ENCRYPTED PRIVATE KEY-----\n");
    let cases = [
        (stranger.clone(), "key.pem"),
        ("no key".to_owned(), "contains no private key"),
        (stranger.replace("PRIVATE", "ENCRYPTED PRIVATE"), "an encrypted one"),
        (encrypted.to_owned(), "an END line is missing"),
    ];
    for (content, text) in cases {
        fs::write(&key, content).expect("a file");
        let error = handle.reload_pem().expect_err("a bad key");
        assert!(error.kind() == ErrorKind::InvalidData && error.to_string().contains(text), "{error}");
    }
    let good = fs::read_to_string(&chain).expect("a chain");
    for (first, skipped) in [(&*good, "\u{feff}"), (&good, " "), (good.trim_end(), "")] {
        fs::write(&chain, format!("{first}{skipped}{good}")).expect("a file");
        let error = handle.reload_pem().expect_err("one certificate is missing");
        assert!(
            error.kind() == ErrorKind::InvalidData && error.to_string().contains("only 1 of 2 certificates"),
            "{error}"
        );
    }
    let commented: String = good.lines().map(|line| format!("# {line}\n")).collect();
    fs::write(&chain, commented + &good).expect("a file");
    fs::remove_file(&key).expect("a file");
    assert_eq!(handle.reload_pem().expect_err("no key").kind(), ErrorKind::NotFound);
    fs::rename(&other, &key).expect("a file");
    assert_eq!(presented("h2").await, second, "the old certificate stays in use");
    handle.reload_pem().expect("a certificate that is commented out is no fault");
    assert!(!log.text().contains("HTTP/1 only"), "{}", log.text());

    // What is in no file stays as it was set: client authentication, and ALPN without HTTP/2.
    let (mut mutual, _) = mutual_tls();
    mutual.alpn_protocols = vec![b"http/1.1".to_vec()];
    handle.replace(mutual);
    let third = write_certificate(&chain, &key);
    handle.reload_pem().expect("good files");
    let mut anonymous = trusting(&chain, "h2");
    anonymous.alpn_protocols.push(b"http/1.1".to_vec());
    let mut anonymous = Client::connect_with(running.address, anonymous).await;
    let (_, tls) = anonymous.stream.get_ref();
    assert_eq!(tls.peer_certificates().expect("a chain")[0], third);
    assert_eq!(tls.alpn_protocol(), Some(&b"http/1.1"[..]));
    let error = soon(anonymous.stream.read_u8()).await.expect_err("a client without a certificate");
    let reason = error.get_ref().and_then(|error| error.downcast_ref());
    assert_eq!(reason, Some(&rustls::Error::AlertReceived(AlertDescription::CertificateRequired)), "{error}");
    running.cut().await;

    // Without ALPN there is one line of the log, however many connections there are.
    let listener = TlsListener::bind("127.0.0.1:0", offering(&[])).await.expect("a free port");
    let error = listener.config_handle().reload_pem().expect_err("no files");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let running = Running::start_with(listener, |server| server, |drain| drain, service);
    for _ in 0..3 {
        let mut client = Client::connect_with(running.address, client_config(&rustls::version::TLS13)).await;
        client.ask("/").await;
        soon(client.read_message()).await;
    }
    assert_eq!(log.text().matches("HTTP/1 only").count(), 1, "{}", log.text());
    for file in [chain, key] {
        fs::remove_file(file).expect("a file");
    }
}
