//! Unix sockets as listeners: tokio's own, and [`UnixSocket`], which looks after its file.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{self, Path, PathBuf},
    task::{Context, Poll, ready},
};

use tokio::net::{UnixListener, UnixStream};

use super::listening_socket::Listener;
use crate::{runtime::debug::debug_struct, server::peer::Peer};

/// The file of the socket stays, as always with tokio. [`UnixSocket`] removes it.
impl Listener for UnixListener {
    type Stream = UnixStream;
    type Peer = Peer;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(UnixStream, Peer)>> {
        let (stream, _) = ready!(Self::poll_accept(self, cx))?;
        Poll::Ready(Ok((stream, Peer::Unix)))
    }

    fn accept_queued(&mut self) -> io::Result<(UnixStream, Peer)> {
        #[cfg(target_os = "linux")]
        let stream = std::os::unix::net::UnixStream::from(super::accept_errors::accept_now(self)?);
        #[cfg(not(target_os = "linux"))]
        let stream = {
            let socket = std::os::fd::AsFd::as_fd(self).try_clone_to_owned()?;
            let (stream, _) = std::os::unix::net::UnixListener::from(socket).accept()?;
            stream.set_nonblocking(true)?;
            stream
        };
        Ok((UnixStream::from_std(stream)?, Peer::Unix))
    }

    #[cfg(target_os = "linux")]
    fn has_waiting(&self) -> bool {
        super::accept_errors::has_waiting(self)
    }
}

/// Listens on a Unix socket, and removes its file when it closes.
///
/// The file is removed before the queue is emptied, so that no client can connect and then be refused. If a successor has replaced the file,
/// it stays. An abstract name has no file: it begins with a NUL byte (Linux, `unix(7)`).
///
/// ```no_run
/// # use tls_shutdown::server::{DrainReport, Readiness, Server, ServerDrain, UnixSocket};
/// # async fn example(app: Readiness) -> std::io::Result<DrainReport> {
/// let server = Server::new(UnixSocket::bind("/run/app/http.sock").await?);
/// Ok(server.drain(ServerDrain::on_terminate_signal()?).serve(app).await)
/// # }
/// ```
pub struct UnixSocket {
    listener: UnixListener,
    /// Absolute, because the process may change its working directory, or an abstract name.
    path: PathBuf,
    /// The device and the number of the file. `None` once it is removed, and for an abstract name.
    file: Option<(u64, u64)>,
}

impl UnixSocket {
    /// Listens at `path`, or under an abstract name. Replaces the socket of a server that does not run any more. If two servers do that at the
    /// same moment, both may listen, and clients reach only the later one.
    ///
    /// # Errors
    ///
    /// [`AddrInUse`](ErrorKind::AddrInUse) if a server listens there, or if the file is no socket. Those of the system.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// After a drop, nothing listens. The file of a server that does not run any more may be removed.
    pub async fn bind(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        if path.as_os_str().as_bytes().first() == Some(&0) {
            return Ok(Self { listener: UnixListener::bind(path)?, path: path.to_owned(), file: None });
        }
        // The system refuses a connection to a file whose socket is closed.
        if UnixStream::connect(path).await.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
            && fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
        {
            fs::remove_file(path)?;
        }
        let absolute = path::absolute(path)?;
        // The given path may be short enough for the system, and the absolute one too long.
        let listener = UnixListener::bind(path)?;
        let file = Some(identity(&fs::symlink_metadata(path)?));
        Ok(Self { listener, path: absolute, file })
    }

    /// The absolute path of the socket's file, or its abstract name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn remove_file(&mut self) {
        let Some(file) = self.file.take() else { return };
        if fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == file)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the file of a socket");
        }
    }
}

impl Listener for UnixSocket {
    type Stream = UnixStream;
    type Peer = Peer;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(UnixStream, Peer)>> {
        Listener::poll_accept(&mut self.listener, cx)
    }

    fn accept_queued(&mut self) -> io::Result<(UnixStream, Peer)> {
        self.remove_file();
        self.listener.accept_queued()
    }

    fn has_waiting(&self) -> bool {
        self.listener.has_waiting()
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        self.remove_file();
    }
}

debug_struct!({} UnixSocket, |socket| { path: socket.path });

/// What distinguishes a file from another one at the same path.
fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}
