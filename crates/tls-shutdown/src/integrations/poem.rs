//! [`TlsListener`] as poem's `Acceptor`. Feature `poem`.

use std::io;

use ::poem::{
    Addr,
    http::uri::Scheme,
    listener::Acceptor,
    web::{LocalAddr, RemoteAddr},
};

use crate::server::{ServerStream, TlsListener};

/// Its limit: a response to HTTP/1.0 whose body fails ends with close_notify, as if it were whole, because poem polls hyper's connection
/// once more after an error.
///
/// Give poem [`last_request_over`](crate::server::DrainHandle::last_request_over) as its signal, without a timeout of its own.
///
/// ```
/// # async fn example(listener: tls_shutdown::server::TlsListener, drain: tls_shutdown::server::ServerDrain) {
/// let handle = drain.handle();
/// let server = poem::Server::new_with_acceptor(listener.with_drain(&handle));
/// let app = poem::Route::new();
/// let serving = server.run_with_graceful_shutdown(app, handle.last_request_over(), None);
/// println!("{}", drain.run(serving).await.0);
/// # }
/// ```
impl Acceptor for TlsListener {
    type Io = ServerStream;

    fn local_addr(&self) -> Vec<LocalAddr> {
        TlsListener::local_addr(self).ok().map(|address| LocalAddr(Addr::from(address))).into_iter().collect()
    }

    async fn accept(&mut self) -> io::Result<(ServerStream, LocalAddr, RemoteAddr, Scheme)> {
        let (stream, peer) = self.accept_for_framework().await;
        let local = stream.get_ref().get_ref().get_ref().0.local_addr()?;
        Ok((stream, LocalAddr(local.into()), RemoteAddr(peer.into()), Scheme::HTTPS))
    }
}
