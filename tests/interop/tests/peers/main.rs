//! Programs of others as peers of the `tls-shutdown` command, and of the library.
//!
//! They share a process: each test has processes, ports and files of its own, and no time in them is short.

mod clients;
mod grpc;
mod half_close;
mod pools;
mod probe;
mod proxies;
mod servers;
mod streams;
mod tickets;
mod unwrap;
