//! systemd: the sockets that it has opened for this process, and the notifications of a service of `Type=notify`. Feature `systemd`.
//! Without systemd there are no sockets, and notifications have no effect.

use std::{env, ffi::OsStr, io, net::TcpListener, os::unix::net::UnixDatagram, time::Duration};

use sd_notify::NotifyState;
use tokio::time::{Instant, sleep, timeout};

use crate::server::{DrainHandle, DrainPhase};

/// How often systemd is notified during a drain.
const INTERVAL: Duration = Duration::from_secs(2);
/// How much longer than [`INTERVAL`] systemd waits for the next notification, so that a busy machine does not end the drain.
const EXTENSION: Duration = Duration::from_secs(10);

/// The pause after the queue of systemd's socket was full.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The phases of a drain, each with the next.
const PHASES: [(DrainPhase, DrainPhase); 4] = [
    (DrainPhase::Notice, DrainPhase::LastRequest),
    (DrainPhase::LastRequest, DrainPhase::Deadline),
    (DrainPhase::Deadline, DrainPhase::Exit),
    (DrainPhase::Exit, DrainPhase::Ended),
];

/// Returns the TCP sockets that systemd has opened for this process (`sd_listen_fds(3)`), in the order of the unit, or those that a
/// predecessor has passed in the same way. Ignores other sockets.
///
/// Pass them to [`TlsListener::from_std`](crate::server::TlsListener::from_std). If systemd owns the socket, connections are queued while
/// the service restarts, and none is refused.
///
/// # Errors
///
/// A descriptor cannot be used.
pub fn listening_sockets() -> io::Result<Vec<TcpListener>> {
    let mut descriptors = listenfd::ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..descriptors.len() {
        match descriptors.take_tcp_listener(index).and_then(|socket| socket.map(listening).transpose()) {
            Ok(Some(socket)) => sockets.push(socket),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                tracing::warn!(index, %error, "ignored a socket that does not listen for TCP");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

/// A TCP socket that does not listen is a connection that was passed, or one of the service's own in systemd's store (`FDSTORE=1`).
fn listening(socket: TcpListener) -> io::Result<TcpListener> {
    #[cfg(target_os = "linux")]
    if !rustix::net::sockopt::socket_acceptconn(&socket)? {
        // It is not ours to close.
        let descriptor = std::os::fd::IntoRawFd::into_raw_fd(socket);
        let message = format!("fd {descriptor} does not listen");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(socket)
}

/// Notifies systemd that the service is ready, and later of the progress of its drain (`sd_notify(3)`). Spawn it, or poll it beside the
/// server.
///
/// It sends `STOPPING=1` once for each drain. `STATUS=` contains the phase and the number of connections. `EXTEND_TIMEOUT_USEC=` is sent
/// every two seconds, so that `TimeoutStopSec` may be shorter than the [grace period](crate::server::ServerDrain::grace_period).
/// If systemd does not read them, notifications of the drain are lost, and the drain goes on.
///
/// ```no_run
/// # use tls_shutdown::{server::{ServerDrain, TlsListener}, integrations::systemd};
/// # async fn example(config: rustls::ServerConfig) -> std::io::Result<()> {
/// let socket = systemd::listening_sockets()?.pop().expect("a socket unit");
/// let listener = TlsListener::from_std(socket, config)?;
/// let drain = ServerDrain::on_terminate_signal()?;
/// tokio::spawn(systemd::notify(drain.handle()));
/// # let _ = listener;
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// Outside of a Tokio runtime with time enabled.
///
/// # Cancel safety
///
/// Dropping the future ends the notifications. Calling this again repeats them from the beginning.
pub async fn notify(drain: DrainHandle) {
    loop {
        tokio::select! {
            () = send_ready() => drain.reached(DrainPhase::Notice).await,
            () = drain.reached(DrainPhase::Notice) => {}
        }
        send(&[NotifyState::Stopping]);
        notify_of_phases(&drain).await;
        // A drain that was cancelled may begin anew.
        if !drain.is_ready() {
            break;
        }
    }
}

async fn notify_of_phases(drain: &DrainHandle) {
    for (phase, next_phase) in PHASES {
        while drain.phase() == phase {
            let left = drain.ends_at().map_or(Duration::ZERO, |end| end.saturating_duration_since(Instant::now()));
            let status = format!("{phase}, {} connections left, {} s at most", drain.connections(), left.as_secs());
            // At the end of the grace period systemd should end a service that still runs.
            let extension = u32::try_from((left.min(EXTENSION) + INTERVAL).as_micros()).unwrap_or(u32::MAX);
            send(&[NotifyState::Status(&status), NotifyState::ExtendTimeoutUsec(extension)]);
            let is_over = timeout(INTERVAL, drain.reached(next_phase)).await.is_ok();
            if !is_over && left.is_zero() && drain.phase() == phase {
                // The drain was dropped, and never ends.
                return;
            }
        }
    }
    if drain.phase() == DrainPhase::Ended {
        send(&[NotifyState::Status("drained")]);
    }
}

/// Waits for a place in the queue, because systemd would end a service that it does not know to be ready.
async fn send_ready() {
    let ready = [NotifyState::Ready, NotifyState::Status("serving")];
    while let Err(error) = try_send(&ready) {
        if error.kind() != io::ErrorKind::WouldBlock {
            return warn(&error);
        }
        sleep(RETRY_PAUSE).await;
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = try_send(states) {
        warn(&error);
    }
}

/// Sends without blocking, unlike `sd_notify::notify`: a manager that does not read must not stop the server.
fn try_send(states: &[NotifyState<'_>]) -> io::Result<()> {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    connect(&socket, &path)?;
    let message: String = states.iter().map(|state| format!("{state}\n")).collect();
    socket.send(message.as_bytes()).map(|_| ())
}

/// Connects to a path, or to an abstract name behind `@` (`sd_notify(3)`).
fn connect(socket: &UnixDatagram, path: &OsStr) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use std::os::{
            linux::net::SocketAddrExt,
            unix::{ffi::OsStrExt, net::SocketAddr},
        };

        if let Some(name) = path.as_bytes().strip_prefix(b"@") {
            return socket.connect_addr(&SocketAddr::from_abstract_name(name)?);
        }
    }
    socket.connect(path)
}

fn warn(error: &io::Error) {
    tracing::warn!(%error, "cannot notify systemd");
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::advance;

    use super::*;
    use crate::server::ServerDrain;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_connection_is_no_socket_that_listens() {
        use std::{io::Read, net::TcpStream, os::fd::OwnedFd};

        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("an address");
        let connection = OwnedFd::from(TcpStream::connect(address).expect("a listener"));
        let error = listening(TcpListener::from(connection)).expect_err("it does not listen");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        let (mut accepted, _) = socket.accept().expect("the connection");
        accepted.set_nonblocking(true).expect("an option");
        let error = accepted.read(&mut [0]).expect_err("it stays open");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
        assert_eq!(listening(socket).expect("it listens").local_addr().expect("an address"), address);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_notification_reaches_an_abstract_name() {
        use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};

        let name = format!("tls-shutdown-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let systemd = UnixDatagram::bind_addr(&address).expect("a free name");
        let socket = UnixDatagram::unbound().expect("a socket");
        connect(&socket, format!("@{name}").as_ref()).expect("connected");
        socket.send(b"READY=1").expect("sent");
        let mut message = [0; 7];
        systemd.recv(&mut message).expect("a notification");
        assert_eq!(&message, b"READY=1");
    }

    #[tokio::test(start_paused = true)]
    async fn notifications_go_on_after_a_drain_that_was_cancelled() {
        let drain = ServerDrain::on(pending()).notice(EXTENSION);
        let handle = drain.handle();
        let notifications = tokio::spawn(notify(handle.clone()));
        let running = tokio::spawn(drain.run(handle.reached(DrainPhase::LastRequest)));
        for _ in 0..2 {
            handle.start();
            handle.reached(DrainPhase::Notice).await;
            sleep(INTERVAL).await;
            assert!(handle.cancel());
            advance(EXTENSION * 2).await;
            sleep(INTERVAL).await;
            assert!(!notifications.is_finished());
        }
        handle.start();
        running.await.expect("no panic");
        notifications.await.expect("no panic");
    }
}
