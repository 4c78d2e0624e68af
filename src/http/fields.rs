//! The fields of a head as they are read: places in the one buffer it arrived in, and what they say of the message's own
//! connection.
//!
//! Only what decides framing and persistence is looked at here, once, while the lines are walked. Everything else is
//! for whoever gets the list ([`Fields`]), whose memory belongs to the worker and goes from message to message.

use std::cell::RefCell;

use super::head::Framing;
use crate::core::fields::{Fields, Span, is_spelt};

/// Field lines of one head or of one trailer section.
pub const FIELDS_MAX: usize = 100;

/// What a head says of its connection and of the body that follows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    length: Length,
    coding: Coding,
    pub close: bool,
    pub keep_alive: bool,
    pub upgrade: bool,
    pub continues: bool,
    /// TE names `trailers`.
    pub trailers: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Length {
    #[default]
    None,
    Is(u64),
    /// Not a number, or two that differ.
    Unclear,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Coding {
    #[default]
    None,
    Chunked,
    Unclear,
}

/// What `httparse` found in `buffer`, and what framing and persistence depend on. The fields are still to be told which
/// bytes they lie in.
pub fn read(buffer: &[u8], found: &[httparse::Header<'_>]) -> (Fields, Told) {
    let mut fields = fresh(found.len());
    let mut told = Told::default();
    for header in found {
        told.add(header.name.as_bytes(), header.value);
        fields.came(buffer, place(buffer, header.name.as_bytes()), place(buffer, header.value));
    }
    (fields, told)
}

impl Told {
    #[inline]
    fn add(&mut self, name: &[u8], value: &[u8]) {
        // By length first: most names are none of these.
        match name.len() {
            2 if is_spelt(name, b"te") => self.trailers |= has_word(value, b"trailers"),
            6 if is_spelt(name, b"expect") => {
                self.continues |= value.eq_ignore_ascii_case(b"100-continue");
            }
            7 if is_spelt(name, b"upgrade") => self.upgrade = true,
            10 if is_spelt(name, b"connection") => {
                self.close |= has_word(value, b"close");
                self.keep_alive |= has_word(value, b"keep-alive");
            }
            14 if is_spelt(name, b"content-length") => self.add_length(value),
            17 if is_spelt(name, b"transfer-encoding") => {
                let chunked = self.coding == Coding::None && value.eq_ignore_ascii_case(b"chunked");
                self.coding = if chunked { Coding::Chunked } else { Coding::Unclear };
            }
            _ => {}
        }
    }

    fn add_length(&mut self, value: &[u8]) {
        let read = parse_length(value).map_or(Length::Unclear, Length::Is);
        self.length = match self.length {
            Length::None => read,
            same if same == read => same,
            Length::Is(_) | Length::Unclear => Length::Unclear,
        };
    }

    /// RFC 9112 §6.3 for a message of which nothing else says that it has no body. `none` is what no frame means.
    pub fn framing(&self, http_11: bool, none: Framing) -> Framing {
        match (self.coding, self.length) {
            (Coding::None, Length::None) => none,
            (Coding::None, Length::Is(length)) => Framing::length(length),
            (Coding::Chunked, Length::None) if http_11 => Framing::Chunked,
            (Coding::None | Coding::Chunked | Coding::Unclear, _) => Framing::Unclear,
        }
    }

    /// RFC 9112 §9.3: HTTP/1.1 persists unless it says close, HTTP/1.0 does not unless it says so.
    pub fn persists(&self, http_11: bool) -> bool {
        !self.close && (http_11 || self.keep_alive)
    }
}

/// A list with room for so many fields and for those that a proxy adds.
fn fresh(fields: usize) -> Fields {
    let mut spare = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
    spare.reserve((fields + ADDED).max(USUAL), USUAL_BYTES);
    spare
}

/// Takes a list that nobody needs any more, so that the worker's next message uses its memory.
pub fn give_back(mut fields: Fields) {
    let (lines, bytes) = fields.capacity();
    if (USUAL..=KEPT_MAX).contains(&lines) && bytes <= KEPT_BYTES_MAX {
        fields.clear();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_MAX {
                spare.push(fields);
            }
        });
    }
}

/// Fields that a proxy adds to a message.
const ADDED: usize = 12;
/// Room in a list for most messages; 1.5 KB together.
const USUAL: usize = 24;
const USUAL_BYTES: usize = 768;
/// A list that has grown beyond this is not kept.
const KEPT_MAX: usize = 128;
const KEPT_BYTES_MAX: usize = 8 * 1024;
/// Lists kept by a worker.
const SPARE_MAX: usize = 128;

thread_local! {
    static SPARE: RefCell<Vec<Fields>> = const { RefCell::new(Vec::new()) };
}

/// Digits and nothing else, up to 64 bits.
fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// Whether a list of words names this one.
fn has_word(list: &[u8], word: &[u8]) -> bool {
    if !list.contains(&b',') {
        return list.trim_ascii().eq_ignore_ascii_case(word); // most lists have one
    }
    list.split(|byte| *byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(word))
}

/// Where `part`, a piece of `buffer`, begins and ends in it. Heads are far below 4 GB.
fn place(buffer: &[u8], part: &[u8]) -> Span {
    let start = (part.as_ptr() as usize).saturating_sub(buffer.as_ptr() as usize);
    (start as u32, (start + part.len()) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &[(&str, &str)]) -> Told {
        let mut told = Told::default();
        for (name, value) in lines {
            told.add(name.as_bytes(), value.as_bytes());
        }
        told
    }

    #[test]
    fn the_frame_is_one_length_or_one_chunked_or_unclear() {
        let framing = |lines: &[(&str, &str)]| told(lines).framing(true, Framing::None);
        let (length, chunked) = (("Content-Length", "5"), ("transfer-encoding", "Chunked"));
        assert_eq!(framing(&[]), Framing::None);
        assert_eq!(framing(&[length]), Framing::Length(5));
        assert_eq!(framing(&[("content-length", "0")]), Framing::None);
        assert_eq!(framing(&[length, length]), Framing::Length(5), "refused by whoever judges requests");
        assert_eq!(framing(&[chunked]), Framing::Chunked);
        for unclear in [
            &[length, chunked][..],
            &[chunked, length],
            &[chunked, chunked],
            &[length, ("content-length", "6")],
            &[("content-length", "+5")],
            &[("content-length", "")],
            &[("content-length", "18446744073709551616")],
            &[("transfer-encoding", "gzip, chunked")],
            &[("transfer-encoding", "gzip"), chunked],
        ] {
            assert_eq!(framing(unclear), Framing::Unclear, "{unclear:?}");
        }
        assert_eq!(told(&[chunked]).framing(false, Framing::None), Framing::Unclear, "HTTP/1.0 has no codings");
    }

    #[test]
    fn persistence_depends_on_version_and_connection() {
        let persists = |value: &str, http_11| told(&[("connection", value)]).persists(http_11);
        assert!(persists("", true) && !persists("", false));
        assert!(persists("keep-alive", false) && persists("x, Keep-Alive", false));
        assert!(!persists("close", true) && !persists("x,close ", true) && !persists("close, keep-alive", false));
        assert!(persists("closed", true), "a word is a word");
    }
}
