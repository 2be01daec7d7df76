//! The examples as a user runs them.

mod clients;
mod handovers;
mod harness;
mod servers;
