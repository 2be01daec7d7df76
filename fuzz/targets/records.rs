//! `Records` over any bytes in any pieces: `cargo +nightly fuzz run records`.
//!
//! The input is the number of pieces, the reader's space, the lengths of the pieces, and the bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/src/one_record.rs"]
mod one_record;

fuzz_target!(|input: &[u8]| {
    let [pieces, space, rest @ ..] = input else { return };
    let (pieces, bytes) = rest.split_at(usize::from(*pieces).min(rest.len()));
    let pieces: Vec<_> = pieces.iter().map(|piece| usize::from(*piece) + 1).collect();
    one_record::assert_one_at_a_time(bytes, &pieces, usize::from(*space) + 1);
});
