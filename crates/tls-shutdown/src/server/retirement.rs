//! [`Retirements`]: which connections end because their TLS configuration was replaced, and when.

use std::{future::pending, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// What was retired: one entry for each call. A certificate is renewed rarely.
#[derive(Clone, Debug, Default)]
pub(super) struct Retirements(watch::Sender<Vec<Retirement>>);

#[derive(Clone, Copy, Debug)]
struct Retirement {
    /// The connections of the configurations before this one.
    before: u64,
    since: Instant,
    within: Duration,
}

impl Retirements {
    /// Retires the connections of the configurations before number `before`.
    pub(super) fn retire(&self, before: u64, within: Duration) {
        let retirement = Retirement { before, since: Instant::now(), within };
        self.0.send_modify(|retirements| retirements.push(retirement));
    }

    /// What a connection under the configuration of this number holds.
    pub(super) fn of_connection(&self, number: u64) -> ConfigOfConnection {
        ConfigOfConnection { number, retirements: self.0.subscribe() }
    }
}

/// The configuration under which a connection was made.
#[derive(Clone, Debug)]
pub(super) struct ConfigOfConnection {
    number: u64,
    retirements: watch::Receiver<Vec<Retirement>>,
}

impl ConfigOfConnection {
    /// Waits until the connection has to end, at a random time within that of its retirement.
    pub(super) async fn until_retired(&self) {
        let mut retirements = self.retirements.clone();
        let share = fastrand::f64();
        loop {
            let due = |retirement: &Retirement| {
                let within = retirement.within;
                let after = Duration::try_from_secs_f64(within.as_secs_f64() * share).unwrap_or(within);
                retirement.since.checked_add(after).filter(|_| self.number < retirement.before)
            };
            let due = retirements.borrow_and_update().iter().filter_map(due).min();
            let passed = async {
                match due {
                    // Boxed, because most connections are never retired.
                    Some(due) => Box::pin(sleep_until(due)).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = passed => return,
                Ok(()) = retirements.changed() => {}
            }
        }
    }
}
