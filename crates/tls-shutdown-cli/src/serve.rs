//! `serve`: an HTTPS server that reports how its connections end.

use std::{
    io::{self, ErrorKind},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use tls_shutdown::server::{ConfigHandle, DrainReport, Server, ServerDrain, TlsListener};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    task::AbortHandle,
};

use crate::{
    arguments::{Endpoint, ServeArguments},
    certificate,
    events::Events,
    failure::Failure,
    log::Log,
    progress, routes,
};

/// How long the runtime may take to drop the tasks that are left.
const RUNTIME_TIMEOUT: Duration = Duration::from_millis(100);

pub(crate) fn run(arguments: &ServeArguments, log: &Log) -> Result<ExitCode, Failure> {
    let events = Arc::new(Events::new(arguments.format()));
    let runtime =
        runtime::Runtime::new().map_err(|error| Failure::new(format!("cannot start the runtime: {error}")))?;
    let report = runtime.block_on(serve(arguments, &events, log))?;
    // Connections that are left end here. Their events come before the last one.
    runtime.shutdown_timeout(RUNTIME_TIMEOUT);
    events.drained(&report);
    Ok(if events.finish().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn serve(arguments: &ServeArguments, events: &Arc<Events>, log: &Log) -> Result<DrainReport, Failure> {
    let endpoint = &arguments.listen;
    let listener = TlsListener::bind((endpoint.host.as_str(), endpoint.port), certificate::server_config(arguments)?)
        .await
        .map_err(|error| cannot_listen(endpoint, &error))?
        .with_policy(arguments.policy());
    let address = listener.local_addr().map_err(|error| cannot_listen(endpoint, &error))?;
    let drain = ServerDrain::on_terminate_signal()
        .map_err(|error| Failure::new(format!("cannot listen for signals: {error}")))?
        .last_request(arguments.last_request)
        .grace_period(arguments.grace);
    let drain = match arguments.notice {
        Some(notice) => drain.notice(notice),
        None => drain,
    };
    let certificate = match &arguments.cert {
        Some(file) => format!("certificate {}", file.display()),
        None => "self-signed certificate".to_owned(),
    };
    let reloading = reload_at_hangup(arguments.clone(), listener.config_handle(), events.clone())
        .map_err(|error| Failure::new(format!("cannot listen for signals: {error}")))?;
    events.listening(address, &certificate);
    let progress = progress::show(drain.handle(), events.clone(), log.writer());
    let router = routes::router(drain.handle());
    let ends = events.clone();
    let server = Server::new(listener)
        .http2(|http2| http2.enable_connect_protocol())
        .stall_timeout(arguments.stall_timeout)
        .on_end(move |end| ends.closed(end));
    let report = server.drain(drain).serve(router).await;
    progress.stop().await;
    reloading.abort();
    Ok(report)
}

/// Reads the certificate and the key again at SIGHUP, as nginx does.
fn reload_at_hangup(arguments: ServeArguments, config: ConfigHandle, events: Arc<Events>) -> io::Result<AbortHandle> {
    let mut hangup = signal(SignalKind::hangup())?;
    let reloading = tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let files = match arguments.cert {
                Some(_) => certificate::server_config(&arguments),
                None => Err(Failure::new("there is no file to read again, start with --cert and --key")),
            };
            events.reloaded(files.map(|files| config.replace(files)));
        }
    });
    Ok(reloading.abort_handle())
}

fn cannot_listen(endpoint: &Endpoint, error: &io::Error) -> Failure {
    let advice = match error.kind() {
        ErrorKind::AddrInUse => "; stop the program that listens there, or choose another port with --listen",
        ErrorKind::PermissionDenied => "; ports below 1024 require a privilege, choose another port with --listen",
        _ => "; choose an address of this machine with --listen",
    };
    Failure::new(format!("cannot listen on {endpoint}: {error}{advice}"))
}
