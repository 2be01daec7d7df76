//! A body that yields what a test sends it, when the test sends it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::mpsc;

/// A body that ends when its [`BodyDriver`] is dropped.
#[derive(Debug)]
pub struct DrivenBody(mpsc::UnboundedReceiver<Bytes>);

/// What a [`DrivenBody`] yields.
#[derive(Debug)]
pub struct BodyDriver(mpsc::UnboundedSender<Bytes>);

impl DrivenBody {
    /// A body, and what drives it.
    pub fn new() -> (BodyDriver, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (BodyDriver(sender), Self(receiver))
    }
}

impl BodyDriver {
    /// Yields `data` in one piece. Nobody receives it if the body was dropped.
    pub fn send(&self, data: impl AsRef<[u8]>) {
        let _ = self.0.send(Bytes::copy_from_slice(data.as_ref()));
    }

    /// Waits until the body is dropped.
    pub async fn dropped(&self) {
        self.0.closed().await;
    }
}

impl Body for DrivenBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(cx).map(|data| data.map(|data| Ok(Frame::data(data))))
    }
}
