//! The examples of clients as a user runs them.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::SocketAddr,
    ops::RangeInclusive,
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use hyper::{
    Response,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::{Pid, Signal, kill_process};
use rustls::{ServerConfig, crypto::ring};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::TcpListener,
    process::Command,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tonic::server::UnaryService;
use tonic_prost::ProstCodec;

/// No step takes so long, unless it hangs.
const HANG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_connector_made_by_hand_is_served_and_both_sides_end_completely() {
    let cert = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-example.pem", std::process::id()));
    let mut server = Command::new(env!("CARGO_BIN_EXE_server"))
        .arg("127.0.0.1:0")
        .arg(&cert)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap());
    let mut listening = String::new();
    timeout(HANG, lines.read_line(&mut listening)).await.unwrap().unwrap();
    let address = listening.trim().strip_prefix("listening on https://").unwrap();

    let port = address.parse::<SocketAddr>().unwrap().port();
    let url = format!("https://localhost:{port}/count");
    let told = run(Command::new(env!("CARGO_BIN_EXE_own_connector")).arg(url).arg(&cert)).await;
    assert_eq!(told[0], "200 OK b\"1000000 bytes\\n\"");
    assert_drained(&told[1..], 1..=1);

    let id = server.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw).unwrap();
    kill_process(id, Signal::INT).unwrap();
    let mut told = String::new();
    timeout(HANG, lines.read_to_string(&mut told)).await.unwrap().unwrap();
    assert!(timeout(HANG, server.wait()).await.unwrap().unwrap().success());
    assert_eq!(told.matches(" complete: close_notify sent, received").count(), 1, "{told}");
}

/// The lines that an example tells.
async fn run(example: &mut Command) -> Vec<String> {
    let output = timeout(HANG, example.kill_on_drop(true).output()).await.unwrap().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    told.lines().map(str::to_owned).collect()
}

/// One line for each of the connections, then one for the drain of those that were left to it.
#[track_caller]
fn assert_drained(told: &[String], counts: RangeInclusive<usize>) {
    let (drain, connections) = told.split_last().unwrap();
    assert!(counts.contains(&connections.len()), "{told:#?}");
    assert!(connections.iter().all(|line| line.starts_with("complete: close_notify sent, received")), "{told:#?}");
    let is_count =
        |count| drain.starts_with(&format!("{count} ended: {count} complete; {} tickets, 0 left, ", 2 * count));
    // hyper-util closes a connection itself where another became free before it was made.
    assert!((1..=connections.len()).any(is_count), "{told:#?}");
}

struct Echo;

impl UnaryService<String> for Echo {
    type Response = String;
    type Future = Ready<Result<tonic::Response<String>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<String>) -> Self::Future {
        ready(Ok(tonic::Response::new(request.into_inner())))
    }
}

/// A server of bare tokio-rustls and hyper: gRPC over HTTP/2; over HTTP/1, `hello`.
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
                // How it ends is what the clients tell.
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

    let told = run(Command::new(env!("CARGO_BIN_EXE_tonic_client")).args([&url, "said", "--insecure"])).await;
    assert_eq!(told[0], "said");
    assert_drained(&told[1..], 1..=1);
}

#[tokio::test]
async fn tls_is_put_on_taken_off_and_put_on_again() {
    let cert = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-ftps.pem", std::process::id()));
    let mut server = Command::new(env!("CARGO_BIN_EXE_ftps_ccc"))
        .args(["--listen", "127.0.0.1:0", "--cert"])
        .arg(&cert)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let listening = timeout(HANG, lines.next_line()).await.unwrap().unwrap().unwrap();
    let address = listening.strip_prefix("listening ").unwrap();

    let mut client = Command::new(env!("CARGO_BIN_EXE_starttls"));
    let output = timeout(HANG, client.arg(address).arg(&cert).output()).await.unwrap().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.ends_with("QUIT\r\n221 bye\r\n"), "{told}");
    for _ in 0..2 {
        let told = timeout(HANG, lines.next_line()).await.unwrap().unwrap().unwrap();
        assert!(told.contains(" complete: close_notify sent, received"), "{told}");
    }
}
