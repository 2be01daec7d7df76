//! `send`: writes to a TLS server, closes the connection, and reports how it ended.

use std::{io, process::ExitCode, sync::Arc, time::Duration};

use rustls::{HandshakeKind, InvalidMessage, pki_types::ServerName};
use tls_shutdown::{Abort, ShutdownPolicy, ShutdownReport, ShutdownStream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Stdin, stdin},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    arguments::{Endpoint, SendArguments},
    certificate,
    events::{Events, Handshake, SendReport},
    explain::Explanations,
    failure::Failure,
    runtime,
};

const CHUNK: usize = 16 * 1024;

pub(crate) fn run(arguments: &SendArguments) -> Result<ExitCode, Failure> {
    let runtime = runtime::start()?;
    let events = Events::new(arguments.format(), Explanations::None);
    let result = runtime.block_on(send(arguments, &events));
    let printed = events.finish();
    // A read of standard input cannot be cancelled, and may never end.
    runtime.shutdown_background();
    result.map(|exit_code| if printed.is_ok() { exit_code } else { ExitCode::FAILURE })
}

async fn send(arguments: &SendArguments, events: &Events) -> Result<ExitCode, Failure> {
    let connector = TlsConnector::from(Arc::new(certificate::client_config(&arguments.identity)?));
    let server_name = arguments.identity.server_name(&arguments.server)?;
    let mut outcome = Outcome::Complete;
    for _ in 0..arguments.connections {
        let connecting = timeout(arguments.close_timeout, connect(&arguments.server, &connector, &server_name));
        let connected = connecting.await.unwrap_or_else(|elapsed| Err(ConnectError::TimedOut(elapsed.into())));
        let tls = connected.map_err(|error| {
            let shutdown = ShutdownReport::of_failed_handshake(error.source());
            events.sent(&SendReport { shutdown, handshake: Handshake::Full, bytes: 0 });
            error.into_failure(arguments)
        })?;
        if send_on(tls, arguments, events).await? == Outcome::Incomplete {
            outcome = Outcome::Incomplete;
        }
    }
    Ok(match outcome {
        Outcome::Complete => ExitCode::SUCCESS,
        Outcome::Incomplete => ExitCode::FAILURE,
    })
}

/// Whether all data was written, and every connection was closed as its policy requires.
#[derive(PartialEq)]
enum Outcome {
    Complete,
    Incomplete,
}

/// Sends on one connection, closes it, and reports its end.
async fn send_on(tls: TlsStream<TcpStream>, arguments: &SendArguments, events: &Events) -> Result<Outcome, Failure> {
    let handshake = match tls.get_ref().1.handshake_kind() {
        Some(HandshakeKind::Resumed) => Handshake::Resumed,
        _ => Handshake::Full,
    };
    let source = arguments.bytes.map_or_else(|| Source::Input(stdin()), |size| Source::Zeros(size.as_u64()));
    let mut stream = ShutdownStream::new(tls);
    let (bytes, result) = write(&mut stream, source).await;
    let mut policy = arguments.policy();
    let written = match result {
        Ok(()) => Outcome::Complete,
        Err(WriteError::Input(error)) => {
            // A close_notify would make the data look complete.
            stream.abort(Abort::Reset);
            return Err(Failure::new(format!("cannot read standard input: {error}; the connection was reset")));
        }
        Err(WriteError::Connection(error)) => {
            tracing::warn!(%error, bytes, "not all data was written");
            Outcome::Incomplete
        }
        Err(WriteError::Stalled) => {
            let timeout = humantime::format_duration(ShutdownPolicy::STALL_TIMEOUT);
            tracing::warn!(%timeout, bytes, "not all data was written: the server accepted nothing within the timeout");
            // The shutdown need not wait again.
            policy = policy.with_stall_timeout(Duration::ZERO);
            Outcome::Incomplete
        }
    };
    let (shutdown, outcome) = match stream.shutdown_with(policy).await {
        Ok(report) => (report, written),
        Err(error) => {
            tracing::info!(%error, "the connection was not closed as the policy requires");
            (*error.report(), Outcome::Incomplete)
        }
    };
    events.sent(&SendReport { shutdown, handshake, bytes });
    Ok(outcome)
}

async fn connect(
    server: &Endpoint,
    connector: &TlsConnector,
    server_name: &ServerName<'static>,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let addresses = lookup_host((server.host.as_str(), server.port)).await.map_err(ConnectError::Resolve)?;
    let tcp = TcpStream::connect(&*addresses.collect::<Vec<_>>()).await.map_err(ConnectError::Tcp)?;
    tcp.set_nodelay(true).map_err(ConnectError::Tcp)?;
    connector.connect(server_name.clone(), tcp).await.map_err(ConnectError::Handshake)
}

/// The data to write.
enum Source {
    /// This many zero bytes.
    Zeros(u64),
    /// Standard input, to its end.
    Input(Stdin),
}

/// Why not all data was written.
enum WriteError {
    Input(io::Error),
    /// The connection failed. Its shutdown reports that, too.
    Connection(io::Error),
    /// The server accepted nothing for [`ShutdownPolicy::STALL_TIMEOUT`].
    Stalled,
}

/// Writes all data. Returns the number of bytes that were written, also after an error.
async fn write(stream: &mut ShutdownStream<TlsStream<TcpStream>>, mut source: Source) -> (u64, Result<(), WriteError>) {
    let mut bytes = 0;
    let result = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            let mut chunk = source.next(&mut buffer).await.map_err(WriteError::Input)?;
            if chunk.is_empty() {
                return Ok(());
            }
            while !chunk.is_empty() {
                let writing = timeout(ShutdownPolicy::STALL_TIMEOUT, stream.write(chunk));
                let amount = writing.await.map_err(|_| WriteError::Stalled)?.map_err(WriteError::Connection)?;
                bytes += amount as u64;
                chunk = &chunk[amount..];
            }
        }
    };
    let result = result.await;
    (bytes, result)
}

impl Source {
    /// Returns the next bytes, or none at the end.
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

/// Why a connection was not made.
enum ConnectError {
    Resolve(io::Error),
    Tcp(io::Error),
    Handshake(io::Error),
    TimedOut(io::Error),
}

impl ConnectError {
    fn source(&self) -> &io::Error {
        let (Self::Resolve(error) | Self::Tcp(error) | Self::Handshake(error) | Self::TimedOut(error)) = self;
        error
    }

    fn into_failure(self, arguments: &SendArguments) -> Failure {
        let server = &arguments.server;
        Failure::new(match self {
            Self::Resolve(error) => format!("cannot find the host {}: {error}; check its name", server.host),
            Self::Tcp(error) => format!("cannot connect to {server}: {error}; is the server running on this port?"),
            Self::Handshake(error) => explain_failed_handshake(server, &error),
            Self::TimedOut(_) => format!(
                "cannot connect to {server} and finish the TLS handshake within {}: set a longer --close-timeout",
                humantime::format_duration(arguments.close_timeout)
            ),
        })
    }
}

fn explain_failed_handshake(server: &Endpoint, error: &io::Error) -> String {
    match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(reason)) if reason.to_string().contains("CaUsedAsEndEntity") => format!(
            "the certificate of {server} belongs to a certificate authority (CA:TRUE), and servers may not use it \
             ({reason}): use a certificate without CA:TRUE, or use --insecure"
        ),
        Some(rustls::Error::InvalidCertificate(reason)) => format!(
            "the certificate of {server} is not trusted ({reason}): pass its issuer with --ca, pass the name in it with \
             --server-name, or use --insecure"
        ),
        Some(rustls::Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        )) => {
            format!("{server} does not speak TLS: is this the right port?")
        }
        Some(rustls::Error::InvalidMessage(
            InvalidMessage::HandshakePayloadTooLarge | InvalidMessage::CertificatePayloadTooLarge,
        )) => format!("the certificates of {server} are longer than 64 KiB, which is more than rustls accepts"),
        Some(error) => format!("the TLS handshake with {server} failed: {error}"),
        None => format!("{server} ended the connection during the TLS handshake ({error}): does it speak TLS?"),
    }
}
