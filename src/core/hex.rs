//! Numbers as hexadecimal digits, for ids that every request has.

/// The 16 digits of a number, lower case.
pub fn digits(number: u64) -> [u8; 16] {
    let mut out = [0; 16];
    let (high, low) = out.split_at_mut(8);
    high.copy_from_slice(&eight((number >> 32) as u32));
    low.copy_from_slice(&eight(number as u32));
    out
}

/// Eight digits at once: each half byte is moved to a byte of its own, and those above nine are moved up to the letters.
fn eight(number: u32) -> [u8; 8] {
    let spread = u64::from(number);
    let spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    let spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    let spread = (spread | spread << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = (spread + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    let up = u64::from(b'a' - b'0' - 10);
    (spread + 0x3030_3030_3030_3030 + letters * up).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::Random;

    #[test]
    fn digits_are_those_of_the_formatter() {
        let mut random = Random::new(1);
        let drawn = (0..10_000).map(|_| random.below(u64::MAX));
        for number in [0, 1, 9, 10, 15, 16, 0x0123_4567_89ab_cdef, u64::MAX].into_iter().chain(drawn) {
            assert_eq!(digits(number), format!("{number:016x}").as_bytes());
        }
    }
}
