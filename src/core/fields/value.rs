//! The values of fields: what they may be.

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'f>(&'f [u8]);

impl<'f> Value<'f> {
    /// Of a field that was kept.
    pub fn of(bytes: &'f [u8]) -> Value<'f> {
        Value(bytes)
    }

    pub fn as_bytes(self) -> &'f [u8] {
        self.0
    }

    /// As text, if it is printable ASCII, blanks and tabs.
    pub fn to_str(self) -> Option<&'f str> {
        let printable = |byte: u8| byte == b'\t' || (b' '..=b'~').contains(&byte);
        let all = self.0.iter().fold(true, |all, byte| all & printable(*byte));
        if all { std::str::from_utf8(self.0).ok() } else { None }
    }

    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

impl PartialEq<str> for Value<'_> {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Value<'_> {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

/// RFC 9110 §5.5: no control characters but the tab.
#[inline]
pub(super) fn may_stand(value: &[u8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = ONES << 7;
    // Eight at a time: borrows of the subtraction mark what is below a blank, and what was 7f (Warren, Hacker's
    // Delight, §6-1). It may mark too much, never too little.
    let (eights, rest) = value.as_chunks::<8>();
    let suspect = |eight: &[u8; 8]| {
        let bytes = u64::from_ne_bytes(*eight);
        let deletes = bytes ^ (ONES * 0x7f);
        (bytes.wrapping_sub(ONES * 0x20) & !bytes | deletes.wrapping_sub(ONES) & !deletes) & TOPS
    };
    let good = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    let quiet = eights.iter().fold(0, |all, eight| all | suspect(eight)) == 0;
    // The rest as the end of the last eight, where there are eight: again what was looked at, but in one step.
    let rest_quiet = || value.last_chunk::<8>().is_some_and(|last| suspect(last) == 0);
    (quiet || eights.as_flattened().iter().all(good)) && (rest.is_empty() || rest_quiet() || rest.iter().all(good))
}
