//! The example that hands its listening socket over.

use std::{
    collections::BTreeSet,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::process::{Pid, Signal, kill_process};
use rustls::HandshakeKind;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Command,
    sync::watch,
    task::JoinSet,
};

use crate::harness::{Client, Example, Response, file, within};

/// Clients that send requests all the time while the server is handed over.
#[derive(Clone)]
struct Crowd {
    client: Client,
    goes_on: watch::Receiver<bool>,
    responses: Arc<AtomicU64>,
    seen: Arc<Mutex<BTreeSet<String>>>,
}

impl Crowd {
    /// Sends a few requests on each of many connections, until `goes_on` is false. Panics at each failure.
    async fn send_requests(self) {
        while *self.goes_on.borrow() {
            let mut connection = self.client.connect().await;
            for _ in 0..5 {
                let response = connection.get("/").await;
                self.responses.fetch_add(1, Ordering::Relaxed);
                self.seen.lock().unwrap().insert(response.body.clone());
                if response.is_last() {
                    break;
                }
            }
            within(connection.0.shutdown()).await.unwrap();
            connection.wait_for_close().await;
        }
    }

    /// Waits until `requests` more requests were answered.
    async fn wait_for_responses(&self, requests: u64) {
        let target = self.responses.load(Ordering::Relaxed) + requests;
        while self.responses.load(Ordering::Relaxed) < target {
            self.client.connect().await.get("/").await;
        }
    }
}

fn process_of(response: &Response) -> Pid {
    Pid::from_raw(response.body.trim().strip_prefix("process ").unwrap().parse().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_handovers_lose_no_request_and_keep_sessions() {
    let (cert, key) = (file("handover.pem"), file("ticket.key"));
    std::fs::write(&key, [7; 32]).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_handover"));
    command.arg("127.0.0.1:0").arg(&cert).arg(&key);
    let mut server = Example::spawn(command, cert).await;

    let (stop, goes_on) = watch::channel(true);
    let crowd = Crowd { client: server.client(None), goes_on, responses: Arc::default(), seen: Arc::default() };
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        clients.spawn(crowd.clone().send_requests());
    }
    let returning = server.client(None);
    let mut current = server.group;
    for _ in 0..2 {
        crowd.wait_for_responses(100).await;
        let mut before = returning.connect().await;
        assert_eq!(process_of(&before.get("/").await), current);
        kill_process(current, Signal::HUP).unwrap();
        assert_eq!(server.wait_for_address().await, server.address);
        // The old process ends at about the same time, and announces that to this client.
        while !before.get("/").await.is_last() {}
        before.wait_for_close().await;
        current = loop {
            let mut after = returning.connect().await;
            assert_eq!(after.0.get_ref().get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
            let process = process_of(&after.get("/").await);
            // The old process may still accept this connection from the queue of the system.
            if process != current {
                break process;
            }
        };
        crowd.wait_for_responses(100).await;
    }
    stop.send_replace(false);
    while let Some(client) = clients.join_next().await {
        client.expect("no connection is refused, and no request fails");
    }
    assert_eq!(crowd.seen.lock().unwrap().len(), 3, "processes");
    kill_process(current, Signal::TERM).unwrap();
    let printed = server.wait_for_exit().await;
    assert_eq!(printed.matches(" drained in ").count(), 3, "{printed}");
    assert!(!printed.contains("responses cut") && !printed.contains("left open"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_that_cannot_serve_does_not_take_over() {
    let (cert, key) = (file("failing-handover.pem"), file("failing-ticket.key"));
    std::fs::write(&key, [7; 32]).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_handover"));
    command.arg("127.0.0.1:0").arg(&cert).arg(&key).stderr(Stdio::piped());
    let mut server = Example::spawn(command, cert).await;
    let mut errors = BufReader::new(server.process.stderr.take().unwrap()).lines();
    let client = server.client(None);
    let mut connection = client.connect().await;
    // A second attempt is possible.
    for _ in 0..2 {
        std::fs::write(&key, "no key").unwrap();
        kill_process(server.group, Signal::HUP).unwrap();
        let is_failure = |line: &str| line.starts_with("no successor: ");
        while !is_failure(&within(errors.next_line()).await.unwrap().unwrap()) {}
        let response = connection.get("/").await;
        assert_eq!((process_of(&response), response.is_last()), (server.group, false));
    }
    std::fs::write(&key, [7; 32]).unwrap();
    kill_process(server.group, Signal::HUP).unwrap();
    assert_eq!(server.wait_for_address().await, server.address);
    while !connection.get("/").await.is_last() {}
    connection.wait_for_close().await;
    let successor = process_of(&client.connect().await.get("/").await);
    kill_process(successor, Signal::TERM).unwrap();
    assert_eq!(server.wait_for_exit().await.matches(" drained in ").count(), 2);
}
