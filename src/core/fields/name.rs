//! The names of fields: how they are told apart without comparing letters.

use super::{Lies, Line, slice};

/// A field's name, spelled as it came.
#[derive(Clone, Copy)]
pub struct Name<'f> {
    line: &'f Line,
    /// Where it lies if it came, and if it was made.
    buffers: (&'f [u8], &'f [u8]),
}

impl<'f> Name<'f> {
    #[inline]
    pub(super) fn of(line: &'f Line, buffers: (&'f [u8], &'f [u8])) -> Self {
        Name { line, buffers }
    }

    #[inline]
    pub fn as_bytes(self) -> &'f [u8] {
        slice(if self.line.lies == Lies::Head { self.buffers.0 } else { self.buffers.1 }, self.line.name)
    }

    /// Its length, by which most names are told apart without looking at their letters. A name has at least one.
    #[inline]
    pub fn length(self) -> usize {
        (self.line.name.1 - self.line.name.0) as usize
    }

    /// Whether it is `name`, which is written in lower case.
    #[inline]
    pub fn is(self, name: &str) -> bool {
        self.line.key == key(name.as_bytes()) && is_spelt(self.as_bytes(), name.as_bytes())
    }
}

impl std::fmt::Debug for Name<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&String::from_utf8_lossy(self.as_bytes()), out)
    }
}

/// A set of names, of which it may say that one is in it that is not, but never the other way round: one of 256 marks
/// stands for each (Bloom, 1970, with one hash).
#[derive(Clone, Copy, Debug, Default)]
pub struct Marks([u64; 4]);

impl Marks {
    /// Of names in lower case.
    pub const fn of(names: &[&str]) -> Marks {
        let (mut marks, mut at) = (Marks([0; 4]), 0);
        while at < names.len() {
            marks.add(key(names[at].as_bytes()));
            at += 1;
        }
        marks
    }

    /// Which word and which bit of it, by the key's bits (Fibonacci hashing; Knuth, TAOCP vol. 3, §6.4).
    #[inline(always)]
    const fn place(key: u32) -> (usize, u64) {
        let place = key.wrapping_mul(0x9e37_79b9) >> 24;
        (place as usize >> 6, 1 << (place & 63))
    }

    #[inline(always)]
    pub(super) const fn add(&mut self, key: u32) {
        let (word, bit) = Marks::place(key);
        self.0[word] |= bit;
    }

    #[inline(always)]
    pub(super) const fn has(&self, key: u32) -> bool {
        let (word, bit) = Marks::place(key);
        self.0[word] & bit != 0
    }

    #[inline]
    pub(super) fn meets(&self, other: &Marks) -> bool {
        self.0.iter().zip(&other.0).any(|(mine, its)| mine & its != 0)
    }
}

/// Whether a name is this one, which is written in lower case, whatever case it came in: eight letters at a time.
#[inline]
pub fn is_spelt(name: &[u8], lower: &[u8]) -> bool {
    if name.len() != lower.len() {
        return false;
    }
    let same = |name: &[u8; 8], lower: &[u8; 8]| lowered(u64::from_ne_bytes(*name)) == u64::from_ne_bytes(*lower);
    let ((eights, rest), (lowers, lower_rest)) = (name.as_chunks::<8>(), lower.as_chunks::<8>());
    if !eights.iter().zip(lowers).all(|(name, lower)| same(name, lower)) {
        return false;
    }
    match (name.last_chunk(), lower.last_chunk()) {
        (Some(name), Some(lower)) => rest.is_empty() || same(name, lower),
        _ => rest.eq_ignore_ascii_case(lower_rest),
    }
}

/// Adds 20h to the bytes from `A` to `Z` (after Warren, Hacker's Delight, §6-1).
const fn lowered(bytes: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = ONES << 7;
    let low = bytes & !TOPS;
    let from_a = low + ONES * (0x80 - b'A' as u64);
    let beyond_z = low + ONES * (0x7f - b'Z' as u64);
    bytes | ((from_a ^ beyond_z) & !bytes & TOPS) >> 2
}

/// What two names share if they are the same, in whatever case: the length and three letters. It tells nearly all names
/// apart, so that few are compared letter by letter.
#[inline(always)]
pub(super) const fn key(name: &[u8]) -> u32 {
    let (Some(first), Some(last)) = (name.first(), name.last()) else { return 0 };
    let letters = (*first as u32) << 16 | (name[name.len() / 2] as u32) << 8 | *last as u32;
    (name.len() as u32) << 24 | letters | 0x0020_2020
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::Random;

    #[test]
    fn names_are_the_same_as_byte_for_byte() {
        for byte in 0..=u8::MAX {
            let expected = u64::from_ne_bytes([byte.to_ascii_lowercase(); 8]);
            assert_eq!(lowered(u64::from_ne_bytes([byte; 8])), expected, "{byte}");
        }
        let mut random = Random::new(5);
        let mut same = 0;
        for _ in 0..100_000 {
            let length = random.below(24) as usize;
            let lower: Vec<u8> = (0..length).map(|_| b"abz-_~^19@`{["[random.below(13) as usize]).collect();
            let mut name: Vec<u8> = lower.to_ascii_uppercase();
            for byte in &mut name {
                match random.below(40) {
                    0 => *byte ^= 1 << random.below(8),
                    1..20 => *byte = byte.to_ascii_lowercase(),
                    _ => {}
                }
            }
            let expected = name.eq_ignore_ascii_case(&lower);
            assert_eq!(is_spelt(&name, &lower), expected, "{name:?} {lower:?}");
            same += u32::from(expected);
        }
        assert!(same > 1_000, "{same}");
    }
}
