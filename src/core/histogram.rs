//! The layout of an HdrHistogram (Gil Tene) for latencies: microseconds to about an hour, two significant digits.
//! Only the arithmetic lives here; who counts, and how, is `telemetry`'s.

/// Values below this have a cell of their own; above, each doubling has half as many cells.
const SUB_BUCKETS: u64 = 256;
const HALF: u64 = SUB_BUCKETS / 2;
/// Doublings above the first `SUB_BUCKETS` values: up to 2^32 µs, 71 minutes.
const DOUBLINGS: u64 = 24;

/// Number of cells.
pub const BUCKETS: usize = (SUB_BUCKETS + DOUBLINGS * HALF) as usize;

/// The cell of a value in microseconds; values larger than the last cell's (71 minutes) are counted there.
pub fn index(micros: u64) -> usize {
    if micros < SUB_BUCKETS {
        return micros as usize;
    }
    let shift = u64::from(63 - micros.leading_zeros()) - 7;
    let cell = SUB_BUCKETS + (shift - 1) * HALF + ((micros >> shift) - HALF);
    (cell as usize).min(BUCKETS - 1)
}

/// The smallest value of a cell below [`BUCKETS`].
pub fn lower_bound(index: usize) -> u64 {
    let index = index as u64;
    if index < SUB_BUCKETS {
        return index;
    }
    let above = index - SUB_BUCKETS;
    let shift = above / HALF + 1;
    (above % HALF + HALF) << shift
}

/// The largest value of a cell below [`BUCKETS`].
pub fn upper_bound(index: usize) -> u64 {
    lower_bound(index + 1) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_cell_and_cells_follow_each_other() {
        for cell in 0..BUCKETS {
            assert_eq!(index(lower_bound(cell)), cell);
            assert_eq!(index(upper_bound(cell)), cell);
        }
        assert_eq!(index(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_cell_is_within_a_hundredth_of_its_values() {
        for cell in SUB_BUCKETS as usize..BUCKETS {
            let (low, high) = (lower_bound(cell), upper_bound(cell));
            assert!((high - low) as f64 / low as f64 <= 0.01);
        }
    }

    #[test]
    fn cells_are_contiguous_and_cover_an_hour() {
        assert_eq!(lower_bound(0), 0);
        for cell in 1..BUCKETS {
            assert_eq!(lower_bound(cell), upper_bound(cell - 1) + 1);
        }
        assert_eq!(upper_bound(BUCKETS - 1), u64::from(u32::MAX));
        assert!(upper_bound(BUCKETS - 1) > 3_600_000_000);
    }

    #[test]
    fn values_at_the_edges_fall_on_their_side() {
        for edge in [SUB_BUCKETS, 2 * SUB_BUCKETS, 1 << 20, 1 << 31] {
            assert_eq!(index(edge), index(edge - 1) + 1, "{edge}");
            assert_eq!(index(edge), index(edge + 1), "{edge}");
        }
        let last = u64::from(u32::MAX);
        assert_eq!([index(last - 1), index(last), index(last + 1)], [BUCKETS - 1; 3]);
        assert_eq!([index(0), index(1), index(255), index(256), index(257), index(258)], [0, 1, 255, 256, 256, 257]);
    }
}
