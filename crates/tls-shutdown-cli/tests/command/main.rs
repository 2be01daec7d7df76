//! The `tls-shutdown` command as a user runs it: processes, sockets, exit codes.

mod client;
mod demo;
mod drain;
mod endings;
mod errors;
mod probe;
mod process;
mod send;
mod shells;
mod slow_readers;
mod sockets;
mod standard_streams;
