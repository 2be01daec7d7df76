//! The table against an oracle that knows no table: what must hold on every way through it, whatever the events.

mod printed;
mod ways;

use std::collections::BTreeSet;

use self::ways::{History, explore_all, follow};
use super::{Begun, CloseState, Event, Goal, Local, Remote, Step, UnexpectedEof, Unsent};
use crate::tls::report::{Alert, Ending};

const GOALS: [Goal; 8] = [
    Goal::Notify,
    Goal::UnwrapInitiate,
    Goal::UnwrapReply,
    Goal::UnwrapSilent,
    Goal::Send,
    Goal::SendThenListen,
    Goal::ReceiveFirst,
    Goal::Both,
];
const KEEPS_TRANSPORT: &[Goal] = &[Goal::Notify, Goal::UnwrapInitiate, Goal::UnwrapReply, Goal::UnwrapSilent];

/// What asks for more comes later, and of two that ask for the same, the one that sends earlier.
const ORDER: [Goal; 8] = [
    Goal::Notify,
    Goal::UnwrapSilent,
    Goal::UnwrapReply,
    Goal::UnwrapInitiate,
    Goal::Send,
    Goal::SendThenListen,
    Goal::ReceiveFirst,
    Goal::Both,
];

const EOFS: [UnexpectedEof; 2] = [UnexpectedEof::Truncates, UnexpectedEof::Ends];
const ALERT: Ending = Ending::PeerAlert(Alert(80));

const READ_FAILURES: [Ending; 6] =
    [Ending::Reset, ALERT, Ending::ProtocolError, Ending::NotTls, Ending::TlsLimit, Ending::DrainLimit];

#[test]
fn every_closing_ends_in_a_bounded_number_of_steps() {
    let mut longest = 0;
    explore_all(|_, _, state, history, _| {
        longest = longest.max(history.steps.len());
        // An end is an end: it is the same however often it is asked for.
        let mut again = *state;
        let begun = again.begin(state.goal, state.unexpected_eof);
        if matches!(state.remote, Remote::Unread | Remote::ForReader) {
            assert!(!matches!(again.step(), Step::End(_)), "what was in the way may be gone: {history:?}");
        } else {
            assert_eq!((begun, again), (Begun::Continued, *state), "{history:?}");
        }
    });
    assert!(longest <= 10, "{longest} steps");
}

/// Also from states that no shutdown reaches today.
#[test]
fn every_state_ends() {
    for goal in GOALS {
        for unexpected_eof in EOFS {
            for local in LOCALS {
                for remote in REMOTES {
                    let state = CloseState { goal, unexpected_eof, local, remote };
                    let mut ends = 0;
                    follow(state, &History::default(), false, &mut |_, history, _| {
                        ends += 1;
                        assert!(history.steps.len() <= 10, "{state:?}: {history:?}");
                    });
                    assert!(ends > 0);
                }
            }
        }
    }
}

/// A second call, for every goal, at every end of the first: what the first has sent is sent.
#[test]
fn a_second_call_sends_nothing_twice() {
    explore_all(|_, _, first, history, _| {
        for goal in GOALS {
            let mut state = *first;
            state.begin(goal, UnexpectedEof::Truncates);
            let sent = first.sent();
            let finished = first.local == Local::Finished;
            follow(state, &History::default(), true, &mut |last, second, ending| {
                let repeats = |step: &Step| match step {
                    Step::FlushData | Step::QueueCloseNotify | Step::WriteCloseNotify => sent,
                    Step::Finish => finished,
                    _ => false,
                };
                assert!(!second.steps.iter().any(repeats), "{history:?}, then {second:?}");
                assert!(last.sent() >= sent, "{history:?}, then {second:?}");
                // A failure stays one; only what was rejected can be read meanwhile.
                if let Remote::Failed(reason) = first.remote
                    && reason != Ending::Truncated
                {
                    let refused = first.local == Local::Withheld(Ending::Refused);
                    let expected = if refused { Ending::Refused } else { reason };
                    assert_eq!(ending, expected, "{history:?}, then {second:?}");
                }
            });
        }
    });
}

#[test]
fn fin_never_precedes_close_notify() {
    explore_all(|_, _, _, history, _| {
        if let Some(fin) = history.steps.iter().position(|step| *step == Step::Finish) {
            assert!(history.wrote_close_notify().is_some_and(|written| written < fin), "{history:?}");
        }
    });
}

#[test]
fn a_goal_that_keeps_the_transport_never_sends_fin() {
    explore_all(|goal, _, _, history, ending| {
        let fin = history.steps.contains(&Step::Finish);
        assert!(!(KEEPS_TRANSPORT.contains(&goal) && fin), "{history:?}");
        let sent = matches!(ending, Ending::Complete | Ending::Sent) && history.wrote_close_notify().is_some();
        let failed = history.events.iter().any(|event| matches!(event, Event::WriteFailed(_) | Event::CloseTimeout));
        assert!(KEEPS_TRANSPORT.contains(&goal) || !sent || failed || fin, "the others do: {history:?}");
    });
}

#[test]
fn nothing_is_written_after_close_notify() {
    explore_all(|_, _, state, history, _| {
        if let Some(written) = history.wrote_close_notify() {
            assert!(
                history.steps[written + 1..]
                    .iter()
                    .all(|step| matches!(step, Step::FlushTransport | Step::Finish | Step::Drain | Step::ReadPending)),
                "{history:?}"
            );
        }
        assert_eq!(state.sent(), history.wrote_close_notify().is_some(), "{history:?}");
    });
}

#[test]
fn a_truncation_is_never_success() {
    explore_all(|goal, eof, state, history, ending| {
        let Some(end) = history.saw(Event::TransportEnd) else {
            return;
        };
        if history.saw(Event::ZeroReturn).is_some_and(|zero_return| zero_return < end) {
            return;
        }
        assert_ne!(ending, Ending::Complete, "{history:?}");
        assert!(!state.received());
        if eof == UnexpectedEof::Truncates {
            // The one exception: a unidirectional close has reached its goal before, and listens as a favour.
            let reached = history.did(Step::Finish) || (goal == Goal::Notify && history.did(Step::FlushTransport));
            assert!(ending != Ending::Sent || reached, "{history:?}");
            assert!(history.steps[end + 1..].is_empty() || state.received(), "nothing is done after it: {history:?}");
        }
    });
}

/// What the design says of every ending, in terms of what happened, not of the table's states.
#[test]
fn every_ending_is_what_happened() {
    let mut endings = BTreeSet::new();
    explore_all(|goal, eof, state, history, ending| {
        endings.insert(ending.name());
        let flushed = history.steps.contains(&Step::QueueCloseNotify);
        let wrote = history.wrote_close_notify().is_some();
        let first = |wanted: &dyn Fn(&Event) -> bool| history.events.iter().position(wanted);
        let zero_return = history.saw(Event::ZeroReturn);
        let failed_write = first(&|event| matches!(event, Event::WriteFailed(_) | Event::StallTimeout));
        match ending {
            Ending::Complete => {
                assert!(zero_return.is_some(), "{history:?}");
                let silent = goal == Goal::UnwrapSilent;
                assert!(silent || (flushed && (wrote || failed_write.is_some())), "{history:?}");
                assert!(
                    silent || wrote || !KEEPS_TRANSPORT.contains(&goal),
                    "half an alert is on the wire: {history:?}"
                );
            }
            Ending::Sent => assert!(wrote && zero_return.is_none(), "{history:?}"),
            Ending::Truncated => assert!(history.saw(Event::TransportEnd).is_some(), "{history:?}"),
            Ending::Reset => assert!(
                history.saw(Event::ReadFailed(Ending::Reset)).is_some()
                    || history.saw(Event::WriteFailed(Ending::Reset)).is_some(),
                "{history:?}"
            ),
            Ending::TimedOut => assert!(
                history.saw(Event::CloseTimeout).is_some() || history.saw(Event::StallTimeout).is_some(),
                "{history:?}"
            ),
            Ending::PeerData => assert!(history.saw(Event::PeerData).is_some(), "{history:?}"),
            Ending::PeerAlert(_) | Ending::ProtocolError | Ending::NotTls | Ending::TlsLimit | Ending::DrainLimit => {
                let read = history.saw(Event::ReadFailed(ending));
                assert!(read.or(history.saw(Event::WriteFailed(ending))).is_some(), "{history:?}");
            }
            _ if goal == Goal::UnwrapSilent && wrote => panic!("it has spoken: {history:?}"),
            Ending::NotStarted => assert!(!flushed && !wrote, "{history:?}"),
            Ending::Refused => {
                let at_once = history.steps.len() == 1 && matches!(history.events[0], Event::ReadFailed(_));
                assert!(at_once || history.saw(Event::WriteFailed(ending)).is_some(), "{history:?}");
            }
            other => panic!("{other:?} is no ending of a shutdown that ran undisturbed: {history:?}"),
        }
        // What a goal asks for was got, or something has gone wrong.
        let wrong = history.events.iter().any(|event| {
            matches!(
                event,
                Event::WriteFailed(_)
                    | Event::ReadFailed(_)
                    | Event::TransportEnd
                    | Event::PeerData
                    | Event::StallTimeout
                    | Event::CloseTimeout
            )
        });
        if !wrong {
            let tickets = history.saw(Event::TicketsKept).is_some();
            let for_reader = history.saw(Event::DataForReader).is_some();
            let waits = !matches!(goal, Goal::Notify | Goal::Send) && !tickets && !for_reader;
            let heard = zero_return.is_some();
            assert_eq!(ending, if heard { Ending::Complete } else { Ending::Sent }, "{history:?}");
            assert!(heard || !waits, "{history:?}");
        }
        // Receive-first: ours answers theirs.
        let receives_first = matches!(goal, Goal::ReceiveFirst | Goal::UnwrapReply | Goal::UnwrapSilent);
        if receives_first && state.goal == goal && eof == UnexpectedEof::Truncates {
            let queued = history.steps.iter().position(|step| *step == Step::QueueCloseNotify);
            assert!(queued.is_none_or(|queued| zero_return.is_some_and(|zero| zero < queued)), "{history:?}");
        }
        // Writing fails before the end of reading is known: all that has arrived is looked at first.
        if let (Some(failed), Ending::Reset) = (failed_write, ending)
            && history.events[failed] == Event::WriteFailed(Ending::Reset)
            && history.events[..failed].iter().all(|event| matches!(event, Event::Done | Event::HandshakeDone))
        {
            let next = history.steps.get(failed + 1);
            assert!(next.is_none_or(|step| *step == Step::ReadPending), "{history:?}");
            assert!(next.is_some(), "{history:?}");
        }
    });
    let expected = [
        "complete",
        "drain_limit",
        "not_started",
        "not_tls",
        "peer_alert",
        "peer_data",
        "protocol_error",
        "refused",
        "reset",
        "sent",
        "timed_out",
        "tls_limit",
        "truncated",
    ];
    assert_eq!(endings.into_iter().collect::<Vec<_>>(), expected);
}

/// What two shutdowns ask for together: all that either asks for, and as early as either.
#[test]
fn a_later_goal_only_raises() {
    let place = |goal| ORDER.iter().position(|other| *other == goal).expect("every goal");
    let waits_to_send = |goal| {
        let state = CloseState { goal, local: Local::Flushed, ..CloseState::OPEN };
        state.step() == Step::Drain
    };
    for first in GOALS {
        for second in GOALS {
            let together = ORDER
                .into_iter()
                .find(|goal| {
                    let asks_for_all = place(*goal) >= place(first).max(place(second));
                    asks_for_all && waits_to_send(*goal) == (waits_to_send(first) && waits_to_send(second))
                })
                .expect("`Both` asks for all");
            let mut state = CloseState::OPEN;
            state.begin(first, UnexpectedEof::Truncates);
            let begun = state.begin(second, UnexpectedEof::Truncates);
            assert_eq!(state.goal, together, "{first:?} then {second:?}");
            assert_eq!(begun == Begun::Anew, together != first, "{first:?} then {second:?}");
        }
    }
}

#[test]
fn an_abort_takes_nothing_back() {
    for goal in GOALS {
        let mut state = CloseState::OPEN;
        state.begin(goal, UnexpectedEof::Truncates);
        loop {
            let mut aborted = state;
            let sent = aborted.sent();
            aborted.abort();
            match state.step() {
                Step::End(Ending::Sent) => {
                    // What the peer was still to be heard for is given up, and data on its way may be.
                    assert_eq!(aborted.step(), Step::End(Ending::Aborted));
                    break;
                }
                Step::End(ending) => {
                    assert_eq!(aborted.step(), Step::End(ending), "an end is an end");
                    break;
                }
                _ => assert_eq!(aborted.step(), Step::End(Ending::Aborted)),
            }
            assert_eq!(aborted.sent(), sent, "{goal:?} {:?}", state.local);
            state.on(if state.step() == Step::Drain { Event::ZeroReturn } else { Event::Done });
        }
    }
}

const LOCALS: [Local; 14] = [
    Local::Open,
    Local::Handshaking,
    Local::Flushing,
    Local::Flushed,
    Local::Notifying,
    Local::Accepted,
    Local::Delivered,
    Local::Finished,
    Local::Broken(Unsent::Data, Ending::Reset),
    Local::Broken(Unsent::CloseNotify, Ending::Reset),
    Local::Broken(Unsent::Nothing, Ending::Reset),
    Local::Withheld(Ending::Quiet),
    Local::Withheld(Ending::Aborted),
    Local::Withheld(Ending::Refused),
];

const REMOTES: [Remote; 5] =
    [Remote::Open, Remote::Closed, Remote::Ended, Remote::Unread, Remote::Failed(Ending::Truncated)];
