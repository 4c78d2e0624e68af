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
        self.line.key == key(name.as_bytes()) && self.as_bytes().eq_ignore_ascii_case(name.as_bytes())
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

/// What two names share if they are the same, in whatever case: the length and three letters. It tells nearly all names
/// apart, so that few are compared letter by letter.
#[inline(always)]
pub(super) const fn key(name: &[u8]) -> u32 {
    let (Some(first), Some(last)) = (name.first(), name.last()) else { return 0 };
    let letters = (*first as u32) << 16 | (name[name.len() / 2] as u32) << 8 | *last as u32;
    (name.len() as u32) << 24 | letters | 0x0020_2020
}
