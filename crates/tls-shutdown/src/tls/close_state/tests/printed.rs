//! The table as text: a changed row is a visible difference.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use super::{ALERT, EOFS, GOALS, LOCALS, REMOTES};
use crate::tls::{
    close_state::{CloseState, Event, Goal, UnexpectedEof},
    report::Ending,
};

const EVENTS: [Event; 15] = [
    Event::Done,
    Event::HandshakeDone,
    Event::ZeroReturn,
    Event::TransportEnd,
    Event::ReadFailed(Ending::Reset),
    Event::ReadFailed(ALERT),
    Event::ReadFailed(Ending::ProtocolError),
    Event::ReadFailed(Ending::DrainLimit),
    Event::WriteFailed(Ending::Reset),
    Event::WriteFailed(Ending::Transport(std::io::ErrorKind::TimedOut)),
    Event::PeerData,
    Event::NothingToRead,
    Event::TicketsKept,
    Event::StallTimeout,
    Event::CloseTimeout,
];

/// The table, a block a state: its step, and each event that changes it. Goals with equal blocks share one.
fn printed() -> String {
    let mut text = String::from(
        "The closing handshake: for each state (our half, the peer's half) and goals, the next step, and what each event makes\n\
         of the state. Events that change nothing are left out. Written by the test `the_printed_table_is_current`.\n",
    );
    for local in LOCALS {
        for remote in REMOTES {
            let mut blocks: BTreeMap<String, Vec<Goal>> = BTreeMap::new();
            for goal in GOALS {
                let state = CloseState { goal, unexpected_eof: UnexpectedEof::Truncates, local, remote };
                let mut block = format!("    {:?}\n", state.step());
                for event in EVENTS {
                    for eof in EOFS {
                        if eof == UnexpectedEof::Ends && event != Event::TransportEnd {
                            continue;
                        }
                        let before = CloseState { unexpected_eof: eof, ..state };
                        let mut after = before;
                        after.on(event);
                        if after == before {
                            continue;
                        }
                        let accepted = if eof == UnexpectedEof::Ends { " (accepted)" } else { "" };
                        write!(block, "        {event:?}{accepted} -> {:?}, {:?}", after.local, after.remote)
                            .expect("a string");
                        if after.goal != before.goal {
                            write!(block, ", goal {:?}", after.goal).expect("a string");
                        }
                        block.push('\n');
                    }
                }
                blocks.entry(block).or_default().push(goal);
            }
            for (block, goals) in blocks {
                let goals = if goals.len() == GOALS.len() { "every goal".into() } else { format!("{goals:?}") };
                write!(text, "\n{local:?}, {remote:?}: {goals}\n{block}").expect("a string");
            }
        }
    }
    text
}

#[test]
fn the_printed_table_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tls/close_state/table.txt");
    let printed = printed();
    if std::env::var_os("TLS_SHUTDOWN_PRINT_TABLE").is_some() {
        fs::write(&path, &printed).expect("a writable source tree");
    }
    let current = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        current == printed,
        "the table has changed: run this test with TLS_SHUTDOWN_PRINT_TABLE=1, and look at the difference in {}",
        path.display()
    );
}
