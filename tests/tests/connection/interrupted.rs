//! A transport that interrupts calls. An interrupted call has done nothing, and is no failure (`std::io::ErrorKind::Interrupted`).

use std::{
    io::{self, ErrorKind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tls_shutdown_tests::{
    Wire, client_config, connect_over,
    scripted::{POLICIES, each_kind},
    server_config,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// Interrupts every other call from `begins` on.
struct Interrupting {
    wire: Wire,
    begins: Arc<AtomicBool>,
    calls: usize,
}

impl Interrupting {
    fn call<T>(&mut self, call: impl FnOnce(Pin<&mut Wire>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.calls += usize::from(self.begins.load(Ordering::Relaxed));
        match self.calls % 2 {
            0 => call(Pin::new(&mut self.wire)),
            _ => Poll::Ready(Err(ErrorKind::Interrupted.into())),
        }
    }
}

impl AsyncRead for Interrupting {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.call(|wire| wire.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Interrupting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.call(|wire| wire.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.call(|wire| wire.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.call(|wire| wire.poll_shutdown(cx))
    }
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_call_is_made_again() {
    static DATA: [u8; 20_000] = [7; 20_000];
    for (side, version) in each_kind() {
        for policy in POLICIES {
            let begins = Arc::new(AtomicBool::new(false));
            let between = |wire| Interrupting { wire, begins: begins.clone(), calls: 0 };
            let (mut stream, mut peer) = connect_over(side, client_config(version), server_config(version), between);
            peer.wire.script(|script| script.room = 0);
            stream.write_all(&DATA).await.expect("buffered");
            peer.wire.script(|script| (script.room, script.piece) = (usize::MAX, 1000));
            peer.send(b"answer");
            begins.store(true, Ordering::Relaxed);
            let mut answer = Vec::new();
            while answer.len() < 6 {
                stream.read_buf(&mut answer).await.expect("data");
            }
            if policy == POLICIES[0] {
                stream.flush().await.expect("flushed");
            }
            peer.close_notify();
            stream.shutdown_with(policy).await.expect("the goal");
            assert_eq!(stream.read_to_end(&mut answer).await.expect("a clean end"), 0);
            assert_eq!(peer.receive(), Ok((DATA.to_vec(), true)));
            assert!(peer.wire.is_finished());
        }
    }
}
