//! At SIGHUP, this executable is started anew, and takes the listening socket over: no connection is refused, sessions can be
//! resumed, and the predecessor ends once its connections have. It goes on where the successor does not say that it is ready.
//!
//! `cargo run --bin handover 127.0.0.1:8443 cert.pem ticket.key`, then `kill -HUP` its process.

use std::{env, error::Error, fs, io::pipe, net::TcpListener, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use command_fds::{CommandFdExt, FdMapping};
use tls_shutdown::{
    integrations::systemd,
    server::{Server, ServerDrain, TicketKey, TicketKeys, TlsListener},
};
use tls_shutdown_examples::server_config;
use tokio::{io::AsyncReadExt, net::unix::pipe::Receiver, process::Command, select, signal::unix, time::timeout};

async fn start_successor(socket: &TcpListener) -> Result<(), Box<dyn Error>> {
    let (ready, says_ready) = pipe()?;
    let mut ready = Receiver::from_owned_fd(ready.into())?;
    let mut successor = Command::new(env::current_exe()?);
    successor.args(env::args().skip(1)).env("LISTEN_FDS", "1").env_remove("LISTEN_PID").env("READY", "/dev/fd/4");
    let map = |parent_fd, child_fd| FdMapping { parent_fd, child_fd };
    successor.fd_mappings(vec![map(socket.try_clone()?.into(), 3), map(says_ready.into(), 4)])?;
    let mut process = successor.spawn()?;
    drop(successor); // So that the pipe ends with the process.
    let Ok(Ok(_)) = timeout(Duration::from_secs(10), ready.read_u8()).await else {
        process.kill().await?;
        return Err("it did not become ready".into());
    };
    Ok(())
}

/// Resolves when the server should end. This copy of the socket goes to the successor, or is closed.
async fn ends(mut terminate: unix::Signal, mut hangup: unix::Signal, socket: TcpListener) {
    while let Some(()) = select! { _ = terminate.recv() => None, hangup = hangup.recv() => hangup } {
        match start_successor(&socket).await {
            Ok(()) => return,
            Err(error) => eprintln!("no successor: {error}"),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let [Some(address), Some(cert), Some(key)] = [1, 2, 3].map(|n| env::args().nth(n)) else {
        return Err("usage: handover HOST:PORT CERT_FILE KEY_FILE".into());
    };
    let mut config = server_config(cert, &["http/1.1"])?;
    let key: TicketKey = fs::read(key)?.try_into().map_err(|_| "a ticket key has 32 bytes")?;
    config.ticketer = Arc::new(TicketKeys::new([key], config.crypto_provider())?);
    let inherited = systemd::listening_sockets()?.pop();
    let socket = inherited.map_or_else(|| TcpListener::bind(address), Ok)?;
    let [terminate, hangup] = [unix::SignalKind::terminate(), unix::SignalKind::hangup()].map(unix::signal);
    let end = ends(terminate?, hangup?, socket.try_clone()?);
    let listener = TlsListener::from_std(socket, config)?;
    env::var("READY").map_or(Ok(()), |predecessor| fs::write(predecessor, "!"))?;
    println!("listening on https://{}", listener.local_addr()?);
    let id = std::process::id();
    let app = Router::new().route("/", get(move || async move { format!("process {id}\n") }));
    let report = Server::new(listener).drain(ServerDrain::on(end)).serve(app).await;
    println!("process {id} {report}");
    Ok(())
}
