//! `demo`: what ordinary code loses when connections end, measured beside this library, over loopback.
//!
//! [`bare`] and [`ours`] are the two sides. Everything else is the same for both: the application, the clients and what they count.

mod application;
mod bare;
mod client;
mod identity;
mod measurements;
mod network;
mod ours;
mod peers;
mod progress;
mod site;

use std::{io, process::ExitCode, time::Duration};

use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::{arguments::DemoArguments, events::Events, explain::Explanations, failure::Failure, log::Log, runtime};
use identity::Identity;
use measurements::{MEASUREMENTS, Measurement};
use progress::Progress;
use site::Side;

/// How long one measurement may take, for both sides together.
const MEASUREMENT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the whole demo may take.
const DEMO_TIMEOUT: Duration = Duration::from_secs(110);

pub(crate) fn run(arguments: &DemoArguments, log: &Log) -> Result<ExitCode, Failure> {
    let runtime = runtime::start()?;
    let events = Events::new(arguments.format(), Explanations::None);
    let progress = Progress::new(log.writer(), 2 * MEASUREMENTS.len());
    let result = runtime.block_on(measure_all(&events, progress));
    let printed = events.finish();
    // A server of a failed measurement may still run.
    runtime.shutdown_background();
    Ok(match (result?, printed) {
        (0, Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Prints each measurement. Returns how much our side lost in all.
async fn measure_all(events: &Events, mut progress: Progress) -> Result<u64, Failure> {
    let identity = Identity::generate()?;
    let width = MEASUREMENTS.iter().map(|measurement| measurement.what.len()).max().unwrap_or_default();
    events.note(&format!("{:width$}  bare  ours  lost", ""));
    let deadline = Instant::now() + DEMO_TIMEOUT;
    let mut ours_in_all = 0;
    for measurement in MEASUREMENTS {
        let limit = MEASUREMENT_TIMEOUT.min(deadline.saturating_duration_since(Instant::now()));
        let measured = timeout(limit, measure(measurement, &identity, &mut progress)).await;
        let (bare, ours) = measured.unwrap_or_else(|elapsed| Err(elapsed.into())).map_err(|error| {
            progress.clear();
            Failure::new(format!(
                "cannot measure {}: {error}; try again when this machine is less busy",
                measurement.id
            ))
        })?;
        ours_in_all += ours;
        let Measurement { id, what, unit, .. } = measurement;
        events.print(&json!({ "id": id, "what": what, "unit": unit, "bare": bare, "ours": ours }), || {
            format!("{what:width$}  {bare:>4}  {ours:>4}  {unit}")
        });
    }
    progress.clear();
    events.note(
        "bare: tokio-rustls, hyper and hyper-util, as their documentation shows them.\n\
         ours: the same programs with tls-shutdown.\n\
         Read next: crates/tls-shutdown-cli/src/demo/bare.rs and ours.rs, then README.md.",
    );
    Ok(ours_in_all)
}

async fn measure(measurement: &Measurement, identity: &Identity, progress: &mut Progress) -> io::Result<(u64, u64)> {
    progress.begin(measurement.what, Side::Bare);
    let bare = (measurement.measure)(Side::Bare, identity.clone()).await?;
    progress.begin(measurement.what, Side::Ours);
    let ours = (measurement.measure)(Side::Ours, identity.clone()).await?;
    Ok((bare, ours))
}
