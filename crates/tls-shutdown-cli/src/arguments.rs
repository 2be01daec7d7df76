//! The command line.

use std::{fmt, future::pending, path::PathBuf, str::FromStr, time::Duration};

use bytesize::ByteSize;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, error::ErrorKind};
use clap_complete::Shell;
use humantime::parse_duration;
use rustls::pki_types::ServerName;
use tls_shutdown::{ShutdownPolicy, server::ServerDrain};

use crate::{events::Format, explain::Explanations, failure::Failure, output::print_usage_and_exit};

/// Close TLS connections without losing data.
#[derive(Debug, Parser)]
#[command(name = "tls-shutdown", version, propagate_version = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Serve(ServeArguments),
    Send(SendArguments),
    Probe(ProbeArguments),
    Demo(DemoArguments),
    Completions(CompletionsArguments),
    Man(ManArguments),
}

/// Serve HTTPS, HTTP and Unix sockets, and report how each connection ended.
///
/// SIGTERM or Ctrl-C starts a graceful exit: the server finishes the requests in progress and sends close_notify on every connection.
/// A second signal cuts the requests in progress. The exit then takes up to two seconds if clients do not read.
///
/// All sockets are served alike and end together. HTTP/2 is chosen by ALPN, or, without it, by the first bytes of the client.
///
/// SIGHUP reads the certificate, the key and the client CA again. If a file is bad, the old ones stay in use.
///
/// The exit code is 0 if the drain ended and every report was written, and 1 if a report was lost. A closed pipe is no error. It is 3 if
/// the process did not end within a second after the grace period, because its threads were blocked, and was cut. It is 1 if the server
/// could not start, and 2 if the arguments are wrong.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tls-shutdown serve
  curl -k https://127.0.0.1:8443/                  list the routes
  curl -k https://127.0.0.1:8443/bytes/1000000 | wc -c

  tls-shutdown serve --listen '[::]:8443' --cert cert.pem --key key.pem --json
  tls-shutdown serve --listen 0.0.0.0:8443 --plain 127.0.0.1:8080 --unix /run/http.sock
  tls-shutdown serve --notice 10s --grace 60s      for a load balancer that needs 10 s to react")]
pub(crate) struct ServeArguments {
    /// Listen for HTTPS on this address. Port 0 chooses a free port. Can be given several times.
    ///
    /// Default: 127.0.0.1:8443. There is no default beside --plain or --unix, unless --cert or --client-ca is given.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Vec<Endpoint>,
    /// Listen for HTTP without TLS on this address. Can be given several times.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) plain: Vec<Endpoint>,
    /// Listen for HTTP on a Unix socket at this path. The file is removed at the end. Can be given several times.
    #[arg(long, value_name = "PATH")]
    pub(crate) unix: Vec<PathBuf>,
    /// Read the certificate chain from this PEM file [default: a self-signed certificate].
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// Read the private key from this PEM file.
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// Require client certificates that are signed by a certificate in this PEM file.
    #[arg(long, value_name = "FILE")]
    pub(crate) client_ca: Option<PathBuf>,
    /// Offer these protocols, in order of preference.
    #[arg(long, value_enum, value_name = "PROTOCOLS", value_delimiter = ',', default_value = "h2,http/1.1")]
    pub(crate) alpn: Vec<Protocol>,
    /// Choose how connections are closed.
    ///
    /// With unidirectional, the server sends close_notify and keeps reading in the background, so that late data of the client does
    /// not reset the connection.
    #[arg(long, value_enum, default_value = "unidirectional")]
    pub(crate) policy: ServerPolicy,
    /// Wait this long for the client's close_notify.
    #[arg(long, alias = "deadline", value_name = "DURATION", value_parser = parse_duration, default_value = "5s")]
    pub(crate) close_timeout: Duration,
    /// Discard up to this much data while waiting for the client's close_notify.
    #[arg(long, alias = "drain-limit", value_name = "SIZE", default_value = "1MiB")]
    pub(crate) max_drain_bytes: ByteSize,
    /// Close a connection whose client reads nothing of a response for this long.
    ///
    /// On HTTP/1, the same timeout applies to a client that sends nothing of a request body. An HTTP/2 client that opens no
    /// flow-control window has five times as long.
    #[arg(long, alias = "stall-limit", value_name = "DURATION", value_parser = parse_timeout, default_value = "60s")]
    pub(crate) stall_timeout: Duration,
    /// After the signal, serve as before for this long, but report not ready on /ready [default: as long as the balancer needs].
    ///
    /// By default, if something asks for /ready regularly, the notice lasts until two probes were answered "not ready" and nobody
    /// else has connected for a second. It lasts for 10 seconds, or 40 % of --grace, at most. If nothing asks, there is no notice.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) notice: Option<Duration>,
    /// After the notice, stop accepting, and wait this long for a last request on idle connections.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "5s")]
    pub(crate) last_request: Duration,
    /// Exit at most this long after the signal. All other times count towards it.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "25s")]
    pub(crate) grace: Duration,
    /// Explain in plain words how each connection ended, what that means for its responses, and why a handshake failed.
    #[arg(long)]
    pub(crate) explain: bool,
    /// Print one JSON object per line. `closed` comes once for each connection.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Write data to a TLS server, close the connection, and report how it ended.
///
/// The command does not read the server's data. It discards it during the close.
///
/// The exit code is 0 only if all data was written and every connection was closed as the policy requires. A connection fails if the
/// server accepts no data for a minute. The command stops at the first connection that it cannot make.
///
/// The close timeout starts when the system accepts our close_notify. The server may read it much later: a server that reads 3 MB at
/// 200 kB/s then still has most of the data in front of it, and answers 15 seconds later. For this reason the default is longer
/// than usual.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  head -c 3000000 /dev/zero | tls-shutdown send example.org:443
  tls-shutdown send 127.0.0.1:8443 --insecure --bytes 3MB --connections 2 --json
  tls-shutdown send 127.0.0.1:8443 --ca ca.pem --server-name example.org --policy receive-first < request.txt")]
pub(crate) struct SendArguments {
    /// The server to connect to.
    #[arg(value_name = "HOST:PORT")]
    pub(crate) server: Endpoint,
    /// Choose how connections are closed.
    ///
    /// Only bidirectional and receive-first can confirm that the server has read all data. The server must close after it has read
    /// everything, as most servers do. After unidirectional, whatever the server still sends, such as session tickets, may reset the
    /// connection and destroy data in transit.
    #[arg(long, value_enum, default_value = "bidirectional")]
    pub(crate) policy: ClientPolicy,
    /// Wait this long for the server's close_notify. Connecting, with the handshake, may take as long.
    #[arg(long, alias = "deadline", value_name = "DURATION", value_parser = parse_duration, default_value = "30s")]
    pub(crate) close_timeout: Duration,
    /// Discard up to this much data while waiting for the server's close_notify.
    #[arg(long, alias = "drain-limit", value_name = "SIZE", default_value = "1MiB")]
    pub(crate) max_drain_bytes: ByteSize,
    /// Write this many zero bytes [default: standard input, to its end].
    #[arg(long, value_name = "SIZE")]
    pub(crate) bytes: Option<ByteSize>,
    /// Make this many connections, one after the other. More than one requires --bytes.
    #[arg(long, value_name = "NUMBER", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
    #[command(flatten)]
    pub(crate) identity: IdentityArguments,
    /// Print one JSON object per line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Report how a TLS server closes connections.
///
/// The command makes up to seven connections, one after the other, and up to two more if the server refuses the protocols that it offers
/// by ALPN. It watches the last one while it is idle, for up to 20 seconds. The whole takes at most 30 seconds. If the server speaks
/// HTTP/1, the command sends GET / and uploads 1 MB with POST /.
///
/// Each finding is good, tolerable, bad or unknown. The last line tells who is at fault if clients of this server report "unexpected
/// EOF". <https://docs.rs/tls-shutdown/latest/tls_shutdown/guide/probe/index.html> explains the findings and documents the JSON.
///
/// The exit code is 0 if the server was probed, whatever the findings are. It is 3 if the server could not be probed, 2 if the
/// arguments are wrong, and 1 if the report could not be written.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tls-shutdown probe example.org:443
  tls-shutdown probe 127.0.0.1:8443 --insecure --svg exchange.svg
  tls-shutdown probe mail.example.org:25 --starttls smtp --json")]
pub(crate) struct ProbeArguments {
    /// The server to probe.
    #[arg(value_name = "HOST:PORT")]
    pub(crate) server: Endpoint,
    #[command(flatten)]
    pub(crate) identity: IdentityArguments,
    /// Begin in plaintext, and ask the server for TLS in this protocol.
    #[arg(long, value_enum, value_name = "PROTOCOL")]
    pub(crate) starttls: Option<StartTls>,
    /// Write a picture of the exchange to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a client requires of the server's certificate.
#[derive(Args, Clone, Debug)]
pub(crate) struct IdentityArguments {
    /// Trust the certificates in this PEM file instead of those of the system.
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub(crate) ca: Option<PathBuf>,
    /// Trust every certificate.
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Expect this name in the server's certificate [default: HOST].
    #[arg(long, value_name = "NAME", value_parser = parse_server_name)]
    server_name: Option<ServerName<'static>>,
}

/// A protocol in which a client asks for TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StartTls {
    Smtp,
    Imap,
    Postgres,
}

/// Measure what ordinary code loses when connections end, beside this library, over loopback.
///
/// Each row is one situation. The clients, the application and the count are the same for both sides. "bare" is tokio-rustls, hyper and
/// hyper-util, used as their documentation shows it; "ours" is the same program with this library. The numbers are losses. No other
/// program and no network are needed. The whole takes about 15 seconds, and two minutes at most.
///
/// The exit code is 0 if our side lost nothing and all rows were written. Otherwise it is 1.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tls-shutdown demo
  tls-shutdown demo --json                         id, what, unit, bare and ours of each row")]
pub(crate) struct DemoArguments {
    /// Print one JSON object per row.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Print a script with which a shell completes the arguments of this command.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tls-shutdown completions bash > ~/.local/share/bash-completion/completions/tls-shutdown
  tls-shutdown completions fish > ~/.config/fish/completions/tls-shutdown.fish
  tls-shutdown completions zsh > ~/.zfunc/_tls-shutdown          if ~/.zfunc is in $fpath")]
pub(crate) struct CompletionsArguments {
    /// The shell.
    pub(crate) shell: Shell,
}

/// Print a manual page.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tls-shutdown man probe | man -l -
  tls-shutdown man > /usr/local/share/man/man1/tls-shutdown.1
  tls-shutdown man serve > /usr/local/share/man/man1/tls-shutdown-serve.1")]
pub(crate) struct ManArguments {
    /// The command that the page describes [default: tls-shutdown itself].
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Option<String>,
}

/// An application protocol of `serve`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    #[value(name = "h2")]
    Http2,
    #[value(name = "http/1.1")]
    Http1,
}

impl Protocol {
    /// The protocol's names in ALPN (RFC 7301). `curl --http1.0` offers only the older name of HTTP/1.
    pub(crate) fn alpn(self) -> &'static [&'static str] {
        match self {
            Self::Http2 => &["h2"],
            Self::Http1 => &["http/1.1", "http/1.0"],
        }
    }
}

/// How `serve` closes connections. It has no receive-first, because an HTTP server must be able to close before its client does.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ServerPolicy {
    /// Send nothing: the client sees a truncation, and a response to a request that was not read to its end may be lost.
    Quiet,
    /// Send close_notify, and do not wait for the client's.
    Unidirectional,
    /// Send close_notify, and wait for the client's.
    Bidirectional,
}

/// How `send` closes connections.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ClientPolicy {
    /// Send nothing: the server sees a truncation.
    Quiet,
    /// Send close_notify, and do not wait for the server's.
    Unidirectional,
    /// Send close_notify, and wait for the server's.
    Bidirectional,
    /// Wait for the server's close_notify, then send ours.
    ReceiveFirst,
}

impl Arguments {
    /// Parses the command line. Exits if arguments are wrong or contradict each other, and after `--help`.
    pub(crate) fn parse_or_exit() -> Self {
        let arguments = Self::try_parse().unwrap_or_else(|usage| print_usage_and_exit(&usage));
        if let Command::Send(SendArguments { connections: 2.., bytes: None, .. }) = arguments.command {
            let message = "--connections above 1 requires --bytes: standard input can be sent only once";
            Self::command().error(ErrorKind::MissingRequiredArgument, message).exit();
        }
        if let Command::Serve(ServeArguments { notice: Some(notice), last_request, grace, .. }) = arguments.command
            && let longest = ServerDrain::on(pending()).last_request(last_request).grace_period(grace).longest_notice()
            && notice > longest
        {
            let [notice, last_request, grace, longest] =
                [notice, last_request, grace, longest].map(humantime::format_duration);
            let message = format!(
                "--notice {notice} is too long: --grace {grace} leaves {longest} for it beside --last-request {last_request}. \
                 Set --grace to at least the notice, the last request and the longest request together"
            );
            Self::command().error(ErrorKind::ValueValidation, message).exit();
        }
        arguments
    }
}

impl ServeArguments {
    /// Where to listen for HTTPS.
    pub(crate) fn tls(&self) -> Vec<Endpoint> {
        let is_without_tls = !self.plain.is_empty() || !self.unix.is_empty();
        let has_tls_files = self.cert.is_some() || self.client_ca.is_some();
        if self.listen.is_empty() && (!is_without_tls || has_tls_files) {
            return vec![Endpoint { host: "127.0.0.1".to_owned(), port: 8443 }];
        }
        self.listen.clone()
    }

    pub(crate) fn policy(&self) -> ShutdownPolicy {
        let policy = match self.policy {
            ServerPolicy::Quiet => ShutdownPolicy::quiet(),
            ServerPolicy::Unidirectional => ShutdownPolicy::unidirectional(),
            ServerPolicy::Bidirectional => ShutdownPolicy::bidirectional(),
        };
        policy.with_close_timeout(self.close_timeout).with_max_drain_bytes(self.max_drain_bytes.as_u64())
    }

    pub(crate) fn explanations(&self) -> Explanations {
        if self.explain { Explanations::Each } else { Explanations::None }
    }

    pub(crate) fn format(&self) -> Format {
        if self.json { Format::Json } else { Format::Text }
    }
}

impl SendArguments {
    pub(crate) fn policy(&self) -> ShutdownPolicy {
        let policy = match self.policy {
            ClientPolicy::Quiet => ShutdownPolicy::quiet(),
            ClientPolicy::Unidirectional => ShutdownPolicy::unidirectional(),
            ClientPolicy::Bidirectional => ShutdownPolicy::bidirectional(),
            ClientPolicy::ReceiveFirst => ShutdownPolicy::receive_first(),
        };
        policy.with_close_timeout(self.close_timeout).with_max_drain_bytes(self.max_drain_bytes.as_u64())
    }

    pub(crate) fn format(&self) -> Format {
        if self.json { Format::Json } else { Format::Text }
    }
}

impl IdentityArguments {
    /// The name that the certificate of this server must have.
    pub(crate) fn server_name(&self, server: &Endpoint) -> Result<ServerName<'static>, Failure> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => ServerName::try_from(server.host.clone()).map_err(|_| {
                let host = &server.host;
                Failure::new(format!("{host} cannot be the name in a certificate: pass the name with --server-name"))
            }),
        }
    }
}

impl DemoArguments {
    pub(crate) fn format(&self) -> Format {
        if self.json { Format::Json } else { Format::Text }
    }
}

/// A host (a name or an address) and a port.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected HOST:PORT, such as example.org:443 or [::1]:443".to_owned();
        let parts = match text.strip_prefix('[') {
            Some(address) => address.split_once("]:"),
            None => text.split_once(':').filter(|(_, port)| !port.contains(':')),
        };
        let (host, port) = parts.filter(|(host, _)| !host.is_empty()).ok_or_else(expected)?;
        // `parse` also accepts a sign.
        let number = Some(port).filter(|port| !port.starts_with('+')).and_then(|port| port.parse().ok());
        let port = number.ok_or_else(|| format!("'{port}' is not a port number (0 to {})", u16::MAX))?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// A timeout of zero would end every connection that waits for a moment.
fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text).map_err(|error| error.to_string())? {
        Duration::ZERO => Err("must be longer than 0".to_owned()),
        timeout => Ok(timeout),
    }
}

fn parse_server_name(name: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(name.to_owned()).map_err(|_| "not a host name or an IP address".to_owned())
}
