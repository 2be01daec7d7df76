//! What holds for every closing, whatever peer, transport and application do. Fuzzing uses it too.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Waker},
    time::Duration,
};

use tls_shutdown::{Ending, PeerData, Reaper, ReaperLimits, ShutdownPolicy, ShutdownReport};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Builder,
    time::{advance, timeout},
};

use crate::{
    Forge, Side, VERSIONS, connect,
    scripted::{BIDIRECTIONAL, RECEIVE_FIRST, Stream, UNIDIRECTIONAL},
    wire::{Buffering, Full, Then},
};

const STALL: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(2);
const LINGER: Duration = Duration::from_secs(3);
const DRAIN: u64 = 5_000;
/// More polls than any closing needs, unless it spins.
const POLLS: usize = 10_000;

/// The bytes of an input. Zeros follow them.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.below(64);
        (0..length).map(|_| self.byte()).collect()
    }
}

fn policy(input: &mut Input<'_>) -> ShutdownPolicy {
    let policy = input
        .one_of(&[
            UNIDIRECTIONAL,
            BIDIRECTIONAL,
            RECEIVE_FIRST,
            BIDIRECTIONAL.until_tickets(1),
            BIDIRECTIONAL.with_peer_data(PeerData::Reject),
            BIDIRECTIONAL.ignore_unexpected_eof(),
            RECEIVE_FIRST.ignore_unexpected_eof(),
            ShutdownPolicy::quiet(),
        ])
        .with_max_drain_bytes(DRAIN);
    policy.with_stall_timeout(STALL).with_close_timeout(DEADLINE)
}

/// Lets everything happen that `input` selects, then closes and drops the stream.
///
/// # Panics
///
/// If the closing does not end within its limits or spins, if `on_end` is not called exactly once, if anything is sent after
/// close_notify, or if the report differs from what was sent.
pub fn assert_ends_well(input: &[u8]) {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(ends_well(Input(input)));
}

async fn ends_well(mut input: Input<'_>) {
    let side = input.one_of(&Side::BOTH);
    let version = input.one_of(&VERSIONS);
    let (stream, peer) = connect(side, version);
    let wire = peer.wire.clone();
    let mut forge = peer.into_forge();
    let told: Arc<Mutex<Vec<ShutdownReport>>> = Arc::default();
    let teller = told.clone();
    let own_policy = policy(&mut input);
    let stream = stream.with_policy(own_policy).on_end(move |report| teller.lock().expect("no panic").push(*report));
    let reaper = Reaper::with_limits(ReaperLimits::new().with_linger_timeout(LINGER).with_linger_idle_timeout(LINGER));
    let mut stream = match input.one_of(&[true, false]) {
        true => stream.with_reaper(&reaper),
        false => stream,
    };

    let closes = input.one_of(&[true, false]);
    let buffering = input.one_of(&[Buffering::Off, Buffering::UntilFlush]);
    wire.script(|script| script.buffering = buffering);

    let mut cx = Context::from_waker(Waker::noop());
    // The forge does not follow a change of keys.
    let mut keeps_keys = true;
    while !input.is_empty() {
        match input.below(12) {
            0 => {
                let kind = input.one_of(&[Forge::DATA, Forge::HANDSHAKE, Forge::ALERT, Forge::CHANGE_CIPHER_SPEC, 99]);
                keeps_keys &= kind != Forge::HANDSHAKE;
                let content = input.bytes();
                forge.send(kind, &content);
            }
            1 => forge.send(Forge::ALERT, &[1, 0]),
            2 => {
                let many = input.below(200) * 50;
                forge.send(Forge::DATA, &vec![0; many]);
            }
            3 => {
                let rubbish = input.bytes();
                wire.deliver(&rubbish);
            }
            4 => {
                let reset = Then::Error(io::ErrorKind::ConnectionReset);
                let then = input.one_of(&[Then::End, reset, Then::Pending]);
                wire.script(|script| script.then = then);
            }
            5 => {
                let room = input.one_of(&[0, 1, 10, 23, 24, 100, usize::MAX]);
                let full = input.one_of(&[Full::Pending, Full::Error(io::ErrorKind::BrokenPipe)]);
                wire.script(|script| (script.room, script.full) = (room, full));
            }
            6 => {
                let piece = input.one_of(&[1, 2, 7, 1000]);
                let delay = input.below(4);
                let error = input.one_of(&[None, Some(io::ErrorKind::NotConnected), Some(io::ErrorKind::BrokenPipe)]);
                wire.script(|script| {
                    (script.piece, script.finish_error) = (piece, error);
                    (script.flush_delay, script.finish_delay) = (delay, delay);
                });
            }
            7 => {
                let data = vec![7; input.below(100) * 100];
                let _ = Pin::new(&mut stream).poll_write(&mut cx, &data);
            }
            8 => {
                let mut space = [0; 1000];
                let mut space = ReadBuf::new(&mut space[..input.below(1000)]);
                let _ = Pin::new(&mut stream).poll_read(&mut cx, &mut space);
            }
            9 => {
                let policy = policy(&mut input);
                let _ = pin!(stream.shutdown_with(policy)).poll(&mut cx);
            }
            10 => match input.below(3) {
                0 => drop(Pin::new(&mut stream).poll_shutdown(&mut cx)),
                1 => drop(Pin::new(&mut stream).poll_flush(&mut cx)),
                _ => drop(pin!(stream.close_notify()).poll(&mut cx)),
            },
            _ => advance(Duration::from_millis(10 * u64::from(input.byte()))).await,
        }
    }

    let report = match closes {
        true => Some(close(&mut stream, own_policy).await),
        false => None,
    };
    drop(stream);
    assert_eq!(reaper.wait_idle(STALL * 2 + DEADLINE + LINGER).await, 0, "the reaper is done");
    let told = told.lock().expect("no panic");
    let [end] = told[..] else { panic!("`on_end` was called {} times", told.len()) };
    if let Some(report) = report {
        assert!(!report.sent() || end.sent(), "{report}, then {end}");
        assert!(report.ending() != Ending::Complete || end.ending() == Ending::Complete, "{report}, then {end}");
    }
    assert!(end.ending() != Ending::Complete || end.received(), "{end}");
    let accepted = wire.script(|script| [&script.outbound[..], &script.buffered].concat());
    if keeps_keys {
        let records = forge.open(&accepted).expect("authentic records");
        let last = records.iter().position(|(kind, content)| (*kind, &content[..]) == (Forge::ALERT, &[1, 0]));
        assert_eq!(last.is_some(), end.sent(), "{end}: {records:?}");
        assert!(last.is_none_or(|last| last + 1 == records.len()), "{end}: {records:?}");
    }
}

/// Closes. Asserts that it ends within the limits and does not spin.
async fn close(stream: &mut Stream, policy: ShutdownPolicy) -> ShutdownReport {
    let mut polls = 0;
    let mut closing = pin!(stream.shutdown_with(policy));
    let closing = poll_fn(|cx| {
        polls += 1;
        assert!(polls < POLLS, "it spins");
        closing.as_mut().poll(cx)
    });
    let outcome = timeout(STALL * 2 + DEADLINE, closing).await.expect("it ends within its limits");
    outcome.unwrap_or_else(|error| *error.report())
}
