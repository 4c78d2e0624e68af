//! A cap on what is in progress. Nothing waits here: a queue, and who goes first in it, is the caller's.

/// Whether one more may begin while `current` are in progress.
pub fn admit(current: usize, max: usize) -> bool {
    current < max
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_is_given_and_no_more() {
        assert_eq!([admit(9, 10), admit(10, 10), admit(11, 10)], [true, false, false]);
        assert!(!admit(0, 0) && !admit(usize::MAX, usize::MAX) && admit(usize::MAX - 1, usize::MAX));
    }
}
