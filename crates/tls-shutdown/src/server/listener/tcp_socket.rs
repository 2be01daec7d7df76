//! [`TcpSocket`]: a listening TCP socket that serves clients in the middle of their TCP handshake before a server drain closes it.

use std::{
    future::Future,
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use tokio::net::{TcpListener, TcpStream, ToSocketAddrs, lookup_host};

use super::{bind::listen, listening_socket::Listener};
use crate::runtime::{debug::debug_struct, forward::forward_socket};

/// Listens on a TCP socket without TLS. On Linux, a server drain also serves the clients that are in the middle of their TCP handshake when
/// it closes the socket.
///
/// Otherwise, the system resets these clients, and those that have entered its queue behind the last accept. Their requests are lost, and a
/// balancer does not repeat a POST. So the drain first lets no new handshake begin: the system ignores SYN on this socket. It waits until the
/// handshakes in progress are over, for [`STOP_TIMEOUT`](Self::STOP_TIMEOUT) at most, and accepts their connections. The system of a client
/// that connects in this time sends SYN again after a second. It is refused then, or reaches a successor.
///
/// Its limits:
///
/// - A handshake that takes longer is reset.
/// - Under a flood of handshakes, the system forgets those in progress (SYN cookies, `tcp(7)`). They are reset.
/// - The drain does not do this if another process may have the socket: after somebody has taken its descriptor by
///   [`AsFd`](std::os::fd::AsFd), and on a [`tokio::net::TcpListener`]. A successor that has the socket accepts these clients. If there is
///   none, use a [notice](crate::server::ServerDrain::notice), so that no client connects any more.
/// - On other systems, this is an ordinary listener.
///
/// [`TlsListener::bind`](crate::server::TlsListener::bind) makes such a socket, too.
///
/// ```no_run
/// # use tls_shutdown::server::{DrainReport, Readiness, Server, ServerDrain, TcpSocket};
/// # async fn example(app: Readiness) -> std::io::Result<DrainReport> {
/// let server = Server::new(TcpSocket::bind("0.0.0.0:8080").await?);
/// Ok(server.drain(ServerDrain::on_terminate_signal()?).serve(app).await)
/// # }
/// ```
pub struct TcpSocket {
    listener: TcpListener,
    /// Whether another process may have the socket.
    may_be_shared: AtomicBool,
    /// Ends once no handshake is in progress. `Some` once no new one can begin.
    stop: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl TcpSocket {
    /// For how long a drain waits until the TCP handshakes in progress are over: longer than most round trips take.
    pub const STOP_TIMEOUT: Duration = Duration::from_millis(500);

    /// Listens on the first of the addresses on which that is possible.
    ///
    /// # Errors
    ///
    /// The last error of the system if no address is possible.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// After a drop, nothing listens.
    pub async fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        let mut result = Err(ErrorKind::AddrNotAvailable.into());
        for address in lookup_host(address).await? {
            result = listen(address);
            if result.is_ok() {
                break;
            }
        }
        Ok(Self { listener: result?, may_be_shared: AtomicBool::new(false), stop: None })
    }

    /// A socket that somebody else has made.
    pub(super) fn of_unknown_origin(listener: TcpListener) -> Self {
        Self { listener, may_be_shared: AtomicBool::new(true), stop: None }
    }

    /// The address of the socket.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The socket, for somebody who may share it with another process.
    fn lend(&self) -> &TcpListener {
        // Nothing else depends on it.
        self.may_be_shared.store(true, Ordering::Relaxed);
        &self.listener
    }
}

impl Listener for TcpSocket {
    type Stream = TcpStream;
    type Peer = SocketAddr;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        self.listener.poll_accept(cx)
    }

    fn poll_stop(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if *self.may_be_shared.get_mut() {
            return Poll::Ready(());
        }
        self.stop.get_or_insert_with(|| stop(&self.listener)).as_mut().poll(cx)
    }

    fn accept_queued(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let accepted = self.listener.accept_queued();
        #[cfg(target_os = "linux")]
        if let (Ok((tcp, _)), Some(_)) = (&accepted, &self.stop) {
            // A connection inherits the filter of its listener. Without one, this fails.
            let _ = socket2::SockRef::from(tcp).detach_filter();
        }
        accepted
    }

    fn has_waiting(&self) -> bool {
        self.listener.has_waiting()
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        Listener::local_addr(&self.listener)
    }
}

forward_socket!({} TcpSocket, TcpListener, |socket| socket.lend());

debug_struct!({} TcpSocket, |socket| { address: socket.local_addr() });

/// Lets no new handshake begin. The future ends once none is in progress.
#[cfg(target_os = "linux")]
fn stop(listener: &TcpListener) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
    match (ignore_syn(listener), listener.local_addr()) {
        (Ok(()), Ok(address)) => Box::pin(until_handshakes_are_over(address)),
        (Err(error), _) | (_, Err(error)) => {
            tracing::debug!(%error, "new TCP handshakes may begin until the listening socket is closed");
            Box::pin(std::future::ready(()))
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn stop(_: &TcpListener) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
    Box::pin(std::future::ready(()))
}

/// Filters out segments with SYN, with which a handshake begins (RFC 9293 section 3.5). The filter goes with the socket (`socket(7)`).
#[cfg(target_os = "linux")]
fn ignore_syn(listener: &TcpListener) -> io::Result<()> {
    use socket2::{SockFilter, SockRef};

    /// The position of the flags in a segment, and SYN among them (RFC 9293 section 3.1).
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    // The codes of classic BPF, from <linux/bpf_common.h>.
    const LOAD_BYTE: u16 = 0x30;
    const SKIP_UNLESS_ANY_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;

    SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(SKIP_UNLESS_ANY_SET, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

/// Waits for the [timeout](TcpSocket::STOP_TIMEOUT) at most, and as long if the system does not tell.
#[cfg(target_os = "linux")]
async fn until_handshakes_are_over(address: SocketAddr) {
    use tokio::{
        task::spawn_blocking,
        time::{Instant, sleep, timeout},
    };

    use crate::server::unacknowledged::has_handshakes;

    /// Most handshakes end sooner.
    const LOOK_INTERVAL: Duration = Duration::from_millis(5);

    let over = async {
        loop {
            let asked_at = Instant::now();
            if let Ok(Some(false)) = spawn_blocking(move || has_handshakes(address)).await {
                return;
            }
            // A large table keeps the kernel busy for a while.
            sleep(LOOK_INTERVAL.max(asked_at.elapsed())).await;
        }
    };
    if timeout(TcpSocket::STOP_TIMEOUT, over).await.is_err() {
        tracing::debug!(%address, "TCP handshakes in progress may be reset");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{future::poll_fn, net::Shutdown};

    use socket2::{SockFilter, SockRef};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::timeout,
    };

    use super::*;
    use crate::server::unacknowledged::has_handshakes;

    /// The client's half of the handshake is on its way: the server's system does not see it yet.
    #[tokio::test]
    async fn a_handshake_in_progress_is_waited_for() {
        for listen in ["127.0.0.1:0", "[::]:0"] {
            let mut socket = TcpSocket::bind(listen).await.expect("a free port");
            let address = SocketAddr::new([127, 0, 0, 1].into(), socket.local_addr().expect("an address").port());
            let only_syn = [(0x30, 0, 0, 13), (0x45, 1, 0, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, u32::MAX)];
            let only_syn = only_syn.map(|(code, jt, jf, k)| SockFilter::new(code, jt, jf, k));
            SockRef::from(&socket.listener).attach_filter(&only_syn).expect("Linux has filters");
            // The client's system believes that it is connected, and sends these bytes again and again.
            let mut client = TcpStream::connect(address).await.expect("SYN is answered");
            client.write_all(b"POST").await.expect("a connection");
            let listening = socket.local_addr().expect("an address");
            assert_eq!(has_handshakes(listening), Some(true));
            assert_eq!(socket.accept_queued().map_err(|error| error.kind()).err(), Some(ErrorKind::WouldBlock));

            poll_fn(|cx| socket.poll_stop(cx)).await;
            assert_eq!(has_handshakes(listening), Some(false));
            let (mut accepted, _) = socket.accept_queued().expect("the client's half has arrived");
            let filter = SockRef::from(&accepted).detach_filter();
            assert_eq!(filter.map_err(|error| error.kind()).err(), Some(ErrorKind::NotFound), "it is filtered");
            drop(socket);
            accepted.write_all(b"created").await.expect("a connection");
            accepted.shutdown().await.expect("a connection");
            let mut bytes = [0; 4];
            accepted.read_exact(&mut bytes).await.expect("the client's bytes");
            assert_eq!(&bytes, b"POST");
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.expect("no reset");
            assert_eq!(answer, b"created");
        }
    }

    #[tokio::test]
    async fn no_new_handshake_begins() {
        let mut socket = TcpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("an address");
        let queued = TcpStream::connect(address).await.expect("a listener");
        poll_fn(|cx| socket.poll_stop(cx)).await;
        let mut late = tokio::spawn(TcpStream::connect(address));
        let (accepted, peer) = socket.accept_queued().expect("who has connected before");
        assert_eq!(peer, queued.local_addr().expect("an address"));
        SockRef::from(&accepted).shutdown(Shutdown::Write).expect("a connection");
        assert_eq!({ queued }.read(&mut [0]).await.expect("FIN"), 0);
        let answer = timeout(Duration::from_millis(100), &mut late).await;
        assert!(answer.is_err(), "{answer:?}");
        drop(socket);
        // Its system sends SYN again after a second.
        let late = timeout(Duration::from_secs(5), late).await.expect("an answer").expect("no panic");
        assert_eq!(late.map_err(|error| error.kind()).err(), Some(ErrorKind::ConnectionRefused));
    }

    /// A successor that has the socket must go on receiving clients.
    #[tokio::test]
    async fn a_socket_that_may_be_shared_is_not_stopped() {
        let lent = TcpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let duplicate = std::os::fd::AsFd::as_fd(&lent).try_clone_to_owned().expect("a descriptor");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        for mut socket in [lent, TcpSocket::of_unknown_origin(listener)] {
            poll_fn(|cx| socket.poll_stop(cx)).await;
            let client = TcpStream::connect(socket.local_addr().expect("an address"));
            timeout(Duration::from_secs(5), client).await.expect("an answer").expect("it listens");
        }
        drop(duplicate);
    }
}
