//! Programs of others as servers of `tls-shutdown probe`: each report is true of the server.

use std::path::Path;

use serde_json::Value;
use tls_shutdown_interop::{Background, Build, CERTIFICATE, Server, directory, peer_file, program, run};
use tokio::process::Command;

/// The values of the findings, but for the time, and who is at fault for an unexpected EOF.
#[derive(Debug)]
struct Expected {
    answers_close_notify: bool,
    closes_tcp_after_answer: &'static str,
    idle_close: &'static str,
    early_answer_survives: Option<bool>,
    close_delimited_truthful: Option<bool>,
    reads_after_close_notify: Option<bool>,
    tickets: u64,
    at_fault: &'static str,
}

/// A server that closes well, and speaks no HTTP.
const GOOD: Expected = Expected {
    answers_close_notify: true,
    closes_tcp_after_answer: "fin",
    idle_close: "none",
    early_answer_survives: None,
    close_delimited_truthful: None,
    reads_after_close_notify: None,
    tickets: 2,
    at_fault: "nobody",
};

/// Every one of these servers resumes sessions, also after a connection that was only written to.
async fn finds(port: u16, expected: Expected) {
    let mut command = Build::Tests.command("tls-shutdown");
    command.args(["probe", &format!("127.0.0.1:{port}"), "--json", "--ca", &CERTIFICATE.cert]);
    let output = run(&mut command, b"").await;
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert!(output.status.success(), "{report}");
    let value = |id: &str| {
        let findings = report["findings"].as_array().expect("findings");
        &findings.iter().find(|finding| finding["id"] == id).expect("a finding")["value"]
    };
    assert_eq!(report["tls"]["version"], "1.3", "{report}");
    for (id, expected) in [
        ("answers_close_notify", expected.answers_close_notify.into()),
        ("closes_tcp_after_answer", expected.closes_tcp_after_answer.into()),
        ("idle_close", expected.idle_close.into()),
        ("early_answer_survives", expected.early_answer_survives.into()),
        ("close_delimited_truthful", expected.close_delimited_truthful.into()),
        ("reads_after_close_notify", expected.reads_after_close_notify.into()),
        ("tickets", expected.tickets.into()),
        ("resumes", Value::Bool(true)),
        ("resumes_after_write_only", Value::Bool(true)),
    ] {
        assert_eq!(value(id), &expected, "{id}: {report:#}");
    }
    assert_eq!(value("answer_time_ms").is_f64(), expected.answers_close_notify, "{report:#}");
    assert_eq!(report["unexpected_eof"]["at_fault"], expected.at_fault, "{report:#}");
}

async fn openssl(more: &[&str], expected: Expected) {
    let mut server = program("openssl", "openssl");
    server.args(["s_server", "-accept", "127.0.0.1:0", "-cert", &CERTIFICATE.cert, "-key", &CERTIFICATE.key]);
    let mut server = Background::start(server.args(more));
    finds(server.port("ACCEPT").await, expected).await;
}

async fn gnutls() {
    let command = |port: u16| {
        let mut server = program("gnutls-serv", "gnutls-bin");
        server.args(["--http", "--port", &port.to_string()]);
        server.args(["--x509certfile", &CERTIFICATE.cert, "--x509keyfile", &CERTIFICATE.key]);
        server
    };
    let (_server, port) = Background::start_on_free_port(command, "...done").await;
    // Its page ends with the connection, and it leaves at once.
    let expected = Expected { close_delimited_truthful: Some(true), reads_after_close_notify: Some(false), ..GOOD };
    finds(port, expected).await;
}

/// It serves one connection after the other.
async fn java() {
    program("javac", "default-jdk-headless");
    let mut server = program("java", "default-jdk-headless");
    server.arg(peer_file("Server.java")).args([&CERTIFICATE.cert, &CERTIFICATE.key, "5"]);
    let mut server = Background::start(&mut server);
    finds(server.port("port").await, Expected { tickets: 1, ..GOOD }).await;
}

/// The probe watches all of them for as long as it can.
#[tokio::test]
async fn servers_that_end_no_idle_connection() {
    // The build of the command must not count as the time of another server.
    Build::Tests.command("tls-shutdown");
    let web = Expected { close_delimited_truthful: Some(true), reads_after_close_notify: Some(true), ..GOOD };
    tokio::join!(openssl(&[], GOOD), openssl(&["-www"], web), gnutls(), java());
}

#[tokio::test]
async fn nginx() {
    let command = |port: u16| {
        let configuration = format!(
            "daemon off; master_process off; pid probe.pid; error_log stderr notice; events {{}}
             http {{
                 client_body_temp_path probe-body; proxy_temp_path probe-proxy; fastcgi_temp_path probe-fastcgi;
                 uwsgi_temp_path probe-uwsgi; scgi_temp_path probe-scgi; access_log off;
                 server {{
                     listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.3; keepalive_timeout 1s;
                     ssl_certificate {}; ssl_certificate_key {};
                     location / {{ return 200 hello; }}
                 }}
             }}",
            CERTIFICATE.cert, CERTIFICATE.key
        );
        let file = directory().join("probe-nginx.conf");
        std::fs::write(&file, configuration).expect("a configuration");
        let mut server = program("nginx", "nginx-light");
        server.arg("-p").arg(directory()).arg("-c").arg(file).args(["-e", "stderr"]);
        server
    };
    let (_server, port) = Background::start_on_free_port(command, "epoll").await;
    // It ends TCP when it reads close_notify.
    let expected = Expected {
        answers_close_notify: false,
        idle_close: "close_notify",
        early_answer_survives: Some(true),
        close_delimited_truthful: Some(true),
        reads_after_close_notify: Some(false),
        at_fault: "server",
        ..GOOD
    };
    finds(port, expected).await;
}

#[tokio::test]
async fn haproxy() {
    let pem = directory().join("probe-haproxy.pem");
    let read = |file: &str| std::fs::read(Path::new(file)).expect("a PEM file");
    std::fs::write(&pem, [read(&CERTIFICATE.cert), read(&CERTIFICATE.key)].concat()).expect("a PEM file");
    let command = |port: u16| {
        let configuration = format!(
            "global
               log stdout format raw local0
             defaults
               mode http
               timeout client 1s
               timeout server 1s
               timeout connect 1s
             frontend probe
               bind 127.0.0.1:{port} ssl crt {} alpn h2,http/1.1
               http-request return status 413 content-type text/plain string no if METH_POST
               http-request return status 200 content-type text/plain string hello\n",
            pem.display()
        );
        let file = directory().join("probe-haproxy.cfg");
        std::fs::write(&file, configuration).expect("a configuration");
        let mut server = program("haproxy", "haproxy");
        server.args(["-V", "-f"]).arg(file);
        server
    };
    let (_server, port) = Background::start_on_free_port(command, "Using epoll").await;
    // It closes behind an early answer at once, and the rest of the request resets the connection.
    let expected = Expected {
        idle_close: "close_notify",
        early_answer_survives: Some(false),
        close_delimited_truthful: Some(true),
        reads_after_close_notify: Some(false),
        ..GOOD
    };
    finds(port, expected).await;
}

#[tokio::test]
async fn node() {
    let mut server = program("node", "nodejs");
    server.arg(peer_file("http.js")).args([&CERTIFICATE.cert, &CERTIFICATE.key]);
    let mut server = Background::start(&mut server);
    // It ends idle connections after 5 s, and without close_notify.
    let expected = Expected {
        idle_close: "fin",
        early_answer_survives: Some(true),
        close_delimited_truthful: Some(true),
        reads_after_close_notify: Some(false),
        at_fault: "server",
        ..GOOD
    };
    finds(server.port("port").await, expected).await;
}

#[tokio::test]
async fn go() {
    let executable = directory().join("go-http");
    let mut build = program("go", "golang-go").into_std();
    build.args(["build", "-o"]).arg(&executable).arg(peer_file("http.go"));
    build.env("GO111MODULE", "off").env("GOFLAGS", "").env("GOCACHE", directory().join("go-cache"));
    let built = build.output().expect("go runs");
    assert!(built.status.success(), "{built:?}");
    let mut server = Background::start(Command::new(executable).args([&CERTIFICATE.cert, &CERTIFICATE.key]));
    // It resets what it has not read half a second after an early answer.
    let expected = Expected {
        idle_close: "close_notify",
        early_answer_survives: Some(true),
        close_delimited_truthful: Some(true),
        reads_after_close_notify: Some(false),
        tickets: 1,
        ..GOOD
    };
    finds(server.port("port").await, expected).await;
}

#[tokio::test]
async fn our_own() {
    let server = Server::serve(&[]).await;
    let expected = Expected {
        early_answer_survives: Some(true),
        close_delimited_truthful: Some(true),
        reads_after_close_notify: Some(true),
        ..GOOD
    };
    finds(server.address.port(), expected).await;
}
