//! close_notify means that everything was sent. The server never sends it after a message that was cut, and always after one that was not.

use std::{collections::BTreeMap, fs, net::Ipv4Addr};

use rustix::process::Signal;
use tls_shutdown_interop::{
    Background, CERTIFICATE, Server,
    client::{Client, Last, Response, connect, get, receive_all, receive_until},
    directory, program,
};

/// More than the buffers on both sides hold.
const MUCH: usize = 20_000_000;
/// A body of up to this length may fit into the buffers of the system.
const LARGEST: usize = 5_000_000;
/// Less than the buffer of hyper.
const STEP: usize = 100_000;
/// Lengths of a body: in one piece with the head, in one record, in many records, and more than can be sent at once.
const LENGTHS: [usize; 5] = [0, 10, 10_000, 300_000, 3_000_000];
const TRIES: usize = 10;

/// Requests a path. Returns the length of the body, and the end.
async fn receive(client: &mut Client, path: &str) -> (usize, Last) {
    get(client, path).await;
    let (received, last) = receive_all(client).await;
    (Response::parse(&received).map_or(0, |response| response.body.len()), last)
}

#[tokio::test]
async fn a_body_that_fails_never_ends_with_close_notify() {
    let server = Server::serve(&[]).await;
    for length in LENGTHS {
        for _ in 0..TRIES {
            let mut client = connect(server.address).await;
            let (received, last) = receive(&mut client, &format!("/abort/{length}")).await;
            assert!(received <= length);
            assert_ne!(last, Last::CloseNotify, "{received} of {length} bytes");
        }
    }
}

#[tokio::test]
async fn a_body_that_ends_always_ends_with_close_notify() {
    let server = Server::serve(&[]).await;
    for length in LENGTHS {
        for _ in 0..TRIES {
            let mut client = connect(server.address).await;
            assert_eq!(receive(&mut client, &format!("/close/{length}")).await, (length, Last::CloseNotify));
        }
    }
}

/// Clients that have got no more than the first bytes when the signal comes, and read on.
async fn through_a_drain(path: &str) -> Vec<(usize, Last)> {
    let server = Server::serve(&["--last-request", "1s", "--grace", "20s"]).await;
    let mut clients = Vec::new();
    for _ in 0..TRIES {
        let mut client = connect(server.address).await;
        get(&mut client, &format!("{path}/{MUCH}")).await;
        let head = receive_until(&mut client, "\r\n\r\n").await;
        clients.push((client, Response::parse(&head).expect("a head").body.len()));
    }
    server.signal(Signal::TERM);
    server.stops_listening().await;
    let mut received = Vec::new();
    for (mut client, first) in clients {
        let (rest, last) = receive_all(&mut client).await;
        received.push((first + rest.len(), last));
    }
    received
}

#[tokio::test]
async fn a_body_that_fails_in_a_drain_does_not_end_with_close_notify() {
    for (received, last) in through_a_drain("/abort").await {
        assert_ne!(last, Last::CloseNotify, "{received} of {MUCH} bytes");
    }
}

#[tokio::test]
async fn a_body_that_ends_in_a_drain_ends_with_close_notify() {
    assert_eq!(through_a_drain("/close").await, [(MUCH, Last::CloseNotify); TRIES]);
}

/// Starts one client for each path. Each reads the first bytes, and then nothing until the server has exited at its deadline. Returns what
/// they have in the end.
async fn stalled_at_the_deadline(paths: &[String]) -> Vec<(Vec<u8>, Last)> {
    let server = Server::serve(&["--last-request", "0s", "--grace", "1s"]).await;
    let mut clients = Vec::new();
    for path in paths {
        let mut client = connect(server.address).await;
        get(&mut client, path).await;
        let received = receive_until(&mut client, "\r\n\r\n").await;
        clients.push((client, received));
    }
    server.signal(Signal::TERM);
    server.exit().await;
    let mut received = Vec::new();
    for (mut client, mut first) in clients {
        let (rest, last) = receive_all(&mut client).await;
        first.extend(rest);
        received.push((first, last));
    }
    received
}

/// The end of a body is in the middle of it, on its way through the server's own buffers, or with the system already, which goes on
/// alone: more lengths than one meet each.
#[tokio::test]
async fn whoever_sees_a_close_notify_after_the_deadline_has_everything() {
    for route in ["close", "bytes"] {
        let lengths: Vec<_> = (0..=LARGEST).step_by(STEP).chain([MUCH]).collect();
        let paths: Vec<_> = lengths.iter().map(|length| format!("/{route}/{length}")).collect();
        let mut seen = BTreeMap::new();
        for (length, (received, last)) in lengths.into_iter().zip(stalled_at_the_deadline(&paths).await) {
            let received = Response::parse(&received).expect("a head").body.len();
            assert!(received == length || last != Last::CloseNotify, "/{route}/{length}: {received} bytes");
            *seen.entry(last).or_insert(0) += 1;
        }
        println!("/{route}: {seen:?}");
        assert!(seen.len() > 1, "/{route}: the deadline has met only one state: {seen:?}");
    }
}

/// A cut between chunks may end with close_notify, since the client misses the last chunk.
#[tokio::test]
async fn chunks_that_the_deadline_cuts_have_no_last_one() {
    let paths = vec!["/drip/1000/10".to_owned(); TRIES];
    for (received, last) in stalled_at_the_deadline(&paths).await {
        let body = Response::parse(&received).expect("a head").body;
        assert!(!body.ends_with(b"\r\n0\r\n\r\n"), "it was not cut, and ended with {last:?}");
    }
}

/// The control: OpenSSL's server sends close_notify after whatever it has, here a file with half a response.
#[tokio::test]
async fn a_cut_that_ends_with_close_notify_is_seen() {
    let files = directory().join("half");
    fs::create_dir_all(files.join("abort")).expect("a directory");
    fs::write(files.join("abort/10"), "HTTP/1.0 200 OK\r\n\r\n.....").expect("a file");
    let mut server = program("openssl", "openssl");
    server.args(["s_server", "-HTTP", "-accept", "127.0.0.1:0"]).current_dir(files);
    server.args(["-cert", &CERTIFICATE.cert, "-key", &CERTIFICATE.key]);
    let mut server = Background::start(&mut server);
    let port = server.port("ACCEPT").await;
    let mut client = connect((Ipv4Addr::LOCALHOST, port).into()).await;
    assert_eq!(receive(&mut client, "/abort/10").await, (5, Last::CloseNotify));
}
