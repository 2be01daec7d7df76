//! [`MEASUREMENTS`]: what is measured, and how the losses are counted. Each is the same for both sides.

use std::{io, net::SocketAddr, pin::Pin, time::Duration};

use rustls::HandshakeKind;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    bare,
    client::{Afterwards, Client},
    identity::Identity,
    network::network,
    ours,
    peers::{Collector, take_tls_off},
    site::{Side, Site},
};

/// One row of the table.
pub(crate) struct Measurement {
    pub(crate) id: &'static str,
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    /// Returns how many were lost.
    pub(crate) measure: fn(Side, Identity) -> Losses,
}

type Losses = Pin<Box<dyn Future<Output = io::Result<u64>> + Send>>;

pub(crate) const MEASUREMENTS: &[Measurement] = &[
    Measurement {
        id: "uploads",
        what: "a client writes 3 MB and drops its stream",
        unit: "uploads of 10",
        measure: |side, identity| Box::pin(uploads(side, identity)),
    },
    Measurement {
        id: "session_tickets",
        what: "a client that only writes connects again",
        unit: "resumptions of 9",
        measure: |side, identity| Box::pin(session_tickets(side, identity)),
    },
    Measurement {
        id: "early_answers",
        what: "an early answer to 3 MB; its client gives up as CPython",
        unit: "answers of 20",
        measure: |side, identity| Box::pin(early_answers(side, identity)),
    },
    Measurement {
        id: "next_requests",
        what: "a request follows an upload that nobody reads",
        unit: "requests of 20",
        measure: |side, identity| Box::pin(next_requests(side, identity)),
    },
    Measurement {
        id: "cut_responses",
        what: "a cut response; its client accepts FIN as CPython does",
        unit: "responses of 10",
        measure: |side, identity| Box::pin(cut_responses(side, identity)),
    },
    Measurement {
        id: "requests_in_transit",
        what: "a server stops under 50 busy connections, 3 times",
        unit: "requests",
        measure: |side, identity| Box::pin(requests_in_transit(side, identity)),
    },
    Measurement {
        id: "new_connections",
        what: "a server stops while connections begin",
        unit: "connections of 20",
        measure: |side, identity| Box::pin(new_connections(side, identity)),
    },
    Measurement {
        id: "event_streams",
        what: "a server stops while clients listen to events",
        unit: "streams of 10",
        measure: |side, identity| Box::pin(event_streams(side, identity)),
    },
    Measurement {
        id: "plaintext_after_tls",
        what: "plaintext follows immediately after TLS",
        unit: "messages of 10",
        measure: |side, identity| Box::pin(plaintext_after_tls(side, identity)),
    },
];

const UPLOADS: usize = 10;
const UPLOAD_BYTES: usize = 3_000_000;
/// The pause of a server before it reads.
const LATE: Duration = Duration::from_millis(200);
const EARLY_ANSWERS: usize = 20;
const NEXT_REQUESTS: usize = 20;
const UNREAD_BYTES: usize = 60_000;
const CUT_RESPONSES: usize = 10;
const RESTARTS: usize = 3;
const BUSY_CLIENTS: usize = 50;
/// The pause of a busy client between an answer and its next request.
const PAUSE: Duration = Duration::from_millis(2);
/// The load is whole when each client has so many answers.
const ANSWERS_BEFORE_THE_STOP: usize = 5;
const NEW_CONNECTIONS: usize = 20;
const EVENT_STREAMS: usize = 10;
const PLAINTEXTS: usize = 10;
const PLAINTEXT: &[u8] = b"NOOP\r\n";

/// Counts the tasks that return `true`: what was lost.
async fn count(mut tasks: JoinSet<io::Result<bool>>) -> io::Result<u64> {
    let mut lost = 0;
    while let Some(task) = tasks.join_next().await {
        lost += u64::from(task??);
    }
    Ok(lost)
}

async fn upload(side: Side, tls: TlsConnector, address: SocketAddr, data: &[u8]) -> io::Result<()> {
    let tcp = TcpStream::connect(address).await?;
    match side {
        Side::Bare => bare::upload(tls, tcp, data).await,
        Side::Ours => ours::upload(tls, tcp, data).await,
    }
}

/// Counts the uploads that the server has not received whole.
async fn uploads(side: Side, identity: Identity) -> io::Result<u64> {
    let mut collector = Collector::start(&identity, LATE).await?;
    let mut clients = JoinSet::new();
    for _ in 0..UPLOADS {
        let (tls, address) = (identity.client(), collector.address);
        clients.spawn(async move { upload(side, tls, address, &vec![b'.'; UPLOAD_BYTES]).await });
    }
    let mut lost = 0;
    for _ in 0..UPLOADS {
        lost += u64::from(collector.next().await?.bytes < UPLOAD_BYTES);
    }
    // What the clients believe does not count.
    clients.join_all().await;
    Ok(lost)
}

/// Counts the connections after the first that need a full handshake.
async fn session_tickets(side: Side, identity: Identity) -> io::Result<u64> {
    let mut collector = Collector::start(&identity, Duration::ZERO).await?;
    let tls = identity.client();
    let mut full = 0;
    for _ in 0..UPLOADS {
        upload(side, tls.clone(), collector.address, b"a line of a log").await?;
        full += u64::from(collector.next().await?.handshake != Some(HandshakeKind::Resumed));
    }
    Ok(full.saturating_sub(1))
}

/// Counts the answers that do not arrive at a client which gives up when it cannot send the rest of its request, as CPython's `http.client`
/// does. A client that reads on after that finds the answer.
async fn early_answers(side: Side, identity: Identity) -> io::Result<u64> {
    let site = Site::start(side, &identity)?;
    let mut clients = JoinSet::new();
    for _ in 0..EARLY_ANSWERS {
        let (tls, address) = (identity.client(), site.address);
        clients.spawn(async move {
            let mut client = Client::connect(&tls, address).await?;
            Ok(client.post("/reject", &vec![b'.'; UPLOAD_BYTES]).await.is_err())
        });
    }
    let lost = count(clients).await?;
    site.stop().exit().await?;
    Ok(lost)
}

/// Counts the requests without an answer, on connections of which the server has not said that it closes them.
async fn next_requests(side: Side, identity: Identity) -> io::Result<u64> {
    let site = Site::start(side, &identity)?;
    let mut clients = JoinSet::new();
    for _ in 0..NEXT_REQUESTS {
        let (tls, address) = (identity.client(), site.address);
        clients.spawn(async move {
            let mut client = Client::connect(&tls, address).await?;
            match client.post("/unknown", &[b'.'; UNREAD_BYTES]).await? {
                Afterwards::KeepAlive => Ok(client.post("/count", b"order").await.is_err()),
                Afterwards::Close => Ok(false),
            }
        });
    }
    let lost = count(clients).await?;
    site.stop().exit().await?;
    Ok(lost)
}

/// Counts the responses whose cut is not seen by a client that takes a FIN without close_notify for an end, as CPython's `ssl` does by
/// default (`suppress_ragged_eofs`).
async fn cut_responses(side: Side, identity: Identity) -> io::Result<u64> {
    let site = Site::start(side, &identity)?;
    let mut clients = JoinSet::new();
    for _ in 0..CUT_RESPONSES {
        let (tls, address) = (identity.client(), site.address);
        clients.spawn(async move {
            let mut client = Client::connect(&tls, address).await?;
            client.begin_get("/fail", "HTTP/1.0").await?;
            Ok(match client.read_to_end().await {
                Ok(()) => true,
                Err(error) => error.kind() == io::ErrorKind::UnexpectedEof,
            })
        });
    }
    let lost = count(clients).await?;
    site.stop().exit().await?;
    Ok(lost)
}

/// Counts the requests without an answer, on connections of which the client does not know yet that the server closes them.
async fn requests_in_transit(side: Side, identity: Identity) -> io::Result<u64> {
    let mut lost = 0;
    for _ in 0..RESTARTS {
        let site = Site::start(side, &identity)?;
        let (address, _network) = network(site.address).await?;
        let (sender, mut established) = mpsc::channel(BUSY_CLIENTS);
        let mut clients = JoinSet::new();
        for _ in 0..BUSY_CLIENTS {
            let (tls, established) = (identity.client(), sender.clone());
            clients.spawn(async move {
                let mut client = Client::connect(&tls, address).await?;
                for answers in 1.. {
                    // A connection pool, too, removes a connection that ends while it is idle.
                    tokio::select! {
                        biased;
                        () = client.ended() => break,
                        () = sleep(PAUSE) => {}
                    }
                    match client.post("/count", b"order").await {
                        Ok(Afterwards::KeepAlive) => {}
                        Ok(Afterwards::Close) => break,
                        Err(_) => return Ok(true),
                    }
                    if answers == ANSWERS_BEFORE_THE_STOP {
                        let _ = established.send(()).await;
                    }
                }
                Ok(false)
            });
        }
        for _ in 0..BUSY_CLIENTS {
            established.recv().await;
        }
        let stopping = site.stop();
        lost += count(clients).await?;
        stopping.exit().await?;
    }
    Ok(lost)
}

/// Counts the connections without an answer, all of which the system has accepted before the server stops.
async fn new_connections(side: Side, identity: Identity) -> io::Result<u64> {
    let site = Site::start(side, &identity)?;
    let mut connections = Vec::new();
    for _ in 0..NEW_CONNECTIONS {
        connections.push(TcpStream::connect(site.address).await?);
    }
    let stopping = site.stop();
    let mut clients = JoinSet::new();
    for tcp in connections {
        let tls = identity.client();
        clients.spawn(async move {
            let answer = async { Client::over(&tls, tcp).await?.post("/count", b"order").await };
            Ok(answer.await.is_err())
        });
    }
    let lost = count(clients).await?;
    stopping.exit().await?;
    Ok(lost)
}

/// Counts the event streams that end without the last chunk.
async fn event_streams(side: Side, identity: Identity) -> io::Result<u64> {
    let site = Site::start(side, &identity)?;
    let (sender, mut established) = mpsc::channel(EVENT_STREAMS);
    let mut clients = JoinSet::new();
    for _ in 0..EVENT_STREAMS {
        let (tls, address, established) = (identity.client(), site.address, sender.clone());
        clients.spawn(async move {
            let mut client = Client::connect(&tls, address).await?;
            client.begin_get("/events", "HTTP/1.1").await?;
            let _ = established.send(()).await;
            Ok(client.read_to_last_chunk().await.is_err())
        });
    }
    for _ in 0..EVENT_STREAMS {
        established.recv().await;
    }
    let stopping = site.stop();
    let lost = count(clients).await?;
    stopping.exit().await?;
    Ok(lost)
}

/// Counts the plaintext messages that the server does not get.
async fn plaintext_after_tls(side: Side, identity: Identity) -> io::Result<u64> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut lost = 0;
    for _ in 0..PLAINTEXTS {
        let client = tokio::spawn(take_tls_off(identity.client(), address, PLAINTEXT));
        let (tcp, _) = listener.accept().await?;
        let tls = TlsAcceptor::from(identity.server());
        let plaintext = match side {
            Side::Bare => bare::read_plaintext_after_tls(tls, tcp).await,
            Side::Ours => ours::read_plaintext_after_tls(tls, tcp).await,
        };
        lost += u64::from(!plaintext.is_ok_and(|plaintext| plaintext == PLAINTEXT));
        // Its write may have failed, since the server is gone.
        let _ = client.await?;
    }
    Ok(lost)
}
