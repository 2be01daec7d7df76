//! [`network`]: a path to a server on which bytes travel for some time, as they do outside of loopback.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// How long a byte travels in one direction: that of a zone of the same region, and more than a busy machine adds by itself.
const DELAY: Duration = Duration::from_millis(5);
const CHUNK_BYTES: usize = 16_384;

/// Returns an address that leads to `server` with a [`DELAY`] in each direction, for as long as the returned tasks are kept.
pub(super) async fn network(server: SocketAddr) -> io::Result<(SocketAddr, JoinSet<io::Result<()>>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (client, _) = listener.accept().await?;
            let server = TcpStream::connect(server).await?;
            for tcp in [&client, &server] {
                tcp.set_nodelay(true)?;
            }
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            connections.spawn(carry(from_client, to_server));
            connections.spawn(carry(from_server, to_client));
        }
    });
    Ok((address, tasks))
}

/// Carries all bytes and the end of one direction.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let (sender, mut on_the_way) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let send = async move {
        let mut chunk = vec![0; CHUNK_BYTES];
        // A reset ends the direction, too.
        while let Ok(length @ 1..) = from.read(&mut chunk).await {
            let _ = sender.send((Instant::now() + DELAY, chunk[..length].to_vec()));
        }
    };
    let receive = async move {
        while let Some((due, chunk)) = on_the_way.recv().await {
            sleep_until(due).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(send, receive);
}
