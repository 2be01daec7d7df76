//! [`Prober`]: connections to the server, and why there are none.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{ClientConfig, HandshakeKind, client::Resumption, pki_types::ServerName};
use tls_shutdown::{Alert, Ending, ShutdownReport, ShutdownStream};
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    starttls::{self, Refusal},
    timeline::{Sender, Timeline, What},
    transport::{Observed, is_reset},
};
use crate::{
    arguments::{Endpoint, ProbeArguments, StartTls},
    certificate,
    failure::Failure,
};

/// How long the whole probe takes at most. The rest of the 30 seconds is for the output.
const PROBE_TIMEOUT: Duration = Duration::from_secs(29);
/// How long a server may take to accept a connection, and until it answers the ClientHello.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a whole handshake may take, the dialogue before it included.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// `no_application_protocol` (RFC 7301 section 3.2).
const NO_APPLICATION_PROTOCOL: Alert = Alert(120);

pub(crate) type Stream = ShutdownStream<TlsStream<Observed>>;

/// Makes connections to one server, and keeps their time lines.
#[derive(Debug)]
pub(crate) struct Prober {
    server: Endpoint,
    starttls: Option<StartTls>,
    addresses: Vec<SocketAddr>,
    server_name: ServerName<'static>,
    config: ClientConfig,
    deadline: Instant,
    /// Whether any connection has resumed a session.
    pub(crate) resumed: Option<bool>,
    pub(crate) timelines: Vec<Timeline>,
}

/// Why a server cannot be probed.
#[derive(Debug)]
pub(crate) struct Unreachable {
    pub(crate) kind: Kind,
    pub(crate) message: String,
    alert: Option<Alert>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Refused,
    NotTls,
    ProtocolError,
    TlsLimit,
    Silent,
    Reset,
    Certificate,
    Resolve,
    Timeout,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::NotTls => "not_tls",
            Self::ProtocolError => "protocol_error",
            Self::TlsLimit => "tls_limit",
            Self::Silent => "silent",
            Self::Reset => "reset",
            Self::Certificate => "certificate",
            Self::Resolve => "resolve",
            Self::Timeout => "timeout",
        }
    }
}

impl Unreachable {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), alert: None }
    }

    /// The server has refused this client by an alert.
    pub(crate) fn by_alert(alert: Alert) -> Self {
        let message = format!("the server refuses the client with the alert {alert}");
        Self { alert: Some(alert), ..Self::new(Kind::Refused, message) }
    }

    /// rustls has not accepted what the server sent.
    pub(crate) fn by_tls_error(error: &io::Error) -> Self {
        match ShutdownReport::of_failed_handshake(error).ending() {
            Ending::NotTls => {
                Self::new(Kind::NotTls, format!("the server's answer is not TLS: {error}; is it the right port?"))
            }
            Ending::TlsLimit => {
                Self::new(Kind::TlsLimit, format!("the server sends more than the TLS library accepts: {error}"))
            }
            _ => Self::new(Kind::ProtocolError, format!("the server violates the TLS protocol: {error}")),
        }
    }
}

impl Prober {
    pub(crate) fn new(arguments: &ProbeArguments) -> Result<Self, Failure> {
        Ok(Self {
            server: arguments.server.clone(),
            starttls: arguments.starttls,
            addresses: Vec::new(),
            server_name: arguments.identity.server_name(&arguments.server)?,
            config: certificate::client_config(&arguments.identity)?,
            deadline: Instant::now() + PROBE_TIMEOUT,
            resumed: None,
            timelines: Vec::new(),
        })
    }

    /// The time that a step may take, if `limit` is its own limit.
    pub(crate) fn left(&self, limit: Duration) -> Duration {
        limit.min(self.deadline.saturating_duration_since(Instant::now()))
    }

    pub(crate) fn starttls(&self) -> Option<StartTls> {
        self.starttls
    }

    /// The value of the `Host` header.
    pub(crate) fn host(&self) -> String {
        match &self.server_name {
            // The default port of https.
            ServerName::DnsName(name) if self.server.port == 443 => name.as_ref().to_owned(),
            ServerName::DnsName(name) => format!("{}:{}", name.as_ref(), self.server.port),
            _ => self.server.to_string(),
        }
    }

    /// Finds the server's addresses.
    pub(crate) async fn resolve(&mut self) -> Result<(), Unreachable> {
        let host = self.server.host.clone();
        let resolving = timeout(self.left(SILENCE_TIMEOUT), lookup_host((host.as_str(), self.server.port)));
        let fail = |reason: String| Unreachable::new(Kind::Resolve, format!("cannot find the host {host}: {reason}"));
        let found = resolving.await.map_err(|elapsed| fail(elapsed.to_string()))?;
        self.addresses = found.map_err(|error| fail(error.to_string()))?.collect();
        Ok(())
    }

    /// A configuration with a place of its own for session tickets.
    pub(crate) fn without_sessions(&self) -> ClientConfig {
        let mut config = self.config.clone();
        config.resumption = Resumption::in_memory_sessions(8);
        config
    }

    /// Connects with the first protocol that the server agrees to. All later connections offer the same.
    pub(crate) async fn connect_first(&mut self, purpose: &'static str) -> Result<Stream, Unreachable> {
        // HTTP/1 shows most of how a server closes. Before STARTTLS, the protocol is known without ALPN.
        let offers: &[&[&str]] = match self.starttls {
            None => &[&["http/1.1"], &["h2"], &[]],
            Some(_) => &[&[]],
        };
        let mut result = Err(Unreachable::by_alert(NO_APPLICATION_PROTOCOL));
        for offer in offers {
            self.config.alpn_protocols = offer.iter().map(|name| name.as_bytes().to_vec()).collect();
            result = self.connect(purpose, self.config.clone()).await;
            if !matches!(&result, Err(error) if error.alert == Some(NO_APPLICATION_PROTOCOL)) {
                break;
            }
        }
        result
    }

    /// Connects without a ticket. The next connections resume this session.
    pub(crate) async fn connect_anew(&mut self, purpose: &'static str) -> Result<Stream, Unreachable> {
        self.config = self.without_sessions();
        self.connect(purpose, self.config.clone()).await
    }

    /// Connects with the tickets of all connections since the last one without.
    pub(crate) async fn connect_again(&mut self, purpose: &'static str) -> Result<Stream, Unreachable> {
        let stream = self.connect(purpose, self.config.clone()).await?;
        self.resumed = Some(self.resumed == Some(true) || is_resumed(&stream));
        Ok(stream)
    }

    pub(crate) async fn connect(&mut self, purpose: &'static str, config: ClientConfig) -> Result<Stream, Unreachable> {
        let timeline = Timeline::begin(purpose);
        self.timelines.push(timeline.clone());
        timeline.add_segment(Sender::Client, What::Syn);
        let connecting = timeout(self.left(SILENCE_TIMEOUT), TcpStream::connect(&*self.addresses));
        let tcp = connecting.await.map_err(|_| Unreachable::new(Kind::Timeout, "the server accepts no connection"))?;
        let tcp = tcp.and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp)).map_err(|error| {
            if error.kind() == io::ErrorKind::ConnectionRefused {
                timeline.add_segment(Sender::Server, What::Reset);
            }
            let kind = match error.kind() {
                io::ErrorKind::TimedOut => Kind::Timeout,
                _ if is_reset(&error) => Kind::Reset,
                _ => Kind::Refused,
            };
            Unreachable::new(kind, format!("cannot connect: {error}"))
        })?;
        timeline.add_segment(Sender::Server, What::SynAck);

        let establishing = establish(tcp, self.starttls, self.server_name.clone(), config, &timeline);
        tokio::pin!(establishing);
        if let Ok(result) = timeout(self.left(SILENCE_TIMEOUT), &mut establishing).await {
            return result;
        }
        if !timeline.is_server_heard() {
            let message = format!("the server has sent nothing for {} s", SILENCE_TIMEOUT.as_secs());
            return Err(Unreachable::new(Kind::Silent, message));
        }
        let message = format!("the handshake was not finished within {} s", HANDSHAKE_TIMEOUT.as_secs());
        let result = timeout(self.left(HANDSHAKE_TIMEOUT - SILENCE_TIMEOUT), establishing).await;
        result.unwrap_or_else(|_| Err(Unreachable::new(Kind::Timeout, message)))
    }
}

async fn establish(
    tcp: TcpStream,
    starttls: Option<StartTls>,
    server_name: ServerName<'static>,
    config: ClientConfig,
    timeline: &Timeline,
) -> Result<Stream, Unreachable> {
    let mut transport = Observed::new(tcp, timeline.clone());
    if let Some(protocol) = starttls {
        starttls::start(protocol, &mut transport).await.map_err(|refusal| match refusal {
            Refusal::Answer(answer) => {
                Unreachable::new(Kind::NotTls, format!("the server does not begin TLS, but answers {answer:?}"))
            }
            Refusal::Transport(error) => of_transport(&error),
        })?;
    }
    timeline.begin_tls();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(server_name, transport).await.map_err(|error| of_handshake(&error, timeline))?;
    Ok(ShutdownStream::new(stream))
}

/// Why a handshake has failed.
fn of_handshake(error: &io::Error, timeline: &Timeline) -> Unreachable {
    use rustls::Error;
    match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(_) | Error::NoCertificatesPresented) => {
            let message = format!(
                "the server's certificate is not accepted: {error}; --ca FILE accepts those of another authority, --insecure accepts all"
            );
            Unreachable::new(Kind::Certificate, message)
        }
        Some(Error::AlertReceived(alert)) => Unreachable::by_alert(Alert(u8::from(*alert))),
        Some(Error::PeerIncompatible(_)) => {
            Unreachable::new(Kind::Refused, format!("client and server have no version or cipher in common: {error}"))
        }
        Some(_) => Unreachable::by_tls_error(error),
        None if !is_reset(error) && !timeline.is_server_heard() => {
            Unreachable::new(Kind::NotTls, "the server ends the connection instead of answering the ClientHello")
        }
        None => of_transport(error),
    }
}

fn of_transport(error: &io::Error) -> Unreachable {
    match error.kind() {
        io::ErrorKind::InvalidData => {
            Unreachable::new(Kind::NotTls, format!("the server's answer is not text: {error}"))
        }
        _ => {
            Unreachable::new(Kind::Reset, format!("the server ends the connection before TLS is established: {error}"))
        }
    }
}

/// Whether the handshake has resumed a session.
pub(crate) fn is_resumed(stream: &Stream) -> bool {
    stream.get_ref().get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
}
