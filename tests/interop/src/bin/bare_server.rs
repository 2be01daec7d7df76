//! A server of hyper, hyper-util and tokio-rustls, with TLS and without, with a graceful shutdown as their documentation shows it. It is what
//! the proofs are held against: one that this server passes, too, proves nothing.
//!
//! `bare_server HOST:PORT [CERT KEY]`; the routes are those of `tls-shutdown serve`: `POST /count`, `POST /reject/{n}`,
//! `GET /bytes/{n}`.

use std::{convert::Infallible, env, error::Error, sync::Arc, time::Duration};

use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

const GRACE_PERIOD: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (listen, acceptor) = match &arguments[..] {
        [listen] => (listen, None),
        [listen, cert, key] => (listen, Some(TlsAcceptor::from(Arc::new(config(cert, key)?)))),
        _ => return Err("HOST:PORT [CERT KEY]".into()),
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind(listen).await?;
    println!("{}", serde_json::json!({ "event": "listening", "addr": listener.local_addr()?.to_string() }));

    let graceful = GracefulShutdown::new();
    loop {
        let tcp = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            _ = terminate.recv() => break,
        };
        tcp.set_nodelay(true)?;
        let (acceptor, watcher) = (acceptor.clone(), graceful.watcher());
        tokio::spawn(async move {
            match acceptor {
                Some(acceptor) => {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    serve(tls, watcher).await;
                }
                None => serve(tcp, watcher).await,
            }
        });
    }
    drop(listener);
    Ok(timeout(GRACE_PERIOD, graceful.shutdown()).await?)
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, watcher: Watcher) {
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection(TokioIo::new(stream), service_fn(answer)).into_owned();
    // The clients report what becomes of them.
    let _ = watcher.watch(connection).await;
}

fn config(cert: &str, key: &str) -> Result<ServerConfig, Box<dyn Error>> {
    let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<_, _>>()?;
    let mut config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// In pieces, as most bodies of that size are.
fn pieces(length: usize) -> Body {
    let pieces = vec![b'.'; length].chunks(16 * 1024).map(Bytes::copy_from_slice).collect::<Vec<_>>();
    StreamBody::new(stream::iter(pieces.into_iter().map(|piece| Ok(Frame::data(piece))))).boxed_unsync()
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let length = path.rsplit('/').next().and_then(|length| length.parse().ok()).unwrap_or_default();
    let (status, body) = match path.as_str() {
        "/count" => {
            let length = request.into_body().collect().await?.to_bytes().len();
            (StatusCode::OK, Full::from(format!("{length}\n")).boxed_unsync())
        }
        path if path.starts_with("/reject/") => (StatusCode::PAYLOAD_TOO_LARGE, pieces(length)),
        _ => (StatusCode::OK, Full::from(vec![b'.'; length]).boxed_unsync()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    Ok(response)
}
