//! Standard error that nobody reads, and streams that cannot be written.

use std::{fs::File, process::Stdio, time::Duration};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, mknodat},
    pipe::fcntl_setpipe_size,
    process::{Pid, Signal, kill_process},
};
use tls_shutdown_tests::time::real_time;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpStream, unix::pipe::Receiver},
    process::Command,
    time::Instant,
};

use crate::{
    client::{Trust, connect, handshake, read_to_end, request, response},
    process::{CERTIFICATE, Certificate, Serve, command, open_terminal, within},
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

/// How the server's standard error cannot be written.
enum BadStderr {
    Is(Stdio),
    IsClosed,
}

/// The descriptors of a server that has none left for a client: it needs some for itself.
const FEW: u32 = 24;

/// `serve`, started by a shell that takes something away from it.
fn without(limits: &str, arguments: &[&str]) -> Command {
    let serve = Serve::command(&CERTIFICATE, arguments);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{limits} exec \"$0\" \"$@\"")]).arg(serve.as_std().get_program());
    command.args(serve.as_std().get_args()).kill_on_drop(true).stdin(Stdio::null());
    command
}

#[tokio::test]
async fn a_standard_error_that_cannot_be_written_stops_nothing() {
    for descriptors in [None, Some(FEW)] {
        // Nobody reads this terminal, as after Ctrl-S.
        let (screen, _terminal) = open_terminal();
        let bad = [Stdio::piped(), full_disk().into(), screen.into()].map(BadStderr::Is);
        for stderr in bad.into_iter().chain([BadStderr::IsClosed]) {
            let mut limits = descriptors.map(|count| format!("ulimit -n {count};")).unwrap_or_default();
            if let BadStderr::IsClosed = stderr {
                limits += "exec 2>&-;";
            }
            let mut command = without(&limits, &["--last-request", "0s", "--grace", "5s"]);
            if let BadStderr::Is(stderr) = stderr {
                command.stderr(stderr);
            }
            let server = Serve::spawn(command.env("RUST_LOG", "trace")).await;
            let mut waiting = Vec::new();
            if descriptors.is_some() {
                // More than the server has descriptors for.
                for _ in 0..FEW {
                    waiting.push(TcpStream::connect(server.address).await.unwrap());
                }
            }
            drop(waiting);
            is_served(&server).await;
            let begin = Instant::now();
            server.signal(Signal::TERM);
            let (status, events) = server.wait_for_exit().await;
            // The log has a second.
            assert!(begin.elapsed() < GRACE + Duration::from_secs(1), "{:?}", begin.elapsed());
            assert!(status.success(), "{status}");
            let served = events.iter().filter(|event| event["requests"] == 1).count();
            assert_eq!(served, CONNECTIONS);
        }
    }
}

/// A certificate in a file system that hangs blocks the thread that starts the server.
#[tokio::test]
async fn a_server_whose_threads_are_blocked_ends_after_its_grace() {
    for (signals, limit) in [(1, Duration::from_secs(4)), (2, Duration::from_secs(2))] {
        let certificate = Certificate::write(&format!("blocking-{signals}"));
        let mut command = Serve::command(&certificate, &["--grace", if signals == 1 { "3s" } else { "1h" }]);
        std::fs::remove_file(&certificate.cert).unwrap();
        mknodat(CWD, &certificate.cert, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let mut server = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = server.stderr.take().unwrap();
        let id = server.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw).unwrap();
        let file = certificate.cert.clone();
        // It opens when the server reads.
        let open = tokio::task::spawn_blocking(move || File::options().write(true).open(file));
        let _writer = within(open).await.unwrap().unwrap();
        let begin = Instant::now();
        for _ in 0..signals {
            kill_process(id, Signal::TERM).unwrap();
            // Two signals at once are one.
            real_time(Duration::from_millis(100)).await;
        }
        let status = within(server.wait()).await.unwrap();
        assert!(begin.elapsed() < limit + Duration::from_secs(1), "{:?}", begin.elapsed());
        assert_eq!(status.code(), Some(3));
        let mut log = String::new();
        within(stderr.read_to_string(&mut log)).await.unwrap();
        assert!(log.contains("the server did not end in time"), "{log}");
    }
}

/// A pipe that never blocks is full for a while, as a disk is.
#[tokio::test]
async fn events_are_printed_again_after_a_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    fcntl_setpipe_size(&writer, 4096).unwrap();
    fcntl_setfl(&writer, fcntl_getfl(&writer).unwrap() | OFlags::NONBLOCK).unwrap();
    let mut command = Serve::command(&CERTIFICATE, &["--last-request", "0s"]);
    let mut child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    drop(command);
    let mut output = BufReader::new(Receiver::from_owned_fd(reader.into()).unwrap()).lines();
    let mut next_line = async || within(output.next_line()).await.unwrap().expect("a line");
    let listening: serde_json::Value = serde_json::from_str(&next_line().await).unwrap();
    let address = listening["addr"].as_str().unwrap().parse().unwrap();
    let ask = async || {
        let mut stream = connect(address).await;
        request(&mut stream, "GET /health").await;
        response(&mut stream).await;
        stream.shutdown().await.unwrap();
        read_to_end(&mut stream).await.1.unwrap();
    };
    for _ in 0..50 {
        ask().await;
    }
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let failed = within(log.next_line()).await.unwrap().unwrap();
    assert!(failed.contains("cannot write to standard output"), "{failed}");
    // There is room again. All lines are whole.
    for _ in 0..10 {
        assert!(next_line().await.ends_with('}'));
    }
    ask().await;
    let again = within(log.next_line()).await.unwrap().unwrap();
    assert!(again.contains("events are lost"), "{again}");
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw).unwrap();
    kill_process(id, Signal::TERM).unwrap();
    while !next_line().await.contains("\"drained\"") {}
    assert_eq!(within(child.wait()).await.unwrap().code(), Some(1), "a report was lost");
}

#[tokio::test]
async fn a_lost_report_is_a_failure_though_nobody_can_be_told() {
    let server = Serve::start(&[]).await;
    let address = server.address.to_string();
    let mut command = command(&["send", &address, "--insecure", "--bytes", "1"]);
    let status = within(command.stdout(full_disk()).stderr(full_disk()).status()).await.unwrap();
    assert_eq!(status.code(), Some(1));
}

#[tokio::test]
async fn help_that_cannot_be_printed_is_a_failure() {
    for arguments in
        [&["--help"][..], &["--version"], &["help", "serve"], &["send", "--help"], &["man"], &["completions", "bash"]]
    {
        let status = within(command(arguments).stdout(full_disk()).status()).await.unwrap();
        assert_eq!(status.code(), Some(1), "{arguments:?}");
    }
    let status = within(command(&["--wrong"]).stderr(full_disk()).status()).await.unwrap();
    assert_eq!(status.code(), Some(2), "wrong usage");
}

#[tokio::test]
async fn a_filter_of_the_log_that_makes_no_sense_is_ignored_though_nobody_can_be_told() {
    let send = || {
        let mut command = command(&["send", "127.0.0.1:1", "--insecure", "--bytes", "1"]);
        command.env("RUST_LOG", "warn,rustls=nonsense");
        command
    };
    let output = within(send().output()).await.unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.starts_with("tls-shutdown: ignored in RUST_LOG: rustls=nonsense\n"), "{log}");
    let status = within(send().stdout(Stdio::null()).stderr(full_disk()).status()).await.unwrap();
    assert_eq!((output.status.code(), status.code()), (Some(1), Some(1)));
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
