//! One connection over a scripted transport, on a paused clock: what no kernel would do on demand.
//!
//! Only `over_loopback` waits for sockets. All tests share a process.

mod any_input;
mod auto_traits;
mod early_data;
mod exchanges;
mod failed_writes;
mod fatal_errors;
mod half_close;
mod interleavings;
mod interrupted;
mod limits;
mod odd_records;
mod on_end;
mod ordinary_code;
mod over_loopback;
mod peer_data;
mod policies;
mod reaper;
mod records;
mod tasks;
mod truncations;
mod unwrap;
