//! A server under Valgrind, and what Valgrind counts.

use std::{
    fs,
    io::{BufRead, BufReader, Lines, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use rustls::pki_types::CertificateDer;

use super::{Transport, contenders::Contender};

/// A tool of Valgrind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tool {
    /// Counts instructions and system calls.
    Callgrind,
    /// Measures the heap.
    Massif,
}

/// What Callgrind has counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) instructions: u64,
    pub(super) system_calls: u64,
}

/// A server in a process of its own.
pub(super) struct ServerProcess {
    process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    counts: PathBuf,
    pub(super) address: SocketAddr,
    pub(super) certificate: CertificateDer<'static>,
}

impl ServerProcess {
    /// Starts a server. Valgrind writes to the file `counts`.
    pub(super) fn start(tool: Tool, contender: Contender, transport: Transport, counts: &Path) -> Self {
        let mut valgrind = Command::new("valgrind");
        valgrind.arg("--quiet");
        match tool {
            Tool::Callgrind => valgrind
                .args(["--tool=callgrind", "--collect-systime=yes"])
                .args(["--zero-before=*begin_measurement*", "--dump-before=*end_measurement*"])
                .arg(format!("--callgrind-out-file={}", counts.display())),
            Tool::Massif => valgrind
                .args(["--tool=massif", "--peak-inaccuracy=0.0"])
                .arg(format!("--massif-out-file={}", counts.display())),
        };
        let mut process = valgrind
            .arg(std::env::current_exe().expect("this program"))
            .args(["cost", "server", contender.name(), transport.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("valgrind is installed");
        let mut output = BufReader::new(process.stdout.take().expect("piped")).lines();
        let mut line = || output.next().expect("a line").expect("text");
        let address = line().parse().expect("an address");
        let certificate = line().split(',').map(|byte| byte.parse().expect("a byte")).collect::<Vec<u8>>();
        let input = process.stdin.take().expect("piped");
        Self { process, input, output, counts: counts.to_owned(), address, certificate: certificate.into() }
    }

    /// Lets the server do something. Returns when it has.
    pub(super) fn command(&mut self, command: &str) {
        writeln!(self.input, "{command}").expect("a server");
        assert_eq!(self.line(), "done");
    }

    /// Waits until the server has ended by itself.
    pub(super) fn wait(&mut self) {
        assert_eq!(self.line(), "end");
    }

    fn line(&mut self) -> String {
        self.output.next().expect("a line").expect("text")
    }

    fn finish(mut self) -> PathBuf {
        drop(self.input);
        self.process.wait().expect("an exit");
        self.counts
    }

    /// Ends the process. Returns what was counted between the beginning and the end of the measurement.
    pub(super) fn into_cost(self) -> Cost {
        let counts = self.finish();
        // Callgrind numbers what it writes before the process ends.
        let dump = fs::read_to_string(format!("{}.1", counts.display())).expect("what Callgrind has counted");
        let events = dump.lines().find_map(|line| line.strip_prefix("events: ")).expect("names of events");
        let totals = dump.lines().find_map(|line| line.strip_prefix("totals: ")).expect("numbers of events");
        let total = |name| {
            let mut both = events.split(' ').zip(totals.split(' '));
            both.find(|(event, _)| *event == name).map_or(0, |(_, total)| total.parse().expect("a number"))
        };
        Cost { instructions: total("Ir"), system_calls: total("sysCount") }
    }

    /// Ends the process. Returns the most bytes that were allocated at a time.
    pub(super) fn into_heap_bytes(self) -> u64 {
        let dump = fs::read_to_string(self.finish()).expect("what Massif has measured");
        let sizes = dump.lines().filter_map(|line| line.strip_prefix("mem_heap_B="));
        sizes.map(|size| size.parse().expect("a number")).max().expect("a snapshot")
    }
}
