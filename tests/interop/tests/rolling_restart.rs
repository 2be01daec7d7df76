//! Servers behind a balancer are restarted one after the other, under load: no request fails, and no server resets a connection.
//!
//! The balancers may repeat a request only if they cannot have sent it, which is their default for POST. The servers are alone in a network
//! namespace, so that its counters are theirs.
//!
//! These tests have a process of their own, since their load takes the whole machine.

use std::{collections::BTreeMap, fmt::Write, net::TcpStream, time::Duration};

use rustix::process::Signal;
use tls_shutdown_interop::{Background, Build, CERTIFICATE, Namespace, Server, directory, glance, peer_file, program};
use tokio::{process::Command, sync::Mutex, time::interval};

const PORTS: [u16; 3] = [8441, 8442, 8443];
const BALANCER_PORT: u16 = 8080;
const CONNECTIONS: &str = "100";
const RESTARTS: usize = 20;
/// Each takes as long as the probes need.
const RESTARTS_WITH_PROBES: usize = 6;
/// The control loses requests in each.
const RESTARTS_OF_THE_CONTROL: usize = 6;

/// From one restart to the next. HAProxy tries a server that does not listen again after one second, and the load is whole then.
const PACE: Duration = Duration::from_millis(1500);
/// What a restart has to meet, at the least.
const REQUESTS_PER_RESTART: u64 = 500;

/// The machine is as busy with one of these tests as with all.
static ALONE: Mutex<()> = Mutex::const_new(());

type Balancer = fn(&Namespace) -> Command;
type Backend = fn(&str) -> Command;

#[tokio::test]
async fn nothing_is_lost_behind_haproxy() {
    no_request_fails(haproxy).await;
}

#[tokio::test]
async fn nothing_is_lost_behind_nginx() {
    no_request_fails(nginx).await;
}

/// It believes only its probes, as most cloud balancers do. A server that closes its socket before they fail loses what comes.
#[tokio::test]
async fn nothing_is_lost_behind_a_balancer_that_probes_and_does_not_retry() {
    let outcome = restart(probing_haproxy, serve, RESTARTS_WITH_PROBES).await;
    assert_eq!(outcome.failed(), 0, "{outcome:?}");
    let outcome = restart(probing_haproxy, serve_without_notice, RESTARTS_OF_THE_CONTROL).await;
    assert!(outcome.failed() > 0, "the control: {outcome:?}");
}

#[tokio::test]
async fn the_bare_server_loses_requests() {
    for balancer in [haproxy, nginx] {
        let outcome = restart(balancer, bare_server, RESTARTS_OF_THE_CONTROL).await;
        assert!(outcome.failed() > 0, "{outcome:?}");
    }
}

async fn no_request_fails(balancer: Balancer) {
    let outcome = restart(balancer, serve, RESTARTS).await;
    let aborts: u64 = outcome.aborts.iter().map(|(_, count)| count).sum();
    assert_eq!((outcome.failed(), aborts), (0, 0), "{outcome:?}");
}

/// The results of the load, and the counters of the system.
#[derive(Debug)]
struct Outcome {
    /// Requests that were answered, and failures by their kind.
    load: BTreeMap<String, u64>,
    /// Connections that the servers have reset.
    aborts: Vec<(&'static str, u64)>,
}

impl Outcome {
    fn failed(&self) -> u64 {
        self.load.iter().filter(|(kind, _)| *kind != "requests").map(|(_, count)| count).sum()
    }
}

async fn restart(balancer: Balancer, backend: Backend, restarts: usize) -> Outcome {
    let _alone = ALONE.lock().await;
    let namespace = Namespace::new();
    let start = |port| Server::start(namespace.inside(&backend(&format!("{}:{port}", namespace.far))));
    let mut servers = Vec::new();
    for port in PORTS {
        servers.push(start(port).await);
    }
    let balancer = Background::start(&mut balancer(&namespace));
    glance(|| TcpStream::connect((namespace.near, BALANCER_PORT)).is_ok()).await;
    let mut load = Background::start(&mut wrk(&namespace));
    let mut pace = interval(PACE);
    for _ in 0..restarts {
        pace.tick().await;
        // Its place is taken by the one after it, and in the end by its successor.
        let old = servers.remove(0);
        let port = old.address.port();
        old.signal(Signal::TERM);
        old.exit().await;
        servers.push(start(port).await);
    }
    load.signal(Signal::INT);
    let summary = load.line_with("{\"requests\"").await.expect("the load ends with a summary");
    let load: BTreeMap<String, u64> = serde_json::from_str(&summary).expect("a JSON object");
    assert!(load["requests"] > REQUESTS_PER_RESTART * restarts as u64, "hardly any load: {load:?}");
    drop(balancer);
    let outcome = Outcome { load, aborts: namespace.aborts() };
    println!("{restarts} restarts: {outcome:?}");
    outcome
}

fn serve(listen: &str) -> Command {
    Build::Release.serve(listen, &["--last-request", "2s", "--grace", "20s"])
}

fn serve_without_notice(listen: &str) -> Command {
    Build::Release.serve(listen, &["--notice", "0s", "--last-request", "2s", "--grace", "20s"])
}

fn bare_server(listen: &str) -> Command {
    Build::Release.bare_server(listen)
}

/// Runs until it is interrupted.
fn wrk(namespace: &Namespace) -> Command {
    let limit = Duration::from_secs(300).as_secs().to_string();
    let mut wrk = program("wrk", "wrk");
    wrk.args(["--threads", "1", "--connections", CONNECTIONS, "--duration", &limit, "--timeout", "30s"]);
    wrk.arg("--script").arg(peer_file("post.lua"));
    wrk.arg(format!("http://{}:{BALANCER_PORT}/count", namespace.near));
    wrk
}

fn haproxy(namespace: &Namespace) -> Command {
    haproxy_with(namespace, "", "")
}

fn probing_haproxy(namespace: &Namespace) -> Command {
    haproxy_with(namespace, " retries 0\n option httpchk GET /health\n", " check inter 200ms fall 2 rise 1")
}

fn haproxy_with(namespace: &Namespace, backend: &str, server: &str) -> Command {
    let Namespace { near, far, .. } = namespace;
    let mut configuration = format!(
        "global\n maxconn 2000\n\
         defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n http-reuse safe\n\
         frontend front\n bind {near}:{BALANCER_PORT}\n default_backend back\n\
         backend back\n balance roundrobin\n{backend}"
    );
    for port in PORTS {
        writeln!(configuration, " server s{port} {far}:{port} ssl verify none{server}")
            .expect("a string takes everything");
    }
    let file = directory().join("haproxy.conf");
    std::fs::write(&file, configuration).expect("a configuration");
    let mut haproxy = program("haproxy", "haproxy");
    haproxy.args(["-db", "-f"]).arg(file);
    haproxy
}

fn nginx(namespace: &Namespace) -> Command {
    let Namespace { near, far, .. } = namespace;
    let servers: String = PORTS.map(|port| format!("server {far}:{port} max_fails=0; ")).concat();
    let configuration = format!(
        "daemon off; master_process off; pid balancer.pid; error_log stderr notice; events {{}}
         http {{
             client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
             uwsgi_temp_path uwsgi; scgi_temp_path scgi; access_log off;
             upstream back {{ {servers} keepalive 100; }}
             server {{
                 listen {near}:{BALANCER_PORT}; keepalive_requests 1000000000;
                 location / {{
                     proxy_pass https://back; proxy_ssl_trusted_certificate {};
                     proxy_http_version 1.1; proxy_set_header Connection '';
                 }}
             }}
         }}",
        CERTIFICATE.cert
    );
    let file = directory().join("balancer.conf");
    std::fs::write(&file, configuration).expect("a configuration");
    let mut nginx = program("nginx", "nginx-light");
    nginx.arg("-p").arg(directory()).arg("-c").arg(file).args(["-e", "stderr"]);
    nginx
}
