//! I/O traits of a wrapper that leaves them to the stream in one of its fields.

/// Implements `AsyncWrite` by the field: `forward_writes!({T: AsyncWrite + Unpin} Wrapper<T> => inner)`. If the field is an enum of streams,
/// a macro that calls a method of any of them follows: `forward_writes!({} Wrapper => inner, with_stream)`.
macro_rules! forward_writes {
    ({$($generics:tt)*} $wrapper:ty => $inner:ident) => {
        $crate::runtime::forward::forward_writes!({$($generics)*} $wrapper => $inner, $crate::runtime::forward::with_field);
    };
    ({$($generics:tt)*} $wrapper:ty => $inner:ident, $with:path) => {
        const _: () = {
            use ::std::{io::{IoSlice, Result}, pin::Pin, task::{Context, Poll}};

            impl<$($generics)*> ::tokio::io::AsyncWrite for $wrapper {
                fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
                    $with!(&mut self.get_mut().$inner, |inner| Pin::new(inner).poll_write(cx, bytes))
                }

                fn poll_write_vectored(
                    self: Pin<&mut Self>,
                    cx: &mut Context<'_>,
                    buffers: &[IoSlice<'_>],
                ) -> Poll<Result<usize>> {
                    $with!(&mut self.get_mut().$inner, |inner| Pin::new(inner).poll_write_vectored(cx, buffers))
                }

                fn is_write_vectored(&self) -> bool {
                    $with!(&self.$inner, |inner| inner.is_write_vectored())
                }

                fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
                    $with!(&mut self.get_mut().$inner, |inner| Pin::new(inner).poll_flush(cx))
                }

                fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
                    $with!(&mut self.get_mut().$inner, |inner| Pin::new(inner).poll_shutdown(cx))
                }
            }
        };
    };
}

/// Calls a method of a field that is a stream itself.
macro_rules! with_field {
    ($field:expr, |$inner:ident| $call:expr) => {{
        let $inner = $field;
        $call
    }};
}

/// Implements `AsyncRead` and `AsyncBufRead` by the field.
#[cfg(any(feature = "server", feature = "hyper-rustls"))]
macro_rules! forward_reads {
    ({$($generics:tt)*} $wrapper:ty => $inner:ident) => {
        const _: () = {
            use ::std::{io::Result, pin::Pin, task::{Context, Poll}};
            use ::tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};

            impl<$($generics)*> AsyncRead for $wrapper {
                fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
                    Pin::new(&mut self.get_mut().$inner).poll_read(cx, buffer)
                }
            }

            impl<$($generics)*> AsyncBufRead for $wrapper {
                fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<&[u8]>> {
                    Pin::new(&mut self.get_mut().$inner).poll_fill_buf(cx)
                }

                fn consume(self: Pin<&mut Self>, amount: usize) {
                    Pin::new(&mut self.get_mut().$inner).consume(amount);
                }
            }
        };
    };
}

/// Implements the system's socket traits for a wrapper, if the type `$socket`, which `$access` returns, has them.
macro_rules! forward_socket {
    ({$($generics:tt)*} $wrapper:ty, $socket:ty, |$this:ident| $access:expr) => {
        #[cfg(unix)]
        const _: () = {
            use ::std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

            impl<$($generics)*> AsFd for $wrapper where $socket: AsFd {
                fn as_fd(&self) -> BorrowedFd<'_> {
                    let $this = self;
                    AsFd::as_fd($access)
                }
            }

            impl<$($generics)*> AsRawFd for $wrapper where $socket: AsRawFd {
                fn as_raw_fd(&self) -> RawFd {
                    let $this = self;
                    AsRawFd::as_raw_fd($access)
                }
            }
        };

        #[cfg(windows)]
        const _: () = {
            use ::std::os::windows::io::{AsRawSocket, AsSocket, BorrowedSocket, RawSocket};

            impl<$($generics)*> AsSocket for $wrapper where $socket: AsSocket {
                fn as_socket(&self) -> BorrowedSocket<'_> {
                    let $this = self;
                    AsSocket::as_socket($access)
                }
            }

            impl<$($generics)*> AsRawSocket for $wrapper where $socket: AsRawSocket {
                fn as_raw_socket(&self) -> RawSocket {
                    let $this = self;
                    AsRawSocket::as_raw_socket($access)
                }
            }
        };
    };
}

#[cfg(any(feature = "server", feature = "hyper-rustls"))]
pub(crate) use forward_reads;
pub(crate) use {forward_socket, forward_writes, with_field};
