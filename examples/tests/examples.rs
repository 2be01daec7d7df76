//! The examples against each other, as a user runs them.

use std::{path::PathBuf, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::Command,
    time::timeout,
};

/// No step takes so long, unless it hangs.
const HANG: Duration = Duration::from_secs(30);
/// What there is room for on a page.
const LINES: usize = 60;

#[tokio::test]
async fn the_client_is_served_and_both_sides_end_completely() {
    let cert = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-example.pem", std::process::id()));
    let mut server = Command::new(env!("CARGO_BIN_EXE_axum_server"))
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

    for _ in 0..2 {
        let mut client = Command::new(env!("CARGO_BIN_EXE_client"));
        let output = timeout(HANG, client.arg(address).arg(&cert).output()).await.unwrap().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
        assert!(told.contains("200 OK") && told.contains("1000000 bytes"), "{told}");
        assert!(told.contains("complete: close_notify sent, received"), "{told}");
    }

    let id = server.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw).unwrap();
    kill_process(id, Signal::INT).unwrap();
    let mut told = String::new();
    timeout(HANG, lines.read_to_string(&mut told)).await.unwrap().unwrap();
    assert!(timeout(HANG, server.wait()).await.unwrap().unwrap().success());
    assert_eq!(told.matches(" complete: close_notify sent, received").count(), 2, "{told}");
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

#[test]
fn the_examples_are_short() {
    for example in [include_str!("../axum_server.rs"), include_str!("../client.rs"), include_str!("../starttls.rs")] {
        assert!(example.lines().count() <= LINES);
    }
}
