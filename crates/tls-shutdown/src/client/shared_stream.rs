//! [`SharedStream`]: a connection that its owner and the drain share.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll, Waker, ready},
};

use tokio::io::{AsyncBufRead, AsyncWrite};

use super::{
    draining::Draining,
    exchange::Exchange,
    retirement::{PoolLimits, Retirement},
};
use crate::{
    runtime::{
        lock::lock,
        wakers::{remember, wake},
    },
    tls::{Abort, ShutdownReport, ShutdownState, ShutdownStream, TlsConnection, TlsSession},
};

/// A connection. Its owner holds the only lasting handle. The drain upgrades its weak one when it begins and at its timeout.
pub(super) struct SharedStream<S: TlsSession> {
    link: Mutex<Link<S>>,
    /// Is told of the end of the connection, at least once.
    on_ended: OnEnded,
}

type OnEnded = Box<dyn Fn(&ShutdownReport, Owner) + Send + Sync>;

/// What the owner of a connection that has ended does with it.
#[derive(Clone, Copy)]
pub(super) enum Owner {
    Holds,
    HasDropped,
}

pub(super) struct Link<S: TlsSession> {
    /// `None` once it was closed in the place of its owner.
    pub(super) stream: Option<ShutdownStream<S>>,
    /// The stream on its way to the reaper. It is dropped after the lock is released, because the drop may call `on_end`.
    closed: Option<ShutdownStream<S>>,
    exchange: Exchange,
    phase: LinkPhase,
    shutdown: OwnersShutdown,
    /// `None` if nothing limits how long the connection is kept.
    retirement: Option<Box<Retirement>>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The owner's shutdown of the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OwnersShutdown {
    /// It has not begun, or not ended.
    Awaited,
    /// It has succeeded. The owner may read on.
    Finished,
    Failed,
    /// Nothing more can happen, although the owner still holds the connection: it has failed, or both sides have sent close_notify.
    Over,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LinkPhase {
    Open,
    /// It is too old, or was idle for too long. It is closed when nothing is in flight.
    Retiring,
    /// The drain has begun, and closes the stream when nothing is in flight.
    Draining,
    /// The drain's timeout has passed before that.
    Cut,
}

impl LinkPhase {
    /// The result of the owner's reads after the drain has closed the stream.
    fn end(self) -> io::Result<()> {
        match self {
            Self::Cut => Err(io::Error::new(io::ErrorKind::ConnectionAborted, Draining)),
            Self::Open | Self::Retiring | Self::Draining => Ok(()),
        }
    }

    /// The error of the owner's writes after that.
    fn write_error(self) -> io::Error {
        match self {
            Self::Retiring => {
                io::Error::new(io::ErrorKind::BrokenPipe, "the connection is too old, or was idle for too long")
            }
            Self::Open | Self::Draining | Self::Cut => io::Error::new(io::ErrorKind::BrokenPipe, Draining),
        }
    }

    /// Whether the connection is closed as soon as nothing is in flight.
    fn is_ending(self) -> bool {
        matches!(self, Self::Retiring | Self::Draining)
    }
}

/// A connection of any type, as the drain sees it.
pub(super) trait Drained: Send + Sync {
    /// Closes the connection as soon as nothing is in flight on it.
    fn close_when_idle(&self);
    /// Aborts the connection now, unless it is closing already.
    fn cut(&self);
}

impl<S: TlsSession> SharedStream<S> {
    /// Tells `on_ended` of the end, once or twice: early, if the owner holds the connection for longer.
    pub(super) fn new(
        stream: ShutdownStream<S>,
        limits: PoolLimits,
        on_ended: impl Fn(&ShutdownReport, Owner) + Clone + Send + Sync + 'static,
    ) -> Self {
        // The last callback: when it is called, the others have been.
        let mut stream = stream.on_end({
            let on_ended = on_ended.clone();
            move |report| on_ended(report, Owner::HasDropped)
        });
        let exchange = Exchange::new(matches!(stream.get_mut().connection(), TlsConnection::Server(_)));
        let (retirement, phase) = (Retirement::begin(limits), LinkPhase::Open);
        let (shutdown, closed, reader, writer) = (OwnersShutdown::Awaited, None, None, None);
        let stream = Some(stream);
        let link = Link { stream, closed, exchange, phase, shutdown, retirement, reader, writer };
        Self { link: Mutex::new(link), on_ended: Box::new(on_ended) }
    }

    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Link<S>) -> T) -> T {
        let mut link = lock(&self.link);
        let result = act(&mut link);
        let (closed, ended) = (link.closed.take(), link.begin_over());
        drop(link);
        drop(closed);
        if let Some(report) = ended {
            (self.on_ended)(&report, Owner::Holds);
        }
        result
    }
}

impl<S: TlsSession<Transport: Send> + Send> Drained for SharedStream<S> {
    fn close_when_idle(&self) {
        self.with(|link| {
            link.phase = LinkPhase::Draining;
            link.close_if_idle();
            link.wake();
        });
    }

    fn cut(&self) {
        let cut = self.with(|link| {
            let stream = link.take()?;
            link.phase = LinkPhase::Cut;
            link.wake();
            Some(stream)
        });
        if let Some(stream) = cut {
            stream.abort(Abort::Fin);
        }
    }
}

impl<S: TlsSession> Link<S> {
    pub(super) fn close_if_idle(&mut self) {
        if self.exchange.is_idle() {
            self.close();
        }
    }

    /// Begins the shutdown in the place of the owner. The reaper finishes it.
    pub(super) fn close(&mut self) {
        self.closed = self.take();
        if let Some(stream) = &mut self.closed {
            stream.begin_shutdown();
        }
    }

    /// Takes the stream from its owner. Leaves one whose shutdown is in progress, has failed, or is complete: the owner ends it.
    fn take(&mut self) -> Option<ShutdownStream<S>> {
        let is_half_closed = self.shutdown == OwnersShutdown::Finished;
        self.stream
            .take_if(|stream| !stream.has_begun_shutdown() || (is_half_closed && stream.state() != ShutdownState::Both))
    }

    /// Notes that nothing more can happen under the owner. Returns the report of the connection if that is new.
    fn begin_over(&mut self) -> Option<ShutdownReport> {
        let stream = self.stream.as_mut()?;
        let is_over = match self.shutdown {
            OwnersShutdown::Awaited | OwnersShutdown::Over => false,
            OwnersShutdown::Finished => stream.state() == ShutdownState::Both,
            OwnersShutdown::Failed => true,
        };
        if !is_over {
            return None;
        }
        self.shutdown = OwnersShutdown::Over;
        let (session, driver) = stream.parts_mut();
        driver.count_tickets(session);
        Some(driver.report(driver.ending()))
    }

    fn close_if_due(&mut self) {
        if self.phase.is_ending() {
            self.close_if_idle();
        }
    }

    /// Notes that bytes have passed.
    fn on_use(&mut self) {
        if let Some(retirement) = &mut self.retirement {
            retirement.on_use();
        }
    }

    /// Waits until the connection has to retire, and begins that.
    fn poll_retire(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(retirement) = self.retirement.as_mut().filter(|_| self.phase == LinkPhase::Open) else {
            return Poll::Pending;
        };
        ready!(retirement.poll_due(self.exchange.is_in_use(), cx));
        self.phase = LinkPhase::Retiring;
        self.exchange.retire();
        self.close_if_idle();
        Poll::Ready(())
    }

    fn wake(&mut self) {
        wake(&mut self.reader);
        wake(&mut self.writer);
    }

    /// Reads once, `room` bytes at most, and passes them to `put`.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        room: usize,
        put: impl FnOnce(&[u8]),
    ) -> Poll<io::Result<()>> {
        if self.phase.is_ending()
            && let Some(goaway) = self.exchange.goaway(room)
        {
            put(goaway);
            return Poll::Ready(Ok(()));
        }
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(self.phase.end());
        };
        match Pin::new(&mut *stream).poll_fill_buf(cx) {
            Poll::Ready(Ok(data)) => {
                if data.is_empty() {
                    self.exchange.received_end();
                }
                let data = &data[..data.len().min(room)];
                let amount = data.len();
                self.exchange.received(data);
                put(data);
                Pin::new(stream).consume(amount);
                self.on_use();
                self.close_if_due();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                remember(&mut self.reader, cx.waker());
                ready!(self.poll_retire(cx));
                // The end, GOAWAY, or nothing yet.
                self.poll_read(cx, room, put)
            }
        }
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(self.phase.write_error()));
        };
        let result = Pin::new(stream).poll_write_vectored(cx, buffers);
        if let Poll::Ready(Ok(amount)) = result {
            let mut left = amount;
            for buffer in buffers {
                let accepted = &buffer[..buffer.len().min(left)];
                left -= accepted.len();
                self.exchange.sent(accepted);
            }
            self.on_use();
            self.close_if_due();
        }
        self.remember_writer(cx, result)
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(self.poll_with(cx, |stream, cx| stream.poll_shutdown(cx)));
        if self.shutdown != OwnersShutdown::Over {
            self.shutdown = if result.is_ok() { OwnersShutdown::Finished } else { OwnersShutdown::Failed };
        }
        self.close_if_due();
        Poll::Ready(result)
    }

    /// Flushes or shuts down with `poll`, unless the drain has closed the stream.
    pub(super) fn poll_with(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut ShutdownStream<S>>, &mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(self.phase.end());
        };
        let result = poll(Pin::new(stream), cx);
        self.remember_writer(cx, result)
    }

    fn remember_writer<T>(&mut self, cx: &mut Context<'_>, result: Poll<T>) -> Poll<T> {
        if result.is_pending() {
            remember(&mut self.writer, cx.waker());
        }
        result
    }
}
