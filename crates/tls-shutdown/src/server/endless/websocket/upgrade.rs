//! [`replace`]: another upgrade in the place of hyper's.

use std::{
    future::{Future, poll_fn},
    sync::{Arc, Mutex, OnceLock},
    task::{Context, Waker},
};

use hyper::{
    Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade,
};
use tokio::{runtime::Handle, task::AbortHandle};

use super::socket::{Socket, SocketIo};
use crate::{
    runtime::lock::lock,
    server::{endless::wait::Wait, lifetime::ConnectionLifetime},
};

/// Returns an upgrade that gives the application a [`SocketIo`] of `socket` over the stream of `upgrade`, and the task that does so.
///
/// Applications and frameworks take the type [`OnUpgrade`] from a request, and hyper alone can make one. So hyper makes one here: it serves
/// an upgrade over a [`SocketIo`], which holds a request and discards the response. Its service answers when `upgrade` has succeeded.
///
/// Returns `None` outside of a Tokio runtime.
pub(super) fn replace(
    upgrade: &OnUpgrade,
    socket: &Arc<Mutex<Socket>>,
    lifetime: Arc<ConnectionLifetime>,
) -> Option<(OnUpgrade, AbortHandle)> {
    let runtime = Handle::try_current().ok()?;
    let replacement = Arc::new(OnceLock::new());
    let service = {
        let (socket, replacement, upgrade) = (socket.clone(), replacement.clone(), upgrade.clone());
        service_fn(move |request: Request<Incoming>| {
            let _ = replacement.set(hyper::upgrade::on(request));
            let (socket, upgrade) = (socket.clone(), upgrade.clone());
            async move {
                let stream = upgrade.await?;
                lock(&socket).open(stream);
                let mut response = Response::new(String::new());
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                Ok::<_, hyper::Error>(response)
            }
        })
    };
    let handshake = http1::Builder::new().serve_connection(SocketIo(socket.clone()), service).with_upgrades();
    let mut handshake = Box::pin(handshake);
    // hyper reads the request and calls the service. The task below polls it again.
    let is_pending = handshake.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
    let replacement = replacement.get().filter(|_| is_pending).cloned()?;
    let socket = socket.clone();
    let task = runtime.spawn(async move {
        // If it fails, hyper drops the socket.
        let _ = handshake.await;
        let mut last_request = Wait::until_last_request(&lifetime);
        let closed = poll_fn(|cx| lock(&socket).poll_closed(cx));
        tokio::select! {
            biased;
            () = closed => return,
            () = poll_fn(|cx| last_request.poll(cx)) => {}
        }
        poll_fn(|cx| lock(&socket).poll_close(cx)).await;
    });
    Some((replacement, task.abort_handle()))
}
