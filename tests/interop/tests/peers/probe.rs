//! Programs of others as servers of `tls-shutdown probe`. The table in the guide is what the probe finds.
//!
//! `cargo test -p tls-shutdown-interop --test peers probe -- --nocapture` prints the rows of the table.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tls_shutdown_interop::{
    Background, Build, CERTIFICATE, Server, curl, directory, peer_file, program, python_program, python_with_packages,
    run, run_well,
};
use tokio::process::Command;

/// The page with the table.
const GUIDE: &str = include_str!("../../../../crates/tls-shutdown/guide/src/probe.md");

/// The columns of the table between the server's name and who is at fault for an unexpected EOF.
const FINDINGS: [&str; 7] = [
    "answers_close_notify",
    "closes_tcp_after_answer",
    "idle_close",
    "early_answer_survives",
    "close_delimited_truthful",
    "reads_after_close_notify",
    "tickets",
];

/// The rows of the table. Each is compared in a test.
const SERVERS: [&str; 14] = [
    "tls-shutdown",
    "aiohttp",
    "axum-server",
    "Caddy",
    "Envoy",
    "GnuTLS `gnutls-serv`",
    "Go `net/http`",
    "HAProxy",
    "Java `SSLServerSocket`",
    "nginx",
    "Node `https`",
    "OpenSSL `s_server`",
    "OpenSSL `s_server -www`",
    "Traefik",
];

/// Probes a server, prints its row of the table, and compares it with the guide.
async fn finds(server: &str, port: u16) {
    let mut command = Build::Tests.command("tls-shutdown");
    command.args(["probe", &format!("127.0.0.1:{port}"), "--json", "--ca", &CERTIFICATE.cert]);
    let output = run(&mut command, b"").await;
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert!(output.status.success(), "{report}");
    assert_eq!(report["tls"]["version"], "1.3", "{report}");
    let value = |id: &str| {
        let findings = report["findings"].as_array().expect("findings");
        &findings.iter().find(|finding| finding["id"] == id).expect("a finding")["value"]
    };
    // As the guide says below the table.
    assert_eq!(value("answer_time_ms").is_f64(), value("answers_close_notify") == true, "{report:#}");
    assert_eq!((value("resumes"), value("resumes_after_write_only")), (&true.into(), &true.into()), "{report:#}");

    let at_fault = &report["unexpected_eof"]["at_fault"];
    let cells: Vec<_> = FINDINGS.map(value).into_iter().chain([at_fault]).map(cell).collect();
    let row = format!("| {server} | {} |", cells.join(" | "));
    println!("{row}");
    assert!(SERVERS.contains(&server), "{server}");
    assert!(GUIDE.lines().any(|line| line == row), "the guide has no row\n{row}\n{report:#}");
}

/// A value as a cell of the table.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

#[test]
fn the_table_has_these_columns_and_no_other_rows() {
    let header = format!("| server | {} | at fault |", FINDINGS.join(" | ").replace('_', " "));
    let rows = GUIDE.lines().skip_while(|line| *line != header).skip(2).take_while(|line| line.starts_with("| "));
    let servers: Vec<_> = rows.filter_map(|row| row.split(" | ").next()).map(|cell| &cell[2..]).collect();
    assert_eq!(servers, SERVERS, "{header}");
}

/// A file of `peers/probe`, for a server with the certificate of the tests on this port.
fn configuration(name: &str, port: u16) -> PathBuf {
    let text = std::fs::read_to_string(peer_file("probe").join(name)).expect("a configuration");
    // HAProxy wants both in one file.
    let cert = if name.starts_with("haproxy") { certificate_and_key() } else { CERTIFICATE.cert.clone() };
    let text = text.replace("PORT", &port.to_string()).replace("CERT", &cert).replace("KEY", &CERTIFICATE.key);
    let file = directory().join(format!("probe-{name}"));
    std::fs::write(&file, text).expect("a configuration");
    file
}

fn certificate_and_key() -> String {
    let file = directory().join("probe-haproxy.pem");
    let read = |file: &str| std::fs::read(Path::new(file)).expect("a PEM file");
    std::fs::write(&file, [read(&CERTIFICATE.cert), read(&CERTIFICATE.key)].concat()).expect("a PEM file");
    file.into_os_string().into_string().expect("a path in UTF-8")
}

/// A server that is configured by a file of `peers/probe`. Its output contains `ready` when it listens.
async fn configured(server: &str, file: &str, ready: &str, command: impl Fn() -> Command) {
    let command = |port| {
        let mut command = command();
        command.arg(configuration(file, port));
        command
    };
    let (_server, port) = Background::start_on_free_port(command, ready).await;
    finds(server, port).await;
}

/// A server that chooses its port and prints it behind `text`.
async fn printing(server: &str, text: &str, command: &mut Command) {
    let mut running = Background::start(command);
    finds(server, running.port(text).await).await;
}

async fn openssl(server: &str, more: &[&str]) {
    let mut command = program("openssl", "openssl");
    command.args(["s_server", "-accept", "127.0.0.1:0", "-cert", &CERTIFICATE.cert, "-key", &CERTIFICATE.key]);
    printing(server, "ACCEPT", command.args(more)).await;
}

async fn gnutls() {
    let command = |port: u16| {
        let mut server = program("gnutls-serv", "gnutls-bin");
        server.args(["--http", "--port", &port.to_string()]);
        server.args(["--x509certfile", &CERTIFICATE.cert, "--x509keyfile", &CERTIFICATE.key]);
        server
    };
    let (_server, port) = Background::start_on_free_port(command, "...done").await;
    finds("GnuTLS `gnutls-serv`", port).await;
}

/// It serves one connection after the other.
async fn java() {
    program("javac", "default-jdk-headless");
    let mut command = program("java", "default-jdk-headless");
    command.arg(peer_file("Server.java")).args([&CERTIFICATE.cert, &CERTIFICATE.key, "5"]);
    printing("Java `SSLServerSocket`", "port", &mut command).await;
}

async fn axum_server() {
    let mut command = Build::Tests.command("bare_axum_server");
    printing("axum-server", "port", command.args([&CERTIFICATE.cert, &CERTIFICATE.key])).await;
}

async fn our_own() {
    let server = Server::serve(&[]).await;
    finds("tls-shutdown", server.address.port()).await;
}

/// The probe watches all of them for as long as it can.
#[tokio::test]
async fn servers_that_end_no_idle_connection() {
    // The build of the command must not count as the time of another server.
    Build::Tests.command("tls-shutdown");
    let openssl =
        async { tokio::join!(openssl("OpenSSL `s_server`", &[]), openssl("OpenSSL `s_server -www`", &["-www"])) };
    tokio::join!(our_own(), openssl, gnutls(), java(), axum_server());
}

#[tokio::test]
async fn nginx() {
    configured("nginx", "nginx.conf", "epoll", || {
        let mut command = program("nginx", "nginx-light");
        command.arg("-p").arg(directory()).args(["-e", "stderr", "-c"]);
        command
    })
    .await;
}

#[tokio::test]
async fn haproxy() {
    configured("HAProxy", "haproxy.cfg", "Using epoll", || {
        let mut command = program("haproxy", "haproxy");
        command.args(["-V", "-f"]);
        command
    })
    .await;
}

#[tokio::test]
async fn caddy() {
    configured("Caddy", "caddy.conf", "serving initial configuration", || {
        let mut command = python_program("caddy");
        command.env("XDG_DATA_HOME", directory()).env("XDG_CONFIG_HOME", directory());
        command.args(["run", "--adapter", "caddyfile", "--config"]);
        command
    })
    .await;
}

#[tokio::test]
async fn envoy() {
    configured("Envoy", "envoy.yaml", "starting workers", || {
        let mut command = python_program("envoy");
        command.args(["--concurrency", "1", "--use-dynamic-base-id", "--config-path"]);
        command
    })
    .await;
}

/// It serves with another certificate until it has read its file.
#[tokio::test]
async fn traefik() {
    let command = |port: u16| {
        let mut command = python_program("traefik");
        command.arg(format!("--entrypoints.probe.address=127.0.0.1:{port}"));
        command.arg("--entrypoints.probe.transport.respondingtimeouts.idletimeout=1s");
        command.args(["--ping", "--ping.manualrouting", "--global.checknewversion=false", "--log.level=INFO"]);
        command.arg(format!("--providers.file.filename={}", configuration("traefik.yaml", port).display()));
        command
    };
    let (_server, port) = Background::start_on_free_port(command, "acme.ChallengeTLSALPN").await;
    let mut request = curl("1.3");
    request.args(["--retry", "30", "--retry-all-errors", "--retry-delay", "1", &format!("https://127.0.0.1:{port}/")]);
    run_well(&mut request, b"").await;
    finds("Traefik", port).await;
}

#[tokio::test]
async fn node() {
    let mut command = program("node", "nodejs");
    command.arg(peer_file("probe/node.js")).args([&CERTIFICATE.cert, &CERTIFICATE.key]);
    printing("Node `https`", "port", &mut command).await;
}

#[tokio::test]
async fn go() {
    let executable = directory().join("go-http");
    let mut build = program("go", "golang-go").into_std();
    build.args(["build", "-o"]).arg(&executable).arg(peer_file("probe/go.go"));
    build.env("GO111MODULE", "off").env("GOFLAGS", "").env("GOCACHE", directory().join("go-cache"));
    let built = build.output().expect("go runs");
    assert!(built.status.success(), "{built:?}");
    printing("Go `net/http`", "port", Command::new(executable).args([&CERTIFICATE.cert, &CERTIFICATE.key])).await;
}

#[tokio::test]
async fn aiohttp() {
    let mut command = python_with_packages("probe/aiohttp_server.py");
    printing("aiohttp", "port", command.args([&CERTIFICATE.cert, &CERTIFICATE.key])).await;
}
