//! SIGHUP starts this program anew, and hands the listening socket over: no connection is refused, and clients can resume sessions.
//! The old process ends after its last connection. It continues if the successor does not report that it is ready.
//!
//! `cargo run --bin handover 127.0.0.1:8443 cert.pem ticket.key`, then `kill -HUP` its process. The key file has 32 random bytes.

use std::{env, error::Error, fs, io::pipe, net::TcpListener, process, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use command_fds::{CommandFdExt, FdMapping};
use tls_shutdown::{
    integrations::systemd,
    server::{Server, ServerDrain, TicketKey, TicketKeys, TlsListener},
};
use tls_shutdown_examples::server_config;
use tokio::{io::AsyncReadExt, net::unix::pipe::Receiver, process::Command, select, signal::unix, time::timeout};

async fn start_successor(socket: &TcpListener) -> Result<(), Box<dyn Error>> {
    let (ready, report_ready) = pipe()?;
    let mut command = Command::new(env::current_exe()?);
    command.args(env::args().skip(1)).env("LISTEN_FDS", "1").env_remove("LISTEN_PID").env("READY", "/dev/fd/4");
    let map = |parent_fd, child_fd| FdMapping { parent_fd, child_fd };
    command.fd_mappings(vec![map(socket.try_clone()?.into(), 3), map(report_ready.into(), 4)])?;
    let mut successor = command.spawn()?;
    drop(command); // Closes our end of the pipe, so that the read ends if the successor does.
    if let Ok(Ok(_)) = timeout(Duration::from_secs(10), Receiver::from_owned_fd(ready.into())?.read_u8()).await {
        return Ok(());
    }
    successor.kill().await?;
    Err("it did not become ready".into())
}

/// Waits for SIGTERM, or until a successor serves. Then closes this copy of the socket.
async fn end(mut terminate: unix::Signal, mut hangup: unix::Signal, socket: TcpListener) {
    while select! { _ = terminate.recv() => false, _ = hangup.recv() => true } {
        match start_successor(&socket).await {
            Ok(()) => return,
            Err(error) => eprintln!("no successor: {error}"),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let [_, address, cert, key] = &env::args().collect::<Vec<_>>()[..] else {
        return Err("usage: handover HOST:PORT CERT_FILE KEY_FILE".into());
    };
    let mut config = server_config(cert, &["http/1.1"])?;
    let key: TicketKey = fs::read(key)?.try_into().map_err(|_| "a ticket key has 32 bytes")?;
    config.ticketer = Arc::new(TicketKeys::new([key], config.crypto_provider())?);
    let socket = systemd::listening_sockets()?.pop().map_or_else(|| TcpListener::bind(address), Ok)?;
    let [terminate, hangup] = [unix::SignalKind::terminate(), unix::SignalKind::hangup()].map(unix::signal);
    let drain = ServerDrain::on(end(terminate?, hangup?, socket.try_clone()?));
    let listener = TlsListener::from_std(socket, config)?;
    env::var("READY").map_or(Ok(()), |predecessor| fs::write(predecessor, "!"))?;
    println!("listening on https://{}", listener.local_addr()?);
    let app = Router::new().route("/", get(async || format!("process {}\n", process::id())));
    println!("process {} {}", process::id(), Server::new(listener).drain(drain).serve(app).await);
    Ok(())
}
