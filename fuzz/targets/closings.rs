//! Closings with hostile peers, transports and applications.
//!
//! The input is what happens, and in which order.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| tls_shutdown_tests::hostile::assert_ends_well(input));
