//! A TLS server that closes as its script says. It knows the order in which `probe` makes its connections.

use std::{future::pending, io, sync::Arc, time::Duration};

use rustls::{
    ProtocolVersion, ServerConfig, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tls_shutdown_tests::time::real_time;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::process::CERTIFICATE;

/// How a server ends a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Close {
    /// close_notify and FIN, and it reads on.
    Notify,
    /// The same, after more than a second.
    NotifySlowly,
    /// close_notify and FIN, and it reads nothing more.
    NotifyThenLeave,
    /// close_notify, and TCP stays open.
    NotifyOnly,
    /// close_notify and FIN, after the client's FIN.
    AfterFin,
    /// FIN alone.
    Fin,
    Reset,
    /// A record of this type without content, which no TLS library sends, and nothing more.
    EmptyRecord(u8),
    /// It does nothing, whatever the client does.
    Never,
}

/// What the server speaks over TLS, and before it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Speaks {
    Http,
    /// A greeting under TLS, as IMAP over TLS.
    First,
    Smtp,
    Imap,
    Postgres,
    /// HTTP/2 and nothing else.
    Http2,
    /// It reads a request, and answers by FIN.
    Nothing,
    /// It requires a certificate of the client.
    Nobody,
}

/// The response to HTTP/1.0.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answers {
    Length,
    UntilClose,
    /// It announces more than it sends.
    Cut,
}

/// When the response to an upload starts, and what comes then.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    AtOnce,
    AtOnceThenReset,
    AtOnceThenResetLater,
    Cut,
    AfterTheRequest,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    pub(crate) speaks: Speaks,
    pub(crate) version: &'static SupportedProtocolVersion,
    pub(crate) tickets: usize,
    pub(crate) answer: Close,
    pub(crate) response: (Answers, Close),
    pub(crate) upload: Start,
    pub(crate) idle: Close,
}

impl Default for Script {
    /// The best server.
    fn default() -> Self {
        Self {
            speaks: Speaks::Http,
            version: &rustls::version::TLS13,
            tickets: 2,
            answer: Close::Notify,
            response: (Answers::UntilClose, Close::Notify),
            upload: Start::AtOnce,
            idle: Close::Notify,
        }
    }
}

impl Script {
    /// The arguments with which `probe` speaks the protocol before TLS.
    pub(crate) fn starttls(&self) -> &'static [&'static str] {
        match self.speaks {
            Speaks::Smtp => &["--starttls", "smtp"],
            Speaks::Imap => &["--starttls", "imap"],
            Speaks::Postgres => &["--starttls", "postgres"],
            Speaks::Http | Speaks::First | Speaks::Http2 | Speaks::Nothing | Speaks::Nobody => &[],
        }
    }

    pub(crate) fn alpn(&self) -> Option<&'static str> {
        match self.speaks {
            Speaks::Http => Some("http/1.1"),
            Speaks::Http2 => Some("h2"),
            _ => None,
        }
    }

    pub(crate) fn version_name(&self) -> &'static str {
        if self.version.version == ProtocolVersion::TLSv1_2 { "1.2" } else { "1.3" }
    }

    /// Starts the server. Returns its address.
    pub(crate) async fn start(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let acceptor = self.acceptor();
        // The connection that is closed first, and the one that is idle.
        let (closing, idle) = match self.speaks {
            Speaks::Http => (2, 7),
            // It refuses the first.
            Speaks::Http2 => (3, 6),
            _ => (2, 5),
        };
        tokio::spawn(async move {
            for number in 1.. {
                let (tcp, _) = listener.accept().await.expect("a connection");
                let acceptor = acceptor.clone();
                let answer = if number == closing { self.answer } else { Close::Notify };
                let idle = (number == idle).then_some(self.idle);
                // A client may leave at any time.
                tokio::spawn(async move { self.serve(tcp, acceptor, answer, idle).await });
            }
        });
        address
    }

    fn acceptor(&self) -> TlsAcceptor {
        let chain = vec![CertificateDer::from_pem_file(CERTIFICATE.cert()).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_file(CERTIFICATE.key()).expect("a key");
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[self.version])
            .expect("a version");
        let builder = if self.speaks == Speaks::Nobody {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(chain[0].clone()).expect("a root");
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(chain, key).expect("a key that fits");
        config.send_tls13_tickets = self.tickets;
        config.alpn_protocols = self.alpn().into_iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    async fn serve(
        self,
        mut tcp: TcpStream,
        acceptor: TlsAcceptor,
        answer: Close,
        idle: Option<Close>,
    ) -> io::Result<()> {
        // A reset would destroy what Nagle's algorithm holds back.
        tcp.set_nodelay(true)?;
        match self.speaks {
            Speaks::Http | Speaks::First | Speaks::Http2 | Speaks::Nothing | Speaks::Nobody => {}
            Speaks::Smtp => {
                tcp.write_all(b"220-a mail\r\n220 server\r\n").await?;
                hear(&mut tcp, b"EHLO tls-shutdown.invalid\r\n").await?;
                tcp.write_all(b"250-mail\r\n250 STARTTLS\r\n").await?;
                hear(&mut tcp, b"STARTTLS\r\n").await?;
                tcp.write_all(b"220 go on\r\n").await?;
            }
            Speaks::Imap => {
                tcp.write_all(b"* OK ready\r\n").await?;
                hear(&mut tcp, b"a STARTTLS\r\n").await?;
                tcp.write_all(b"* a note\r\na OK go on\r\n").await?;
            }
            Speaks::Postgres => {
                hear(&mut tcp, &[0, 0, 0, 8, 4, 210, 22, 47]).await?;
                tcp.write_all(b"S").await?;
            }
        }
        let mut tls = acceptor.accept(tcp).await?;
        if self.speaks == Speaks::First {
            tls.write_all(b"* OK ready\r\n").await?;
        }
        if self.speaks == Speaks::Http2 {
            // An empty SETTINGS frame.
            tls.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await?;
        }
        if self.speaks == Speaks::Nothing && !read_head(&mut tls).await?.is_empty() {
            return end(tls, Close::Fin).await;
        }
        if self.speaks == Speaks::Http {
            let head = read_head(&mut tls).await?;
            if head.contains(" HTTP/1.0\r\n") {
                let (answers, close) = self.response;
                let length = match answers {
                    Answers::Length => "Content-Length: 5\r\n",
                    Answers::UntilClose => "",
                    Answers::Cut => "Content-Length: 6\r\n",
                };
                let response = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{length}\r\nhello");
                tls.write_all(response.as_bytes()).await?;
                return end(tls, close).await;
            }
            if head.starts_with("POST ") {
                return self.answer_upload(tls).await;
            }
            if !head.is_empty() {
                tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await?;
            }
        }
        if let Some(close) = idle {
            return end(tls, close).await;
        }
        tls.read_to_end(&mut Vec::new()).await?;
        end(tls, answer).await
    }

    async fn answer_upload(self, mut tls: TlsStream<TcpStream>) -> io::Result<()> {
        const ANSWER: &[u8] = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
        match self.upload {
            Start::AtOnce => {
                tls.write_all(ANSWER).await?;
                tls.flush().await?;
                end(tls, Close::Notify).await
            }
            Start::AtOnceThenReset => {
                tls.write_all(ANSWER).await?;
                // What it has not read resets the connection.
                end(tls, Close::NotifyThenLeave).await
            }
            Start::AtOnceThenResetLater => {
                tls.write_all(ANSWER).await?;
                tls.flush().await?;
                // Go's net/http waits as long, and no event tells that a reset would be late.
                real_time(Duration::from_millis(500)).await;
                end(tls, Close::Reset).await
            }
            Start::Cut => {
                tls.write_all(&ANSWER[..40]).await?;
                end(tls, Close::Fin).await
            }
            Start::AfterTheRequest => {
                tls.read_exact(&mut vec![0; 1_000_000]).await?;
                tls.write_all(ANSWER).await?;
                end(tls, Close::Notify).await
            }
        }
    }
}

async fn hear(tcp: &mut TcpStream, expected: &[u8]) -> io::Result<()> {
    let mut heard = vec![0; expected.len()];
    tcp.read_exact(&mut heard).await?;
    assert_eq!(heard, expected);
    Ok(())
}

/// Reads a head without a body, or nothing if the client closes.
async fn read_head(tls: &mut TlsStream<TcpStream>) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match tls.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && head.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

async fn end(mut tls: TlsStream<TcpStream>, close: Close) -> io::Result<()> {
    match close {
        Close::Notify => tls.shutdown().await?,
        Close::NotifySlowly => {
            // The time of the answer is what the probe measures.
            real_time(Duration::from_millis(1_100)).await;
            tls.shutdown().await?;
        }
        Close::NotifyThenLeave => return tls.shutdown().await,
        Close::NotifyOnly => {
            tls.get_mut().1.send_close_notify();
            tls.flush().await?;
        }
        Close::AfterFin => {
            wait_for_fin(tls.get_mut().0).await?;
            return tls.shutdown().await;
        }
        Close::Fin => tls.get_mut().0.shutdown().await?,
        Close::Reset => return tls.get_ref().0.set_zero_linger(),
        Close::EmptyRecord(kind) => {
            // rustls fails at once, whatever came before in the same read.
            real_time(Duration::from_millis(300)).await;
            tls.get_mut().0.write_all(&[kind, 3, 3, 0, 0]).await?;
        }
        Close::Never => return pending().await,
    }
    wait_for_fin(tls.get_mut().0).await
}

/// Discards what the client sends, until it leaves.
async fn wait_for_fin(tcp: &mut TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    while tcp.read(&mut buffer).await? > 0 {}
    Ok(())
}
