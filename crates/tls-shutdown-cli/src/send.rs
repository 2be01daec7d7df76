//! `send`: writes to a TLS server, closes, and tells how that ended.

use std::{io, process::ExitCode, sync::Arc, time::Duration};

use rustls::{HandshakeKind, pki_types::ServerName};
use tls_shutdown::{Abort, ShutdownPolicy, ShutdownReport, ShutdownStream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Stdin},
    net::{TcpStream, lookup_host},
    runtime::Runtime,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    arguments::{Endpoint, SendArguments},
    certificate,
    events::{Events, Resumption, Sent},
    failure::Failure,
};

const CHUNK: usize = 16 * 1024;

pub(crate) fn run(arguments: &SendArguments) -> Result<ExitCode, Failure> {
    let runtime = Runtime::new().map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    let events = Events::new(arguments.format());
    let result = runtime.block_on(send(arguments, &events));
    let printed = events.finish();
    // A read of standard input cannot be cancelled, and must not be waited for.
    runtime.shutdown_background();
    result.map(|exit_code| if printed.is_ok() { exit_code } else { ExitCode::FAILURE })
}

async fn send(arguments: &SendArguments, events: &Events) -> Result<ExitCode, Failure> {
    let connector = TlsConnector::from(Arc::new(certificate::client_config(arguments)?));
    let server_name = server_name(arguments)?;
    let mut exit_code = ExitCode::SUCCESS;
    for _ in 0..arguments.connections {
        let connecting = connect(&arguments.server, &connector, &server_name);
        let connected = timeout(arguments.deadline, connecting).await;
        let tls = connected.unwrap_or_else(|elapsed| Err(NotConnected::TimedOut(elapsed.into()))).map_err(|error| {
            let report = ShutdownReport::of_failed_handshake(error.source());
            events.sent(&Sent { report, resumption: Resumption::Full, bytes: 0 });
            error.into_failure(arguments)
        })?;
        let resumption = match tls.get_ref().1.handshake_kind() {
            Some(HandshakeKind::Resumed) => Resumption::Resumed,
            _ => Resumption::Full,
        };
        let source =
            arguments.bytes.map_or_else(|| Source::Input(tokio::io::stdin()), |size| Source::Zeros(size.as_u64()));
        let mut stream = ShutdownStream::new(tls);
        let (bytes, written) = write(&mut stream, source).await;
        let policy = match written {
            Written::All => arguments.policy(),
            Written::Failed(error) => {
                tracing::warn!(%error, bytes, "not everything could be written");
                exit_code = ExitCode::FAILURE;
                arguments.policy()
            }
            Written::Stalled => {
                let limit = humantime::format_duration(ShutdownPolicy::STALL_TIMEOUT);
                tracing::warn!(%limit, bytes, "not everything could be written: the server has taken nothing for too long");
                exit_code = ExitCode::FAILURE;
                // Nothing more will be accepted, and that was waited for already.
                arguments.policy().with_stall_timeout(Duration::ZERO)
            }
            Written::InputFailed(error) => {
                // What was read so far must not look like all of it.
                stream.abort(Abort::Reset);
                return Err(Failure::new(format!("cannot read standard input: {error}; the connection was reset")));
            }
        };
        let report = match stream.shutdown_with(policy).await {
            Ok(report) => report,
            Err(error) => {
                tracing::info!(%error);
                exit_code = ExitCode::FAILURE;
                *error.report()
            }
        };
        events.sent(&Sent { report, resumption, bytes });
    }
    Ok(exit_code)
}

fn server_name(arguments: &SendArguments) -> Result<ServerName<'static>, Failure> {
    let host = &arguments.server.host;
    match &arguments.server_name {
        Some(name) => Ok(name.clone()),
        None => ServerName::try_from(host.clone()).map_err(|_| {
            Failure::new(format!("{host} cannot be the name in a certificate: give one with --server-name"))
        }),
    }
}

async fn connect(
    server: &Endpoint,
    connector: &TlsConnector,
    server_name: &ServerName<'static>,
) -> Result<TlsStream<TcpStream>, NotConnected> {
    let addresses = lookup_host((server.host.as_str(), server.port)).await.map_err(NotConnected::NotResolved)?;
    let tcp = TcpStream::connect(&*addresses.collect::<Vec<_>>()).await.map_err(NotConnected::Unreachable)?;
    tcp.set_nodelay(true).map_err(NotConnected::Unreachable)?;
    connector.connect(server_name.clone(), tcp).await.map_err(NotConnected::HandshakeFailed)
}

/// What is written.
enum Source {
    /// So many zeros.
    Zeros(u64),
    Input(Stdin),
}

/// How writing ended.
enum Written {
    All,
    /// The connection has failed, which its shutdown tells, too.
    Failed(io::Error),
    /// The peer has taken nothing for as long as [`ShutdownPolicy::STALL_TIMEOUT`].
    Stalled,
    InputFailed(io::Error),
}

/// Writes all there is, and counts it.
async fn write(stream: &mut ShutdownStream<TlsStream<TcpStream>>, mut source: Source) -> (u64, Written) {
    let mut buffer = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        let mut chunk = match source.next(&mut buffer).await {
            Ok(chunk) => chunk,
            Err(error) => return (bytes, Written::InputFailed(error)),
        };
        if chunk.is_empty() {
            return (bytes, Written::All);
        }
        while !chunk.is_empty() {
            match timeout(ShutdownPolicy::STALL_TIMEOUT, stream.write(chunk)).await {
                Ok(Ok(amount)) => {
                    bytes += amount as u64;
                    chunk = &chunk[amount..];
                }
                Ok(Err(error)) => return (bytes, Written::Failed(error)),
                Err(_) => return (bytes, Written::Stalled),
            }
        }
    }
}

impl Source {
    /// The next bytes, none at the end.
    async fn next<'a>(&mut self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let amount = match self {
            Self::Zeros(left) => {
                let amount = (*left).min(buffer.len() as u64);
                *left -= amount;
                amount as usize
            }
            Self::Input(input) => input.read(buffer).await?,
        };
        Ok(&buffer[..amount])
    }
}

/// Why there is no connection to write to.
enum NotConnected {
    NotResolved(io::Error),
    Unreachable(io::Error),
    HandshakeFailed(io::Error),
    TimedOut(io::Error),
}

impl NotConnected {
    fn source(&self) -> &io::Error {
        match self {
            Self::NotResolved(error)
            | Self::Unreachable(error)
            | Self::HandshakeFailed(error)
            | Self::TimedOut(error) => error,
        }
    }

    /// Says what happened, and what to do.
    fn into_failure(self, arguments: &SendArguments) -> Failure {
        let server = &arguments.server;
        Failure::new(match self {
            Self::NotResolved(error) => format!("cannot find the host {}: {error}; check its name", server.host),
            Self::Unreachable(error) => {
                format!("cannot connect to {server}: {error}; is the server running, and is that its port?")
            }
            Self::HandshakeFailed(error) => why_handshake_failed(server, &error),
            Self::TimedOut(_) => format!(
                "{server} did not accept the connection and finish the TLS handshake within {}; allow more with \
                 --deadline",
                humantime::format_duration(arguments.deadline)
            ),
        })
    }
}

fn why_handshake_failed(server: &Endpoint, error: &io::Error) -> String {
    match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(reason)) if reason.to_string().contains("CaUsedAsEndEntity") => format!(
            "the certificate of {server} is an authority's own (CA:TRUE), which no server may use ({reason}): have one made without \
             that, or use --insecure"
        ),
        Some(rustls::Error::InvalidCertificate(reason)) => format!(
            "the certificate of {server} is not trusted ({reason}): give its issuer with --ca, the name in it with \
             --server-name, or use --insecure"
        ),
        Some(rustls::Error::InvalidMessage(_)) => format!("{server} does not speak TLS: is that the right port?"),
        Some(error) => format!("the TLS handshake with {server} failed: {error}"),
        None => format!("{server} ended the connection in the TLS handshake ({error}): does it speak TLS?"),
    }
}
