//! A server whose answers are scripted.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body::Body;
use hyper::{Request, Response, body::Incoming};
use rustls::ServerConfig;
use tls_shutdown::server::{ConnectionReport, DrainHandle, DrainReport, Server, ServerDrain, TlsListener};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{server_config, soon};

/// A time that no test waits for.
pub const LONG: Duration = Duration::from_secs(3600);

/// A server configuration that offers `protocols` by ALPN.
pub fn offering(protocols: &[&str]) -> ServerConfig {
    let mut config = server_config(&rustls::version::TLS13);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config
}

/// A listener on a free port.
pub async fn listener() -> TlsListener {
    TlsListener::bind("127.0.0.1:0", offering(&["h2", "http/1.1"])).await.expect("a free port")
}

/// A [`Server`] in a task.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// The handle of its drain.
    pub drain: DrainHandle,
    /// The reports of its connections.
    pub ends: mpsc::UnboundedReceiver<ConnectionReport>,
    signal: Option<oneshot::Sender<()>>,
    force: Option<oneshot::Sender<()>>,
    /// The task, which returns the report of the drain.
    pub task: JoinHandle<DrainReport>,
}

impl Running {
    /// Serves `answer` on a free port, with default settings.
    pub async fn start<F, R, B, E>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
        R: Future<Output = Result<Response<B>, E>> + Send + 'static,
        B: Body<Data = Bytes, Error = io::Error> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        Self::start_with(listener().await, |server| server, |drain| drain, answer)
    }

    /// Serves `answer` with these settings.
    pub fn start_with<F, R, B, E>(
        listener: TlsListener,
        server: impl FnOnce(Server) -> Server,
        drain: impl FnOnce(ServerDrain) -> ServerDrain,
        answer: F,
    ) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
        R: Future<Output = Result<Response<B>, E>> + Send + 'static,
        B: Body<Data = Bytes, Error = io::Error> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let address = listener.local_addr().expect("an address");
        Self::start_server(server(Server::new(listener)), address, drain, answer)
    }

    /// Serves `answer` by a server that listens at `address`.
    pub fn start_server<F, R, B, E>(
        server: Server,
        address: SocketAddr,
        drain: impl FnOnce(ServerDrain) -> ServerDrain,
        answer: F,
    ) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
        R: Future<Output = Result<Response<B>, E>> + Send + 'static,
        B: Body<Data = Bytes, Error = io::Error> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let (signal, signalled) = oneshot::channel();
        let (force, forced) = oneshot::channel();
        let drain = drain(ServerDrain::on(resolved(signalled)).force_on(resolved(forced)));
        let (sender, ends) = mpsc::unbounded_channel();
        let handle = drain.handle();
        let server = server
            .on_end(move |end| {
                let _ = sender.send(end.clone());
            })
            .drain(drain);
        let task = tokio::spawn(server.serve(tower::service_fn(answer)));
        Self { address, drain: handle, ends, signal: Some(signal), force: Some(force), task }
    }

    /// Sends the signal that begins the drain.
    pub fn signal(&mut self) {
        self.signal.take().expect("one signal").send(()).expect("a server");
    }

    /// Sends the signal that moves the drain to its deadline.
    pub fn force(&mut self) {
        self.force.take().expect("one signal").send(()).expect("a server");
    }

    /// Waits for the report of the next connection that ends.
    pub async fn end(&mut self) -> ConnectionReport {
        soon(self.ends.recv()).await.expect("a connection")
    }

    /// Waits for the report of the drain.
    pub async fn report(self) -> DrainReport {
        soon(self.task).await.expect("no panic")
    }

    /// Drops the server without a drain.
    pub async fn cut(&mut self) {
        self.task.abort();
        let _ = soon(&mut self.task).await;
    }
}

/// Waits for a signal. A dropped sender is none.
async fn resolved(signal: oneshot::Receiver<()>) {
    if signal.await.is_err() {
        std::future::pending().await
    }
}
