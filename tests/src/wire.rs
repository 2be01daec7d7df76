//! A transport whose every answer is scripted. It needs no runtime.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The transport. A clone is another handle to the same transport: the test keeps one to script it.
#[derive(Clone, Debug, Default)]
pub struct Wire(Arc<Mutex<Script>>);

/// What the transport answers, and what was done to it.
#[derive(Debug)]
pub struct Script {
    /// Bytes to be read.
    pub inbound: VecDeque<u8>,
    /// What a read returns after them.
    pub then: Then,
    /// The maximum number of bytes that one call reads or writes.
    pub piece: usize,
    /// How many more bytes are accepted for writing.
    pub room: usize,
    /// What a write returns when there is no room.
    pub full: Full,
    /// Whether written bytes are sent only by a flush, as with OpenSSL's buffering BIO.
    pub buffering: Buffering,
    /// How many polls of flush return `Pending` first.
    pub flush_delay: usize,
    /// How many polls of shutdown return `Pending` first.
    pub finish_delay: usize,
    /// The error that a finished shutdown returns.
    pub finish_error: Option<io::ErrorKind>,
    /// Bytes that were sent and that the peer has not taken yet.
    pub outbound: Vec<u8>,
    /// Bytes that wait for a flush.
    pub buffered: Vec<u8>,
    /// What was done, in order.
    pub log: Vec<Done>,
    /// Number of polls of a read.
    pub reads: usize,
    /// The last task that waits to read, and the last that waits to write. No other is woken, as with a socket of tokio.
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What a read returns after the last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// `Pending`.
    Pending,
    /// FIN.
    End,
    /// An error.
    Error(io::ErrorKind),
}

/// What a write returns when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// `Pending`.
    Pending,
    /// An error.
    Error(io::ErrorKind),
}

/// When written bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffering {
    /// At once.
    Off,
    /// When the transport is flushed.
    UntilFlush,
}

/// What was done to the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// This many bytes were accepted.
    Written(usize),
    /// It was flushed.
    Flushed,
    /// Its write side was shut down.
    Finished,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            inbound: VecDeque::new(),
            then: Then::Pending,
            piece: usize::MAX,
            room: usize::MAX,
            full: Full::Pending,
            buffering: Buffering::Off,
            flush_delay: 0,
            finish_delay: 0,
            finish_error: None,
            outbound: Vec::new(),
            buffered: Vec::new(),
            log: Vec::new(),
            reads: 0,
            reader: None,
            writer: None,
        }
    }
}

impl Wire {
    /// Changes the script, and wakes the tasks that wait for the transport.
    pub fn script<R>(&self, change: impl FnOnce(&mut Script) -> R) -> R {
        let mut script = self.lock();
        let result = change(&mut script);
        let wakers = [script.reader.take(), script.writer.take()];
        drop(script);
        wakers.into_iter().flatten().for_each(Waker::wake);
        result
    }

    /// Appends `bytes` to those to be read.
    pub fn deliver(&self, bytes: &[u8]) {
        self.script(|script| script.inbound.extend(bytes));
    }

    /// Reserves memory, so that the transport allocates none while a test counts allocations.
    pub fn reserve(&self) {
        let mut script = self.lock();
        script.log.reserve(1000);
        script.outbound.reserve(1 << 20);
    }

    /// The number of handles to the transport.
    pub fn handles(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// Makes every write fail from now on.
    pub fn break_writes(&self) {
        self.script(|script| {
            script.room = 0;
            script.full = Full::Error(io::ErrorKind::BrokenPipe);
        });
    }

    /// Makes every write fail, and resets the connection behind the bytes to be read.
    pub fn cut(&self) {
        self.break_writes();
        self.script(|script| script.then = Then::Error(io::ErrorKind::ConnectionReset));
    }

    /// Whether FIN was sent.
    pub fn is_finished(&self) -> bool {
        self.lock().log.contains(&Done::Finished)
    }

    fn lock(&self) -> MutexGuard<'_, Script> {
        self.0.lock().expect("no test panics with the script in hand")
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut script = self.lock();
        script.reads += 1;
        let amount = script.inbound.len().min(buffer.remaining()).min(script.piece);
        if amount > 0 {
            let bytes: Vec<u8> = script.inbound.drain(..amount).collect();
            buffer.put_slice(&bytes);
            return Poll::Ready(Ok(()));
        }
        match script.then {
            Then::End => Poll::Ready(Ok(())),
            Then::Error(kind) => Poll::Ready(Err(kind.into())),
            Then::Pending => {
                script.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut script = self.lock();
        let amount = bytes.len().min(script.room).min(script.piece);
        if amount == 0 && !bytes.is_empty() {
            return match script.full {
                Full::Error(kind) => Poll::Ready(Err(kind.into())),
                Full::Pending => {
                    script.writer = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        }
        script.room = script.room.saturating_sub(amount);
        script.log.push(Done::Written(amount));
        match script.buffering {
            Buffering::Off => script.outbound.extend(&bytes[..amount]),
            Buffering::UntilFlush => script.buffered.extend(&bytes[..amount]),
        }
        Poll::Ready(Ok(amount))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut script = self.lock();
        if script.flush_delay > 0 {
            script.flush_delay -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let buffered = std::mem::take(&mut script.buffered);
        script.outbound.extend(buffered);
        script.log.push(Done::Flushed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut script = self.lock();
        if script.finish_delay > 0 {
            script.finish_delay -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        script.log.push(Done::Finished);
        script.finish_error.map_or(Poll::Ready(Ok(())), |kind| Poll::Ready(Err(kind.into())))
    }
}
