//! An FTP client that starts TLS on a plaintext connection, ends it, and starts it again. SMTP, IMAP and LDAP have similar commands.
//!
//! `cargo run --bin starttls 127.0.0.1:2121 cert.pem`, with the example `ftps_ccc` as the server.

use std::{error::Error, io, sync::Arc, time::Duration};

use tls_shutdown::{Records, ShutdownStream, Unwrap};
use tls_shutdown_examples::{Arguments, client_config};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    timeout(Duration::from_secs(30), talk()).await?
}

async fn talk() -> Result<(), Box<dyn Error>> {
    let Arguments { address, cert } = Arguments::parse();
    let config = client_config(cert)?;
    let connector = TlsConnector::from(Arc::new(config));

    let mut tcp = TcpStream::connect(address).await?;
    ask(&mut tcp, "", "220").await?;
    ask(&mut tcp, "AUTH TLS\r\n", "234").await?;
    let mut stream = ShutdownStream::new(connector.connect("localhost".try_into()?, Records::new(tcp)).await?);
    for (command, reply) in [("USER anyone\r\n", "331"), ("PASS anything\r\n", "230"), ("CCC\r\n", "200")] {
        ask(&mut stream, command, reply).await?;
    }
    let mut plain = stream.into_plaintext(Unwrap::Initiate).await?;
    ask(&mut plain, "PWD\r\n", "257").await?;
    ask(&mut plain, "AUTH TLS\r\n", "234").await?;
    let mut stream = ShutdownStream::new(connector.connect("localhost".try_into()?, Records::new(plain)).await?);
    ask(&mut stream, "QUIT\r\n", "221").await?;
    stream.shutdown().await?;
    Ok(())
}

/// Sends a command and reads its reply, byte by byte, so that it reads no byte that belongs to TLS.
async fn ask(control: &mut (impl AsyncRead + AsyncWrite + Unpin), command: &str, expected: &str) -> io::Result<()> {
    control.write_all(command.as_bytes()).await?;
    control.flush().await?;
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.push(control.read_u8().await?);
    }
    let reply = String::from_utf8_lossy(&line);
    print!("{command}{reply}");
    if reply.starts_with(expected) { Ok(()) } else { Err(io::Error::other("unexpected reply")) }
}
