//! Counts what a server pays for a request, for a connection, and for a drain: instructions and system calls, under Valgrind's Callgrind.
//! Other load on the machine hardly changes them. The client is another process, and does not count. Massif measures the memory.
//!
//! Rejected: the crate gungraun. It compares a function with its own past, and needs a runner of the same version that users have to install.
//! Here, servers are compared with each other, each is counted without its client, and the memory of a connection is the difference of two
//! runs.

mod client;
mod contenders;
mod valgrind;

use std::path::{Path as FilePath, PathBuf};

pub(crate) use self::contenders::serve;
use self::{
    client::{Client, Connection, Path, Session, Version},
    contenders::Contender,
    valgrind::{ServerProcess, Tool},
};
use crate::client_that_trusts;

/// What carries the requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Transport {
    Tls,
    Plain,
}

impl Transport {
    const ALL: [Self; 2] = [Self::Tls, Self::Plain];

    fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Plain => "plain",
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
enum Subject {
    /// A request on a connection that is there.
    Request { version: Version, path: Path, at_once: usize },
    /// A connection with one request, and its end.
    Connection { version: Version, session: Session },
    /// The end of an idle connection in a drain.
    Drain,
    /// The memory of an idle connection.
    Memory { version: Version },
}

struct Row {
    name: &'static str,
    transport: Transport,
    subject: Subject,
    /// What the library may cost, compared with hyper-util. docs/DESIGN.md states what is aimed at, and why some rows cost more.
    limit: f64,
}

const ROWS: &[Row] = &[
    row("small request, HTTP/1", Transport::Tls, request(Version::Http1, Path::Small, 1), 1.09),
    row("small request, HTTP/2", Transport::Tls, request(Version::Http2, Path::Small, 1), 1.16),
    row("small request, HTTP/2, 10 at a time", Transport::Tls, request(Version::Http2, Path::Small, 10), 1.18),
    row("100 kB response, HTTP/2", Transport::Tls, request(Version::Http2, Path::Large, 1), 1.06),
    row("small request, HTTP/1, no TLS", Transport::Plain, request(Version::Http1, Path::Small, 1), 1.19),
    row("small request, HTTP/2, no TLS", Transport::Plain, request(Version::Http2, Path::Small, 1), 1.19),
    row("new connection, HTTP/1", Transport::Tls, connection(Version::Http1, Session::New), 1.1),
    row("new connection, HTTP/1, resumed", Transport::Tls, connection(Version::Http1, Session::Resumed), 1.1),
    row("new connection, HTTP/2", Transport::Tls, connection(Version::Http2, Session::New), 1.1),
    row("new connection, HTTP/2, resumed", Transport::Tls, connection(Version::Http2, Session::Resumed), 1.1),
    row("drain of an idle connection", Transport::Tls, Subject::Drain, 3.4),
    row("bytes of an idle connection, HTTP/1", Transport::Tls, Subject::Memory { version: Version::Http1 }, 0.86),
    row("bytes of an idle connection, HTTP/2", Transport::Tls, Subject::Memory { version: Version::Http2 }, 1.12),
];

const fn row(name: &'static str, transport: Transport, subject: Subject, limit: f64) -> Row {
    Row { name, transport, subject, limit }
}

const fn request(version: Version, path: Path, at_once: usize) -> Subject {
    Subject::Request { version, path, at_once }
}

const fn connection(version: Version, session: Session) -> Subject {
    Subject::Connection { version, session }
}

/// How often something is done before it counts, so that buffers have grown.
const WARM_UP: usize = 20;
const REQUESTS: usize = 200;
const CONNECTIONS: usize = 40;
const IDLE: usize = 100;

/// Prints a table of all servers.
pub(crate) fn print_table(filter: &str) {
    println!("| | {} |", Contender::ALL.map(Contender::name).join(" | "));
    println!("|---|{}", "---|".repeat(Contender::ALL.len()));
    for row in ROWS.iter().filter(|row| row.name.contains(filter)) {
        let measured = Contender::ALL.map(|contender| measure(row, contender));
        let cells = measured.iter().map(|one| one.compared_with(&measured[0]));
        println!("| {} | {} |", row.name, cells.collect::<Vec<_>>().join(" | "));
    }
}

/// Compares the library with hyper-util alone.
///
/// # Panics
///
/// If a ratio exceeds its limit.
pub(crate) fn check() {
    let mut exceeded = Vec::new();
    for row in ROWS {
        let ratio = measure(row, Contender::Ours).amount / measure(row, Contender::Hyper).amount;
        println!("{}: {ratio:.3} of hyper-util, the limit is {}", row.name, row.limit);
        if ratio > row.limit {
            exceeded.push(row.name);
        }
    }
    assert!(exceeded.is_empty(), "above the limit: {}", exceeded.join("; "));
}

/// What one of something costs.
struct Measured {
    /// Instructions, or bytes.
    amount: f64,
    system_calls: Option<f64>,
}

impl Measured {
    fn compared_with(&self, other: &Self) -> String {
        let ratio = format!("{:.0}: {:.3}", self.amount, self.amount / other.amount);
        match self.system_calls {
            Some(calls) => format!("{ratio}, {calls:.1} calls"),
            None => ratio,
        }
    }
}

fn measure(row: &Row, contender: Contender) -> Measured {
    let counts = counts_file(row, contender);
    let start = |tool| ServerProcess::start(tool, contender, row.transport, &counts);
    let (cost, units) = match row.subject {
        Subject::Request { version, path, at_once } => {
            let mut server = start(Tool::Callgrind);
            let mut connection = client(&server, row.transport, version, Session::New).connect();
            (0..WARM_UP).for_each(|_| connection.request(path, at_once));
            server.command("begin");
            (0..REQUESTS).for_each(|_| connection.request(path, at_once));
            server.command("end");
            (server.into_cost(), REQUESTS * at_once)
        }
        Subject::Connection { version, session } => {
            let mut server = start(Tool::Callgrind);
            let client = client(&server, row.transport, version, session);
            client.prepare();
            (0..WARM_UP).for_each(|_| client.visit());
            server.command("begin");
            (0..CONNECTIONS).for_each(|_| client.visit());
            server.command("end");
            (server.into_cost(), CONNECTIONS)
        }
        Subject::Drain => {
            let mut server = start(Tool::Callgrind);
            let idle = connect_idle(&client(&server, row.transport, Version::Http1, Session::New), IDLE);
            server.command("begin");
            server.command("drain");
            idle.into_iter().for_each(Connection::answer_close);
            server.wait();
            (server.into_cost(), IDLE)
        }
        Subject::Memory { version } => {
            let heap_bytes = |connections| {
                let server = start(Tool::Massif);
                let idle = connect_idle(&client(&server, row.transport, version, Session::New), connections);
                let bytes = server.into_heap_bytes();
                drop(idle);
                bytes as f64
            };
            let amount = (heap_bytes(2 * IDLE) - heap_bytes(IDLE)) / IDLE as f64;
            return Measured { amount, system_calls: None };
        }
    };
    Measured {
        amount: cost.instructions as f64 / units as f64,
        system_calls: Some(cost.system_calls as f64 / units as f64),
    }
}

fn client(server: &ServerProcess, transport: Transport, version: Version, session: Session) -> Client {
    let tls =
        (transport == Transport::Tls).then(|| (**client_that_trusts(server.certificate.clone()).config()).clone());
    Client::new(server.address, version, tls, session)
}

/// Connections that have had a request each.
fn connect_idle(client: &Client, count: usize) -> Vec<Connection> {
    (0..count).map(|_| client.connect()).collect()
}

/// Where Valgrind writes, for `callgrind_annotate` and `ms_print`.
fn counts_file(row: &Row, contender: Contender) -> PathBuf {
    let program = std::env::current_exe().expect("this program");
    let folder = program.parent().unwrap_or(FilePath::new(".")).join("cost");
    std::fs::create_dir_all(&folder).expect("a folder");
    folder.join(format!("{} {}", row.name, contender.name()).replace([' ', '/', ',', ':'], "_"))
}
