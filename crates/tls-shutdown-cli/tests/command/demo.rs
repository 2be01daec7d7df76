//! `demo`: the bare side loses something in each row, ours nothing.

use std::{process::Stdio, time::Duration};

use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::process::command;

const LIMIT: Duration = Duration::from_secs(120);

#[tokio::test]
async fn the_bare_side_loses_something_in_each_row_and_ours_nothing() {
    let demo = command(&["demo", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let output = timeout(LIMIT, demo.wait_with_output()).await.expect("within two minutes").expect("run");
    let text = String::from_utf8(output.stdout).expect("text");
    let log = String::from_utf8_lossy(&output.stderr);
    let rows: Vec<Map<String, Value>> =
        text.lines().map(|line| serde_json::from_str(line).expect("one JSON object per line")).collect();
    assert!(rows.len() >= 6, "{text}{log}");
    for row in &rows {
        assert_eq!(row.keys().collect::<Vec<_>>(), ["id", "what", "unit", "bare", "ours"]);
        assert!(["id", "what", "unit"].iter().all(|field| row[*field].is_string()), "{row:?}");
        assert!(row["bare"].as_u64() > Some(0), "{text}");
        assert_eq!(row["ours"], 0, "{text}");
    }
    assert_eq!(output.status.code(), Some(0), "{log}");
    assert_eq!(log, "", "no line of a log, and no progress where there is no terminal");
}
