//! [`Site`]: an HTTPS server of one side, with a runtime of its own, as if it were a process.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::oneshot,
    task::{JoinHandle, spawn_blocking},
};
use tokio_rustls::TlsAcceptor;

use super::{application, bare, identity::Identity, ours};

/// How long a graceful shutdown may take. hyper's guide has ten seconds.
pub(crate) const GRACE_PERIOD: Duration = Duration::from_secs(10);
/// How long the runtime may take to drop the tasks that are left.
const RUNTIME_TIMEOUT: Duration = Duration::from_millis(100);

/// Whose code is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Bare,
    Ours,
}

/// A running server.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    exit: JoinHandle<io::Result<()>>,
}

/// A server that was told to stop.
pub(crate) struct Stopping(JoinHandle<io::Result<()>>);

impl Site {
    /// Starts a server on a free port.
    pub(crate) fn start(side: Side, identity: &Identity) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let config = identity.server();
        let (stop, stopped) = oneshot::channel();
        let stopped = async move {
            // If the measurement was given up, the server stops, too.
            let _ = stopped.await;
        };
        let exit = spawn_blocking(move || {
            let runtime = Runtime::new()?;
            let result = runtime.block_on(async move {
                match side {
                    Side::Bare => {
                        let listener = TcpListener::from_std(listener)?;
                        bare::serve(listener, TlsAcceptor::from(config), application::router(), stopped).await
                    }
                    Side::Ours => ours::serve(listener, config, application::router(), stopped).await,
                }
            });
            // At the exit of a process, its last tasks are cut, too.
            runtime.shutdown_timeout(RUNTIME_TIMEOUT);
            result
        });
        Ok(Self { address, stop, exit })
    }

    /// Tells the server to stop, as SIGTERM would.
    pub(crate) fn stop(self) -> Stopping {
        // A server that has failed reports that at its exit.
        let _ = self.stop.send(());
        Stopping(self.exit)
    }
}

impl Stopping {
    /// Waits for the exit.
    pub(crate) async fn exit(self) -> io::Result<()> {
        self.0.await?
    }
}
