//! `Records` over any bytes in any pieces.
//!
//! The input is the number of pieces, the reader's space, the lengths of the pieces, and the bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tls_shutdown_tests::one_record::assert_one_at_a_time;

fuzz_target!(|input: &[u8]| {
    let [pieces, space, rest @ ..] = input else { return };
    let (pieces, bytes) = rest.split_at(usize::from(*pieces).min(rest.len()));
    let pieces: Vec<_> = pieces.iter().map(|piece| usize::from(*piece) + 1).collect();
    assert_one_at_a_time(bytes, &pieces, usize::from(*space) + 1);
});
