//! The command line.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use bytesize::ByteSize;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, error::ErrorKind};
use rustls::pki_types::ServerName;
use tls_shutdown::{ShutdownPolicy, server::ServerDrain};

use crate::events::Format;

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
}

/// Serve HTTPS, and tell how each connection ended.
///
/// SIGTERM and Ctrl-C end it gracefully: requests in progress are answered, every connection gets its close_notify. A second one
/// cuts what is in progress; the exit still takes up to two seconds where clients do not take what was sent to them.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tls-shutdown serve
  curl -k https://127.0.0.1:8443/                  the routes
  curl -k https://127.0.0.1:8443/bytes/1000000 | wc -c

  tls-shutdown serve --listen '[::]:8443' --cert cert.pem --key key.pem --json
  tls-shutdown serve --notice 10s --grace 60s      behind a load balancer that takes 10 s to notice")]
pub(crate) struct ServeArguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8443")]
    pub(crate) listen: Endpoint,
    /// Certificate chain in PEM format [default: a self-signed one].
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// Private key in PEM format.
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// Protocols to offer, the preferred one first.
    #[arg(long, value_enum, value_name = "PROTOCOLS", value_delimiter = ',', default_value = "h2,http/1.1")]
    pub(crate) alpn: Vec<Protocol>,
    /// How connections are closed.
    ///
    /// After unidirectional, too, the peer is still listened to in the background: what it still sends must not reset the
    /// connection.
    #[arg(long, value_enum, default_value = "unidirectional")]
    pub(crate) policy: ServerPolicy,
    /// How long the peer's close_notify is waited for.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "5s")]
    pub(crate) deadline: Duration,
    /// How much of what the peer still sends is decrypted and discarded while its close_notify is waited for.
    #[arg(long, value_name = "SIZE", default_value = "1MiB")]
    pub(crate) drain_limit: ByteSize,
    /// End connections whose client takes nothing of a response for so long, or, on HTTP/1, sends nothing of a request's body. A client
    /// of HTTP/2 that opens no window has five times as long.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "60s")]
    pub(crate) stall_limit: Duration,
    /// After the signal, go on as before for so long, but with /health not ready.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "0s")]
    pub(crate) notice: Duration,
    /// Then stop accepting, and give idle connections so long for a last request.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "5s")]
    pub(crate) last_request: Duration,
    /// Time from the signal to the exit at most, everything included.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "25s")]
    pub(crate) grace: Duration,
    /// Print one JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Write data to a TLS server, never read any, close, and tell how that ended.
///
/// The exit code is 0 only if everything was written and every connection was closed as the policy asks. A server that takes nothing
/// for a minute is given up; so are all further connections if one cannot be made.
///
/// The deadline counts from the moment the system has accepted our close_notify, which is not when the peer has read it: a peer
/// that reads 3 MB at 200 kB/s has most of it in the system's buffers then, and answers 15 seconds later. That is why it is longer
/// than usual by default.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  head -c 3000000 /dev/zero | tls-shutdown send example.org:443
  tls-shutdown send 127.0.0.1:8443 --insecure --bytes 3MB --connections 2 --json
  tls-shutdown send 127.0.0.1:8443 --ca ca.pem --server-name example.org --policy receive-first < request.txt")]
pub(crate) struct SendArguments {
    /// The server.
    #[arg(value_name = "HOST:PORT")]
    pub(crate) server: Endpoint,
    /// How connections are closed.
    ///
    /// Only bidirectional and receive-first know that a server has read everything: one that closes when it has, as most do. quiet
    /// tells it nothing, and after unidirectional what it still sends, session tickets among it, may reset the connection and destroy
    /// data on its way.
    #[arg(long, value_enum, default_value = "bidirectional")]
    pub(crate) policy: ClientPolicy,
    /// How long connect and handshake may take, and then how long the server's close_notify is waited for.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "30s")]
    pub(crate) deadline: Duration,
    /// How much of what the server sends is discarded while its close_notify is waited for.
    #[arg(long, value_name = "SIZE", default_value = "1MiB")]
    pub(crate) drain_limit: ByteSize,
    /// How much to write, zeros [default: standard input to its end].
    #[arg(long, value_name = "SIZE")]
    pub(crate) bytes: Option<ByteSize>,
    /// How many connections to make, one after the other; more than one needs --bytes.
    #[arg(long, value_name = "NUMBER", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
    /// Trust the certificates in this PEM file instead of the system's.
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub(crate) ca: Option<PathBuf>,
    /// Trust every certificate.
    #[arg(long)]
    pub(crate) insecure: bool,
    /// The name in the server's certificate [default: HOST].
    #[arg(long, value_name = "NAME", value_parser = parse_server_name)]
    pub(crate) server_name: Option<ServerName<'static>>,
    /// Print one JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `serve` speaks over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    #[value(name = "h2")]
    Http2,
    #[value(name = "http/1.1")]
    Http1,
}

impl Protocol {
    /// Its name in ALPN (RFC 7301).
    pub(crate) fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http2 => b"h2",
            Self::Http1 => b"http/1.1",
        }
    }
}

/// How `serve` closes. Receive-first is not for HTTP, where a server may have to close a connection that its client keeps.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ServerPolicy {
    /// Send nothing: the peer sees a truncation, and an answer that is given before the request was read may be lost.
    Quiet,
    /// Send close_notify, and do not wait for the peer's.
    Unidirectional,
    /// Send close_notify, and wait for the peer's.
    Bidirectional,
}

/// How `send` closes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ClientPolicy {
    /// Send nothing: the peer sees a truncation.
    Quiet,
    /// Send close_notify, and do not wait for the peer's.
    Unidirectional,
    /// Send close_notify, and wait for the peer's.
    Bidirectional,
    /// Wait for the peer's close_notify, then send ours.
    ReceiveFirst,
}

impl Arguments {
    /// The command line, once it makes sense as a whole. Otherwise, or for `--help`, the process ends here.
    pub(crate) fn parse_or_exit() -> Self {
        let arguments = Self::parse();
        if let Command::Send(SendArguments { connections: 2.., bytes: None, .. }) = arguments.command {
            let message = "--connections above 1 needs --bytes: standard input can be sent only once";
            Self::command().error(ErrorKind::MissingRequiredArgument, message).exit();
        }
        if let Command::Serve(ServeArguments { notice, grace, .. }) = &arguments.command
            && *notice >= *grace - (*grace / 10).min(ServerDrain::RESERVE)
            && !notice.is_zero()
        {
            let [notice, grace] = [notice, grace].map(|duration| humantime::format_duration(*duration));
            let message = format!(
                "--notice {notice} leaves nothing of --grace {grace}, which it is a part of: all requests would be cut; \
                 raise --grace to the notice and the longest request"
            );
            Self::command().error(ErrorKind::ValueValidation, message).exit();
        }
        arguments
    }
}

impl ServeArguments {
    pub(crate) fn policy(&self) -> ShutdownPolicy {
        let policy = match self.policy {
            ServerPolicy::Quiet => ShutdownPolicy::quiet(),
            ServerPolicy::Unidirectional => ShutdownPolicy::unidirectional(),
            ServerPolicy::Bidirectional => ShutdownPolicy::bidirectional(),
        };
        policy.with_close_timeout(self.deadline).with_max_drain_bytes(self.drain_limit.as_u64())
    }

    pub(crate) fn format(&self) -> Format {
        if self.json { Format::Json } else { Format::Lines }
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
        policy.with_close_timeout(self.deadline).with_max_drain_bytes(self.drain_limit.as_u64())
    }

    pub(crate) fn format(&self) -> Format {
        if self.json { Format::Json } else { Format::Lines }
    }
}

/// A host, by name or address, and a port.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected HOST:PORT, such as example.org:443 or [::1]:443".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
        let port = port.parse().map_err(|_| format!("'{port}' is not a port, a number up to {}", u16::MAX))?;
        let host = match host.strip_prefix('[') {
            Some(address) => address.strip_suffix(']').ok_or_else(expected)?,
            None if host.contains(':') => return Err(expected()),
            None => host,
        };
        if host.is_empty() {
            return Err(expected());
        }
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

fn parse_server_name(name: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(name.to_owned()).map_err(|_| "not a host name or an IP address".to_owned())
}
