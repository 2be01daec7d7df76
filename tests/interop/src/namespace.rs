//! A network of a server's own: a namespace, and a wire to it. What the system counts in there, that server alone has done.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    process::Output,
    sync::atomic::{AtomicU32, Ordering},
};

use tokio::process::Command;

use crate::program;

/// The counters of connections that a system has reset because of what its own programs did.
const ABORTS: [&str; 3] = ["TCPAbortOnData", "TCPAbortOnClose", "TCPAbortOnLinger"];

/// Networks for measurements are 198.18.0.0/15 (RFC 2544). Each wire takes four addresses of it.
const NETWORK: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const WIRES: u32 = 1 << 15;

/// A network namespace with one wire to the tests. Both end with this value.
pub struct Namespace {
    name: String,
    /// The address at the near end of the wire.
    pub near: Ipv4Addr,
    /// The address inside.
    pub far: Ipv4Addr,
}

impl Namespace {
    /// Makes one, which takes the rights of root.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // It only has to differ.
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let wire = u32::from(NETWORK) + 4 * ((process * 8 + count) % WIRES);
        let name = format!("tls{process}n{count}");
        let (near, far) = (Ipv4Addr::from(wire + 1), Ipv4Addr::from(wire + 2));

        run("ip", &format!("netns add {name}"));
        let namespace = Self { name, near, far };
        let name = &namespace.name;
        for command in [
            format!("link add {name} type veth peer name eth0 netns {name}"),
            format!("address add {near}/30 dev {name}"),
            format!("link set {name} up"),
            format!("-n {name} address add {far}/30 dev eth0"),
            format!("-n {name} link set eth0 up"),
        ] {
            run("ip", &command);
        }
        namespace
    }

    /// The same command, inside.
    pub fn inside(&self, command: &Command) -> Command {
        let command = command.as_std();
        let mut inside = program("ip", "iproute2");
        inside.args(["netns", "exec", &self.name]).arg(command.get_program()).args(command.get_args());
        inside
    }

    /// Lets one megabyte a second leave it.
    pub fn slow_down(&self) {
        run("tc", &format!("-n {} qdisc add dev eth0 root tbf rate 8mbit burst 32kbit latency 400ms", self.name));
    }

    /// Takes the wire away, as a container's is with its last process.
    pub fn unplug(&self) {
        run("ip", &format!("link delete {}", self.name));
    }

    /// How many connections the programs inside have aborted, by the system's own counters.
    pub fn aborts(&self) -> Vec<(&'static str, u64)> {
        let counters = self.counters("netstat", "TcpExt:");
        ABORTS.into_iter().map(|name| (name, counters[name])).collect()
    }

    /// How many TCP segments have left it.
    pub fn segments_sent(&self) -> u64 {
        self.counters("snmp", "Tcp:")["OutSegs"]
    }

    /// The counters of a table, by name.
    fn counters(&self, table: &str, group: &str) -> HashMap<String, u64> {
        let output = run("ip", &format!("netns exec {} cat /proc/net/{table}", self.name)).stdout;
        let text = String::from_utf8(output).expect("UTF-8");
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)).map(str::split_whitespace);
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        // One may be negative: a limit that there is not.
        names.zip(values).filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The wire may be gone already. The namespace itself ends with the last process inside.
        let _ = output("ip", &format!("link delete {}", self.name));
        let _ = output("ip", &format!("netns delete {}", self.name));
    }
}

fn output(name: &str, arguments: &str) -> Output {
    let mut command = program(name, "iproute2").into_std();
    command.args(arguments.split(' ')).output().expect("the program runs")
}

fn run(name: &str, arguments: &str) -> Output {
    let output = output(name, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments}: {error} (network namespaces take the rights of root)");
    output
}
