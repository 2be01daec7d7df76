//! The balancers, with the configuration files of the guide. What differs from a file is what its comments say, and names, addresses and
//! paths.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tls_shutdown_interop::{CERTIFICATE, Namespace, directory, program, python_program};
use tokio::process::Command;

/// Where the servers listen, in place of port 8443 of 10.0.0.1, 10.0.0.2 and 10.0.0.3.
pub(crate) const PORTS: [u16; 3] = [8441, 8442, 8443];
/// Where the balancers listen.
pub(crate) const BALANCER_PORT: u16 = 8080;

/// The protocol between a balancer and its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// What carries that protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tls,
    Plain,
}

/// How a balancer speaks with its servers.
pub(crate) type Upstream = (Protocol, Transport);

/// What a test asks of each balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Balancer {
    Haproxy,
    /// It learns only from refused connections.
    HaproxyWithoutChecks,
    Nginx,
    Envoy,
    Traefik,
    Caddy,
}

impl Balancer {
    /// What it can speak with servers.
    pub(crate) fn upstreams(self) -> Vec<Upstream> {
        let protocols = match self {
            Self::Nginx => &[Protocol::Http1][..],
            _ => &[Protocol::Http1, Protocol::Http2],
        };
        protocols.iter().flat_map(|protocol| [(*protocol, Transport::Tls), (*protocol, Transport::Plain)]).collect()
    }

    /// Whether it asks servers for their readiness.
    pub(crate) fn has_checks(self) -> bool {
        !matches!(self, Self::HaproxyWithoutChecks | Self::Nginx)
    }

    /// Runs it at the near end of a network, with servers at the far end.
    pub(crate) fn command(self, network: &Namespace, upstream: Upstream) -> Command {
        match self {
            Self::Haproxy => run_haproxy(haproxy(network, upstream)),
            Self::HaproxyWithoutChecks => {
                run_haproxy(haproxy(network, upstream).without("option httpchk").without("check inter"))
            }
            Self::Nginx => nginx(network, upstream),
            Self::Envoy => envoy(network, upstream),
            Self::Traefik => traefik(network, upstream),
            Self::Caddy => caddy(network, upstream),
        }
    }
}

/// A file of the guide. Each change must find what it changes.
struct Configuration {
    name: &'static str,
    text: String,
    folder: PathBuf,
}

impl Configuration {
    fn read(name: &'static str, network: &Namespace) -> Self {
        let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/tls-shutdown/guide/balancers");
        let text = fs::read_to_string(guide.join(name)).expect("a file of the guide");
        let folder = directory().join(format!("balancer-{}", network.near));
        fs::create_dir_all(&folder).expect("a directory for the balancer");
        Self { name, text, folder }
    }

    fn replace(mut self, from: &str, to: &str) -> Self {
        assert!(self.text.contains(from), "{} has no {from:?}", self.name);
        self.text = self.text.replace(from, to);
        self
    }

    /// Leaves out the lines that contain this.
    fn without(mut self, part: &str) -> Self {
        assert!(self.text.contains(part), "{} has no {part:?}", self.name);
        self.text = self.text.lines().filter(|line| !line.contains(part)).flat_map(|line| [line, "\n"]).collect();
        self
    }

    /// Leaves out everything from here to what comes next.
    fn without_block(mut self, first: &str, next: &str) -> Self {
        let start = self.text.find(first).unwrap_or_else(|| panic!("{} has no {first:?}", self.name));
        let end = self.text.rfind(next).unwrap_or_else(|| panic!("{} has no {next:?}", self.name));
        self.text.replace_range(start..end, "");
        self
    }

    /// The servers of the test, where an address and a port are written in this way.
    fn with_servers(self, network: &Namespace, joint: &str) -> Self {
        (1..).zip(PORTS).fold(self, |text, (number, port)| {
            text.replace(&format!("10.0.0.{number}{joint}8443"), &format!("{}{joint}{port}", network.far))
        })
    }

    fn with_certificate(self) -> Self {
        self.replace("/etc/ssl/web-ca.pem", &CERTIFICATE.cert).replace("web.example.org", "localhost")
    }

    fn write(&self) -> PathBuf {
        let file = self.folder.join(self.name);
        fs::write(&file, &self.text).expect("a configuration");
        file
    }
}

fn haproxy(network: &Namespace, (protocol, transport): Upstream) -> Configuration {
    let file = Configuration::read("haproxy.cfg", network)
        .replace("bind :8080", &format!("bind {}:{BALANCER_PORT}", network.near))
        .with_servers(network, ":");
    let file = match transport {
        Transport::Tls => file.with_certificate(),
        Transport::Plain => file.without("default-server ssl"),
    };
    match (protocol, transport) {
        (Protocol::Http1, _) => file,
        (Protocol::Http2, Transport::Tls) => file.replace("# default-server alpn h2", "default-server alpn h2"),
        (Protocol::Http2, Transport::Plain) => file.replace("# default-server alpn h2", "default-server proto h2"),
    }
}

fn run_haproxy(file: Configuration) -> Command {
    let mut haproxy = program("haproxy", "haproxy");
    haproxy.args(["-db", "-f"]).arg(file.write());
    haproxy
}

fn nginx(network: &Namespace, (_, transport): Upstream) -> Command {
    // Where it may write, and no log of each request.
    let own = "http {
        client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
        uwsgi_temp_path uwsgi; scgi_temp_path scgi; access_log off;";
    let file = Configuration::read("nginx.conf", network)
        .replace("listen 8080", &format!("listen {}:{BALANCER_PORT}", network.near))
        .with_servers(network, ":")
        .replace("http {", own);
    let file = match transport {
        Transport::Tls => file.with_certificate(),
        Transport::Plain => file.replace("https://", "http://").without("proxy_ssl"),
    };
    let mut nginx = program("nginx", "nginx-light");
    nginx.args(["-e", "stderr", "-g", "daemon off; master_process off; pid balancer.pid; error_log stderr;"]);
    nginx.arg("-p").arg(&file.folder).arg("-c").arg(file.write());
    nginx
}

fn envoy(network: &Namespace, (protocol, transport): Upstream) -> Command {
    let front = |address: &str| format!("address: {address}, port_value: {BALANCER_PORT}");
    let file = Configuration::read("envoy.yaml", network)
        .replace(&front("0.0.0.0"), &front(&network.near.to_string()))
        .with_servers(network, ", port_value: ");
    let file = match protocol {
        Protocol::Http1 => file,
        Protocol::Http2 => file.replace("{http_protocol_options: {}}", "{http2_protocol_options: {}}"),
    };
    let file = match transport {
        Transport::Tls => file.with_certificate(),
        Transport::Plain => file.without_block("    transport_socket:", ""),
    };
    let mut envoy = python_program("envoy");
    envoy.args(["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warning"]);
    envoy.arg("--config-path").arg(file.write());
    envoy
}

fn traefik(network: &Namespace, (protocol, transport): Upstream) -> Command {
    let servers = Configuration::read("traefik-servers.yaml", network).with_servers(network, ":").with_certificate();
    let servers = match (protocol, transport) {
        (Protocol::Http1, Transport::Tls) => servers.replace("disableHTTP2: false", "disableHTTP2: true"),
        (Protocol::Http2, Transport::Tls) => servers,
        (Protocol::Http1, Transport::Plain) => servers.replace("url: https://", "url: http://"),
        (Protocol::Http2, Transport::Plain) => servers.replace("url: https://", "url: h2c://"),
    };
    let file = Configuration::read("traefik.yaml", network)
        .replace("\":8080\"", &format!("\"{}:{BALANCER_PORT}\"", network.near))
        .replace("/etc/traefik/servers.yaml", servers.write().to_str().expect("a UTF-8 path"));
    let mut traefik = python_program("traefik");
    traefik.arg("--configfile").arg(file.write());
    traefik
}

fn caddy(network: &Namespace, (protocol, transport): Upstream) -> Command {
    // Only this address, no administration, and no file of its own.
    let own = format!("{{\n\tadmin off\n\tpersist_config off\n}}\n\n:8080 {{\n\tbind {}\n", network.near);
    let file = Configuration::read("Caddyfile", network).replace(":8080 {\n", &own).with_servers(network, ":");
    let file = match (protocol, transport) {
        (Protocol::Http1, Transport::Tls) => file.replace("versions 2", "versions 1.1").with_certificate(),
        (Protocol::Http2, Transport::Tls) => file.with_certificate(),
        (Protocol::Http1, Transport::Plain) => file.replace(" https://", " http://"),
        (Protocol::Http2, Transport::Plain) => file.replace(" https://", " h2c://"),
    };
    let file = match transport {
        Transport::Tls => file,
        Transport::Plain => file.without_block("\t\ttransport http {", "\t}\n}"),
    };
    let mut caddy = python_program("caddy");
    caddy.env("XDG_DATA_HOME", &file.folder).env("XDG_CONFIG_HOME", &file.folder);
    caddy.args(["run", "--adapter", "caddyfile", "--config"]).arg(file.write());
    caddy
}
