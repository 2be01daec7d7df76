//! Compares the throughput of `ShutdownStream` with that of the bare tokio-rustls stream over loopback. Both take turns in one process,
//! so that other load on the machine affects both. The results are ratios.
//!
//! ```console
//! $ cargo run --release -p tls-shutdown-bench
//! ```
//!
//! With the argument `drain`, compares the CPU time of a server drain with that of hyper-util's. With `cost`, prints a table of what a
//! request, a connection and a drain cost under four servers, in instructions; `cost ROWS` prints the rows whose names contain ROWS, and
//! `cost check` fails if the library costs more than it may. Valgrind has to be installed.

mod cost;
mod drain;

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName},
};
use tls_shutdown::{Records, ShutdownStream};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

const ROUNDS: usize = 60;
const BULK: usize = 32 * 1024 * 1024;
const BULK_WRITE: usize = 64 * 1024;
const MESSAGES: usize = 20_000;
const MESSAGE: usize = 100;

/// A transfer over a pair of connected streams.
#[derive(Clone, Copy)]
enum Load {
    /// Large writes in one direction.
    Bulk,
    /// Small messages, each with a small answer.
    Messages,
}

/// The stream to compare with the bare one.
#[derive(Clone, Copy)]
enum Contender {
    /// `ShutdownStream`.
    Stream,
    /// `ShutdownStream` over `Records`.
    OverRecords,
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["cost"] => cost::print_table(""),
        ["cost", "check"] => cost::check(),
        ["cost", "server", contender, transport] => cost::serve(contender, transport),
        ["cost", rows] => cost::print_table(rows),
        ["drain"] => runtime().block_on(drain::compare()),
        ["drain", server] => runtime().block_on(drain::serve(server)),
        // Servers, too, run connections in tasks.
        _ => runtime().block_on(async { tokio::spawn(compare()).await.expect("no panic") }),
    }
}

async fn compare() {
    let peers = configurations();
    for (contender, over) in [(Contender::Stream, ""), (Contender::OverRecords, " over Records")] {
        for (load, name) in [(Load::Bulk, "bulk throughput"), (Load::Messages, "small messages")] {
            let mut ratios = Vec::new();
            for round in 0..ROUNDS {
                // The order alternates, because the second one may find warm caches.
                let (bare, wrapped) = if round % 2 == 0 {
                    let bare = run_bare(load, &peers).await;
                    (bare, run_contender(contender, load, &peers).await)
                } else {
                    let wrapped = run_contender(contender, load, &peers).await;
                    (run_bare(load, &peers).await, wrapped)
                };
                ratios.push((bare / wrapped).ln());
            }
            let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
            let variance = ratios.iter().map(|ratio| (ratio - mean).powi(2)).sum::<f64>() / (ratios.len() - 1) as f64;
            let margin = 1.96 * (variance / ratios.len() as f64).sqrt();
            println!(
                "{name}{over}: {:.4} of the bare stream's (95 %: {:.4} to {:.4}, {ROUNDS} pairs)",
                mean.exp(),
                (mean - margin).exp(),
                (mean + margin).exp()
            );
        }
    }
}

async fn run_bare(load: Load, peers: &Peers) -> f64 {
    let (client, server) = connect(peers, |pipe| pipe).await;
    run(load, client, server).await
}

async fn run_contender(contender: Contender, load: Load, peers: &Peers) -> f64 {
    match contender {
        Contender::Stream => {
            let (client, server) = connect(peers, |pipe| pipe).await;
            run(load, ShutdownStream::new(client), ShutdownStream::new(server)).await
        }
        Contender::OverRecords => {
            let (client, server) = connect(peers, Records::new).await;
            run(load, ShutdownStream::new(client), ShutdownStream::new(server)).await
        }
    }
}

/// Runs a transfer. Returns its duration in seconds.
async fn run<C, S>(load: Load, mut client: C, mut server: S) -> f64
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let began = Instant::now();
    match load {
        Load::Bulk => {
            let send = async {
                let data = vec![7; BULK_WRITE];
                for _ in 0..BULK / BULK_WRITE {
                    client.write_all(&data).await.expect("sent");
                }
                client.flush().await.expect("sent");
            };
            let receive = async {
                let mut buffer = vec![0; BULK_WRITE];
                let mut left = BULK;
                while left > 0 {
                    left -= server.read(&mut buffer).await.expect("received");
                }
            };
            tokio::join!(send, receive);
        }
        Load::Messages => {
            let request = async {
                let mut buffer = [0; MESSAGE];
                for _ in 0..MESSAGES {
                    client.write_all(&[7; MESSAGE]).await.expect("sent");
                    client.read_exact(&mut buffer).await.expect("received");
                }
            };
            let answer = async {
                let mut buffer = [0; MESSAGE];
                for _ in 0..MESSAGES {
                    server.read_exact(&mut buffer).await.expect("received");
                    server.write_all(&buffer).await.expect("sent");
                }
            };
            tokio::join!(request, answer);
        }
    }
    began.elapsed().as_secs_f64()
}

async fn connect<T>(
    (connector, acceptor): &Peers,
    wrap: fn(TcpStream) -> T,
) -> (client::TlsStream<T>, server::TlsStream<T>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (near, (far, _)) = (near.expect("a connection"), far.expect("a connection"));
    near.set_nodelay(true).expect("an option");
    far.set_nodelay(true).expect("an option");
    let name = ServerName::try_from("localhost").expect("a name");
    let (client, server) = tokio::join!(connector.connect(name, wrap(near)), acceptor.accept(wrap(far)));
    (client.expect("a handshake"), server.expect("a handshake"))
}

type Peers = (TlsConnector, TlsAcceptor);

fn configurations() -> Peers {
    let (server, certificate) = server_config();
    (client_that_trusts(certificate), TlsAcceptor::from(server))
}

/// Returns the configuration of a server, and its certificate.
fn server_config() -> (Arc<ServerConfig>, CertificateDer<'static>) {
    let certified = rcgen::generate_simple_self_signed(["localhost".into()]).expect("a certificate");
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let certificate = certified.cert.der().clone();
    let server = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())
        .expect("a certificate");
    (Arc::new(server), certificate)
}

/// Returns a client that trusts `certificate`.
fn client_that_trusts(certificate: CertificateDer<'static>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a root");
    let client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(client))
}
