//! Runs examples as child processes, and speaks to servers over tokio-rustls with HTTP written by hand.

use std::{path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A step that takes longer hangs.
const HANG: Duration = Duration::from_secs(30);

/// Awaits `step`, and fails the test if it hangs.
pub(crate) async fn within<T>(step: impl Future<Output = T>) -> T {
    timeout(HANG, step).await.expect("a step hangs")
}

/// The path of a file of this test. The file does not exist yet.
pub(crate) fn file(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

/// Runs an example to its end. Returns its standard output.
pub(crate) async fn run(example: &mut Command) -> String {
    let output = within(example.kill_on_drop(true).output()).await.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    printed
}

/// A running server, and the processes that it starts.
pub(crate) struct Example {
    pub(crate) process: Child,
    pub(crate) group: Pid,
    output: BufReader<ChildStdout>,
    /// Standard output so far, without the addresses.
    printed: String,
    pub(crate) address: String,
    pub(crate) cert: PathBuf,
}

impl Example {
    /// Starts an example with an address and the file of a certificate.
    pub(crate) async fn start(program: &str, cert: &str) -> Self {
        let cert = file(cert);
        let mut command = Command::new(program);
        command.arg("127.0.0.1:0").arg(&cert);
        Self::spawn(command, cert).await
    }

    /// Starts an example, and waits until it listens.
    pub(crate) async fn spawn(mut command: Command, cert: PathBuf) -> Self {
        let mut process = command.stdout(Stdio::piped()).process_group(0).spawn().unwrap();
        let group = Pid::from_raw(process.id().unwrap().try_into().unwrap()).unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut example = Self { process, group, output, printed: String::new(), address: String::new(), cert };
        example.address = example.wait_for_address().await;
        example
    }

    /// Waits until the next process listens. Returns its address.
    pub(crate) async fn wait_for_address(&mut self) -> String {
        loop {
            let line = self.next_line().await;
            if let Some(address) = line.trim().strip_prefix("listening ") {
                return address.trim_start_matches("on https://").to_owned();
            }
            self.printed += &line;
        }
    }

    /// Waits for the next line of standard output.
    pub(crate) async fn next_line(&mut self) -> String {
        let mut line = String::new();
        within(self.output.read_line(&mut line)).await.unwrap();
        assert!(!line.is_empty(), "no further line after {}", self.printed);
        line
    }

    /// A client that trusts the example's certificate, and resumes sessions.
    pub(crate) fn client(&self, protocol: Option<&str>) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.cert).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocol.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Client { address: self.address.clone(), config: Arc::new(config) }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.group, signal).unwrap();
    }

    /// Waits until the example and all processes that it started have exited. Returns what they printed.
    pub(crate) async fn wait_for_exit(mut self) -> String {
        within(self.output.read_to_string(&mut self.printed)).await.unwrap();
        assert!(within(self.process.wait()).await.unwrap().success(), "{}", self.printed);
        std::mem::take(&mut self.printed)
    }
}

impl Drop for Example {
    /// Kills the processes that a failed test leaves.
    fn drop(&mut self) {
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

#[derive(Clone)]
pub(crate) struct Client {
    address: String,
    config: Arc<ClientConfig>,
}

impl Client {
    pub(crate) async fn connect(&self) -> Connection {
        let tcp = within(TcpStream::connect(&self.address)).await.expect("not refused");
        let connector = TlsConnector::from(self.config.clone());
        let tls = within(connector.connect("localhost".try_into().unwrap(), tcp)).await.expect("a handshake");
        Connection(BufReader::new(tls))
    }
}

/// A client's connection.
pub(crate) struct Connection(pub(crate) BufReader<TlsStream<TcpStream>>);

/// A response of HTTP/1, with the head in lower case.
pub(crate) struct Response {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    /// Whether the server announces the end of the connection.
    pub(crate) fn is_last(&self) -> bool {
        self.head.contains("connection: close")
    }
}

impl Connection {
    pub(crate) async fn send(&mut self, text: &str) {
        within(self.0.write_all(text.as_bytes())).await.unwrap();
        within(self.0.flush()).await.unwrap();
    }

    pub(crate) async fn next_line(&mut self) -> String {
        let mut line = String::new();
        within(self.0.read_line(&mut line)).await.unwrap();
        line
    }

    pub(crate) async fn response(&mut self) -> Response {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let line = self.next_line().await;
            assert!(!line.is_empty(), "the connection ended after {head:?}");
            head += &line.to_lowercase();
        }
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        let mut body = vec![0; length];
        within(self.0.read_exact(&mut body)).await.unwrap();
        Response { head, body: String::from_utf8(body).unwrap() }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Response {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        self.response().await
    }

    /// Waits for the server's close_notify, and answers it. No data may come before it.
    pub(crate) async fn wait_for_close(mut self) {
        let mut rest = String::new();
        within(self.0.read_to_string(&mut rest)).await.expect("close_notify");
        assert_eq!(rest, "");
        within(self.0.shutdown()).await.unwrap();
    }
}
