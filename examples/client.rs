//! A TLS client that uploads, reads the response, and closes so that no data is lost and the session can be resumed.
//!
//! `cargo run --bin client 127.0.0.1:8443 cert.pem`, with the example `server` as the server.

use std::{error::Error, sync::Arc};

use tls_shutdown::{ShutdownPolicy, ShutdownStream};
use tls_shutdown_examples::{Arguments, client_config};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

const UPLOAD: usize = 1_000_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { address, cert } = Arguments::parse();
    let config = client_config(cert)?;
    let tcp = TcpStream::connect(address).await?;
    let tls = TlsConnector::from(Arc::new(config)).connect("localhost".try_into()?, tcp).await?;

    let mut stream = ShutdownStream::new(tls);
    let head =
        format!("POST /count HTTP/1.1\r\nHost: localhost\r\nContent-Length: {UPLOAD}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&vec![b'.'; UPLOAD]).await?;
    stream.flush().await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?; // reads to the server's close_notify; a truncation is an error
    println!("{response}");

    let report = stream.shutdown_with(ShutdownPolicy::bidirectional()).await?;
    println!("{report}");
    Ok(())
}
