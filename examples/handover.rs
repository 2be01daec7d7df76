//! At SIGHUP, this executable is started anew, and takes the listening socket over: no connection is refused, sessions can be
//! resumed, and the predecessor ends once its connections have. It goes on where no successor can be started.
//!
//! `cargo run --bin handover 127.0.0.1:8443 cert.pem ticket.key`, then `kill -HUP` its process.

use std::{env::args, error::Error, fs, net::TcpListener, process::Command, sync::Arc};

use axum::{Router, routing::get};
use command_fds::{CommandFdExt, FdMapping};
use tls_shutdown::{Server, ServerDrain, TicketKey, TicketKeys, TlsListener, systemd};
use tls_shutdown_examples::server_config;
use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
};

fn start_successor(socket: TcpListener) -> Result<(), Box<dyn Error>> {
    let mut successor = Command::new(std::env::current_exe()?);
    successor.args(args().skip(1)).env("LISTEN_FDS", "1").env_remove("LISTEN_PID");
    successor.fd_mappings(vec![FdMapping { parent_fd: socket.into(), child_fd: 3 }])?;
    successor.spawn()?;
    Ok(())
}

/// Resolves when the server should end. This copy of the socket goes to the successor, or is closed.
async fn ends(mut terminate: Signal, mut hangup: Signal, socket: TcpListener) {
    loop {
        select! {
            _ = terminate.recv() => return,
            _ = hangup.recv() => match socket.try_clone().map_err(Into::into).and_then(start_successor) {
                Ok(()) => return,
                Err(error) => eprintln!("no successor: {error}"),
            },
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let [Some(address), Some(cert), Some(key)] = [1, 2, 3].map(|n| args().nth(n)) else {
        return Err("usage: handover HOST:PORT CERT_FILE KEY_FILE".into());
    };
    let mut config = server_config(cert, &["http/1.1"])?;
    let key: TicketKey = fs::read(key)?.try_into().map_err(|_| "a ticket key has 32 bytes")?;
    config.ticketer = Arc::new(TicketKeys::new([key], config.crypto_provider())?);

    let socket = match systemd::listening_sockets()?.pop() {
        Some(inherited) => inherited,
        None => TcpListener::bind(address)?,
    };
    let end = ends(signal(SignalKind::terminate())?, signal(SignalKind::hangup())?, socket.try_clone()?);
    let listener = TlsListener::from_std(socket, config)?;
    println!("listening on https://{}", listener.local_addr()?);
    let id = std::process::id();
    let app = Router::new().route("/", get(move || async move { format!("process {id}\n") }));
    let report = Server::new(listener).drain(ServerDrain::on(end)).serve(app).await;
    println!("process {id} {report}");
    Ok(())
}
