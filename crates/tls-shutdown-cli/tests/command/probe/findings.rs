//! Each finding with each of its values.

use serde_json::{Value, json};

use super::{
    probe,
    scripted::{Answers, Close, Script, Speaks, Start},
};
use crate::process::{Serve, within};

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

/// An alert, a message of the handshake, and data, each of no byte: the server violates TLS, and does not end TCP.
#[tokio::test]
async fn records_without_content_are_no_end() {
    let script = |kind, answers| {
        let end = Close::EmptyRecord(kind);
        Script { answer: end, response: (answers, end), idle: end, ..Script::default() }
    };
    let cases = [
        (script(21, Answers::UntilClose), ("close_delimited_truthful", "bad", "false")),
        (script(22, Answers::UntilClose), ("close_delimited_truthful", "bad", "false")),
        (script(23, Answers::UntilClose), ("close_delimited_truthful", "bad", "false")),
        (script(23, Answers::Length), ("close_delimited_truthful", "tolerable", "false")),
    ];
    for_each(cases, |(script, response)| async move {
        let different = [
            ("answers_close_notify", "bad", "false"),
            ("answer_time_ms", "unknown", ""),
            ("closes_tcp_after_answer", "unknown", "null"),
            ("idle_close", "bad", "\"none\""),
            ("reads_after_close_notify", "unknown", "null"),
            response,
        ];
        finds(script, &different, "bad", "nobody").await;
    })
    .await;

    let (_, report) = probe(&script(23, Answers::Cut).start().await, &[]).await;
    let meaning =
        "the server sends a record that violates TLS, which clients report as that and not as an unexpected EOF";
    assert_eq!(report["unexpected_eof"], json!({ "at_fault": "nobody", "meaning": meaning }));
    let meanings = ["answers_close_notify", "idle_close", "close_delimited_truthful"].map(|id| {
        let findings = report["findings"].as_array().expect("findings");
        findings.iter().find(|finding| finding["id"] == id).expect("a finding")["meaning"].clone()
    });
    let expected = [
        "The server answers with a record that violates TLS. A client that waits for the answer reports an error.",
        "The server ends idle connections with a record that violates TLS. A client that reads then reports an error.",
        "The response is cut by a record that violates TLS.",
    ];
    assert_eq!(meanings, expected);
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

/// The rest of a response, or all of it, is missing: that is worse than an end behind it.
#[tokio::test]
async fn the_fault_says_what_is_missing() {
    let cut = Script { response: (Answers::Cut, Close::Fin), ..Script::default() };
    let (_, report) = probe(&cut.start().await, &[]).await;
    let meaning = "it ends TCP without close_notify in a response, the rest of which is missing";
    assert_eq!(report["unexpected_eof"], json!({ "at_fault": "server", "meaning": meaning }));
    let silent = Script { speaks: Speaks::Nothing, ..Script::default() };
    let (_, report) = probe(&silent.start().await, &[]).await;
    let meaning = "it ends TCP without close_notify in place of a response";
    assert_eq!(report["unexpected_eof"], json!({ "at_fault": "server", "meaning": meaning }));
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

/// The server of this command is a good one.
#[tokio::test]
async fn our_own_server() {
    let server = Serve::start(&[]).await;
    let (code, report) = within(probe(&server.address.to_string(), &[])).await;
    assert_eq!((code, &report["verdict"]), (Some(0), &"good".into()), "{report}");
    assert_eq!(report["tls"], json!({ "version": "1.3", "alpn": "http/1.1" }));
}
