//! `Records` returns one record at a time.

use proptest::{collection::vec, prelude::*};
use tls_shutdown_tests::one_record::assert_one_at_a_time;

use crate::unwrap::PLAIN;

/// Bytes that are records, the beginning of a record, or neither.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let record =
        (20..24_u8, any::<u8>(), prop_oneof![0..20_usize, 0..20_000_usize]).prop_map(|(kind, minor, length)| {
            let [high, low] = (length as u16).to_be_bytes();
            [&[kind, 3, minor, high, low][..], &vec![23; length]].concat()
        });
    let odd = vec(prop_oneof![Just(3), 19..25_u8, any::<u8>()], 0..40);
    vec(prop_oneof![3 => record, 1 => odd], 0..6).prop_map(|parts| parts.concat())
}

proptest! {
    /// Records that come in any pieces are returned unchanged, and one read never crosses the end of a record. Bytes that are no record
    /// are left over.
    #[test]
    fn records_are_given_one_at_a_time(
        bytes in bytes(),
        cut in prop::option::of(any::<prop::sample::Index>()),
        pieces in vec(prop_oneof![1..9_usize, 1..9000_usize], 0..5),
        space in 1..5000_usize,
    ) {
        let length = cut.map_or(bytes.len(), |cut| cut.index(bytes.len() + 1));
        assert_one_at_a_time(&bytes[..length], &pieces, space);
    }
}

#[test]
fn records_are_given_one_at_a_time_cut_at_every_byte() {
    let bytes = [&[22, 3, 1, 0, 2, 7, 7][..], &[21, 3, 3, 0, 0], &[23, 3, 3, 0, 20], &[20; 20], PLAIN].concat();
    for length in 0..=bytes.len() {
        for cut in 1..=length.max(1) {
            assert_one_at_a_time(&bytes[..length], &[cut, usize::MAX], 100);
        }
        assert_one_at_a_time(&bytes[..length], &[1], 100);
    }
    for byte in 0..=u8::MAX {
        assert_one_at_a_time(&[byte, 3, 3, 0, 0], &[1], 100);
        assert_one_at_a_time(&[23, byte, 3, 0, 0], &[1], 100);
    }
}
