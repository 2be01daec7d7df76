//! `ShutdownLayer` and `ClientDrain` with hyper-util's client, against servers of tokio-rustls and hyper.
//!
//! These tests wait for sockets and change nothing of their process, so that they share it.

mod drain;
mod layer;
mod retirement;

use std::{error::Error, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Empty};
use hyper::{Uri, body::Bytes};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connect, HttpConnector},
    },
    rt::TokioExecutor,
};
use rustls::version::TLS13;
use tls_shutdown::{ShutdownReport, client::Draining};
use tls_shutdown_tests::{client_config, server_config, soon, time::PATIENCE};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tower::Service;

/// A limit that no drain here reaches.
pub(crate) const LIMIT: Duration = PATIENCE;

pub(crate) fn https(protocol: &str) -> HttpsConnector<HttpConnector> {
    let builder = HttpsConnectorBuilder::new().with_tls_config(client_config(&TLS13)).https_only();
    match protocol {
        "h2" => builder.enable_http2().build(),
        _ => builder.enable_http1().build(),
    }
}

pub(crate) type Https<C> = Client<C, Empty<Bytes>>;

pub(crate) fn pooled<C: Connect + Clone>(connector: C) -> Https<C> {
    Client::builder(TokioExecutor::new()).build(connector)
}

pub(crate) async fn get<C>(client: &Https<C>, uri: Uri) -> Result<Bytes, Box<dyn Error + Send + Sync>>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let response = soon(client.get(uri)).await?;
    Ok(soon(response.into_body().collect()).await?.to_bytes())
}

/// Sends `count` requests for `uri` at the same time.
pub(crate) async fn get_at_once<C>(client: &Https<C>, uri: &Uri, count: usize)
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let tasks: Vec<_> = (0..count)
        .map(|_| {
            let (client, uri) = (client.clone(), uri.clone());
            tokio::spawn(async move { get(&client, uri).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), "met");
    }
}

/// Whether `Draining` is among the causes of `error`. h2 keeps only the text of an I/O error.
pub(crate) fn is_draining(error: &(dyn Error + 'static)) -> bool {
    error.to_string().contains(&Draining.to_string()) || error.source().is_some_and(is_draining)
}

pub(crate) fn recorder() -> (impl Fn(&ShutdownReport) + Send + Sync + 'static, mpsc::UnboundedReceiver<ShutdownReport>)
{
    let (sender, receiver) = mpsc::unbounded_channel();
    let record = move |report: &ShutdownReport| {
        let _ = sender.send(*report);
    };
    (record, receiver)
}

pub(crate) async fn next(reports: &mut mpsc::UnboundedReceiver<ShutdownReport>) -> ShutdownReport {
    soon(reports.recv()).await.expect("on_end is kept")
}

pub(crate) const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Accepts one TLS connection. If there is an answer, it reads once and writes that. It never reads again. Returns the stream, so that the
/// test keeps it.
pub(crate) async fn deaf_server(
    answer: &'static [u8],
) -> (SocketAddr, tokio::task::JoinHandle<server::TlsStream<TcpStream>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(server_config(&TLS13)));
        let mut tls = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        if !answer.is_empty() {
            assert_ne!(tls.read(&mut [0; 1024]).await.unwrap(), 0);
        }
        tls.write_all(answer).await.unwrap();
        tls.flush().await.unwrap();
        tls
    });
    (address, server)
}

/// A connector without hyper-rustls.
pub(crate) fn by_hand(
    tls: TlsConnector,
) -> impl Service<Uri, Response = client::TlsStream<TcpStream>, Error = io::Error, Future: Send> + Clone + Send + Sync {
    tower::service_fn(move |uri: Uri| {
        let tls = tls.clone();
        async move {
            let tcp = TcpStream::connect(uri.authority().unwrap().as_str()).await?;
            tls.connect("localhost".try_into().unwrap(), tcp).await
        }
    })
}
