//! What `tls-shutdown serve` promises, each with a control: a server for which the test fails.
//!
//! They share a process: each test has servers of its own, and some have a network of their own. Apart are tests that fail on a busy
//! machine: `states` and `client_drain` measure short times, `floods` measures memory and latency under load and raises the limit of file
//! descriptors, `rolling_restart` needs the machine for its load.

mod backlog;
mod early_answer;
mod exit;
mod no_false_close_notify;
mod outlasting;
