//! The application under servers of other projects.

use std::{convert::Infallible, io, net::SocketAddr};

use axum::{Router, body::Body, extract::Request, response::Response};
use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::combinators::BoxBody;
use poem::Endpoint;
use salvo_core::{Depot, FlowCtrl, Handler, http::ReqBody, http::ResBody};
use salvo_extra::tower_compat::TowerLayerCompat;
use tls_shutdown::{
    integrations::axum_server::TlsAddress,
    server::{ConnectionReport, DrainHandle, DrainPhase, DrainReport, ServerDrain, TlsAcceptor},
};
use tokio::{io::AsyncWriteExt, net::TcpListener, task::JoinHandle};
use tower::ServiceExt;

use crate::serving::{Framework, listener, offering};

/// Serves `app`, until the drain has ended. Returns where it listens.
pub(super) async fn serve_framework(
    framework: Framework,
    on_end: impl Fn(&ConnectionReport) + Send + Sync + 'static,
    drain: ServerDrain,
    app: Router,
) -> (SocketAddr, JoinHandle<DrainReport>) {
    let handle = drain.handle();
    match framework {
        Framework::AxumServerAccept | Framework::TlsListenerCrate => {
            let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = tcp.local_addr().expect("an address");
            let acceptor = TlsAcceptor::new(offering(&["h2", "http/1.1"])).on_end(on_end).with_drain(&handle, address);
            let app = app.layer(handle.layer());
            if framework == Framework::TlsListenerCrate {
                let serving = axum::serve(tls_listener::TlsListener::new(acceptor, tcp), app)
                    .with_graceful_shutdown(handle.last_request_over());
                return (address, run(drain, serving.into_future()));
            }
            let server = axum_server::from_tcp(tcp.into_std().expect("a socket")).expect("a socket");
            (address, run(drain, axum_server_until_over(server.acceptor(acceptor), app, handle)))
        }
        Framework::AxumServer | Framework::Poem | Framework::Salvo => {
            let listener = listener().await.on_end(on_end).with_drain(&handle);
            let address = listener.local_addr().expect("an address");
            let report = match framework {
                Framework::Poem => {
                    let server = poem::Server::new_with_acceptor(listener);
                    let app = PoemApp { app, drain: handle.clone() };
                    run(drain, server.run_with_graceful_shutdown(app, handle.last_request_over(), None))
                }
                Framework::Salvo => {
                    let mut server = salvo_core::Server::new(listener);
                    server.http2_mut().enable_connect_protocol();
                    let layer = TowerLayerCompat::compat::<ReqBody>(handle.layer());
                    let (stop, over) = (server.handle(), handle.last_request_over());
                    tokio::spawn(async move {
                        over.await;
                        stop.stop_graceful(None);
                    });
                    run(
                        drain,
                        server.try_serve(salvo_core::Router::with_path("{**path}").hoop(layer).goal(SalvoApp(app))),
                    )
                }
                _ => {
                    let server = axum_server::Server::<TlsAddress>::from_listener(listener.into());
                    run(drain, axum_server_until_over(server, app.layer(handle.layer()), handle))
                }
            };
            (address, report)
        }
    }
}

fn run(drain: ServerDrain, serving: impl Future<Output = io::Result<()>> + Send + 'static) -> JoinHandle<DrainReport> {
    tokio::spawn(drain.run(serving).map(|(report, _)| report))
}

/// Serves by axum-server, until the window of the drain is over.
async fn axum_server_until_over<A, Acceptor>(
    mut server: axum_server::Server<A, Acceptor>,
    app: Router,
    drain: DrainHandle,
) -> io::Result<()>
where
    A: axum_server::Address<Stream: Send, Listener: Send + Sync> + Send + Sync + 'static,
    Acceptor: axum_server::accept::Accept<A::Stream, Router, Service = Router> + Clone + Send + Sync + 'static,
    Acceptor::Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
    Acceptor::Future: Send,
{
    let (handle, over) = (axum_server::Handle::new(), drain.last_request_over());
    server.http_builder().http2().enable_connect_protocol();
    let stop = handle.clone();
    tokio::spawn(async move {
        over.await;
        stop.graceful_shutdown(None);
    });
    server.handle(handle).serve(app.into_make_service()).await
}

/// The application as an endpoint of poem. Upgrades are poem's own.
struct PoemApp {
    app: Router,
    drain: DrainHandle,
}

impl Endpoint for PoemApp {
    type Output = poem::Response;

    async fn call(&self, request: poem::Request) -> poem::Result<poem::Response> {
        if request.uri().path() == "/upgrade" {
            return Ok(self.upgrade(&request));
        }
        let request: Request<BoxBody<Bytes, io::Error>> = request.into();
        let (head, body) = answer(&self.app, request.map(Body::new)).await.into_parts();
        let mut response = poem::Response::builder().status(head.status);
        for (name, value) in &head.headers {
            response = response.header(name, value);
        }
        let body = futures_util::TryStreamExt::map_err(body.into_data_stream(), io::Error::other);
        Ok(response.body(poem::Body::from_bytes_stream(body)))
    }
}

impl PoemApp {
    fn upgrade(&self, request: &poem::Request) -> poem::Response {
        let (upgrade, drain) = (request.take_upgrade().expect("an upgrade"), self.drain.clone());
        tokio::spawn(async move {
            let mut stream = upgrade.await.expect("an upgrade");
            drain.reached(DrainPhase::LastRequest).await;
            stream.write_all(b"farewell").await.expect("sent");
            stream.shutdown().await.expect("sent");
        });
        let response = poem::Response::builder().status(poem::http::StatusCode::SWITCHING_PROTOCOLS);
        response.header("connection", "upgrade").header("upgrade", "farewells").finish()
    }
}

/// The application as a handler of salvo.
struct SalvoApp(Router);

#[salvo_core::async_trait]
impl Handler for SalvoApp {
    async fn handle(
        &self,
        request: &mut salvo_core::Request,
        _: &mut Depot,
        response: &mut salvo_core::Response,
        _: &mut FlowCtrl,
    ) {
        let request = request.strip_to_hyper::<ReqBody>().expect("a request").map(Body::new);
        let answer = answer(&self.0, request).await;
        response.merge_hyper(answer.map(|body| ResBody::stream(body.into_data_stream())));
    }
}

async fn answer(app: &Router, request: Request) -> Response {
    app.clone().oneshot(request).await.unwrap_or_else(|error: Infallible| match error {})
}
