//! [`DrainReport`]: how a server drain went.

use std::{collections::BTreeMap, fmt, time::Duration};

use tokio::time::Instant;

use super::Tally;

/// How a server drain went: what became of the connections that were open at the signal or came after it.
///
/// [`Display`](fmt::Display) gives it as a small table.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DrainReport {
    pub(super) tally: Tally,
    pub(super) requests: u64,
    pub(super) handshakes: u64,
    pub(super) shed: u64,
    pub(super) left: usize,
    pub(super) lingering: usize,
    pub(super) acknowledgement: Acknowledgement,
    pub(super) times: Spent,
}

/// Whether the peers' systems have acknowledged what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Acknowledgement {
    /// All of it.
    Everything,
    /// So many bytes are missing. The system goes on to send them, if its network outlives the process.
    Missing(u64),
    /// This system cannot tell, or was not asked.
    Unknown,
}

impl DrainReport {
    /// How many connections ended since the signal, by the [name](crate::Ending::name) of their ending.
    pub fn endings(&self) -> &BTreeMap<&'static str, u64> {
        &self.tally.endings
    }

    /// How many connections ended since the signal.
    pub fn connections(&self) -> u64 {
        self.tally.endings.values().sum()
    }

    /// Connections that had not ended when the grace had: their tasks hold on to them.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Requests that came after the signal and were handed to the service. Known for a [`Server`](crate::server::Server), and behind a
    /// [`DrainLayer`](crate::server::DrainLayer).
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Requests that were begun to be served without the whole response getting out. Known for a [`Server`](crate::server::Server).
    pub fn responses_cut(&self) -> u64 {
        self.tally.responses_cut
    }

    /// Handshakes that were finished after the signal.
    pub fn handshakes_finished(&self) -> u64 {
        self.handshakes
    }

    /// Handshakes that were not.
    pub fn handshakes_cut(&self) -> u64 {
        self.tally.handshakes_cut
    }

    /// Upgraded connections that ended since the signal. Known for a [`Server`](crate::server::Server).
    pub fn upgraded(&self) -> u64 {
        self.tally.upgraded
    }

    /// Connections that were given up since there were too many, in the whole life of the listeners: silent ones in their
    /// handshake, and the oldest of those that were closing.
    pub fn shed(&self) -> u64 {
        self.shed
    }

    /// Connections that were shut down, and that the [reaper](crate::Reaper) had not done with at the exit: their peer still took data,
    /// still sent some, or was not heard of.
    pub fn lingering(&self) -> usize {
        self.lingering
    }

    /// Whether the peers' systems have acknowledged what was sent.
    pub fn acknowledgement(&self) -> Acknowledgement {
        self.acknowledgement
    }

    /// Time from the signal to the end of it all.
    pub fn elapsed(&self) -> Duration {
        let Spent { notice, last_request, deadline, exit } = self.times;
        notice + last_request + deadline + exit
    }

    /// Time spent in [`Notice`](crate::server::DrainPhase::Notice).
    pub fn notice(&self) -> Duration {
        self.times.notice
    }

    /// Time spent in [`LastRequest`](crate::server::DrainPhase::LastRequest).
    pub fn last_request(&self) -> Duration {
        self.times.last_request
    }

    /// Time spent in [`Deadline`](crate::server::DrainPhase::Deadline); zero where it was not reached.
    pub fn deadline(&self) -> Duration {
        self.times.deadline
    }

    /// Time spent in [`Exit`](crate::server::DrainPhase::Exit).
    pub fn exit(&self) -> Duration {
        self.times.exit
    }
}

impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row =
            |f: &mut fmt::Formatter<'_>, name: &str, value: &dyn fmt::Display| writeln!(f, "  {name:<20} {value}");
        writeln!(f, "drained in {:.1?}", self.elapsed())?;
        let mut phases = format!("notice {:.1?}, last request {:.1?}", self.notice(), self.last_request());
        if !self.deadline().is_zero() {
            phases += &format!(", deadline {:.1?}", self.deadline());
        }
        row(f, "phases", &format_args!("{phases}, exit {:.1?}", self.exit()))?;
        let endings: Vec<_> = self.endings().iter().map(|(ending, count)| format!("{count} {ending}")).collect();
        let endings = if endings.is_empty() { "none".to_owned() } else { endings.join(", ") };
        row(f, "connections", &endings)?;
        row(f, "requests", &self.requests)?;
        let handshakes = format_args!("{} finished, {} cut", self.handshakes, self.tally.handshakes_cut).to_string();
        row(f, "handshakes", &handshakes)?;
        let optional: [(&str, u64); 5] = [
            ("responses cut", self.tally.responses_cut),
            ("upgraded", self.tally.upgraded),
            ("shed", self.shed),
            ("left open", self.left as u64),
            ("still listened to", self.lingering as u64),
        ];
        for (name, count) in optional.into_iter().filter(|(_, count)| *count > 0) {
            row(f, name, &count)?;
        }
        match self.acknowledgement {
            Acknowledgement::Everything => write!(f, "  {:<20} everything", "acknowledged"),
            Acknowledgement::Missing(bytes) => write!(f, "  {:<20} all but {bytes} bytes", "acknowledged"),
            Acknowledgement::Unknown => write!(f, "  {:<20} unknown", "acknowledged"),
        }
    }
}

/// When each phase began.
pub(super) struct Times {
    pub(super) signalled: Instant,
    pub(super) last_request: Option<Instant>,
    pub(super) deadline: Option<Instant>,
    pub(super) exit: Option<Instant>,
}

/// The time spent in each phase.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    notice: Duration,
    last_request: Duration,
    deadline: Duration,
    exit: Duration,
}

impl Times {
    pub(super) fn new(signalled: Instant) -> Self {
        Self { signalled, last_request: None, deadline: None, exit: None }
    }

    pub(super) fn spent(&self) -> Spent {
        let ended = Instant::now();
        let exit = self.exit.unwrap_or(ended);
        let deadline = self.deadline.unwrap_or(exit);
        let last_request = self.last_request.unwrap_or(deadline);
        Spent {
            notice: last_request - self.signalled,
            last_request: deadline - last_request,
            deadline: exit - deadline,
            exit: ended - exit,
        }
    }
}
