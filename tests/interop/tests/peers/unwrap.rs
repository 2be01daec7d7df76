//! TLS taken off a connection that goes on in plaintext, each peer in its own way.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tls_shutdown::{Ending, Records, ShutdownPolicy, ShutdownStream, Unwrap};
use tls_shutdown_interop::{Background, Build, CERTIFICATE, peer_file, program, run_well, within};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// Starts the example `ftps_ccc`.
async fn ftps_ccc() -> (Background, u16) {
    let mut server = Background::start(Build::Tests.command("ftps_ccc").args(["--listen", "127.0.0.1:0"]));
    let port = server.port("listening").await;
    (server, port)
}

/// Lists the server's directory. Returns the listing, and the bytes that curl has sent over the control connection.
async fn curl(port: u16, options: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let url = format!("ftp://{}/", listener.local_addr().expect("an address"));
    let mut curl = program("curl", "curl");
    curl.args(["-sS", "-k", "--noproxy", "*", "-u", "anyone:anything"]).args(options).arg(url);
    let tap = async {
        let (client, _) = listener.accept().await.expect("curl");
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("the server");
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::join!(copy(from_client, to_server), copy(from_server, to_client)).0
    };
    within(async { tokio::join!(run_well(&mut curl, b""), tap) }).await
}

async fn copy(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf) -> Vec<u8> {
    let mut all = Vec::new();
    let mut copied = 0;
    // Either side may leave as it likes: what was copied is what counts.
    while from.read_buf(&mut all).await.is_ok_and(|amount| amount > 0) && to.write_all(&all[copied..]).await.is_ok() {
        copied = all.len();
    }
    all
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// With the ends of lines that curl makes of those of FTP.
const LISTING: &[u8] = b"-rw-r--r-- 1 ftp ftp 5 Jan 01 2000 hello.txt\n";
/// The listing under TLS, and in plaintext.
const PROTECTIONS: [&str; 2] = ["--ssl-reqd", "--ftp-ssl-control"];

#[tokio::test]
async fn curl_clears_the_command_channel_in_both_of_its_modes() {
    let (mut server, port) = ftps_ccc().await;
    // In passive mode it does not answer close_notify.
    for (mode, ending) in [("active", "complete"), ("passive", "not_tls")] {
        for (protection, (_, version)) in PROTECTIONS.into_iter().flat_map(|one| VERSIONS.map(|version| (one, version)))
        {
            let case = format!("{mode}, {protection}, TLS {version}");
            let options = [protection, "--ftp-ssl-ccc", "--ftp-ssl-ccc-mode", mode, "--tls-max", version];
            let (listing, sent) = curl(port, &options).await;
            assert_eq!(listing, LISTING, "{case}");
            for secret in ["USER", "PASS", "CCC"] {
                assert!(!contains(&sent, secret), "{case}: {secret} in plaintext");
            }
            let after = sent.windows(5).position(|window| window == b"PWD\r\n").expect("PWD in plaintext");
            let after = String::from_utf8_lossy(&sent[after..]);
            let commands: Vec<_> = after.lines().collect();
            assert_eq!(commands, ["PWD", "EPSV", "TYPE A", "LIST", "QUIT"], "{case}");
            let told = server.line_with("close_notify").await.expect("the end of TLS");
            assert!(told.contains(&format!(" {ending}: close_notify sent")), "{case}: {told}");
        }
    }
}

/// The control: without CCC nothing of that can be read on the way.
#[tokio::test]
async fn without_ccc_the_command_channel_stays_under_tls() {
    let (mut server, port) = ftps_ccc().await;
    for protection in PROTECTIONS {
        let (listing, sent) = curl(port, &[protection]).await;
        assert_eq!(listing, LISTING, "{protection}");
        assert!(contains(&sent, "AUTH TLS") && !contains(&sent, "PWD"), "{protection}");
        let told = server.line_with("close_notify").await.expect("the end of TLS");
        assert!(told.contains("close_notify sent"), "{protection}: {told}");
    }
}

const VERSIONS: [(&SupportedProtocolVersion, &str); 2] =
    [(&rustls::version::TLS12, "1.2"), (&rustls::version::TLS13, "1.3")];
const ROLES: [&str; 2] = ["client", "server"];

/// Connects to Python, which is a client or a server. `mode` selects whether and how it takes TLS off.
async fn python(
    role: &str,
    (version, name): (&'static SupportedProtocolVersion, &str),
    mode: &str,
) -> (Background, ShutdownStream<TlsStream<Records<TcpStream>>>) {
    let (cert, key) = (&*CERTIFICATE.cert, &*CERTIFICATE.key);
    let start = |port: u16| {
        let mut python = program("python3", "python3");
        python.arg(peer_file("unwrap.py")).args([role, &port.to_string(), cert, key, name, mode]);
        Background::start(&mut python)
    };
    let certificate = CertificateDer::from_pem_file(cert).expect("a certificate");
    let provider = Arc::new(ring::default_provider());
    let (python, stream) = if role == "client" {
        let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[version]);
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        let config = config.expect("a version").with_no_client_auth().with_single_cert(vec![certificate], key);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let python = start(listener.local_addr().expect("an address").port());
        let (tcp, _) = within(listener.accept()).await.expect("a client");
        let acceptor = TlsAcceptor::from(Arc::new(config.expect("a certificate")));
        (python, within(acceptor.accept(Records::new(tcp))).await.expect("a handshake").into())
    } else {
        let mut python = start(0);
        let mut roots = RootCertStore::empty();
        roots.add(certificate).expect("a root");
        let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]);
        let config = config.expect("a version").with_root_certificates(roots).with_no_client_auth();
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, python.port("port").await)).await.expect("a server");
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = TlsConnector::from(Arc::new(config));
        (python, within(connector.connect(name, Records::new(tcp))).await.expect("a handshake").into())
    };
    (python, ShutdownStream::new(stream))
}

const TEXT: &[u8] = b"python in plain\n";

#[tokio::test]
async fn cpython_unwraps_first_and_second() {
    for version in VERSIONS {
        for role in ROLES {
            for (mode, unwrap) in [("initiate", Unwrap::Reply), ("reply", Unwrap::Initiate)] {
                let (python, stream) = python(role, version, mode).await;
                let mut plain = within(stream.into_plaintext(unwrap)).await.expect("TLS is off");
                let mut heard = [0; TEXT.len()];
                within(plain.read_exact(&mut heard)).await.expect("all of it");
                assert_eq!(heard, TEXT, "{role} {version:?} {mode}");
                plain.write_all(b"rustls in plain").await.expect("written");
                plain.shutdown().await.expect("FIN");
                let output = python.output().await;
                assert_eq!(output, b"heard b'rustls in plain'\n", "{role} {version:?} {mode}");
            }
        }
    }
}

#[tokio::test]
async fn a_peer_that_skips_close_notify_is_told_apart() {
    for version in VERSIONS {
        for role in ROLES {
            let (python, stream) = python(role, version, "plaintext").await;
            let error = within(stream.into_plaintext(Unwrap::Reply)).await.expect_err("plaintext");
            assert_eq!(error.error().ending(), Ending::NotTls, "{role} {version:?}");
            let mut plain = error.into_plaintext().expect("plaintext");
            let mut heard = [0; TEXT.len()];
            within(plain.read_exact(&mut heard)).await.expect("all of it");
            assert_eq!(heard, TEXT, "{role} {version:?}");
            plain.write_all(b"rustls in plain").await.expect("written");
            plain.shutdown().await.expect("FIN");
            let output = python.output().await;
            assert!(contains(&output, "rustls in plain"), "{role} {version:?}");
        }
    }
}

#[tokio::test]
async fn a_peer_that_ends_or_says_nothing_is_refused() {
    let policy = ShutdownPolicy::bidirectional().with_close_timeout(Duration::from_millis(200));
    for version in VERSIONS {
        for role in ROLES {
            for (mode, ending) in [("end", Ending::Truncated), ("silent", Ending::TimedOut)] {
                for unwrap in [Unwrap::Initiate, Unwrap::Reply, Unwrap::Silent] {
                    let (_python, stream) = python(role, version, mode).await;
                    let error = within(stream.with_policy(policy).into_plaintext(unwrap)).await.expect_err(mode);
                    assert_eq!(error.error().ending(), ending, "{role} {version:?} {unwrap:?}");
                }
            }
        }
    }
}
