//! `serve`: an HTTP server, with TLS and without, that reports how its connections end.

use std::{
    io::{self, ErrorKind},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use tls_shutdown::server::{
    ConfigHandle, DrainReport, Server, ServerDrain, ServerListener, TcpSocket, TlsListener, Transport, UnixSocket,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::{AbortHandle, spawn_blocking},
};

use crate::{
    arguments::{Endpoint, ServeArguments},
    certificate::ServerCertificate,
    events::Events,
    failure::Failure,
    log::Log,
    progress, routes, runtime,
    watchdog::Watchdog,
};

/// The exit code if a report was lost.
const REPORT_LOST: u8 = 1;
/// How long the runtime may take to drop the tasks that are left.
const RUNTIME_TIMEOUT: Duration = Duration::from_millis(100);

pub(crate) fn run(arguments: &ServeArguments, log: &Log) -> Result<ExitCode, Failure> {
    let events = Arc::new(Events::new(arguments.format(), arguments.explanations()));
    let runtime = runtime::start()?;
    let (report, watchdog) = runtime.block_on(serve(arguments, &events, log))?;
    watchdog.set_exit_code(REPORT_LOST);
    // Connections that are left end here. Their events come before the last one.
    runtime.shutdown_timeout(RUNTIME_TIMEOUT);
    events.drained(&report);
    let exit_code = if events.finish().is_ok() { 0 } else { REPORT_LOST };
    watchdog.set_exit_code(exit_code);
    Ok(exit_code.into())
}

async fn serve(
    arguments: &ServeArguments,
    events: &Arc<Events>,
    log: &Log,
) -> Result<(DrainReport, Watchdog), Failure> {
    let drain = ServerDrain::on_terminate_signal()
        .map_err(|error| cannot_wait_for_signals(&error))?
        .last_request(arguments.last_request)
        .grace_period(arguments.grace);
    let drain = match arguments.notice {
        Some(notice) => drain.notice(notice),
        None => drain,
    };
    let watchdog = Watchdog::start(arguments.grace, log.writer()).map_err(|error| cannot_wait_for_signals(&error))?;
    let Sockets { listeners, configs, certificate, addresses } = Sockets::open(arguments).await?;
    let reloading =
        reload_at_hangup(certificate, configs, events.clone()).map_err(|error| cannot_wait_for_signals(&error))?;
    let certificate = match &arguments.cert {
        Some(file) => format!("certificate {}", file.display()),
        None => "self-signed certificate".to_owned(),
    };
    for (transport, address) in addresses {
        events.listening(transport, &address, &certificate);
    }
    let progress = progress::show(drain.handle(), events.clone(), log.writer());
    let router = routes::router(drain.handle());
    let ends = events.clone();
    let mut listeners = listeners.into_iter();
    let first = listeners.next().ok_or_else(|| Failure::new("there is nothing to listen on"))?;
    let server = listeners.fold(Server::new(first), Server::add_listener);
    let server = server
        .http2(|http2| http2.enable_connect_protocol())
        .stall_timeout(arguments.stall_timeout)
        .on_end(move |end| ends.closed(end));
    let report = server.drain(drain).serve(router).await;
    progress.stop().await;
    reloading.abort();
    Ok((report, watchdog))
}

/// The sockets of the command, first those with TLS, then those without, then Unix sockets.
struct Sockets {
    listeners: Vec<ServerListener>,
    configs: Vec<ConfigHandle>,
    certificate: ServerCertificate,
    addresses: Vec<(Transport, String)>,
}

impl Sockets {
    async fn open(arguments: &ServeArguments) -> Result<Self, Failure> {
        let certificate = ServerCertificate::new(arguments)?;
        let config = Arc::new(certificate.config()?);
        let (mut listeners, mut configs, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
        for endpoint in arguments.tls() {
            let listener = TlsListener::bind((endpoint.host.as_str(), endpoint.port), config.clone())
                .await
                .map_err(|error| cannot_listen(&endpoint, "--listen", &error))?
                .with_policy(arguments.policy());
            let address = listener.local_addr().map_err(|error| cannot_listen(&endpoint, "--listen", &error))?;
            addresses.push((Transport::Tls, address.to_string()));
            configs.push(listener.config_handle());
            listeners.push(listener.into());
        }
        for endpoint in &arguments.plain {
            let cannot_listen = |error| cannot_listen(endpoint, "--plain", &error);
            let listener = TcpSocket::bind((endpoint.host.as_str(), endpoint.port)).await.map_err(cannot_listen)?;
            let address = listener.local_addr().map_err(cannot_listen)?;
            addresses.push((Transport::Tcp, address.to_string()));
            listeners.push(listener.into());
        }
        for path in &arguments.unix {
            let socket = UnixSocket::bind(path).await.map_err(|error| {
                let path = path.display();
                Failure::new(format!("cannot listen on {path}: {error}; choose another path with --unix"))
            })?;
            addresses.push((Transport::Unix, path.display().to_string()));
            listeners.push(socket.into());
        }
        Ok(Self { listeners, configs, certificate, addresses })
    }
}

/// Reads the certificates and the key again at SIGHUP, as nginx does. Without such files it says so.
fn reload_at_hangup(
    certificate: ServerCertificate,
    configs: Vec<ConfigHandle>,
    events: Arc<Events>,
) -> io::Result<AbortHandle> {
    let mut hangup = signal(SignalKind::hangup())?;
    let certificate = Arc::new(certificate);
    let reloading = tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            if configs.is_empty() {
                events.nothing_to_reload("no socket has TLS");
            } else if certificate.has_files() {
                // A file may block its reader: one on a network that is lost, or a pipe.
                let certificate = certificate.clone();
                let Ok(config) = spawn_blocking(move || certificate.config()).await else { continue };
                events.reloaded(config.map(|config| configs.iter().for_each(|handle| handle.replace(config.clone()))));
            } else {
                events.nothing_to_reload("the certificate is self-signed; start with --cert and --key");
            }
        }
    });
    Ok(reloading.abort_handle())
}

fn cannot_wait_for_signals(error: &io::Error) -> Failure {
    Failure::new(format!("cannot listen for signals: {error}"))
}

fn cannot_listen(endpoint: &Endpoint, option: &str, error: &io::Error) -> Failure {
    let advice = match error.kind() {
        ErrorKind::AddrInUse => "stop the program that listens there, or choose another port with",
        ErrorKind::PermissionDenied => "ports below 1024 require a privilege, choose another port with",
        _ => "choose an address of this machine with",
    };
    Failure::new(format!("cannot listen on {endpoint}: {error}; {advice} {option}"))
}
