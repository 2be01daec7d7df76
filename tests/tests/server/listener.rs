//! `TlsListener` against clients that do everything wrong.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use futures_util::poll;
use rustls::{
    HandshakeKind, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    server::NoServerSessionStorage,
};
use tls_shutdown::{
    Ending,
    server::{ConnectionReport, ServerDrain, TlsListener},
};
use tls_shutdown_tests::{
    End, VERSIONS, client_config, server_config,
    serving::{Client, LONG, listener},
    soon,
    time::turns,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::yield_now,
    time::{advance, pause, resume},
};
use tonic::transport::server::Connected;

/// Listens. Returns the listener, its address, and the reports of its connections.
async fn observed(
    change: impl FnOnce(TlsListener) -> TlsListener,
) -> (TlsListener, SocketAddr, mpsc::UnboundedReceiver<ConnectionReport>) {
    let (sender, ends) = mpsc::unbounded_channel();
    let listener = change(listener().await).on_end(move |end| {
        let _ = sender.send(end.clone());
    });
    let address = listener.local_addr().expect("an address");
    (listener, address, ends)
}

/// Accepts in a task, and drops each connection.
pub(crate) fn serve(mut listener: TlsListener) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move { while listener.accept().await.is_some() {} })
}

/// Accepts in a task, and shuts each connection down: its client receives its tickets before the end.
pub(crate) fn serve_and_close(mut listener: TlsListener) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while let Some((mut stream, _)) = listener.accept().await {
            let _ = stream.shutdown().await;
        }
    })
}

#[tokio::test]
async fn sockets_have_their_options() {
    let limit = Duration::from_secs(7);
    let (mut listener, address, _ends) = observed(|listener| listener.tcp_user_timeout(limit)).await;
    let client = tokio::spawn(Client::connect(address));
    let (stream, _) = soon(listener.accept()).await.expect("a connection");
    let tcp = stream.get_ref().get_ref().get_ref().0;
    assert!(tcp.nodelay().expect("an option"));
    #[cfg(target_os = "linux")]
    assert_eq!(rustix::net::sockopt::tcp_user_timeout(tcp).expect("an option"), 7000);
    soon(client).await.expect("no panic");
}

#[tokio::test]
async fn a_silent_peer_holds_up_nobody() {
    let (mut listener, address, _ends) = observed(|listener| listener).await;
    let _silent = TcpStream::connect(address).await.expect("a listener");
    let client = tokio::spawn(Client::connect(address));
    let (_stream, peer) = soon(listener.accept()).await.expect("a connection");
    let client = soon(client).await.expect("no panic");
    assert_eq!(peer, client.stream.get_ref().0.local_addr().expect("an address"));
}

#[tokio::test]
async fn the_end_is_told_once_for_each_connection_whatever_the_peer_says() {
    let (listener, address, mut ends) =
        observed(|listener| listener.handshake_timeout(Duration::from_millis(100))).await;
    let task = serve(listener);
    let mut peers = Vec::new();
    for said in [&b""[..], &[0xff; 500], b"GET / HTTP/1.1\r\n\r\n", &[0x16, 3, 1, 0, 200, 1]] {
        let mut tcp = TcpStream::connect(address).await.expect("a listener");
        tcp.write_all(said).await.expect("sent");
        let end = soon(ends.recv()).await.expect("told");
        assert!(!end.handshake_finished(), "{said:?}");
        assert_ne!(end.ending(), Ending::Aborted, "{said:?}");
        peers.push(tcp);
    }
    // The client leaves before its first byte.
    drop(TcpStream::connect(address).await.expect("a listener"));
    assert!(!soon(ends.recv()).await.expect("told").handshake_finished());
    // No protocol in common.
    let mut config = client_config(&rustls::version::TLS13);
    config.alpn_protocols = vec![b"nothing".to_vec()];
    assert!(Client::try_connect(address, config).await.is_err(), "refused");
    assert!(!soon(ends.recv()).await.expect("told").handshake_finished());
    // The handshake is finished, and the server drops the connection.
    let mut client = Client::connect(address).await;
    assert_eq!(client.read_to_end().await, (vec![], End::Truncation));
    let end = soon(ends.recv()).await.expect("told");
    assert_eq!((end.handshake_finished(), end.ending()), (true, Ending::Aborted));
    task.abort();
    assert!(soon(ends.recv()).await.is_none(), "each once");
}

#[tokio::test]
async fn the_end_is_told_where_the_listener_is_dropped() {
    let (mut listener, address, mut ends) = observed(|listener| listener).await;
    let _silent = TcpStream::connect(address).await.expect("a listener");
    let client = tokio::spawn(Client::connect(address));
    let (stream, _) = soon(listener.accept()).await.expect("a connection");
    let other = soon(client).await.expect("no panic");
    drop(listener);
    assert!(!soon(ends.recv()).await.expect("told").handshake_finished());
    drop(stream);
    assert!(soon(ends.recv()).await.expect("told").handshake_finished());
    assert!(soon(ends.recv()).await.is_none(), "each once");
    drop(other);
}

#[test]
fn the_end_is_told_where_the_runtime_is_dropped() {
    let build =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let (server, client) = (build(), build());
    let (mut listener, address, mut ends) = server.block_on(observed(|listener| listener));
    server.spawn(async move {
        let mut held = Vec::new();
        while let Some((mut stream, _)) = listener.accept().await {
            stream.write_all(b"!").await.expect("sent");
            held.push(stream);
        }
    });
    let _silent = client.block_on(TcpStream::connect(address)).expect("a listener");
    let mut served = client.block_on(Client::connect(address));
    client.block_on(served.stream.read_u8()).expect("a byte");
    server.shutdown_timeout(Duration::from_secs(5));
    let mut told = Vec::new();
    client.block_on(async {
        while let Some(end) = soon(ends.recv()).await {
            told.push(end.handshake_finished());
        }
    });
    told.sort();
    assert_eq!(told, [false, true]);
}

/// A whole ClientHello, and nothing more.
async fn speaking(address: SocketAddr) -> TcpStream {
    let mut tcp = TcpStream::connect(address).await.expect("a listener");
    let name = ServerName::try_from("localhost").expect("a name");
    let config = Arc::new(client_config(&rustls::version::TLS13));
    let mut tls = rustls::ClientConnection::new(config, name).expect("a client");
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).expect("in memory");
    tcp.write_all(&hello).await.expect("sent");
    tcp
}

#[tokio::test]
async fn the_silent_are_shed_first_then_the_oldest() {
    let timeout = Duration::from_secs(4);
    let (mut listener, address, mut ends) =
        observed(|listener| listener.max_handshakes(2).handshake_timeout(timeout)).await;
    async fn turns(listener: &mut TlsListener) {
        for _ in 0..50 {
            tokio::select! {
                biased;
                _ = listener.accept() => panic!("no handshake is done"),
                () = yield_now() => {}
            }
        }
    }
    let speaks = speaking(address).await;
    turns(&mut listener).await;
    let silent = TcpStream::connect(address).await.expect("a listener");
    turns(&mut listener).await;
    let other = speaking(address).await;
    turns(&mut listener).await;
    assert_eq!(listener.shed(), 0, "it has just come");
    let shed = async |listener: &mut TlsListener, ends: &mut mpsc::UnboundedReceiver<ConnectionReport>| {
        tokio::select! {
            _ = listener.accept() => panic!("no handshake is done"),
            end = soon(ends.recv()) => end.expect("told").peer(),
        }
    };
    let address_of = |tcp: &TcpStream| tcp.local_addr().expect("an address");
    assert_eq!(shed(&mut listener, &mut ends).await, address_of(&silent));
    turns(&mut listener).await;
    let third = speaking(address).await;
    assert_eq!(shed(&mut listener, &mut ends).await, address_of(&speaks), "the oldest, where all speak");
    assert_eq!(listener.shed(), 2);
    drop((other, third));
}

/// The process was stopped for a moment: both clients have sent their ClientHello, and the server has read neither.
#[tokio::test]
async fn a_client_that_has_spoken_is_not_shed_because_the_server_is_late() {
    let (mut listener, address, _ends) = observed(|listener| listener.max_handshakes(1)).await;
    let clients = [speaking(address).await, speaking(address).await];
    // Until the runtime knows that they wait.
    turns(50).await;
    assert!(poll!(pin!(listener.accept())).is_pending());
    pause();
    // Polled once, so that no other task runs.
    assert!(poll!(pin!(advance(Duration::from_secs(1)))).is_pending());
    assert!(poll!(pin!(listener.accept())).is_pending());
    resume();
    assert_eq!(listener.shed(), 0);
    drop(clients);
}

/// Far more connections come at once than may be in their handshake. None is shed for another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_is_served() {
    const BURST: usize = 500;
    let (mut listener, address, _ends) = observed(|listener| listener.max_handshakes(10).handshake_timeout(LONG)).await;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client_config(&rustls::version::TLS13)));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..BURST {
        let tcp = TcpStream::connect(address).await.expect("the backlog");
        let mut handshake = Box::pin(connector.connect(ServerName::try_from("localhost").expect("a name"), tcp));
        // It sends its ClientHello. How fast the clients of this process are is not the question.
        assert!(poll!(&mut handshake).is_pending());
        clients.spawn(handshake);
    }
    let mut served = Vec::new();
    while served.len() < BURST {
        served.push(soon(listener.accept()).await.expect("a connection"));
    }
    let finished = soon(clients.join_all()).await;
    assert_eq!(finished.iter().filter(|client| client.is_ok()).count(), BURST);
    assert_eq!(listener.shed(), 0);
}

#[tokio::test]
async fn accept_can_be_dropped_at_any_poll() {
    let (mut listener, address, _ends) = observed(|listener| listener).await;
    let clients = tokio::spawn(async move {
        let mut clients = Vec::new();
        for _ in 0..20 {
            clients.push(Client::connect(address).await);
        }
        clients
    });
    let mut served = Vec::new();
    while served.len() < 20 {
        tokio::select! {
            biased;
            stream = listener.accept() => served.push(stream.expect("a connection")),
            () = yield_now() => {}
        }
    }
    soon(clients).await.expect("no panic");
}

#[tokio::test]
async fn a_blocking_socket_is_made_non_blocking() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    socket.set_nonblocking(false).expect("an option");
    let mut listener = TlsListener::from_std(socket, server_config(&rustls::version::TLS13)).expect("a listener");
    let address = listener.local_addr().expect("an address");
    tokio::select! {
        biased;
        _ = listener.accept() => panic!("nobody connects"),
        () = yield_now() => {}
    }
    let client = tokio::spawn(Client::connect(address));
    let _stream = soon(listener.accept()).await.expect("a connection");
    soon(client).await.expect("no panic");
}

#[tokio::test]
async fn what_comes_before_tls_is_read_by_the_hook() {
    let hook = |tcp: TcpStream, _peer: SocketAddr| async move {
        let mut tcp = tokio::io::BufReader::with_capacity(1, tcp);
        let mut line = String::new();
        tcp.read_line(&mut line).await?;
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let ["PROXY", "TCP4", source, _, port, _] = words[..] else {
            return Err(io::Error::other("not from the balancer"));
        };
        let parse = |_| io::Error::other("not an address");
        let peer = format!("{source}:{port}").parse().map_err(parse)?;
        Ok((tcp.into_inner(), peer))
    };
    let (mut listener, address, mut ends) = observed(|listener| listener.before_tls(hook)).await;
    let mut refused = TcpStream::connect(address).await.expect("a listener");
    refused.write_all(b"hello\r\n").await.expect("sent");
    let client = tokio::spawn(async move {
        let mut tcp = TcpStream::connect(address).await.expect("a listener");
        tcp.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 443\r\n").await.expect("sent");
        Client::over(tcp, client_config(&rustls::version::TLS13)).await
    });
    let (stream, peer) = soon(listener.accept()).await.expect("a connection");
    assert_eq!(peer, ([192, 0, 2, 7], 40000).into());
    assert_eq!(stream.connect_info().get_ref().remote_addr(), Some(peer), "what tonic's handlers get");
    soon(client).await.expect("no panic");
    drop(stream);
    let mut told = [soon(ends.recv()).await.expect("told"), soon(ends.recv()).await.expect("told")];
    told.sort_by_key(|end| end.handshake_finished());
    assert_eq!(told[0].peer(), refused.local_addr().expect("an address"));
    assert_eq!(told[1].peer(), peer);
    assert_eq!(refused.read(&mut [0; 1]).await.ok().unwrap_or_default(), 0);
}

#[tokio::test]
async fn a_hook_that_panics_ends_one_connection() {
    let hook = |_: TcpStream, _: SocketAddr| async { panic!("as a hook may") };
    let (listener, address, mut ends) = observed(|listener| listener.before_tls(hook)).await;
    let task = serve(listener);
    for _ in 0..2 {
        let _client = TcpStream::connect(address).await.expect("a listener");
        assert!(!soon(ends.recv()).await.expect("told").handshake_finished());
    }
    task.abort();
}

#[tokio::test]
async fn a_new_configuration_is_used_at_once_and_sessions_go_on() {
    let (listener, address, _ends) = observed(|listener| listener).await;
    let config = listener.config_handle();
    let task = serve_and_close(listener);
    let resuming = client_config(&rustls::version::TLS13);
    let certificate_of =
        |client: &Client| client.stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone();
    let mut first = Client::connect_with(address, resuming.clone()).await;
    first.read_to_end().await;

    let certified = rcgen::generate_simple_self_signed(["localhost".into()]).expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let new = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .expect("a certificate");
    config.replace(new);

    let resumed = Client::connect_with(address, resuming).await;
    assert_eq!(resumed.stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certified.cert.der().clone()).expect("a root");
    let trusting = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let fresh = Client::connect_with(address, trusting).await;
    assert_eq!(certificate_of(&fresh), *certified.cert.der());
    assert_ne!(certificate_of(&first), *certified.cert.der());
    task.abort();
}

/// Of two configurations without client authentication, the new one's storage counts, if it has set one.
#[tokio::test]
async fn a_storage_of_the_new_configuration_is_respected() {
    for version in VERSIONS {
        let listener = TlsListener::bind("127.0.0.1:0", server_config(version)).await.expect("a free port");
        let (address, config) = (listener.local_addr().expect("an address"), listener.config_handle());
        serve_and_close(listener);
        let client = client_config(version);
        let mut kinds = Vec::new();
        for storage in [None, None, Some(Arc::new(NoServerSessionStorage {}))] {
            let mut new = server_config(version);
            if let Some(storage) = storage {
                new.session_storage = storage;
            }
            config.replace(new);
            let mut connection = Client::connect_with(address, client.clone()).await;
            connection.read_to_end_and_close().await;
            kinds.push(connection.stream.get_ref().1.handshake_kind().expect("a handshake"));
        }
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Full], "{version:?}");
    }
}

#[tokio::test]
async fn what_the_system_has_accepted_is_served_after_close() {
    for limit in [TlsListener::MAX_HANDSHAKES, 10] {
        let (mut listener, address, mut ends) = observed(|listener| listener.max_handshakes(limit)).await;
        let mut connected = Vec::new();
        for _ in 0..50 {
            connected.push(TcpStream::connect(address).await.expect("the backlog"));
        }
        listener.close();
        listener.close();
        TcpStream::connect(address).await.expect_err("closed");
        let clients = connected.into_iter().map(|tcp| {
            tokio::spawn(async move {
                let mut client = Client::over(tcp, client_config(&rustls::version::TLS13)).await;
                client.read_to_end().await
            })
        });
        let clients: Vec<_> = clients.collect();
        let mut served = 0;
        while let Some((mut stream, _)) = soon(listener.accept()).await {
            stream.write_all(b"served").await.expect("sent");
            stream.shutdown().await.expect("sent");
            served += 1;
        }
        assert_eq!((served, listener.shed()), (50, 0));
        for client in clients {
            assert_eq!(soon(client).await.expect("no panic"), (b"served".to_vec(), End::CloseNotify));
        }
        for _ in 0..50 {
            assert!(soon(ends.recv()).await.expect("told").handshake_finished());
        }
        assert!(soon(listener.accept()).await.is_none(), "and it stays closed");
    }
}

#[tokio::test]
async fn a_drain_closes_the_listener_and_waits_for_its_handshakes() {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let drain = ServerDrain::on(async { drop(stopped.await) }).last_request(LONG).grace_period(LONG);
    let (mut listener, address, _ends) = observed(|listener| listener.with_drain(&drain.handle())).await;
    let tcp = TcpStream::connect(address).await.expect("a listener");
    let serve = async move {
        let mut served = 0;
        while let Some((mut stream, _)) = listener.accept().await {
            stream.shutdown().await.expect("sent");
            served += 1;
        }
        assert_eq!(served, 1);
    };
    let handle = drain.handle();
    let run = tokio::spawn(drain.run(serve));
    stop.send(()).expect("a drain");
    soon(handle.reached(tls_shutdown::server::DrainPhase::LastRequest)).await;
    while TcpStream::connect(address).await.is_ok() {}
    let mut client = Client::over(tcp, client_config(&rustls::version::TLS13)).await;
    assert_eq!(client.read_to_end().await.1, End::CloseNotify);
    drop(client);
    let (report, _) = soon(run).await.expect("no panic");
    assert!(report.handshakes_finished() >= 1 && report.left() == 0, "{report}");
}
