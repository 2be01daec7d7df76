//! [`linger`]: discards what a peer still sends after our FIN, so that no reset destroys what it has not read.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
    task::coop,
    time::Instant,
};

use crate::{
    runtime::timer::{Timer, from_now},
    tls::{reaper_limits::ReaperLimits, session_io::retry_interrupted, socket::Discard},
};

//= https://www.rfc-editor.org/rfc/rfc9112#section-9.6
//# The server then continues to read from the connection until it
//# receives a corresponding close by the client, or until the server is
//# reasonably certain that its own TCP stack has received the client's
//# acknowledgement of the packet(s) containing the server's last
//# response.
/// Discards what arrives, until the peer's FIN, `end`, or the limit of a time without a byte.
pub(super) async fn linger<T: AsyncRead + Unpin>(
    mut transport: T,
    socket: impl Fn(&T) -> Option<&TcpStream>,
    discard: &Discard,
    limits: &ReaperLimits,
    end: Instant,
) {
    let mut idle_end = end.min(from_now(limits.linger_idle_timeout()));
    let mut timer = pin!(Timer::default());
    poll_fn(|cx| {
        while let Poll::Ready(budget) = coop::poll_proceed(cx) {
            let discarded = match socket(&transport) {
                Some(socket) => discard.poll_discard(socket, cx),
                None => poll_discard(&mut transport, cx),
            };
            match discarded {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => idle_end = end.min(from_now(limits.linger_idle_timeout())),
                Poll::Pending => break,
            }
            budget.made_progress();
        }
        timer.as_mut().poll_until(idle_end, cx)
    })
    .await;
}

/// Discards what has arrived. Returns the number of bytes, 0 at the end of the stream.
fn poll_discard<T: AsyncRead + Unpin>(transport: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let mut bytes = [0; Discard::STACK_BYTES];
    let mut buffer = ReadBuf::new(&mut bytes);
    let read = Pin::new(transport).poll_read(cx, &mut buffer);
    ready!(retry_interrupted(read, cx))?;
    Poll::Ready(Ok(buffer.filled().len()))
}
