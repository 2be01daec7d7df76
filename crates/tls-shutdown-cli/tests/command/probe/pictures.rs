//! The report for people, and the pictures of the connections.

use std::path::PathBuf;

use tokio::net::TcpListener;

use super::scripted::{Close, Script};
use crate::process::run;

/// The picture shows both directions, and the last lines tell who is at fault, and what to do.
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
    assert!(text.contains("\nwhat to do: the server has to send close_notify"), "{text}");
    let last = text.lines().last().unwrap();
    let (fault, page) = last.split_once("; see ").expect("a page");
    assert_eq!(
        fault,
        "unexpected EOF: the server is at fault: it ends TCP without close_notify when the connection is idle"
    );
    assert!(page.ends_with("/guide/probe/index.html#who-is-at-fault-for-an-unexpected-eof"), "{page}");
    let picture = std::fs::read_to_string(&svg).unwrap();
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
    for part in
        ["an idle connection</text>", ">close_notify, 24 bytes</text>", ">FIN</text>", "(prefers-color-scheme: dark)"]
    {
        assert!(picture.contains(part), "{part}: {picture}");
    }
    let output = run(&["probe", &address, "--insecure", "--json", "--svg", "/nonexistent/exchange.svg"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).starts_with("tls-shutdown: cannot write /nonexistent/exchange.svg")
    );
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("the report all the same");
    assert_eq!(report["reachable"], true);
}

/// The picture of a port that is closed has the client's SYN and the server's RST.
#[tokio::test]
async fn a_closed_port_has_a_picture_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap().to_string();
    drop(listener);
    let output = run(&["probe", &closed, "--insecure"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3));
    let segments: Vec<_> = text.lines().filter_map(|line| line.split_once('|')).map(|(_, segment)| segment).collect();
    assert_eq!(segments.len(), 2, "{text}");
    assert!(
        text.contains("\nunexpected EOF: it is unknown who is at fault: no TLS connection was made; see "),
        "{text}"
    );
    assert!(segments[0].starts_with("-- SYN ---") && segments[1].ends_with("--- RST --|"), "{text}");
}
