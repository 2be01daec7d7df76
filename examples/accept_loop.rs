//! A line protocol over `TlsListener`: the server echoes lines, and sends `farewell` when it drains.
//!
//! `cargo run --bin accept_loop 127.0.0.1:8443 cert.pem`

use std::{error::Error, io};

use tls_shutdown::server::{DrainHandle, DrainPhase, ServerDrain, ServerStream, TlsListener};
use tls_shutdown_examples::{Arguments, server_config};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt},
    select, spawn,
};

async fn echo(mut stream: ServerStream, drain: DrainHandle) -> io::Result<()> {
    let mut line = String::new();
    loop {
        line.clear();
        select! {
            read = stream.read_line(&mut line) => if read? == 0 { break },
            () = drain.reached(DrainPhase::LastRequest) => {
                stream.write_all(b"farewell\n").await?;
                break;
            }
        }
        stream.write_all(line.as_bytes()).await?;
        stream.flush().await?;
    }
    stream.shutdown().await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { address, cert } = Arguments::parse();
    let drain = ServerDrain::on_terminate_signal()?;
    let handle = drain.handle();
    let mut listener = TlsListener::bind(address, server_config(cert, &[])?)
        .await?
        .on_end(|end| println!("{end}"))
        .with_drain(&handle);
    println!("listening on https://{}", listener.local_addr()?);

    let report = drain.run(async move {
        while let Some((stream, peer)) = listener.accept().await {
            let drain = handle.clone();
            spawn(async move { echo(stream, drain).await.inspect_err(|error| eprintln!("{peer}: {error}")) });
        }
    });
    println!("{}", report.await.0);
    Ok(())
}
