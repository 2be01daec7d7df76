//! Servers over loopback, and what their clients see.
//!
//! These tests wait for sockets and short times of the clock, and change nothing of their process, so that they share it. What does change
//! it has a binary of its own: `logging`, `file_descriptors`.

mod client_authentication;
mod closed_by_server;
mod connections;
mod drain;
mod early_answers;
mod endless_responses;
mod first_messages;
mod handshake_failures;
mod http1_endings;
mod http2_endings;
mod idle;
mod idle_behind_balancers;
mod late_bytes;
mod listener;
mod max_connections;
mod plain_sockets;
mod rapid_reset;
mod replaced_configurations;
mod reports;
mod routes;
mod stalls;
mod tickets;
mod unix_sockets;
mod upgrades;
mod ways_to_serve;
