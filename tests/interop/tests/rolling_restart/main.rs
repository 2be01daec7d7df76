//! Servers behind a balancer are restarted one after the other, under load: no request fails, and no server resets a connection.
//!
//! The balancers run with the configuration files of the guide. The servers are alone in a network namespace, so that its counters are
//! theirs.
//!
//! These tests have a process of their own, since their load takes the whole machine. `RESTARTS=20` restarts servers so many times behind
//! each balancer.

mod balancers;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use balancers::{BALANCER_PORT, Balancer, PORTS, Protocol, Transport, Upstream};
use futures_util::future::join_all;
use rustix::process::Signal;
use tls_shutdown_interop::{Background, Build, Namespace, Server, glance, peer_file, program};
use tokio::{
    process::Command,
    sync::Mutex,
    time::{Instant, interval_at},
};

/// Each server once. They take some seconds each, for the notice and the last requests.
const RESTARTS: usize = 3;
/// These take two seconds each.
const RESTARTS_WITHOUT_NOTICE: usize = 20;
/// The control loses requests in each.
const RESTARTS_OF_THE_CONTROL: usize = 6;

/// The connections of the load, for all that is tested at once.
const CONNECTIONS: usize = 100;

/// From one restart to the next, at least. HAProxy tries a server that does not listen again after one second, and the load is whole then.
/// Also every balancer has asked each server for its readiness once.
const PACE: Duration = Duration::from_millis(1500);
/// What a restart has to meet, at the least.
const REQUESTS_PER_RESTART: u64 = 100;

/// The machine is as busy with one of these tests as with all.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn nothing_is_lost_behind_haproxy() {
    nothing_is_lost(Balancer::Haproxy).await;
}

#[tokio::test]
async fn nothing_is_lost_behind_nginx() {
    nothing_is_lost(Balancer::Nginx).await;
}

#[tokio::test]
async fn nothing_is_lost_behind_envoy() {
    nothing_is_lost(Balancer::Envoy).await;
}

#[tokio::test]
async fn nothing_is_lost_behind_traefik() {
    nothing_is_lost(Balancer::Traefik).await;
}

#[tokio::test]
async fn nothing_is_lost_behind_caddy() {
    nothing_is_lost(Balancer::Caddy).await;
}

/// These two try a refused connection again on another server, so they need no notice.
#[tokio::test]
async fn nothing_is_lost_behind_a_balancer_that_retries_refused_connections() {
    for balancer in [Balancer::HaproxyWithoutChecks, Balancer::Nginx] {
        let trial = Trial::new(balancer, HTTPS, SHORT, RESTARTS_WITHOUT_NOTICE);
        run([trial]).await.iter().for_each(Outcome::assert_nothing_is_lost);
    }
}

/// These believe only their probes, as most cloud balancers do. A server that closes its socket before they fail loses what comes.
#[tokio::test]
async fn without_a_notice_requests_are_lost_behind_a_balancer_that_does_not_retry() {
    for balancer in [Balancer::Envoy, Balancer::Traefik, Balancer::Caddy] {
        let trial = Trial::new(balancer, HTTPS, WITHOUT_NOTICE, RESTARTS_OF_THE_CONTROL);
        assert_requests_are_lost(&run([trial]).await);
    }
}

/// Behind one balancer, with every protocol that it speaks with servers. The same restarts of another server lose requests.
async fn nothing_is_lost(balancer: Balancer) {
    let restarts = std::env::var("RESTARTS").map_or(RESTARTS, |restarts| restarts.parse().expect("a number"));
    let upstreams = balancer.upstreams();
    let ours = run(upstreams.iter().map(|upstream| Trial::new(balancer, *upstream, DEFAULTS, restarts))).await;
    let controls = run(upstreams.iter().map(|upstream| Trial::control(balancer, *upstream))).await;
    ours.iter().for_each(Outcome::assert_nothing_is_lost);
    assert_requests_are_lost(&controls);
}

/// What is restarted.
#[derive(Clone, Copy, Debug)]
enum Backend {
    /// `tls-shutdown serve`, with these arguments.
    Serve(&'static [&'static str]),
    /// A server of hyper and tokio-rustls with nothing of ours.
    Bare,
}

/// HTTP/1 over TLS.
const HTTPS: Upstream = (Protocol::Http1, Transport::Tls);

/// The defaults of `tls-shutdown serve`: among them, a notice for as long as the probes need.
const DEFAULTS: Backend = Backend::Serve(&[]);
/// The same, in less time.
const SHORT: Backend = Backend::Serve(&["--last-request", "2s", "--grace", "20s"]);
/// The socket is closed at once.
const WITHOUT_NOTICE: Backend = Backend::Serve(&["--notice", "0s", "--last-request", "2s", "--grace", "20s"]);

/// Every request in progress is cut at once.
const CUT: Backend = Backend::Serve(&["--notice", "0s", "--last-request", "0s", "--grace", "0s"]);

impl Backend {
    fn command(self, transport: Transport, listen: &str) -> Command {
        match (self, transport) {
            (Self::Serve(arguments), Transport::Tls) => Build::Release.serve(listen, arguments),
            (Self::Serve(arguments), Transport::Plain) => Build::Release.serve_plain(listen, arguments),
            (Self::Bare, Transport::Tls) => Build::Release.bare_server(listen),
            (Self::Bare, Transport::Plain) => Build::Release.plain_bare_server(listen),
        }
    }
}

/// One balancer, and the servers behind it that are restarted.
#[derive(Clone, Copy, Debug)]
struct Trial {
    balancer: Balancer,
    upstream: Upstream,
    backend: Backend,
    restarts: usize,
}

impl Trial {
    fn new(balancer: Balancer, upstream: Upstream, backend: Backend, restarts: usize) -> Self {
        Self { balancer, upstream, backend, restarts }
    }

    /// One that must lose requests. HAProxy tries refused connections again, and finishes its requests of HTTP/2 when hyper says GOAWAY. Over
    /// TLS, it loses hardly any with the bare server.
    fn control(balancer: Balancer, upstream: Upstream) -> Self {
        let backend = match (balancer, upstream) {
            (Balancer::Haproxy, (Protocol::Http2, Transport::Tls)) => CUT,
            _ => Backend::Bare,
        };
        Self::new(balancer, upstream, backend, RESTARTS_OF_THE_CONTROL)
    }

    /// Restarts one server after the other, under load.
    async fn run(self, connections: usize) -> Outcome {
        let network = Namespace::new();
        let start = |port| {
            let command = self.backend.command(self.upstream.1, &format!("{}:{port}", network.far));
            Server::start(network.inside(&command))
        };
        let mut servers = Vec::new();
        for port in PORTS {
            servers.push(start(port).await);
        }
        let mut balancer = Background::start(&mut self.balancer.command(&network, self.upstream));
        glance(|| answers(network.near)).await;
        let mut load = Background::start(&mut wrk(&network, connections));
        let mut pace = interval_at(Instant::now() + PACE, PACE);
        let mut notices = BTreeMap::new();
        for _ in 0..self.restarts {
            pace.tick().await;
            // Its place is taken by the one after it, and in the end by its successor.
            let old = servers.remove(0);
            let port = old.address.port();
            old.signal(Signal::TERM);
            let events = old.exit().await;
            servers.push(start(port).await);
            let notice = events.last().and_then(|drained| drained["notice"].as_str()).map(ToOwned::to_owned);
            *notices.entry(notice.unwrap_or_default()).or_default() += 1;
        }
        load.signal(Signal::INT);
        let summary = load.line_with("{\"requests\"").await.expect("the load ends with a summary");
        let load: BTreeMap<String, u64> = serde_json::from_str(&summary).expect("a JSON object");
        assert!(load["requests"] > REQUESTS_PER_RESTART * self.restarts as u64, "hardly any load: {load:?}");
        // Shown if the test fails.
        eprint!("{}", balancer.lines_so_far());
        let outcome = Outcome { trial: self, load, aborts: network.aborts(), notices };
        println!("{}", outcome.row());
        outcome
    }
}

/// Runs these at once, which all wait most of the time.
async fn run(trials: impl IntoIterator<Item = Trial>) -> Vec<Outcome> {
    let _alone = ALONE.lock().await;
    let trials: Vec<_> = trials.into_iter().collect();
    let connections = CONNECTIONS / trials.len();
    join_all(trials.into_iter().map(|trial| trial.run(connections))).await
}

/// The results of the load, the counters of the system, and what the servers say of their notices.
#[derive(Debug)]
struct Outcome {
    trial: Trial,
    /// Requests that were answered, and failures by their kind.
    load: BTreeMap<String, u64>,
    /// Connections that the servers have reset.
    aborts: Vec<(&'static str, u64)>,
    /// What ended the notices of the servers, and how many times.
    notices: BTreeMap<String, usize>,
}

impl Outcome {
    fn lost(&self) -> u64 {
        self.load.iter().filter(|(kind, _)| *kind != "requests").map(|(_, count)| count).sum()
    }

    /// A row of a table in Markdown.
    fn row(&self) -> String {
        let Self { trial: Trial { balancer, upstream: (protocol, transport), backend, restarts }, notices, .. } = self;
        let (requests, lost) = (self.load["requests"], self.lost());
        format!(
            "| {balancer:?} | {protocol:?} | {transport:?} | {backend:?} | {restarts} | {requests} | {lost} | {notices:?} |"
        )
    }

    fn assert_nothing_is_lost(&self) {
        let aborts: u64 = self.aborts.iter().map(|(_, count)| count).sum();
        assert_eq!((self.lost(), aborts), (0, 0), "{self:?}");
        let notice = if self.trial.balancer.has_checks() { "seen" } else { "unwatched" };
        assert!(self.notices.keys().all(|reason| reason == notice), "{self:?}");
    }
}

/// A control. Over HTTP/2 behind HAProxy, it is a matter of chance whether a restart loses anything, since hyper sends GOAWAY. Over HTTP/1,
/// each restart loses something.
fn assert_requests_are_lost(controls: &[Outcome]) {
    assert!(controls.iter().any(|control| control.lost() > 0), "the control proves nothing: {controls:?}");
}

/// Whether a balancer passes a request on and the answer back.
fn answers(near: Ipv4Addr) -> bool {
    let ask = || {
        let mut tcp = TcpStream::connect((near, BALANCER_PORT))?;
        tcp.set_read_timeout(Some(Duration::from_secs(1)))?;
        tcp.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        tcp.read_exact(&mut status).map(|()| status)
    };
    ask().is_ok_and(|status: [u8; 12]| status.ends_with(b" 200"))
}

/// Runs until it is interrupted. The requests are POSTs: a balancer may repeat one only if it cannot have sent it.
fn wrk(network: &Namespace, connections: usize) -> Command {
    let mut wrk = program("wrk", "wrk");
    wrk.args(["--threads", "1", "--connections", &connections.to_string(), "--duration", "600", "--timeout", "30s"]);
    wrk.arg("--script").arg(peer_file("post.lua"));
    wrk.arg(format!("http://{}:{BALANCER_PORT}/count", network.near));
    wrk
}
