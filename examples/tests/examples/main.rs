//! The examples as a user runs them.

mod clients;
#[cfg(feature = "frameworks")]
mod frameworks;
mod handovers;
mod harness;
mod servers;
