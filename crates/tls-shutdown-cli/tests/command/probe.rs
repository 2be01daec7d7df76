//! `probe` at servers whose behaviour a script sets: each finding with each of its values, and each kind of error.

mod scripted;

use std::{path::PathBuf, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use self::scripted::{Answers, Close, Script, Speaks, Start};
use crate::process::{CERTIFICATE, Certificate, Serve, command, run, within};

/// The longest probe, and some time to start and to end on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// What is found at the best server.
const GOOD: [(&str, &str, &str); 9] = [
    ("answers_close_notify", "good", "true"),
    ("closes_tcp_after_answer", "good", "\"fin\""),
    ("idle_close", "good", "\"close_notify\""),
    ("early_answer_survives", "good", "true"),
    ("close_delimited_truthful", "good", "true"),
    ("reads_after_close_notify", "good", "true"),
    ("tickets", "good", "2"),
    ("resumes", "good", "true"),
    ("resumes_after_write_only", "good", "true"),
];

/// Probes a server at this address. Returns the exit code and the report.
async fn probe(address: &str, more: &[&str]) -> (Option<i32>, Value) {
    let begin = Instant::now();
    let arguments = ["probe", address, "--json", "--ca", CERTIFICATE.cert(), "--server-name", "localhost"];
    let mut command = command(&[&arguments, more].concat());
    let output = tokio::time::timeout(LIMIT * 2, command.output()).await.expect("it ends").expect("the command runs");
    assert!(begin.elapsed() < LIMIT + Duration::from_secs(2), "{:?}", begin.elapsed());
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), serde_json::from_slice(&output.stdout).expect("one JSON object"))
}

/// Probes a server with this script. The findings are those of the best server, except for these.
async fn finds(script: Script, different: &[(&str, &str, &str)], verdict: &str, at_fault: &str) {
    let case = format!("{script:?}");
    let (code, report) = probe(&script.start().await, script.starttls()).await;
    assert_eq!((code, &report["reachable"]), (Some(0), &true.into()), "{case}: {report}");
    let findings = report["findings"].as_array().expect("findings");
    let found: Vec<_> = findings
        .iter()
        .filter(|finding| finding["id"] != "answer_time_ms")
        .map(|finding| [&finding["id"], &finding["verdict"], &finding["value"]].map(Value::to_string))
        .collect();
    let expected: Vec<_> = GOOD
        .iter()
        .map(|good| different.iter().find(|(id, ..)| *id == good.0).unwrap_or(good))
        .map(|(id, verdict, value)| [format!("\"{id}\""), format!("\"{verdict}\""), (*value).to_owned()])
        .collect();
    assert_eq!(found, expected, "{case}");
    let time = &findings[1];
    let expected = match different.iter().find(|(id, ..)| *id == "answer_time_ms") {
        Some((_, verdict, _)) => *verdict,
        None => "good",
    };
    assert_eq!((&time["id"], &time["verdict"]), (&"answer_time_ms".into(), &expected.into()), "{case}: {time}");
    assert_eq!(time["value"].is_f64(), expected != "unknown", "{case}: {time}");
    let summary = (&report["verdict"], &report["unexpected_eof"]["at_fault"]);
    assert_eq!(summary, (&verdict.into(), &at_fault.into()), "{case}");
    let (version, alpn) = (report["tls"]["version"].as_str(), report["tls"]["alpn"].as_str());
    assert_eq!((version, alpn), (Some(script.version_name()), script.alpn()), "{case}");
    for finding in findings {
        assert!(!finding["meaning"].as_str().unwrap().is_empty() && !finding["rule"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn the_report_of_a_good_server() {
    let (code, mut report) = probe(&Script::default().start().await, &[]).await;
    assert_eq!(code, Some(0));
    let target = report["target"].take();
    assert!(target.as_str().unwrap().starts_with("127.0.0.1:"), "{target}");
    assert!(report["findings"][1]["value"].take().is_f64());
    let close_notify = "RFC 9846 section 6.1: a side sends close_notify before it closes its write side";
    let staged = "RFC 9112 section 9.6: a server closes in stages, so that no reset destroys a response";
    let resumption = "RFC 9846 section 2.2: a resumed session saves the certificate and its signature";
    let good = |id: &str, value: Value, meaning: &str, rule: &str| json!({ "id": id, "verdict": "good", "value": value, "meaning": meaning, "rule": rule });
    let expected = json!({
        "target": null,
        "reachable": true,
        "tls": { "version": "1.3", "alpn": "http/1.1" },
        "findings": [
            good("answers_close_notify", true.into(), "A client that waits for the server's close_notify gets it.", close_notify),
            good("answer_time_ms", Value::Null, "The close takes this long, the way there and back included.", "ShutdownPolicy::CLOSE_TIMEOUT: a client of this library waits 5 s by default"),
            good("closes_tcp_after_answer", "fin".into(), "The client may close without a further wait.", close_notify),
            good("idle_close", "close_notify".into(), "A client can tell the end of an idle connection from a cut one.", close_notify),
            good("early_answer_survives", true.into(), "The server goes on reading after an early answer, so that no reset overtakes it.", staged),
            good("close_delimited_truthful", true.into(), "A response without a length ends with close_notify, so that a client can tell it from a cut one.", "RFC 9112 section 9.8: a response that the connection ends is complete only with close_notify"),
            good("reads_after_close_notify", true.into(), "Data that crosses the server's close_notify causes no reset.", staged),
            good("tickets", 2.into(), "Clients that read to the end get this many tickets.", "RFC 9846 section 4.6.1: a server may send tickets at any time after the handshake"),
            good("resumes", true.into(), "Later connections of a client resume its session.", resumption),
            good("resumes_after_write_only", true.into(), "A client that only writes resumes its session if it reads to the end when it closes.", resumption),
        ],
        "verdict": "good",
        "unexpected_eof": {
            "at_fault": "nobody",
            "meaning": "the server sends close_notify wherever this probe saw it close; if clients report an unexpected EOF, look for a crash or for a proxy between them and the server",
        },
    });
    assert_eq!(report, expected);
}

#[tokio::test]
async fn each_way_to_answer_close_notify() {
    let cases: [(Close, &[_], _, _); 6] = [
        (
            Close::Fin,
            &[
                ("answers_close_notify", "bad", "false"),
                ("answer_time_ms", "unknown", ""),
                ("closes_tcp_after_answer", "tolerable", "\"fin\""),
            ],
            "bad",
            "server",
        ),
        (
            Close::Reset,
            &[
                ("answers_close_notify", "bad", "false"),
                ("answer_time_ms", "unknown", ""),
                ("closes_tcp_after_answer", "bad", "\"rst\""),
            ],
            "bad",
            "nobody",
        ),
        (
            Close::Never,
            &[
                ("answers_close_notify", "tolerable", "false"),
                ("answer_time_ms", "unknown", ""),
                ("closes_tcp_after_answer", "tolerable", "\"open\""),
            ],
            "tolerable",
            "nobody",
        ),
        (Close::NotifyOnly, &[("closes_tcp_after_answer", "tolerable", "\"open\"")], "tolerable", "nobody"),
        (Close::NotifySlowly, &[("answer_time_ms", "tolerable", "")], "tolerable", "nobody"),
        (Close::AfterFin, &[("answers_close_notify", "tolerable", "true")], "tolerable", "nobody"),
    ];
    for_each(cases, |(answer, different, verdict, at_fault)| {
        finds(Script { answer, ..Script::default() }, different, verdict, at_fault)
    })
    .await;
}

/// It takes the longest.
#[tokio::test]
async fn a_server_that_never_closes() {
    let script = Script {
        answer: Close::Never,
        response: (Answers::Length, Close::Never),
        idle: Close::Never,
        ..Script::default()
    };
    let different = [
        ("answers_close_notify", "tolerable", "false"),
        ("answer_time_ms", "unknown", ""),
        ("closes_tcp_after_answer", "tolerable", "\"open\""),
        ("idle_close", "unknown", "\"none\""),
        ("close_delimited_truthful", "unknown", "null"),
        ("reads_after_close_notify", "unknown", "null"),
    ];
    finds(script, &different, "tolerable", "unknown").await;
}

#[tokio::test]
async fn each_way_to_end_an_idle_connection() {
    let cases: [(Close, &[_], _, _); 3] = [
        (Close::Fin, &[("idle_close", "bad", "\"fin\"")], "bad", "server"),
        (Close::Reset, &[("idle_close", "bad", "\"rst\"")], "bad", "nobody"),
        (Close::Never, &[("idle_close", "unknown", "\"none\"")], "good", "nobody"),
    ];
    for_each(cases, |(idle, different, verdict, at_fault)| {
        finds(Script { idle, ..Script::default() }, different, verdict, at_fault)
    })
    .await;
}

#[tokio::test]
async fn each_way_to_end_a_response() {
    // The idle connection shows whether the server reads after close_notify, if the response does not.
    let cases: [(Close, Answers, &[_], _, _); 7] = [
        (Close::Notify, Answers::Length, &[], "good", "nobody"),
        (Close::Fin, Answers::UntilClose, &[("close_delimited_truthful", "bad", "false")], "bad", "server"),
        (Close::Reset, Answers::UntilClose, &[("close_delimited_truthful", "bad", "false")], "bad", "nobody"),
        (Close::Fin, Answers::Length, &[("close_delimited_truthful", "tolerable", "false")], "tolerable", "server"),
        (Close::Fin, Answers::Cut, &[("close_delimited_truthful", "bad", "false")], "bad", "server"),
        (Close::Never, Answers::Length, &[("close_delimited_truthful", "unknown", "null")], "good", "nobody"),
        (
            Close::NotifyThenLeave,
            Answers::UntilClose,
            &[("reads_after_close_notify", "tolerable", "false")],
            "tolerable",
            "nobody",
        ),
    ];
    for_each(cases, |(end, answers, different, verdict, at_fault)| {
        finds(Script { response: (answers, end), ..Script::default() }, different, verdict, at_fault)
    })
    .await;
}

#[tokio::test]
async fn each_fate_of_an_early_answer() {
    let cases: [(Start, &[_], _); 4] = [
        (Start::AtOnceThenReset, &[("early_answer_survives", "bad", "false")], "bad"),
        (Start::Cut, &[("early_answer_survives", "bad", "false")], "bad"),
        (Start::AtOnceThenResetLater, &[("early_answer_survives", "tolerable", "true")], "tolerable"),
        (Start::AfterTheRequest, &[("early_answer_survives", "unknown", "null")], "good"),
    ];
    for_each(cases, |(upload, different, verdict)| {
        finds(Script { upload, ..Script::default() }, different, verdict, "nobody")
    })
    .await;
}

#[tokio::test]
async fn tickets_and_versions() {
    let none = [
        ("tickets", "tolerable", "0"),
        ("resumes", "tolerable", "false"),
        ("resumes_after_write_only", "tolerable", "false"),
    ];
    let without = Script { tickets: 0, ..Script::default() };
    let old = Script { version: &rustls::version::TLS12, ..Script::default() };
    let silent = Script { version: &rustls::version::TLS12, answer: Close::Never, ..Script::default() };
    let unanswered = [
        ("answers_close_notify", "bad", "false"),
        ("answer_time_ms", "unknown", ""),
        ("closes_tcp_after_answer", "tolerable", "\"open\""),
        ("tickets", "unknown", "null"),
    ];
    tokio::join!(
        finds(without, &none, "tolerable", "nobody"),
        finds(old, &[("tickets", "unknown", "null")], "good", "nobody"),
        finds(silent, &unanswered, "bad", "nobody"),
    );
}

/// Nothing of HTTP is found where the server speaks another protocol.
#[tokio::test]
async fn starttls_and_servers_that_speak_first() {
    let not_http = [("early_answer_survives", "unknown", "null"), ("close_delimited_truthful", "unknown", "null")];
    let others = [Speaks::First, Speaks::Smtp, Speaks::Imap, Speaks::Postgres, Speaks::Http2];
    for_each(others, |speaks| async move {
        finds(Script { speaks, ..Script::default() }, &not_http, "good", "nobody").await;
    })
    .await;
}

async fn for_each<T, F: Future<Output = ()> + Send + 'static>(
    items: impl IntoIterator<Item = T>,
    run: impl Fn(T) -> F,
) {
    let running: Vec<_> = items.into_iter().map(|item| tokio::spawn(run(item))).collect();
    for one in running {
        one.await.unwrap();
    }
}

/// A probe that fails: the kind of its error, a part of the message, the exit code.
async fn fails(address: &str, more: &[&str], kind: &str, message: &str) {
    let (code, report) = probe(address, more).await;
    let text = report["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(text.contains(message), "{kind}: {report}");
    let expected = json!({
        "target": address,
        "reachable": false,
        "tls": null,
        "error": { "kind": kind, "message": text },
        "findings": [],
        "verdict": "unknown",
        "unexpected_eof": { "at_fault": "unknown", "meaning": "no TLS connection was made" },
    });
    assert_eq!((code, report), (Some(3), expected));
}

/// A server without TLS, which does this with each connection.
async fn plain<F: Future<Output = ()> + Send + 'static>(behave: impl Fn(TcpStream) -> F + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(behave(tcp));
        }
    });
    address
}

/// Writes this, and reads until the client leaves.
async fn say(mut tcp: TcpStream, bytes: &[u8]) {
    tcp.write_all(bytes).await.unwrap();
    // The client may reset the connection.
    let _ = tcp.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn a_port_that_is_closed_or_a_name_that_does_not_exist() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap().to_string();
    drop(listener);
    fails(&closed, &[], "refused", "cannot connect").await;
    fails("host.invalid:443", &[], "resolve", "cannot find the host host.invalid").await;
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls() {
    let http = plain(|tcp| async { say(tcp, b"HTTP/1.1 400 Bad Request\r\n\r\n").await }).await;
    fails(&http, &[], "not_tls", "not TLS").await;
    let garbage = plain(|tcp| async { say(tcp, &[0xa5; 2000]).await }).await;
    fails(&garbage, &[], "not_tls", "not TLS").await;
    let leaves = plain(|mut tcp| async move {
        // What is read is not reset.
        let _ = tcp.read(&mut [0; 4096]).await;
        tcp.shutdown().await.unwrap();
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await;
    fails(&leaves, &[], "not_tls", "ends the connection instead").await;
}

#[tokio::test]
async fn a_server_that_is_silent_or_slow() {
    let silent = plain(|tcp| async { say(tcp, b"").await }).await;
    // The first bytes of a record of the handshake.
    let slow = plain(|tcp| async { say(tcp, &[22, 3, 3]).await }).await;
    let begin = Instant::now();
    tokio::join!(
        fails(&silent, &[], "silent", "has sent nothing for 5 s"),
        fails(&silent, &["--starttls", "smtp"], "silent", "has sent nothing for 5 s"),
        fails(&slow, &[], "timeout", "not finished within 10 s"),
    );
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_server_that_resets() {
    let resets = plain(|mut tcp| async move {
        let _ = tcp.read(&mut [0; 4096]).await;
        tcp.set_zero_linger().unwrap();
    })
    .await;
    fails(&resets, &[], "reset", "ends the connection before TLS is established").await;
}

#[tokio::test]
async fn a_certificate_that_has_expired_or_has_another_name() {
    let mut parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(2000, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let expired = parameters.self_signed(&key).unwrap();
    let file = |kind: &str| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("expired-{kind}.pem"));
    let certificate = Certificate { cert: file("cert"), key: file("key") };
    std::fs::write(&certificate.cert, expired.pem()).unwrap();
    std::fs::write(&certificate.key, key.serialize_pem()).unwrap();
    let server = Serve::start_with(&certificate, &[]).await;
    let output = run(&[
        "probe",
        &server.address.to_string(),
        "--json",
        "--ca",
        certificate.cert(),
        "--server-name",
        "localhost",
    ])
    .await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["error"]["kind"]), (Some(3), &"certificate".into()), "{report}");
    assert!(report["error"]["message"].as_str().unwrap().contains("expired"), "{report}");

    let server = Serve::start(&[]).await;
    let address = server.address.to_string();
    let output =
        run(&["probe", &address, "--json", "--ca", CERTIFICATE.cert(), "--server-name", "other.example"]).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["error"]["kind"]), (Some(3), &"certificate".into()), "{report}");
}

#[tokio::test]
async fn a_server_that_refuses_the_client_by_an_alert() {
    let script = Script { speaks: Speaks::Nobody, ..Script::default() };
    fails(&script.start().await, &[], "refused", "the alert certificate_required").await;
}

#[tokio::test]
async fn a_server_that_refuses_starttls() {
    let smtp = plain(|mut tcp| async move {
        tcp.write_all(b"220 mail\r\n").await.unwrap();
        let _ = tcp.read(&mut [0; 100]).await;
        tcp.write_all(b"250-mail\r\n250 SIZE\r\n").await.unwrap();
        let _ = tcp.read(&mut [0; 100]).await;
        say(tcp, b"454 no TLS\r\n").await;
    })
    .await;
    fails(&smtp, &["--starttls", "smtp"], "not_tls", "answers \"454 no TLS\"").await;
    let imap = plain(|mut tcp| async move {
        tcp.write_all(b"* OK ready\r\n").await.unwrap();
        let _ = tcp.read(&mut [0; 100]).await;
        say(tcp, b"* note\r\na BAD no TLS\r\n").await;
    })
    .await;
    fails(&imap, &["--starttls", "imap"], "not_tls", "answers \"a BAD no TLS\"").await;
    let postgres = plain(|tcp| async { say(tcp, b"N").await }).await;
    fails(&postgres, &["--starttls", "postgres"], "not_tls", "answers \"N\"").await;
    // Another protocol, and no line.
    fails(&imap, &["--starttls", "smtp"], "not_tls", "answers \"* OK ready\"").await;
}

/// The picture shows both directions, and the last line tells who is at fault.
#[tokio::test]
async fn the_report_for_people_and_the_picture() {
    let script = Script { idle: Close::Fin, ..Script::default() };
    let address = script.start().await;
    let svg = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("exchange.svg");
    let output = run(&["probe", &address, "--insecure", "--svg", svg.to_str().unwrap()]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(text.starts_with(&format!("{address}: TLS 1.3, http/1.1: bad\n\ngood       answers_close_notify: true\n")));
    for part in ["|-- SYN ---", "--- SYN, ACK --|", "|-- close_notify, 24 bytes ---", "--- close_notify, 24 bytes --|"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let last = text.lines().last().unwrap();
    assert_eq!(last, "unexpected EOF: at fault: server: it ends TCP without close_notify when the connection is idle");
    let picture = std::fs::read_to_string(&svg).unwrap();
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
    for part in ["an idle connection</text>", ">close_notify, 24 bytes</text>", ">FIN</text>"] {
        assert!(picture.contains(part), "{part}: {picture}");
    }
    let output = run(&["probe", &address, "--insecure", "--json", "--svg", "/nonexistent/exchange.svg"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).starts_with("tls-shutdown: cannot write /nonexistent/exchange.svg")
    );
}

/// The server of this command is a good one.
#[tokio::test]
async fn our_own_server() {
    let server = Serve::start(&[]).await;
    let (code, report) = within(probe(&server.address.to_string(), &[])).await;
    assert_eq!((code, &report["verdict"]), (Some(0), &"good".into()), "{report}");
    assert_eq!(report["tls"], json!({ "version": "1.3", "alpn": "http/1.1" }));
}
