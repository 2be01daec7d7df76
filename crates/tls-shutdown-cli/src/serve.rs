//! `serve`: accepts connections until a signal comes, then drains.

use std::{
    convert::Infallible,
    io::{self, ErrorKind},
    net::SocketAddr,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::Router;
use tls_shutdown::{Reaper, ShutdownPolicy};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, lookup_host},
    runtime,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::{
    arguments::{Endpoint, ServeArguments},
    certificate, connection,
    events::{Drained, Events},
    failure::Failure,
    routes,
    signals::Signals,
};

/// How many connections the system may accept ahead of us. Tokio's own 128 are soon used up, and clients then wait for seconds.
const BACKLOG: u32 = 1024;
/// How long to wait before accepting again when the system refuses to: there may be no file descriptor left.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);
/// The most of the grace time that is kept for the reaper, when connections have to be cut.
const REAPER_RESERVE: Duration = Duration::from_secs(1);
/// How long the runtime may take to drop what is left in it.
const RUNTIME_LIMIT: Duration = Duration::from_millis(100);

/// How far the server drain is. Later is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    /// Not ready any more, but as before otherwise.
    Notice,
    /// Nothing more is accepted; each connection may have one more request.
    LastRequest,
    /// What is in use now is cut.
    Deadline,
}

/// What all connections share.
pub(crate) struct Server {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) router: Router,
    pub(crate) policy: ShutdownPolicy,
    pub(crate) last_request: Duration,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) reaper: Reaper,
    pub(crate) events: Arc<Events>,
    /// Connections that the deadline has cut.
    pub(crate) cut: AtomicU64,
    connections: TaskTracker,
}

pub(crate) fn run(arguments: &ServeArguments) -> Result<ExitCode, Failure> {
    let events = Arc::new(Events::new(arguments.format()));
    let runtime = runtime::Runtime::new().map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    let drained = runtime.block_on(serve(arguments, &events))?;
    // What lingers still ends here, and is told before the last line.
    runtime.shutdown_timeout(RUNTIME_LIMIT);
    events.drained(&drained);
    events.finish();
    Ok(ExitCode::SUCCESS)
}

async fn serve(arguments: &ServeArguments, events: &Arc<Events>) -> Result<Drained, Failure> {
    let acceptor = TlsAcceptor::from(Arc::new(certificate::server_config(arguments)?));
    let (listener, address) = listen(&arguments.listen).await?;
    let mut signals = Signals::listen()?;
    let phase = watch::Sender::new(Phase::Serving);
    let server = Arc::new(Server {
        acceptor,
        router: routes::router(phase.subscribe()),
        policy: arguments.policy(),
        last_request: arguments.last_request,
        phase,
        reaper: Reaper::new(),
        events: events.clone(),
        cut: AtomicU64::new(0),
        connections: TaskTracker::new(),
    });
    let certificate = match &arguments.cert {
        Some(file) => format!("certificate {}", file.display()),
        None => "self-signed certificate".to_owned(),
    };
    events.listening(address, &certificate);

    tokio::select! {
        never = server.accept(&listener) => match never {},
        () = signals.next() => {}
    }
    Ok(server.drain(listener, signals, arguments).await)
}

async fn listen(endpoint: &Endpoint) -> Result<(TcpListener, SocketAddr), Failure> {
    let bind = async {
        let mut result = Err(ErrorKind::AddrNotAvailable.into());
        for address in lookup_host((endpoint.host.as_str(), endpoint.port)).await? {
            result = listen_at(address);
            if result.is_ok() {
                break;
            }
        }
        let listener = result?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bind.await.map_err(|error: io::Error| {
        let advice = match error.kind() {
            ErrorKind::AddrInUse => "; stop what listens there, or choose another port with --listen",
            ErrorKind::PermissionDenied => "; ports below 1024 need a privilege, choose another with --listen",
            _ => "; choose an address of this machine with --listen",
        };
        Failure::new(format!("cannot listen on {endpoint}: {error}{advice}"))
    })
}

fn listen_at(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restart need not wait until old connections are forgotten. (Elsewhere this lets two servers take the same port.)
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Server {
    /// Accepts connections for ever.
    async fn accept(self: &Arc<Self>, listener: &TcpListener) -> Infallible {
        loop {
            match listener.accept().await {
                Ok((tcp, peer)) => self.spawn(tcp, peer),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_BACK_OFF).await;
                }
            }
        }
    }

    /// Accepts what the system has accepted already: it would reset those connections with the listener. That is no more than
    /// the backlog holds; whoever goes on connecting must not keep the server from stopping.
    fn accept_queued(self: &Arc<Self>, listener: TcpListener) -> io::Result<()> {
        // Tokio's own listener asks the system only after the runtime has heard of something to accept.
        let listener = listener.into_std()?;
        for _ in 0..=BACKLOG {
            match listener.accept() {
                Ok((tcp, peer)) => {
                    tcp.set_nonblocking(true)?;
                    self.spawn(TcpStream::from_std(tcp)?, peer);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn spawn(self: &Arc<Self>, tcp: TcpStream, peer: SocketAddr) {
        self.connections.spawn(connection::serve(self.clone(), tcp, peer));
    }

    /// The server drain, from the first signal on.
    async fn drain(
        self: &Arc<Self>,
        listener: TcpListener,
        mut signals: Signals,
        arguments: &ServeArguments,
    ) -> Drained {
        let signalled = Instant::now();
        let reserve = REAPER_RESERVE.min(arguments.grace / 10);
        self.events.forget_endings();
        self.phase.send_replace(Phase::Notice);
        let in_order = async {
            let Err(_elapsed) = timeout(arguments.notice, self.accept(&listener)).await;
            // Who finds that nothing listens any more finds every connection in this phase.
            self.phase.send_replace(Phase::LastRequest);
            if let Err(error) = self.accept_queued(listener) {
                tracing::warn!(%error, "connections that were not accepted yet are reset");
            }
            self.connections.close();
            self.connections.wait().await;
            self.reaper.wait_idle(Duration::MAX).await;
        };
        let out_of_time = async {
            tokio::select! {
                () = signals.next() => {}
                () = sleep(arguments.grace - reserve) => {}
            }
        };
        let lingering = tokio::select! {
            () = in_order => 0,
            () = out_of_time => self.cut(reserve).await,
        };
        // A statistic: it orders nothing.
        Drained { elapsed: signalled.elapsed(), cut: self.cut.load(Ordering::Relaxed), lingering }
    }

    /// Ends what is left, within `limit`. Gives the number of connections that still linger then.
    async fn cut(&self, limit: Duration) -> usize {
        let end = Instant::now() + limit;
        self.phase.send_replace(Phase::Deadline);
        self.connections.close();
        if timeout(limit, self.connections.wait()).await.is_err() {
            tracing::warn!(left = self.connections.len(), "connections do not end");
        }
        self.reaper.wait_idle(end - Instant::now()).await
    }
}

/// Whether the connection was gone before it was accepted, so that the next one can be accepted at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused)
}
