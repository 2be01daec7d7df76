//! Closings in which everything comes in any order and in any pieces.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use proptest::{collection::vec, prelude::*};
use tls_shutdown::{Ending, ShutdownPolicy};
use tls_shutdown_tests::{
    Side, VERSIONS, connect,
    scripted::{BIDIRECTIONAL, RECEIVE_FIRST, UNIDIRECTIONAL, ending, shut_down},
    wire_script::{Buffering, Then},
};
use tokio::{io::AsyncWriteExt, runtime::Builder};
use tokio_test::task;

/// One event.
#[derive(Clone, Debug)]
enum Act {
    /// The peer sends application data.
    Send(usize),
    /// The peer sends close_notify.
    Close,
    /// This many bytes of those that the peer has sent arrive.
    Arrive(usize),
    /// The transport takes this many bytes more.
    Take(usize),
    /// The closing is polled.
    Poll,
    /// The closing is dropped, and started again.
    Drop,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0..3000_usize).prop_map(Act::Send),
        Just(Act::Close),
        (1..200_usize).prop_map(Act::Arrive),
        (1..2000_usize).prop_map(Act::Take),
        Just(Act::Poll),
        Just(Act::Drop),
    ]
}

/// How the peer's stream ends after the events.
#[derive(Clone, Copy, Debug)]
enum PeerEnd {
    /// With a whole close_notify.
    Whole,
    /// Without the last byte, by FIN.
    Cut,
    /// Without the last byte, by RST.
    Reset,
}

fn policy() -> impl Strategy<Value = ShutdownPolicy> {
    prop_oneof![Just(UNIDIRECTIONAL), Just(BIDIRECTIONAL), Just(RECEIVE_FIRST)]
}

proptest! {
    /// If the closing succeeds, the peer receives all application data, then one close_notify and FIN. It is complete only if the peer's
    /// close_notify was whole. `on_end` is called once.
    #[test]
    fn any_order_in_any_pieces(
        client in any::<bool>(),
        version in 0..VERSIONS.len(),
        policy in policy(),
        buffers in any::<bool>(),
        piece in 1..5000_usize,
        data in 0..60_000_usize,
        acts in vec(act(), 0..60),
        end in prop_oneof![Just(PeerEnd::Whole), Just(PeerEnd::Cut), Just(PeerEnd::Reset)],
    ) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        let _guard = runtime.enter();
        let side = if client { Side::Client } else { Side::Server };
        let (stream, mut peer) = connect(side, VERSIONS[version]);
        let ends = Arc::new(AtomicUsize::new(0));
        let counter = ends.clone();
        let mut stream = stream.on_end(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        peer.wire.script(|script| {
            script.room = 0;
            script.piece = piece;
            script.buffering = if buffers { Buffering::UntilFlush } else { Buffering::Off };
        });
        // rustls takes all of it, and the transport nothing yet.
        let _ = task::spawn(stream.write_all(&vec![7; data])).poll();

        let policy = policy.with_max_drain_bytes(u64::MAX);
        let mut in_flight = Vec::new();
        let mut is_closed = false;
        let mut sent = 0;
        let mut outcome = None;
        let mut closing = shut_down(&mut stream, policy);
        for act in acts {
            match act {
                Act::Send(amount) if !is_closed => {
                    io::Write::write_all(&mut peer.tls.writer(), &vec![0; amount]).expect("buffered");
                    in_flight.extend(peer.records());
                    sent += amount;
                }
                Act::Close if !is_closed => {
                    peer.tls.send_close_notify();
                    in_flight.extend(peer.records());
                    is_closed = true;
                }
                Act::Arrive(amount) => {
                    let arrived: Vec<u8> = in_flight.drain(..amount.min(in_flight.len().saturating_sub(1))).collect();
                    peer.wire.deliver(&arrived);
                }
                Act::Take(amount) => peer.wire.script(|script| script.room += amount),
                Act::Poll if outcome.is_none() => {
                    if let std::task::Poll::Ready(result) = closing.poll() {
                        outcome = Some(result);
                    }
                }
                Act::Drop if outcome.is_none() => {
                    drop(closing);
                    closing = shut_down(&mut stream, policy);
                }
                _ => {}
            }
        }
        if !is_closed {
            peer.tls.send_close_notify();
            in_flight.extend(peer.records());
        }
        let last = in_flight.pop().expect("close_notify");
        peer.wire.deliver(&in_flight);
        match end {
            PeerEnd::Whole => peer.wire.deliver(&[last]),
            PeerEnd::Cut => peer.wire.script(|script| script.then = Then::End),
            PeerEnd::Reset => peer.wire.script(|script| script.then = Then::Error(io::ErrorKind::ConnectionReset)),
        }
        peer.wire.script(|script| script.room = usize::MAX);
        let outcome = outcome.unwrap_or_else(|| match closing.poll() {
            std::task::Poll::Ready(result) => result,
            std::task::Poll::Pending => panic!("everything is there"),
        });
        drop(closing);

        let expected = match (policy.with_max_drain_bytes(0) == UNIDIRECTIONAL.with_max_drain_bytes(0), end) {
            (true, _) => Ending::Sent,
            (false, PeerEnd::Whole) => Ending::Complete,
            (false, PeerEnd::Cut) => Ending::Truncated,
            (false, PeerEnd::Reset) => Ending::Reset,
        };
        prop_assert_eq!(ending(outcome.clone()), expected);
        let report = outcome.unwrap_or_else(|error| *error.report());
        if expected == Ending::Complete {
            prop_assert_eq!(report.discarded(), sent as u64);
        }
        let (received, closed) = peer.receive().expect("authentic records");
        prop_assert_eq!(closed, report.sent());
        prop_assert_eq!(peer.wire.is_finished(), report.sent());
        prop_assert!(received.iter().all(|byte| *byte == 7) && received.len() == data, "all data, whatever the end");
        prop_assert_eq!(ends.load(Ordering::Relaxed), 0);
        drop(stream);
        prop_assert_eq!(ends.load(Ordering::Relaxed), 1);
    }
}
