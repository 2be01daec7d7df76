//! Budgets of size, allocations and memory.
//!
//! These tests have a process of their own, since the allocator that counts is that of the process.

use std::{
    mem::size_of,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use allocation_counter::measure;
use tls_shutdown::{Reaper, ReaperLimits, ShutdownPolicy, ShutdownStream};
use tls_shutdown_tests::{
    Peer, Side, VERSIONS, Wire, client_config, connect, connect_with, server_config, wire_script::Then,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::{Builder, Runtime},
};
use tokio_rustls::{TlsStream, client, server};

fn paused() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// How many bytes a [`ShutdownStream`] may have. It is moved often.
const SIZE: usize = 64;

#[test]
fn a_stream_is_small_and_allocates_once() {
    assert!(size_of::<ShutdownStream<client::TlsStream<TcpStream>>>() <= SIZE);
    assert!(size_of::<ShutdownStream<server::TlsStream<TcpStream>>>() <= SIZE);
    for side in Side::BOTH {
        let mut bare = Some(connect(side, &rustls::version::TLS13).0.into_inner());
        let mut stream = None;
        let wrapping = measure(|| stream = bare.take().map(ShutdownStream::new));
        assert_eq!(wrapping.count_total, 1);
        drop(stream);
    }
}

/// Connects. The transport allocates nothing afterwards.
fn connect_reserved(
    side: Side,
    version: &'static rustls::SupportedProtocolVersion,
) -> (ShutdownStream<TlsStream<Wire>>, Peer) {
    let mut server = server_config(version);
    // rustls allocates for tickets that arrive during a shutdown. That is no cost of ours.
    server.send_tls13_tickets = 0;
    let (stream, peer) = connect_with(side, client_config(version), server);
    peer.wire.reserve();
    (stream, peer)
}

#[test]
fn a_shutdown_allocates_what_rustls_does() {
    let runtime = paused();
    let _guard = runtime.enter();
    for side in Side::BOTH {
        for version in VERSIONS {
            let (stream, _peer) = connect_reserved(side, version);
            let mut bare = stream.into_inner();
            let rustls = measure(|| {
                assert!(poll_once(bare.shutdown()).is_ready());
            });

            let (mut stream, _peer) = connect_reserved(side, version);
            let unidirectional = measure(|| {
                assert!(poll_once(stream.shutdown_with(ShutdownPolicy::unidirectional())).is_ready());
            });
            assert_eq!(unidirectional.count_total, rustls.count_total, "{side:?} {version:?}");

            // The timer of the close timeout is set, and expires.
            let (mut stream, _peer) = connect_reserved(side, version);
            let policy = ShutdownPolicy::bidirectional();
            let waiting = measure(|| {
                let mut shutdown = pin!(stream.shutdown_with(policy));
                assert!(poll_once(shutdown.as_mut()).is_pending());
                assert!(poll_once(shutdown.as_mut()).is_pending());
            });
            assert_eq!(waiting.count_total, rustls.count_total, "{side:?} {version:?}");
            let timed_out = measure(|| {
                runtime.block_on(stream.shutdown_with(policy)).expect_err("silence");
            });
            let nothing = measure(|| runtime.block_on(tokio::time::sleep(Duration::from_secs(5))));
            assert_eq!(timed_out.count_total, nothing.count_total, "{side:?} {version:?}");

            // Without a future the stream has a timer of its own, which it makes when it needs it.
            let (mut stream, _peer) = connect_reserved(side, version);
            let shutdown = measure(|| assert!(poll_once(stream.shutdown()).is_ready() != (side == Side::Client)));
            let timer = u64::from(side == Side::Client);
            assert_eq!(shutdown.count_total, rustls.count_total + timer, "{side:?} {version:?}");
        }
    }
}

#[test]
fn reading_and_writing_allocates_what_the_bare_stream_does() {
    fn transfer(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, peer: &mut Peer) -> u64 {
        let mut buffer = vec![0; 40_000];
        let mut total = 0;
        for size in [1, 100, 16_384, 40_000] {
            peer.send(&vec![7; size]);
            let counted = measure(|| {
                let mut left = size;
                while left > 0 {
                    let Poll::Ready(amount) = poll_once(stream.read(&mut buffer)) else { panic!("there is more") };
                    left -= amount.expect("data");
                }
                assert!(poll_once(stream.read(&mut buffer)).is_pending());
                assert!(poll_once(stream.write_all(&buffer[..size])).is_ready());
                assert!(poll_once(stream.flush()).is_ready());
            });
            peer.receive().expect("records");
            peer.wire.reserve();
            total += counted.count_total;
        }
        total
    }
    for side in Side::BOTH {
        for version in VERSIONS {
            let (stream, mut peer) = connect_reserved(side, version);
            let wrapped = transfer(stream, &mut peer);
            let (stream, mut peer) = connect_reserved(side, version);
            let bare = transfer(stream.into_inner(), &mut peer);
            assert_eq!(wrapped, bare, "{side:?} {version:?}");
        }
    }
}

/// The memory that a lingering connection may hold beside its socket, in bytes.
const LINGERING: i64 = 1024;

#[test]
fn a_lingering_connection_holds_little_memory() {
    const CONNECTIONS: i64 = 100;
    let runtime = paused();
    let reaper = runtime
        .block_on(async { Reaper::with_limits(ReaperLimits::new().with_linger_idle_timeout(Duration::from_secs(25))) });
    let guard = runtime.enter();
    let wires: Vec<Wire> = (0..CONNECTIONS)
        .map(|_| {
            let (stream, peer) = connect(Side::Server, &rustls::version::TLS13);
            let mut stream = stream.with_reaper(&reaper);
            assert!(poll_once(stream.shutdown()).is_ready());
            peer.wire
        })
        .collect();
    drop(guard);
    // After the close timeout the closings have become lingers.
    runtime.block_on(async { tokio::time::sleep(ShutdownPolicy::CLOSE_TIMEOUT + Duration::from_secs(1)).await });
    assert_eq!(reaper.closings() as i64, CONNECTIONS);
    let freed = measure(|| {
        wires.iter().for_each(|wire| wire.script(|script| script.then = Then::End));
        assert_eq!(runtime.block_on(reaper.wait_idle(Duration::from_secs(1))), 0);
    });
    let held = -freed.bytes_current / CONNECTIONS;
    println!("a lingering connection holds {held} bytes");
    assert!((1..=LINGERING).contains(&held), "{held} bytes");
}
