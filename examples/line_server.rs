//! A line protocol on the core alone. The end of the connection ends an answer: a cut one must never end with close_notify.
//!
//! `cargo run --bin line_server 127.0.0.1:8443 cert.pem`, then `(echo 3; cat) | openssl s_client -quiet -connect 127.0.0.1:8443`

use std::{error::Error, io, sync::Arc, time::Duration};
use tls_shutdown::{Abort, Reaper, ShutdownStream};
use tls_shutdown_examples::{Arguments, server_config};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::{net, select, signal::ctrl_c, task::JoinSet, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// A connection. Its task may return, fail, panic or be aborted: the drop decides how it ends.
struct Connection(ShutdownStream<TlsStream<net::TcpStream>>, Answer);

enum Answer {
    Begun,
    Complete,
}

impl Connection {
    async fn serve(mut self) -> io::Result<()> {
        let mut question = String::new();
        AsyncReadExt::take(&mut self.0, 1000).read_line(&mut question).await?;
        self.1 = Answer::Begun;
        self.0.set_abort_mode(Abort::Reset); // Every end from here on is RST, also if the process is killed.
        for line in 1..=question.trim().parse().unwrap_or(0) {
            self.0.write_all(format!("line {line}\n").as_bytes()).await?;
        }
        self.1 = Answer::Complete;
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Answer::Complete = self.1 {
            self.0.begin_shutdown(); // Sends what is left, then close_notify. The reaper waits for the peer.
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { address, cert } = Arguments::parse();
    let acceptor = TlsAcceptor::from(Arc::new(server_config(cert, &[])?));
    let listener = net::TcpListener::bind(address).await?;
    println!("listening on https://{}", listener.local_addr()?);
    let (reaper, mut tasks) = (Reaper::new(), JoinSet::new());
    while let Some(accepted) = select! { accepted = listener.accept() => Some(accepted?), _ = ctrl_c() => None } {
        let (handshake, reaper) = (acceptor.accept(accepted.0), reaper.clone());
        tasks.spawn(async move {
            let stream = ShutdownStream::new(handshake.await?).with_reaper(&reaper);
            Connection(stream.on_end(|report| println!("{report}")), Answer::Complete).serve().await
        });
    }
    let _ = timeout(Duration::from_secs(1), async { while tasks.join_next().await.is_some() {} }).await;
    tasks.shutdown().await; // Drops the connections that are left.
    println!("{} connections did not end in time", reaper.wait_idle(Duration::from_secs(5)).await);
    Ok(())
}
