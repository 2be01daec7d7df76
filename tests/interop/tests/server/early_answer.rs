//! No reset destroys the answer of a server that answers before it has read the request, and closes.

use std::{fs, iter::repeat_with, path::Path};

use tls_shutdown_interop::{
    Build, CERTIFICATE, End, LOOPBACK, Server, VERSIONS, curl, directory, end, python, run, run_well,
};
use tokio::{process::Command, task::JoinSet};

const ROUTE: &str = "/reject/300000";
const ANSWER: &str = "413 300000";
/// A short answer, as most are. Its end comes in one piece with it, and with the RST_STREAM that refuses the rest of the upload.
const SHORT_ROUTE: &str = "/reject/10";
const SHORT_ANSWER: &str = "413 10";
/// More than buffers and windows take, so that most of the answer has not come when curl ends its upload. curl does that when it has seen
/// the status, with fewer bytes than its Content-Length.
const LARGE_ROUTE: &str = "/reject/20000000";
const LARGE_ANSWER: &str = "413 20000000";
/// Lengths of the request's body.
const LENGTHS: [usize; 2] = [1_000_000, 10_000_000];
/// For each length and each client, half of them with each version of TLS.
const TRIES: usize = 100;
const TRIES_OF_THE_CONTROL: usize = 30;
/// Clients that run at once.
const CLIENTS: usize = 5;
const PAUSING: usize = 10;

/// The client has closed, too. Or it has left. Or its system has reset the connection, since it left something unread.
const ENDINGS: [End; 3] = [("complete", true, true), ("sent", true, false), ("reset", true, false)];

/// Uploads some times, one after the other, with a pause of some seconds in the middle of each.
fn cpython(server: &Server, version: &str, length: usize, tries: usize, pause: &str) -> Command {
    let mut client = python("upload.py");
    client.args([&server.address.port().to_string(), ROUTE, &CERTIFICATE.cert, version]);
    client.args([&length.to_string(), &tries.to_string(), pause]);
    client
}

/// Uploads once.
fn curl_over(protocol: &str, server: &Server, route: &str, version: &str, body: &Path) -> Command {
    let mut client = curl(version);
    // Without `Expect: 100-continue` it does not wait for leave to upload.
    client.args([protocol, "-H", "Expect:", "-o", "/dev/null", "-w", "%{http_code} %{size_download} %{errormsg}\n"]);
    client.arg("--data-binary").arg(format!("@{}", body.display())).arg(server.url(route));
    client
}

/// Runs clients at the same time. Returns the lines that they print, one for each answer.
async fn together(clients: impl Iterator<Item = Command>) -> Vec<String> {
    let mut running = JoinSet::new();
    for mut client in clients {
        running.spawn(async move { run_well(&mut client, b"").await });
    }
    let output = running.join_all().await.concat();
    String::from_utf8(output).expect("UTF-8").lines().map(|line| line.trim_end().to_owned()).collect()
}

async fn serve() -> Server {
    Server::start(Build::Release.serve(LOOPBACK, &[])).await
}

#[tokio::test]
async fn arrives_whole_at_cpython() {
    let mut server = serve().await;
    for length in LENGTHS {
        for version in VERSIONS {
            let tries = TRIES / VERSIONS.len() / CLIENTS;
            let client = || cpython(&server, version, length, tries, "0");
            let answers = together(repeat_with(client).take(CLIENTS)).await;
            assert_eq!(answers, vec![ANSWER; CLIENTS * tries], "TLS {version}, {length} bytes");
        }
        all_are_told(&mut server, TRIES).await;
    }
}

#[tokio::test]
async fn arrives_whole_at_curl_over_http1() {
    arrives_whole_at_curl("--http1.1").await;
}

#[tokio::test]
async fn arrives_whole_at_curl_over_http2() {
    arrives_whole_at_curl("--http2").await;
}

async fn arrives_whole_at_curl(protocol: &str) {
    let server = serve().await;
    for length in LENGTHS {
        let body = directory().join(format!("zeros{protocol}"));
        fs::write(&body, vec![0; length]).expect("a file");
        for version in VERSIONS {
            for _ in 0..TRIES / VERSIONS.len() / CLIENTS {
                let client = || curl_over(protocol, &server, ROUTE, version, &body);
                let answers = together(repeat_with(client).take(CLIENTS)).await;
                assert_eq!(answers, [ANSWER; CLIENTS], "TLS {version}, {length} bytes");
            }
        }
    }
}

/// How many of the [`TRIES`] end well.
async fn answers(protocol: &str, server: &Server, route: &str, answer: &str) -> usize {
    let body = directory().join(format!("upload{protocol}-{}", server.address.port()));
    fs::write(&body, vec![0; LENGTHS[1]]).expect("a file");
    let mut whole = 0;
    for version in VERSIONS {
        for _ in 0..TRIES / VERSIONS.len() / CLIENTS {
            let clients = (0..CLIENTS).map(|_| curl_over(protocol, server, route, version, &body));
            let mut running: JoinSet<_> =
                clients.map(|mut client| async move { run(&mut client, b"").await }).collect();
            while let Some(output) = running.join_next().await {
                let output = output.expect("no panic");
                let is_whole = String::from_utf8_lossy(&output.stdout).trim_end() == answer;
                whole += usize::from(output.status.success() && is_whole);
            }
        }
    }
    whole
}

#[tokio::test]
async fn a_large_one_and_a_short_one_arrive_whole_at_curl_that_cuts_its_upload_short() {
    let server = serve().await;
    let bare = Server::start(Build::Release.bare_server(LOOPBACK)).await;
    for (route, answer) in [(LARGE_ROUTE, LARGE_ANSWER), (SHORT_ROUTE, SHORT_ANSWER)] {
        for protocol in ["--http1.1", "--http2"] {
            assert_eq!(answers(protocol, &server, route, answer).await, TRIES, "{protocol} {route}");
        }
        let whole = answers("--http2", &bare, route, answer).await;
        println!("the bare server: {whole} of {TRIES} over HTTP/2, {route}");
        assert!(whole < TRIES, "the control proves nothing");
    }
}

#[tokio::test]
async fn arrives_whole_at_clients_that_pause_in_their_upload() {
    let mut server = serve().await;
    for length in LENGTHS {
        let client = || cpython(&server, "1.3", length, 1, "3");
        let answers = together(repeat_with(client).take(PAUSING)).await;
        assert_eq!(answers, [ANSWER; PAUSING], "{length} bytes");
        all_are_told(&mut server, PAUSING).await;
    }
}

async fn all_are_told(server: &mut Server, connections: usize) {
    for _ in 0..connections {
        let event = server.closed().await;
        assert!(ENDINGS.contains(&end(&event)), "{event}");
    }
}

#[tokio::test]
async fn the_bare_server_loses_its_answers() {
    let server = Server::start(Build::Release.bare_server(LOOPBACK)).await;
    let answers = together([cpython(&server, "1.3", LENGTHS[0], TRIES_OF_THE_CONTROL, "0")].into_iter()).await;
    let whole = answers.iter().filter(|answer| *answer == ANSWER).count();
    println!("the bare server: {whole} of {TRIES_OF_THE_CONTROL}");
    assert!(whole < TRIES_OF_THE_CONTROL / 2, "{answers:?}");
}
