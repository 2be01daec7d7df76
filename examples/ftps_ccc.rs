//! An FTPS server whose control connection goes back to plaintext (CCC), whatever the client does, and under TLS again.
//!
//! `cargo run --bin ftps_ccc -- --listen 127.0.0.1:2121 --cert cert.pem` writes its self-signed certificate to `cert.pem`. Try
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
/// How long a client may be silent.
const IDLE: Duration = Duration::from_secs(300);
/// How long it may take to fetch a listing.
const FETCH: Duration = Duration::from_secs(30);
const LONGEST_LINE: usize = 512;
/// Until the next accept, where one has failed: descriptors may have run out.
const BACKOFF: Duration = Duration::from_millis(100);

#[derive(Parser)]
struct Arguments {
    /// Where to listen
    #[arg(long, value_name = "HOST:PORT")]
    listen: String,
    /// Where to write the certificate
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
    let listener = TcpListener::bind(&listen).await.map_err(|error| format!("cannot listen at {listen}: {error}"))?;
    println!("listening {}", listener.local_addr()?);
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => {
                tokio::spawn(connection(tcp, peer, acceptor.clone(), reaper.clone()));
            }
            Err(error) => {
                eprintln!("cannot accept: {error}");
                sleep(BACKOFF).await;
            }
        }
    }
}

async fn connection(tcp: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor, reaper: Reaper) {
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
    /// Ours.
    address: IpAddr,
    /// Where the next listing is to be fetched.
    data: Option<TcpListener>,
    protection: Protection,
    login: Login,
}

/// Of data connections.
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

/// What the control connection is.
#[derive(Clone, Copy)]
enum Control {
    Plain,
    Tls,
}

/// Why there are no more commands.
#[derive(PartialEq)]
enum End {
    /// TLS is put on, or taken off.
    Changes,
    Goodbye,
}

impl Session {
    async fn serve(mut self, tcp: TcpStream) -> io::Result<()> {
        let peer = self.peer;
        let mut plain = Plaintext::new(tcp);
        say(&mut plain, "220 ready").await?;
        while self.answer(&mut plain, Control::Plain).await? == End::Changes {
            let (early, tcp) = plain.into_parts();
            if !early.is_empty() {
                // It must not pass for something that came under TLS.
                return Err(io::Error::other("plaintext behind AUTH"));
            }
            let tls = timeout(IDLE, self.acceptor.accept(Records::new(tcp))).await??;
            let mut stream = ShutdownStream::new(tls).on_end(move |report| println!("{peer} {report}"));
            let end = self.answer(&mut stream, Control::Tls).await;
            if !matches!(end, Ok(End::Changes)) {
                // Whoever closes gets our close_notify. After an error the shutdown tells it.
                return stream.with_reaper(&self.reaper).shutdown().await;
            }
            // Who closes first, the server cannot know, and need not: it closes, and waits. A client that closes too, before or
            // after, is the good case. One that does not, as curl in its passive mode, sends its next command. That is no TLS
            // record, and is kept; and nothing can be missing before it, since CCC was the last command under TLS.
            let policy = ShutdownPolicy::unidirectional().with_close_timeout(IDLE);
            plain = match stream.with_policy(policy).into_plaintext(Unwrap::Initiate).await {
                Ok(plain) => plain,
                Err(error) => error.into_plaintext()?,
            };
        }
        Ok(())
    }

    /// Answers commands until one changes or ends the control connection.
    async fn answer<C>(&mut self, control: &mut C, kind: Control) -> io::Result<End>
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            let line = match timeout(IDLE, read_line(control)).await {
                Ok(line) => line?,
                Err(_) => {
                    say(control, "421 too long without a word").await?;
                    return Ok(End::Goodbye);
                }
            };
            let Some(line) = line else { return Ok(End::Goodbye) };
            if line.len() > LONGEST_LINE {
                say(control, "500 too long a line").await?;
                continue;
            }
            match (line.split_once(' ').unwrap_or((&line, "")), kind) {
                (("QUIT", _), _) => {
                    say(control, "221 bye").await?;
                    return Ok(End::Goodbye);
                }
                (("FEAT", _), _) => {
                    say(control, "211-\r\n AUTH TLS\r\n CCC\r\n EPSV\r\n PBSZ\r\n PROT\r\n211 end").await?
                }
                (("AUTH", "TLS"), Control::Plain) => {
                    say(control, "234 begin").await?;
                    return Ok(End::Changes);
                }
                (("NOOP", _), _) => say(control, "200 nothing done").await?,
                (("USER", _), Control::Tls) => {
                    self.login = Login::Named;
                    say(control, "331 any password will do").await?;
                }
                (("PASS", _), Control::Tls) if self.login == Login::Named => {
                    self.login = Login::Done;
                    say(control, "230 welcome").await?;
                }
                _ if self.login != Login::Done => say(control, "530 AUTH TLS, USER and PASS first").await?,
                (("CCC", _), Control::Tls) => {
                    say(control, "200 goodbye to TLS").await?;
                    return Ok(End::Changes);
                }
                (("CCC", _), Control::Plain) => say(control, "533 it is in plaintext").await?,
                (("PBSZ", _), Control::Tls) => say(control, "200 PBSZ=0").await?,
                (("PROT", "C"), Control::Tls) => {
                    self.protection = Protection::Clear;
                    say(control, "200 in clear").await?;
                }
                (("PROT", "P"), Control::Tls) => {
                    self.protection = Protection::Private;
                    say(control, "200 under TLS").await?;
                }
                (("PWD", _), _) => say(control, "257 \"/\"").await?,
                (("SYST", _), _) => say(control, "215 UNIX Type: L8").await?,
                (("TYPE", _), _) => say(control, "200 as you like").await?,
                (("PASV", _), _) if self.address.is_ipv4() => {
                    let port = self.open_data().await?;
                    let host = self.address.to_string().replace('.', ",");
                    say(control, &format!("227 ({host},{},{})", port / 256, port % 256)).await?;
                }
                (("EPSV", _), _) => {
                    let port = self.open_data().await?;
                    say(control, &format!("229 (|||{port}|)")).await?;
                }
                (("LIST", _), _) => match self.data.take() {
                    Some(data) => {
                        say(control, "150 it comes").await?;
                        match timeout(FETCH, self.list(data)).await {
                            Ok(Ok(())) => say(control, "226 that was all").await?,
                            Ok(Err(error)) => say(control, &format!("426 the data connection failed: {error}")).await?,
                            Err(_) => say(control, "425 nobody has fetched it").await?,
                        }
                    }
                    None => say(control, "425 PASV or EPSV first").await?,
                },
                _ => say(control, "502 unknown").await?,
            }
        }
    }

    async fn open_data(&mut self) -> io::Result<u16> {
        let data = self.data.insert(TcpListener::bind((self.address, 0)).await?);
        Ok(data.local_addr()?.port())
    }

    /// The end of a data connection is the end of what comes over it: that is why it ends with close_notify.
    async fn list(&self, data: TcpListener) -> io::Result<()> {
        let (mut tcp, peer) = data.accept().await?;
        if peer.ip().to_canonical() != self.peer.ip().to_canonical() {
            return Err(io::Error::other("it is not from where the commands come"));
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

async fn say(control: &mut (impl AsyncWrite + Unpin), reply: &str) -> io::Result<()> {
    let said = async {
        control.write_all(format!("{reply}\r\n").as_bytes()).await?;
        control.flush().await
    };
    timeout(IDLE, said).await?
}

/// The next command, in upper case; of a line that is too long the beginning. Byte by byte, so as not to take what belongs to TLS.
async fn read_line(control: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        if control.read(&mut byte).await? == 0 {
            return Ok(None);
        }
        match byte {
            [b'\n'] => return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_ascii_uppercase())),
            [byte] if line.len() <= LONGEST_LINE => line.push(byte),
            _ => {}
        }
    }
}
