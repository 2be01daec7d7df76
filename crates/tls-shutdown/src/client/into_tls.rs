//! [`IntoTls`]: the streams that a [`ShutdownLayer`](super::ShutdownLayer) can wrap.

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::tls::TlsSession;

/// The response of a service under a [`ShutdownLayer`](super::ShutdownLayer): a TLS stream of tokio-rustls, one in a [`TokioIo`], which
/// makes it a stream of `hyper::rt`, and with feature `hyper-rustls` a `MaybeHttpsStream`.
///
/// Implement it for the response type of your own connector.
///
/// ```
/// use tls_shutdown::client::{IntoTls, MaybeTls};
/// use tokio::net::TcpStream;
/// use tokio_rustls::client::TlsStream;
///
/// struct Connected {
///     tls: TlsStream<TcpStream>,
///     attempts: u32,
/// }
///
/// impl IntoTls for Connected {
///     type Session = TlsStream<TcpStream>;
///
///     fn into_tls(self) -> MaybeTls<Self::Session> {
///         println!("connected after {} attempts", self.attempts);
///         MaybeTls::Tls(self.tls)
///     }
/// }
/// ```
pub trait IntoTls {
    /// The TLS stream.
    type Session: TlsSession<Transport: Send> + Send + 'static;

    /// Returns the TLS stream, or the transport of a connection without TLS.
    fn into_tls(self) -> MaybeTls<Self::Session>;
}

/// A TLS stream, or the transport of a connection without TLS. [`IntoTls`] has an example.
#[derive(Debug)]
#[non_exhaustive]
pub enum MaybeTls<S: TlsSession> {
    /// `https://`.
    Tls(S),
    /// `http://`.
    Plain(S::Transport),
}

macro_rules! is_tls {
    ($($stream:ident)::+) => {
        impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> IntoTls for $($stream)::+<T> {
            type Session = Self;

            fn into_tls(self) -> MaybeTls<Self> {
                MaybeTls::Tls(self)
            }
        }
    };
}

is_tls!(tokio_rustls::client::TlsStream);
is_tls!(tokio_rustls::server::TlsStream);
is_tls!(tokio_rustls::TlsStream);

impl<T: IntoTls> IntoTls for TokioIo<T> {
    type Session = T::Session;

    fn into_tls(self) -> MaybeTls<T::Session> {
        self.into_inner().into_tls()
    }
}

#[cfg(feature = "hyper-rustls")]
pub use https::HttpsSession;

#[cfg(feature = "hyper-rustls")]
mod https {
    use std::any::Any;

    use hyper::rt;
    use hyper_rustls::MaybeHttpsStream;
    use tokio::net::TcpStream;
    use tokio_rustls::client::TlsStream;

    use super::{IntoTls, MaybeTls, TokioIo};
    use crate::{
        runtime::forward::{forward_reads, forward_writes},
        tls::{TlsConnection, TlsSession},
    };

    /// The TLS stream of hyper-rustls's `HttpsConnector`. Its transport is one of `hyper::rt`, under which only this type finds the
    /// socket of hyper-util's `HttpConnector`.
    ///
    /// ```
    /// # use tls_shutdown::client::{ClientStream, HttpsSession};
    /// # use hyper_util::rt::TokioIo;
    /// # use tokio::net::TcpStream;
    /// fn version(stream: &ClientStream<HttpsSession<TokioIo<TcpStream>>>) -> Option<rustls::ProtocolVersion> {
    ///     stream.with_session(|session| session.get_ref().get_ref().1.protocol_version())?
    /// }
    /// ```
    #[derive(Debug)]
    pub struct HttpsSession<T> {
        stream: TlsStream<TokioIo<T>>,
    }

    impl<T> HttpsSession<T> {
        /// The stream of tokio-rustls.
        pub fn get_ref(&self) -> &TlsStream<TokioIo<T>> {
            &self.stream
        }
    }

    forward_reads!({T: rt::Read + rt::Write + Unpin} HttpsSession<T> => stream);
    forward_writes!({T: rt::Read + rt::Write + Unpin} HttpsSession<T> => stream);

    impl<T: rt::Read + rt::Write + Unpin + 'static> TlsSession for HttpsSession<T> {
        type Transport = TokioIo<T>;

        fn parts(&mut self) -> (&mut TokioIo<T>, TlsConnection<'_>) {
            self.stream.parts()
        }

        fn transport(&self) -> &TokioIo<T> {
            self.stream.transport()
        }

        fn into_transport(self) -> TokioIo<T> {
            self.stream.into_transport()
        }

        fn socket(transport: &TokioIo<T>) -> Option<&TcpStream> {
            let io: &dyn Any = transport.inner();
            io.downcast_ref::<TokioIo<TcpStream>>().map(TokioIo::inner)
        }
    }

    impl<T: rt::Read + rt::Write + Unpin + Send + 'static> IntoTls for MaybeHttpsStream<T> {
        type Session = HttpsSession<T>;

        fn into_tls(self) -> MaybeTls<HttpsSession<T>> {
            match self {
                Self::Https(stream) => MaybeTls::Tls(HttpsSession { stream: stream.into_inner() }),
                Self::Http(transport) => MaybeTls::Plain(TokioIo::new(transport)),
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[tokio::test]
        async fn the_socket_of_an_http_connector_is_found() {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = listener.local_addr().expect("an address");
            let socket = TcpStream::connect(address).await.expect("a connection");
            assert!(HttpsSession::socket(&TokioIo::new(TokioIo::new(socket))).is_some());
            assert!(HttpsSession::socket(&TokioIo::new(TokioIo::new(tokio::io::duplex(1).0))).is_none());
        }
    }
}
