//! Closings in which peer, transport and application do what random bytes select.

use proptest::{collection::vec, prelude::*};
use tls_shutdown_tests::hostile::assert_ends_well;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12 * ProptestConfig::default().cases))]

    #[test]
    fn every_closing_ends_within_its_limits_and_tells_the_truth(input in vec(any::<u8>(), 0..120)) {
        assert_ends_well(&input);
    }
}
