//! Request ids: which of them may be taken over from a hop we trust, and how one of ours is written.
//!
//! Who is trusted is decided by the caller; an id of a stranger is replaced however well it is formed.

use http::HeaderValue;

use super::hex::digits;

/// One request's id.
#[derive(Clone, Debug, Default)]
pub enum RequestId {
    #[default]
    None,
    /// Ours.
    Made([u8; 36]),
    /// Taken over; well-formed.
    Given(HeaderValue),
}

impl RequestId {
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            RequestId::None => b"",
            RequestId::Made(id) => id,
            RequestId::Given(id) => id.as_bytes(),
        }
    }

    pub fn as_str(&self) -> &str {
        // Both kinds are ASCII.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

/// The longest id taken over.
const LENGTH_MAX: usize = 128;

/// Printable, and safe wherever ids are printed: logs, JSON, HTML, headers. 1 to 128 characters.
pub fn well_formed(value: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    !value.is_empty() && value.len() <= LENGTH_MAX && value.iter().all(plain)
}

/// 128 random bits as a UUID, version 4 (RFC 9562 §5.4).
pub fn write(random: u128) -> [u8; 36] {
    let bits = (random & !(0xf << 76) & !(0x3 << 62)) | 0x4 << 76 | 0x2 << 62;
    let (high, low) = (digits((bits >> 64) as u64), digits(bits as u64));
    let mut text = [b'-'; 36];
    text[..8].copy_from_slice(&high[..8]);
    text[9..13].copy_from_slice(&high[8..12]);
    text[14..18].copy_from_slice(&high[12..]);
    text[19..23].copy_from_slice(&low[..4]);
    text[24..].copy_from_slice(&low[4..]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_a_uuid_and_well_formed() {
        assert_eq!(&write(u128::MAX), b"ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(&write(0), b"00000000-0000-4000-8000-000000000000");
        assert_eq!(&write(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef), b"01234567-89ab-4def-8123-456789abcdef");
        assert!(well_formed(&write(0x1234)));
    }

    #[test]
    fn what_could_break_a_log_is_not_taken_over() {
        assert!(well_formed(b"a") && well_formed(&[b'a'; 127]) && well_formed(&[b'a'; 128]));
        assert!(well_formed(b"01ARZ3NDEKTSV4RRFFQ69G5FAV") && well_formed(b"Root=1-67891233-abcdef012345678912345678"));
        for wrong in [&b""[..], &[b'a'; 129], b"a b", b"a\"b", b"<a>", b"a\nb", b"a,b", b"a;b", b"a%b", b"\xff"] {
            assert!(!well_formed(wrong), "{wrong:?}");
        }
    }
}
