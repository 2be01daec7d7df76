//! [`TlsListener`] as salvo's `Acceptor`. Feature `salvo`, which needs Rust 1.95.

use std::io;

use salvo_core::{
    conn::{Accepted, Acceptor, ConnCtrl, Holding, tcp::TcpCoupler},
    fuse::{ArcFusePolicy, FuseAction, FuseInfo, TransProto},
    http::uri::Scheme,
};

use crate::server::{ServerStream, TlsListener};

/// Stop salvo by `stop_graceful(None)` when [`last_request_over`](crate::server::DrainHandle::last_request_over) resolves. With salvo's
/// feature `tower-compat`, put the application behind the [layer](crate::server::DrainHandle::layer) of the drain:
/// `Router::new().hoop(handle.layer().compat())`.
///
/// ```
/// # async fn example(listener: tls_shutdown::server::TlsListener, drain: tls_shutdown::server::ServerDrain) {
/// let handle = drain.handle();
/// let server = salvo_core::Server::new(listener.with_drain(&handle));
/// let (stop, over) = (server.handle(), handle.last_request_over());
/// tokio::spawn(async move {
///     over.await;
///     stop.stop_graceful(None);
/// });
/// println!("{}", drain.run(server.try_serve(salvo_core::Router::new())).await.0);
/// # }
/// ```
impl Acceptor for TlsListener {
    /// The only coupler that another crate can use: the trait takes an argument whose type salvo does not export.
    type Coupler = TcpCoupler<ServerStream>;
    type Stream = ServerStream;

    /// Empty: salvo only logs them.
    fn holdings(&self) -> &[Holding] {
        &[]
    }

    async fn accept(&mut self, policy: Option<ArcFusePolicy>) -> io::Result<Accepted<Self::Coupler, ServerStream>> {
        loop {
            let (stream, peer) = self.accept_for_framework().await;
            let local = stream.get_ref().get_ref().get_ref().0.local_addr()?;
            let peers = FuseInfo { trans_proto: TransProto::Tcp, remote_addr: peer.into(), local_addr: local.into() };
            let fuse_config = match &policy {
                Some(policy) => match policy.decide(&peers).await {
                    FuseAction::Accept(config) => Some(config),
                    FuseAction::Reject => continue,
                },
                None => None,
            };
            let FuseInfo { local_addr, remote_addr, .. } = peers;
            let (coupler, conn_ctrl, http_scheme) = (TcpCoupler::new(), ConnCtrl::new(), Scheme::HTTPS);
            return Ok(Accepted { coupler, stream, fuse_config, conn_ctrl, local_addr, remote_addr, http_scheme });
        }
    }
}
