//! Standard error that nobody reads, and streams that cannot be written.

use std::{fs::File, process::Stdio, time::Duration};

use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use crate::{
    client::{Trust, connect, handshake, read_to_end, request, response},
    process::{CERTIFICATE, Serve, command, open_terminal, within},
};

/// Their log, at its finest level, is more than a pipe or a terminal holds.
const CONNECTIONS: usize = 400;
const GRACE: Duration = Duration::from_secs(5);

fn full_disk() -> File {
    File::options().write(true).open("/dev/full").expect("a device of Linux")
}

async fn is_served(server: &Serve) {
    for _ in 0..CONNECTIONS {
        let mut stream = connect(server.address).await;
        request(&mut stream, "GET /bytes/1").await;
        response(&mut stream).await;
        stream.shutdown().await.unwrap();
        read_to_end(&mut stream).await.1.unwrap();
    }
}

#[tokio::test]
async fn a_standard_error_that_cannot_be_written_stops_nothing() {
    // Nobody reads this terminal, as after Ctrl-S.
    let (screen, _terminal) = open_terminal();
    for stderr in [Stdio::piped(), full_disk().into(), screen.into()] {
        let mut command = Serve::command(&CERTIFICATE, &["--last-request", "0s", "--grace", "5s"]);
        let server = Serve::spawn(command.env("RUST_LOG", "trace").stderr(stderr)).await;
        is_served(&server).await;
        let begin = Instant::now();
        server.signal(Signal::TERM);
        let (status, events) = server.wait_for_exit().await;
        // The log has a second.
        assert!(begin.elapsed() < GRACE + Duration::from_secs(1), "{:?}", begin.elapsed());
        assert!(status.success());
        assert_eq!(events.iter().filter(|event| event["event"] == "closed").count(), CONNECTIONS);
    }
}

#[tokio::test]
async fn a_lost_report_is_a_failure_though_nobody_can_be_told() {
    let server = Serve::start(&[]).await;
    let address = server.address.to_string();
    let mut command = command(&["send", &address, "--insecure", "--bytes", "1"]);
    let status = within(command.stdout(full_disk()).stderr(full_disk()).status()).await.unwrap();
    assert_eq!(status.code(), Some(1));
}

/// h2 warns of each acknowledgement of a PING that it has not sent.
#[tokio::test]
async fn clients_cannot_write_the_log() {
    let mut command = Serve::command(&CERTIFICATE, &["--last-request", "0s"]);
    let mut server = Serve::spawn(command.stderr(Stdio::piped())).await;
    let mut stderr = server.stderr();
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let mut stream = handshake(tcp, "h2", Trust::TheCertificate).await.unwrap();
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    let pong = b"\0\0\x08\x06\x01\0\0\0\0unasked!";
    let flood = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], &pong.repeat(100)].concat();
    stream.write_all(&flood).await.unwrap();
    stream.shutdown().await.unwrap();
    read_to_end(&mut stream).await.1.unwrap();
    server.signal(Signal::TERM);
    let (status, _) = server.wait_for_exit().await;
    assert!(status.success());
    let mut log = String::new();
    within(stderr.read_to_string(&mut log)).await.unwrap();
    assert_eq!(log, "");
}
