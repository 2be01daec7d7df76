//! The examples of clients.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::SocketAddr,
    ops::RangeInclusive,
    sync::Arc,
};

use hyper::{
    Response,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use rustls::{ServerConfig, crypto::ring};
use tokio::{net::TcpListener, process::Command};
use tokio_rustls::TlsAcceptor;
use tonic::server::UnaryService;
use tonic_prost::ProstCodec;

use crate::harness::{Example, file, run};

#[tokio::test]
async fn a_connector_made_by_hand_is_served_and_both_sides_end_completely() {
    let server = Example::start(env!("CARGO_BIN_EXE_server"), "example.pem").await;
    let port = server.address.parse::<SocketAddr>().unwrap().port();
    let url = format!("https://localhost:{port}/count");
    let printed = run(Command::new(env!("CARGO_BIN_EXE_own_connector")).arg(url).arg(&server.cert)).await;
    let (response, reports) = printed.split_once('\n').unwrap();
    assert_eq!(response, "200 OK b\"1000000 bytes\\n\"");
    assert_drained(reports, 1..=1);

    server.signal(Signal::INT);
    let printed = server.wait_for_exit().await;
    assert_eq!(printed.matches(" complete: close_notify sent, received").count(), 1, "{printed}");
}

/// Checks the reports of a client: one line for each connection, then one for the drain.
#[track_caller]
fn assert_drained(reports: &str, counts: RangeInclusive<usize>) {
    let lines: Vec<_> = reports.lines().collect();
    let (drain, connections) = lines.split_last().unwrap();
    assert!(counts.contains(&connections.len()), "{reports}");
    assert!(connections.iter().all(|line| line.starts_with("complete: close_notify sent, received")), "{reports}");
    let has_count =
        |count| drain.starts_with(&format!("{count} ended: {count} complete; {} tickets, 0 left, ", 2 * count));
    // hyper-util itself closes a new connection if another becomes free first. The drain does not count it.
    assert!((1..=connections.len()).any(has_count), "{reports}");
}

struct Echo;

impl UnaryService<String> for Echo {
    type Response = String;
    type Future = Ready<Result<tonic::Response<String>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<String>) -> Self::Future {
        ready(Ok(tonic::Response::new(request.into_inner())))
    }
}

/// A server without this library, of tokio-rustls and hyper. It serves gRPC over HTTP/2, and `hello` over HTTP/1.
async fn serve() -> SocketAddr {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.into()], certified.signing_key.into())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let tls = acceptor.accept(tcp).await.unwrap();
                // The tests check the reports of the clients, so the result is not used.
                if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
                    let service = service_fn(|request| async {
                        let mut grpc = tonic::server::Grpc::new(ProstCodec::<String, String>::default());
                        Ok::<_, Infallible>(grpc.unary(Echo, request).await)
                    });
                    let http = http2::Builder::new(TokioExecutor::new());
                    let _ = http.serve_connection(TokioIo::new(tls), service).await;
                } else {
                    let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new("hello".to_owned())) });
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn clients_are_drained() {
    let address = serve().await;
    let url = format!("https://{address}/");
    let hyper_client = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hyper_client"));
        command.args([&url, "--insecure", "--requests", "20"]);
        command
    };
    assert_drained(&run(&mut hyper_client()).await, 1..=20);
    assert_drained(&run(hyper_client().arg("--http2")).await, 1..=1);

    let printed = run(Command::new(env!("CARGO_BIN_EXE_tonic_client")).args([&url, "said", "--insecure"])).await;
    let (response, reports) = printed.split_once('\n').unwrap();
    assert_eq!(response, "said");
    assert_drained(reports, 1..=1);
}

#[tokio::test]
async fn tls_is_started_ended_and_started_again() {
    let cert = file("ftps.pem");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ftps_ccc"));
    command.args(["--listen", "127.0.0.1:0", "--cert"]).arg(&cert);
    let mut server = Example::spawn(command, cert).await;

    let printed = run(Command::new(env!("CARGO_BIN_EXE_starttls")).arg(&server.address).arg(&server.cert)).await;
    assert!(printed.ends_with("QUIT\r\n221 bye\r\n"), "{printed}");
    for _ in 0..2 {
        let line = server.next_line().await;
        assert!(line.contains(" complete: close_notify sent, received"), "{line}");
    }
}
