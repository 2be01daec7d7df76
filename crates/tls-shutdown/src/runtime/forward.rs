//! I/O traits of a wrapper that leaves them to the stream in one of its fields.

/// Implements `AsyncWrite` by the field: `forward_writes!({T: AsyncWrite + Unpin} Wrapper<T> => inner)`. If the field is an enum of streams,
/// a macro that calls a method of any of them follows: `forward_writes!({} Wrapper => inner, with_stream)`.
macro_rules! forward_writes {
    ({$($generics:tt)*} $wrapper:ty => $inner:ident) => {
        $crate::runtime::forward::forward_writes!({$($generics)*} $wrapper => $inner, $crate::runtime::forward::with_field);
    };
    ({$($generics:tt)*} $wrapper:ty => $inner:ident, $with:path) => {
        impl<$($generics)*> ::tokio::io::AsyncWrite for $wrapper {
            fn poll_write(
                self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
                bytes: &[u8],
            ) -> ::std::task::Poll<::std::io::Result<usize>> {
                $with!(&mut self.get_mut().$inner, |inner| ::std::pin::Pin::new(inner).poll_write(cx, bytes))
            }

            fn poll_write_vectored(
                self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
                buffers: &[::std::io::IoSlice<'_>],
            ) -> ::std::task::Poll<::std::io::Result<usize>> {
                $with!(&mut self.get_mut().$inner, |inner| ::std::pin::Pin::new(inner).poll_write_vectored(cx, buffers))
            }

            fn is_write_vectored(&self) -> bool {
                $with!(&self.$inner, |inner| inner.is_write_vectored())
            }

            fn poll_flush(
                self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
            ) -> ::std::task::Poll<::std::io::Result<()>> {
                $with!(&mut self.get_mut().$inner, |inner| ::std::pin::Pin::new(inner).poll_flush(cx))
            }

            fn poll_shutdown(
                self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
            ) -> ::std::task::Poll<::std::io::Result<()>> {
                $with!(&mut self.get_mut().$inner, |inner| ::std::pin::Pin::new(inner).poll_shutdown(cx))
            }
        }
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
        impl<$($generics)*> ::tokio::io::AsyncRead for $wrapper {
            fn poll_read(
                self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
                buffer: &mut ::tokio::io::ReadBuf<'_>,
            ) -> ::std::task::Poll<::std::io::Result<()>> {
                ::std::pin::Pin::new(&mut self.get_mut().$inner).poll_read(cx, buffer)
            }
        }

        impl<$($generics)*> ::tokio::io::AsyncBufRead for $wrapper {
            fn poll_fill_buf(
                self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
            ) -> ::std::task::Poll<::std::io::Result<&[u8]>> {
                ::std::pin::Pin::new(&mut self.get_mut().$inner).poll_fill_buf(cx)
            }

            fn consume(self: ::std::pin::Pin<&mut Self>, amount: usize) {
                ::std::pin::Pin::new(&mut self.get_mut().$inner).consume(amount);
            }
        }
    };
}

/// Implements the system's socket traits for a wrapper, if the type `$socket`, which `$access` returns, has them.
macro_rules! forward_socket {
    ({$($generics:tt)*} $wrapper:ty, $socket:ty, |$this:ident| $access:expr) => {
        #[cfg(unix)]
        impl<$($generics)*> ::std::os::fd::AsFd for $wrapper
        where
            $socket: ::std::os::fd::AsFd,
        {
            fn as_fd(&self) -> ::std::os::fd::BorrowedFd<'_> {
                let $this = self;
                ::std::os::fd::AsFd::as_fd($access)
            }
        }

        #[cfg(unix)]
        impl<$($generics)*> ::std::os::fd::AsRawFd for $wrapper
        where
            $socket: ::std::os::fd::AsRawFd,
        {
            fn as_raw_fd(&self) -> ::std::os::fd::RawFd {
                let $this = self;
                ::std::os::fd::AsRawFd::as_raw_fd($access)
            }
        }

        #[cfg(windows)]
        impl<$($generics)*> ::std::os::windows::io::AsSocket for $wrapper
        where
            $socket: ::std::os::windows::io::AsSocket,
        {
            fn as_socket(&self) -> ::std::os::windows::io::BorrowedSocket<'_> {
                let $this = self;
                ::std::os::windows::io::AsSocket::as_socket($access)
            }
        }

        #[cfg(windows)]
        impl<$($generics)*> ::std::os::windows::io::AsRawSocket for $wrapper
        where
            $socket: ::std::os::windows::io::AsRawSocket,
        {
            fn as_raw_socket(&self) -> ::std::os::windows::io::RawSocket {
                let $this = self;
                ::std::os::windows::io::AsRawSocket::as_raw_socket($access)
            }
        }
    };
}

#[cfg(any(feature = "server", feature = "hyper-rustls"))]
pub(crate) use forward_reads;
pub(crate) use {forward_socket, forward_writes, with_field};
