//! Every way through the table, and what has happened on it.

use super::{ALERT, EOFS, GOALS, KEEPS_TRANSPORT, READ_FAILURES};
use crate::tls::{
    close_state::{CloseState, Event, Goal, Local, Step, UnexpectedEof},
    report::Ending,
};

/// What a driver may report while it carries out `step`.
fn events_of(step: Step, state: &CloseState) -> Vec<Event> {
    let failed_reads = READ_FAILURES.map(Event::ReadFailed);
    let failed_write = Event::WriteFailed(Ending::Reset);
    match step {
        Step::FlushData if state.local == Local::Handshaking => {
            [&[Event::HandshakeDone, Event::StallTimeout, Event::TransportEnd, failed_write][..], &failed_reads[..5]]
                .concat()
        }
        Step::FlushData => vec![Event::Done, failed_write, Event::StallTimeout],
        Step::QueueCloseNotify => vec![Event::Done, Event::WriteFailed(Ending::Refused)],
        Step::WriteCloseNotify => vec![Event::Done, failed_write, Event::StallTimeout],
        Step::FlushTransport | Step::Finish => vec![Event::Done, failed_write, Event::CloseTimeout],
        // Tickets are not what an unwrap is about.
        Step::Drain => [
            &[Event::ZeroReturn, Event::TransportEnd, Event::PeerData, Event::CloseTimeout][..],
            // Only a shutdown that is asked for by the half-close of tokio's streams leaves data, when FIN is out.
            if state.goal == Goal::Both { &[Event::DataForReader] } else { &[] },
            if KEEPS_TRANSPORT.contains(&state.goal) { &[] } else { &[Event::TicketsKept] },
            &failed_reads,
        ]
        .concat(),
        Step::ReadPending => [
            &[Event::ZeroReturn, Event::TransportEnd, Event::PeerData, Event::NothingToRead, Event::CloseTimeout][..],
            &failed_reads,
        ]
        .concat(),
        Step::End(_) => vec![],
    }
}

/// What the application's reads may find while the shutdown is not polled.
const PASSING: [Event; 4] =
    [Event::ZeroReturn, Event::TransportEnd, Event::ReadFailed(Ending::Reset), Event::ReadFailed(ALERT)];

/// What has happened on one way through the table, in the words of the RFCs and not of the table.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) steps: Vec<Step>,
    pub(super) events: Vec<Event>,
}

impl History {
    pub(super) fn did(&self, step: Step) -> bool {
        self.steps.iter().zip(&self.events).any(|(done, event)| *done == step && *event == Event::Done)
    }

    pub(super) fn saw(&self, event: Event) -> Option<usize> {
        self.events.iter().position(|seen| *seen == event)
    }

    pub(super) fn wrote_close_notify(&self) -> Option<usize> {
        self.steps
            .iter()
            .zip(&self.events)
            .position(|(step, event)| (*step, *event) == (Step::WriteCloseNotify, Event::Done))
    }
}

/// Follows every way on from a state, with one event at most that passes by, and calls `check` at each end.
pub(super) fn follow(
    state: CloseState,
    history: &History,
    passed: bool,
    check: &mut impl FnMut(&CloseState, &History, Ending),
) {
    assert!(history.steps.len() < 24, "no end in sight: {history:?}");
    let step = state.step();
    if let Step::End(ending) = step {
        check(&state, history, ending);
        return;
    }
    let own = events_of(step, &state).into_iter().map(|event| (event, passed));
    let passing = PASSING.into_iter().filter(|_| !passed).map(|event| (event, true));
    for (event, passed) in own.chain(passing) {
        let mut next = state;
        next.on(event);
        if next == state {
            assert!(passed, "{step:?} makes no progress with {event:?} in {state:?}");
            continue;
        }
        let mut history = history.clone();
        history.steps.push(step);
        history.events.push(event);
        follow(next, &history, passed, check);
    }
}

/// Follows every way through the table, and calls `check` at each end of one.
fn explore(
    goal: Goal,
    eof: UnexpectedEof,
    before: Option<Event>,
    check: &mut impl FnMut(&CloseState, &History, Ending),
) {
    let mut state = CloseState::OPEN;
    let mut history = History::default();
    if let Some(event) = before {
        state.on(event);
        history.steps.push(Step::End(Ending::Aborted));
        history.events.push(event);
    }
    state.begin(goal, eof);
    follow(state, &history, before.is_some(), check);
}

pub(super) fn explore_all(mut check: impl FnMut(Goal, UnexpectedEof, &CloseState, &History, Ending)) {
    let befores = [
        None,
        Some(Event::ZeroReturn),
        Some(Event::TransportEnd),
        Some(Event::WriteFailed(Ending::Reset)),
        Some(Event::ReadFailed(Ending::Reset)),
        Some(Event::ReadFailed(ALERT)),
        Some(Event::ReadFailed(Ending::ProtocolError)),
    ];
    let mut ends = 0;
    for goal in GOALS {
        for eof in EOFS {
            for before in befores {
                explore(goal, eof, before, &mut |state, history, ending| {
                    ends += 1;
                    check(goal, eof, state, history, ending);
                });
            }
        }
    }
    assert!(ends > 2000, "the ways through the table are many: {ends}");
}
