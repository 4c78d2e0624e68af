//! Paths as routes see them: a normalised copy, while the path itself is forwarded as it was received. Two readers of
//! one path must agree on where it leads, so what they could read differently is refused.

use std::borrow::Cow;

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathProblem {
    /// Does not begin with a slash (and is not `*`).
    NotAbsolute,
    /// `%` without two hexadecimal digits.
    BadEscape,
    /// An encoded slash, backslash, dot segment or control character, or a plain backslash.
    Ambiguous,
}

/// Merges slashes, resolves dot segments (RFC 3986 §5.2.4) and decodes what needs no escape (§6.2.2.2). Escapes that
/// stay are written in upper case.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, PathProblem> {
    if path == "*" {
        return Ok(Cow::Borrowed(path));
    }
    if !path.starts_with('/') {
        return Err(PathProblem::NotAbsolute);
    }
    if is_normal(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path.as_bytes())?;
    Ok(Cow::Owned(resolve(&decoded)))
}

/// Nothing in it needs a second look; the common case, in one pass.
fn is_normal(path: &[u8]) -> bool {
    let mut previous = 0;
    for byte in path {
        let suspect = match byte {
            b'%' | b'\\' | 0..=0x20 | 0x7f.. => true,
            b'/' | b'.' => previous == b'/',
            _ => false,
        };
        if suspect {
            return false;
        }
        previous = *byte;
    }
    true
}

fn decode(path: &[u8]) -> Result<String, PathProblem> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'%' => {
                let digits = tail.get(..2).ok_or(PathProblem::BadEscape)?;
                let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(PathProblem::BadEscape);
                let value = (digit(digits[0])? * 16 + digit(digits[1])?) as u8;
                match value {
                    b'/' | b'\\' | b'.' | 0..=0x1f | 0x7f => return Err(PathProblem::Ambiguous),
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => out.push(char::from(value)),
                    _ => {
                        out.push('%');
                        out.extend(digits.iter().map(|digit| char::from(digit.to_ascii_uppercase())));
                    }
                }
                rest = &tail[2..];
            }
            b'\\' | 0..=0x20 | 0x7f => return Err(PathProblem::Ambiguous),
            0x80.. => return Err(PathProblem::BadEscape),
            plain => out.push(char::from(*plain)),
        }
    }
    Ok(out)
}

/// Dot segments and empty segments; a last one leaves its slash.
fn resolve(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_with_slash = false;
    for segment in path.split('/').skip(1) {
        ends_with_slash = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if ends_with_slash || kept.is_empty() {
        out.push('/');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_the_same_is_the_same() {
        for (given, meant) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("//a///b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../a", "/a"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("/a/", "/a/"),
            ("/.hidden/a.b", "/.hidden/a.b"),
            ("/...", "/..."),
            ("/%61%2D", "/a-"),
            ("/a%20b%e9", "/a%20b%E9"),
            ("*", "*"),
        ] {
            assert_eq!(normalise(given).as_deref(), Ok(meant), "{given}");
            assert_eq!(normalise(meant).as_deref(), Ok(meant), "{meant} again");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for path in ["/a%2fb", "/a%2Fb", "/%2e%2e/a", "/a%5cb", "/a\\b", "/a%00", "/a%0ab", "/a%7f", "/a b"] {
            assert_eq!(normalise(path), Err(PathProblem::Ambiguous), "{path}");
        }
        for path in ["/%", "/%4", "/%zz", "/é"] {
            assert_eq!(normalise(path), Err(PathProblem::BadEscape), "{path}");
        }
        assert_eq!(normalise("a"), Err(PathProblem::NotAbsolute));
    }
}
