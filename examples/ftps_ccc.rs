//! An FTPS server whose control connection can return to plaintext (CCC), and start TLS again.
//!
//! `cargo run --bin ftps_ccc -- --listen 127.0.0.1:2121 --cert cert.pem` writes its self-signed certificate to `cert.pem`. Then:
//! `curl -k --ssl-reqd --ftp-ssl-ccc -u anyone:anything ftp://127.0.0.1:2121/`

use std::{
    error::Error,
    fs, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use clap::Parser;
use rustls::{ServerConfig, crypto::ring};
use tls_shutdown::{Plaintext, Reaper, Records, ShutdownPolicy, ShutdownStream, Unwrap};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

const LISTING: &[u8] = b"-rw-r--r-- 1 ftp ftp 5 Jan 01 2000 hello.txt\r\n";
/// How long a client may send no command.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a client may take to fetch a listing.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_LINE_BYTES: usize = 512;
/// The pause after a failed accept. The process may have no file descriptors left.
const BACKOFF: Duration = Duration::from_millis(100);

#[derive(Parser)]
struct Arguments {
    /// The address to listen on
    #[arg(long, value_name = "HOST:PORT")]
    listen: String,
    /// The file to write the certificate to
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { listen, cert } = Arguments::parse();
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    if let Some(file) = cert {
        fs::write(file, certified.cert.pem())?;
    }
    let config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.into()], certified.signing_key.into())?;
    let (acceptor, reaper) = (TlsAcceptor::from(Arc::new(config)), Reaper::new());
    let listener = TcpListener::bind(&listen).await.map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    println!("listening {}", listener.local_addr()?);
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => {
                tokio::spawn(serve_connection(tcp, peer, acceptor.clone(), reaper.clone()));
            }
            Err(error) => {
                eprintln!("cannot accept: {error}");
                sleep(BACKOFF).await;
            }
        }
    }
}

async fn serve_connection(tcp: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor, reaper: Reaper) {
    let served = async {
        tcp.set_nodelay(true)?;
        let address = tcp.local_addr()?.ip().to_canonical();
        let (protection, login) = (Protection::Clear, Login::Needed);
        Session { acceptor, reaper, peer, address, data: None, protection, login }.serve(tcp).await
    };
    if let Err(error) = served.await {
        eprintln!("{peer} {error}");
    }
}

struct Session {
    acceptor: TlsAcceptor,
    reaper: Reaper,
    peer: SocketAddr,
    /// The address of the server.
    address: IpAddr,
    /// The listener at which the client will fetch the next listing.
    data: Option<TcpListener>,
    protection: Protection,
    login: Login,
}

/// The protection of data connections.
enum Protection {
    Clear,
    Private,
}

#[derive(PartialEq)]
enum Login {
    Needed,
    Named,
    Done,
}

/// The state of the control connection.
#[derive(Clone, Copy)]
enum Control {
    Plain,
    Tls,
}

/// What follows the last command.
#[derive(PartialEq)]
enum Next {
    /// TLS starts, or ends.
    SwitchTls,
    Close,
}

impl Session {
    async fn serve(mut self, tcp: TcpStream) -> io::Result<()> {
        let peer = self.peer;
        let mut plain = Plaintext::new(tcp);
        reply(&mut plain, "220 ready").await?;
        while self.answer_commands(&mut plain, Control::Plain).await? == Next::SwitchTls {
            let (early, tcp) = plain.into_parts();
            if !early.is_empty() {
                // These bytes must not be taken for data that came under TLS.
                return Err(io::Error::other("plaintext after AUTH"));
            }
            let tls = timeout(IDLE_TIMEOUT, self.acceptor.accept(Records::new(tcp))).await??;
            let mut stream = ShutdownStream::new(tls).on_end(move |report| println!("{peer} {report}"));
            let next = self.answer_commands(&mut stream, Control::Tls).await;
            if !matches!(next, Ok(Next::SwitchTls)) {
                // Sends close_notify. After an error, the shutdown returns the error.
                return stream.with_reaper(&self.reaper).shutdown().await;
            }
            // Either side may close first, so the server sends close_notify and waits for the client's. curl in its passive mode sends
            // none: its next command follows in plaintext. The stream keeps these bytes, because they are no TLS record. No data is
            // missing before them, because CCC was the last command under TLS.
            let policy = ShutdownPolicy::unidirectional().with_close_timeout(IDLE_TIMEOUT);
            plain = match stream.with_policy(policy).into_plaintext(Unwrap::Initiate).await {
                Ok(plain) => plain,
                Err(error) => error.into_plaintext()?,
            };
        }
        Ok(())
    }

    /// Answers commands until one switches TLS or ends the connection.
    async fn answer_commands<C>(&mut self, control: &mut C, kind: Control) -> io::Result<Next>
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            let line = match timeout(IDLE_TIMEOUT, read_line(control)).await {
                Ok(line) => line?,
                Err(_) => {
                    reply(control, "421 idle for too long").await?;
                    return Ok(Next::Close);
                }
            };
            let Some(line) = line else { return Ok(Next::Close) };
            if line.len() > MAX_LINE_BYTES {
                reply(control, "500 the line is too long").await?;
                continue;
            }
            match (line.split_once(' ').unwrap_or((&line, "")), kind) {
                (("QUIT", _), _) => {
                    reply(control, "221 bye").await?;
                    return Ok(Next::Close);
                }
                (("FEAT", _), _) => {
                    reply(control, "211-\r\n AUTH TLS\r\n CCC\r\n EPSV\r\n PBSZ\r\n PROT\r\n211 end").await?
                }
                (("AUTH", "TLS"), Control::Plain) => {
                    reply(control, "234 start the TLS handshake").await?;
                    return Ok(Next::SwitchTls);
                }
                (("NOOP", _), _) => reply(control, "200 ok").await?,
                (("USER", _), Control::Tls) => {
                    self.login = Login::Named;
                    reply(control, "331 send any password").await?;
                }
                (("PASS", _), Control::Tls) if self.login == Login::Named => {
                    self.login = Login::Done;
                    reply(control, "230 welcome").await?;
                }
                _ if self.login != Login::Done => reply(control, "530 send AUTH TLS, USER and PASS first").await?,
                (("CCC", _), Control::Tls) => {
                    reply(control, "200 TLS ends").await?;
                    return Ok(Next::SwitchTls);
                }
                (("CCC", _), Control::Plain) => reply(control, "533 the connection is in plaintext").await?,
                (("PBSZ", _), Control::Tls) => reply(control, "200 PBSZ=0").await?,
                (("PROT", "C"), Control::Tls) => {
                    self.protection = Protection::Clear;
                    reply(control, "200 data in plaintext").await?;
                }
                (("PROT", "P"), Control::Tls) => {
                    self.protection = Protection::Private;
                    reply(control, "200 data under TLS").await?;
                }
                (("PWD", _), _) => reply(control, "257 \"/\"").await?,
                (("SYST", _), _) => reply(control, "215 UNIX Type: L8").await?,
                (("TYPE", _), _) => reply(control, "200 ok").await?,
                (("PASV", _), _) if self.address.is_ipv4() => {
                    let port = self.open_data().await?;
                    let host = self.address.to_string().replace('.', ",");
                    reply(control, &format!("227 ({host},{},{})", port / 256, port % 256)).await?;
                }
                (("EPSV", _), _) => {
                    let port = self.open_data().await?;
                    reply(control, &format!("229 (|||{port}|)")).await?;
                }
                (("LIST", _), _) => match self.data.take() {
                    Some(data) => {
                        reply(control, "150 the listing follows").await?;
                        match timeout(FETCH_TIMEOUT, self.send_listing(data)).await {
                            Ok(Ok(())) => reply(control, "226 the listing is complete").await?,
                            Ok(Err(error)) => {
                                reply(control, &format!("426 the data connection failed: {error}")).await?
                            }
                            Err(_) => reply(control, "425 no data connection in time").await?,
                        }
                    }
                    None => reply(control, "425 send PASV or EPSV first").await?,
                },
                _ => reply(control, "502 unknown command").await?,
            }
        }
    }

    async fn open_data(&mut self) -> io::Result<u16> {
        let data = self.data.insert(TcpListener::bind((self.address, 0)).await?);
        Ok(data.local_addr()?.port())
    }

    /// Sends the listing. The end of the connection is the end of the listing, so it must end with close_notify.
    async fn send_listing(&self, data: TcpListener) -> io::Result<()> {
        let (mut tcp, peer) = data.accept().await?;
        if peer.ip().to_canonical() != self.peer.ip().to_canonical() {
            return Err(io::Error::other("the data connection is from another address"));
        }
        match self.protection {
            Protection::Clear => {
                tcp.write_all(LISTING).await?;
                tcp.shutdown().await
            }
            Protection::Private => {
                let mut stream = ShutdownStream::new(self.acceptor.accept(tcp).await?).with_reaper(&self.reaper);
                stream.write_all(LISTING).await?;
                stream.shutdown().await
            }
        }
    }
}

async fn reply(control: &mut (impl AsyncWrite + Unpin), text: &str) -> io::Result<()> {
    let sending = async {
        control.write_all(format!("{text}\r\n").as_bytes()).await?;
        control.flush().await
    };
    timeout(IDLE_TIMEOUT, sending).await?
}

/// Reads the next command, in upper case. Keeps only the first bytes of a line that is too long. Reads byte by byte, so that it reads no
/// byte that belongs to TLS.
async fn read_line(control: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        if control.read(&mut byte).await? == 0 {
            return Ok(None);
        }
        match byte {
            [b'\n'] => return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_ascii_uppercase())),
            [byte] if line.len() <= MAX_LINE_BYTES => line.push(byte),
            _ => {}
        }
    }
}
