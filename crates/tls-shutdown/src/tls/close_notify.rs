//! [`CloseNotify`]: the alert, sealed, on its way to the transport.

use std::{
    io,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::AsyncWrite;

use crate::tls::{close_state::Goal, report::Ending, session::TlsSession, session_io::retry_interrupted, socket};

/// close_notify, sealed, and whatever rustls had queued before it.
#[derive(Debug)]
pub(crate) struct CloseNotify {
    bytes: [u8; Self::SIZE],
    unwritten: Range<usize>,
}

impl Default for CloseNotify {
    fn default() -> Self {
        Self { bytes: [0; Self::SIZE], unwritten: 0..0 }
    }
}

impl CloseNotify {
    /// An alert is a record of 31 bytes at most. An answer to a HelloRequest and one to a KeyUpdate may precede it.
    const SIZE: usize = 256;

    /// The number of bytes that the transport has not accepted.
    pub(crate) fn len(&self) -> usize {
        self.unwritten.len()
    }

    /// Lets rustls seal close_notify, and takes it out of rustls's queue.
    ///
    /// It must not stay in the queue: rustls may queue more behind it when the application reads on, an answer to a HelloRequest or a
    /// fatal alert, and nothing may follow close_notify (RFC 9846 section 6.1).
    ///
    /// # Errors
    ///
    /// `Refused` if rustls seals none. It has ended writing itself then, after a fatal error, or because the keys of the connection
    /// are used up (RFC 9846 section 5.5), and data may be lost.
    pub(crate) fn seal<S: TlsSession>(&mut self, session: &mut S) -> Result<(), Ending> {
        let mut connection = session.connection();
        connection.send_close_notify();
        let mut free = &mut self.bytes[..];
        while connection.wants_write() && !free.is_empty() {
            connection.write_tls(&mut free).map_err(|_| Ending::Refused)?;
        }
        self.unwritten = 0..Self::SIZE - free.len();
        if self.unwritten.is_empty() || connection.wants_write() { Err(Ending::Refused) } else { Ok(()) }
    }

    //= https://www.rfc-editor.org/rfc/rfc8446#section-4.6.3
    //# If the request_update field is set to "update_requested", then the
    //# receiver MUST send a KeyUpdate of its own with request_update set to
    //# "update_not_requested" prior to sending its next Application Data
    //# record.
    /// Writes the alert. No application data record follows, so no KeyUpdate is due.
    pub(crate) fn poll_write<S: TlsSession>(
        &mut self,
        transport: &mut S::Transport,
        goal: Goal,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.unwritten.is_empty() {
            let bytes = &self.bytes[self.unwritten.clone()];
            let written = match S::socket(transport) {
                Some(socket) if !goal.keeps_transport() => socket::poll_write_before_fin(socket, cx, bytes),
                _ => Pin::new(&mut *transport).poll_write(cx, bytes),
            };
            match ready!(retry_interrupted(written, cx))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                amount => self.unwritten.start += amount,
            }
        }
        Poll::Ready(Ok(()))
    }
}
