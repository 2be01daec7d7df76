//! [`Observed`]: the transport below TLS, which writes what passes into a [`Timeline`].

use std::{
    io::{self, ErrorKind},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
    time::timeout,
};

use super::timeline::{Sender, Timeline, What};

#[derive(Debug)]
pub(crate) struct Observed {
    tcp: TcpStream,
    timeline: Timeline,
}

impl Observed {
    pub(crate) fn new(tcp: TcpStream, timeline: Timeline) -> Self {
        Self { tcp, timeline }
    }

    pub(crate) fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Discards what the server sends until it ends TCP, for `limit` at most. Returns how it has ended TCP.
    pub(crate) async fn wait_for_end(&mut self, limit: Duration) -> Option<What> {
        let end = async {
            let mut buffer = vec![0; 16 * 1024];
            while self.timeline.server_end().is_none() && self.read(&mut buffer).await.is_ok_and(|amount| amount > 0) {}
        };
        // What has not ended in time is open.
        let _ = timeout(limit, end).await;
        self.timeline.server_end()
    }

    /// Waits for a reset, for `limit` at most, also after FIN, when a read returns nothing new. Returns whether it came.
    pub(crate) async fn wait_for_reset(&self, limit: Duration) -> bool {
        let reset = async {
            if self.timeline.server_end() != Some(What::Reset)
                && self.tcp.ready(Interest::ERROR).await.is_ok()
                && let Ok(Some(error)) = self.tcp.take_error()
            {
                self.note(&error);
            }
        };
        // Without a reset there is nothing to tell.
        let _ = timeout(limit, reset).await;
        self.timeline.server_end() == Some(What::Reset)
    }

    fn note(&self, error: &io::Error) {
        if is_reset(error) {
            self.timeline.add_segment(Sender::Server, What::Reset);
        }
    }
}

/// Whether the error means that RST has come: at a write, it is a broken pipe if FIN came before.
pub(crate) fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe)
}

impl AsyncRead for Observed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.tcp).poll_read(cx, buffer));
        match (&result, &buffer.filled()[before..]) {
            (Ok(()), []) => self.timeline.add_segment(Sender::Server, What::Fin),
            (Ok(()), bytes) => self.timeline.add_bytes(Sender::Server, bytes),
            (Err(error), _) => self.note(error),
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Observed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.tcp).poll_write(cx, bytes));
        match &result {
            Ok(amount) => self.timeline.add_bytes(Sender::Client, &bytes[..*amount]),
            Err(error) => self.note(error),
        }
        Poll::Ready(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.tcp).poll_shutdown(cx));
        if result.is_ok() {
            self.timeline.add_segment(Sender::Client, What::Fin);
        }
        Poll::Ready(result)
    }
}
