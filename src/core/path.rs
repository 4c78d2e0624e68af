//! Paths as routes see them: a normalised copy, while the path itself is forwarded as it was received. Two readers of
//! one path must agree on where it leads, so what they could read differently is refused rather than repaired.
//!
//! Plain dot segments and repeated slashes are resolved, because every reader resolves them alike. What only some
//! readers resolve is ambiguous: an encoded slash, an encoded dot segment, a backslash, and a dot segment hidden by a
//! path parameter (`..;x`, which servlet containers read as `..`). Case is left alone: paths are case-sensitive.

use std::borrow::Cow;

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathProblem {
    /// Does not begin with a slash (and is not `*`).
    NotAbsolute,
    /// `%` without two hexadecimal digits, or a byte that must be escaped and is not.
    BadEscape,
    /// An encoded slash, backslash, dot segment or control character, a plain backslash, or a disguised dot segment.
    Ambiguous,
}

/// Merges slashes, resolves dot segments (RFC 3986 §5.2.4) and decodes what needs no escape (§6.2.2.2). Escapes that
/// stay are written in upper case. Copies only when something changes.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, PathProblem> {
    if path == "*" {
        return Ok(Cow::Borrowed(path));
    }
    let Some(rest) = path.strip_prefix('/') else { return Err(PathProblem::NotAbsolute) };
    if is_normal(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    rewrite(rest).map(Cow::Owned)
}

/// Whether readers that resolve dot segments and those that do not would take the path to different places.
pub fn has_dot_segments(path: &str) -> bool {
    path.split('/').any(|segment| matches!(segment, "." | ".."))
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

/// Segment by segment; `rest` is the path after its first slash.
fn rewrite(rest: &str) -> Result<String, PathProblem> {
    let mut out = String::with_capacity(rest.len() + 1);
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        let start = out.len();
        out.push('/');
        let hidden_dot = decode(segment.as_bytes(), &mut out)?;
        match &out[start + 1..] {
            "." | ".." if hidden_dot => return Err(PathProblem::Ambiguous),
            "" | "." => out.truncate(start),
            ".." => {
                out.truncate(start);
                let parent = out.rfind('/').unwrap_or(0);
                out.truncate(parent);
            }
            text if is_disguised(text) => return Err(PathProblem::Ambiguous),
            _ => continue,
        }
        // The path ended in a segment that left nothing: its slash stays.
        if segments.peek().is_none() {
            out.push('/');
        }
    }
    Ok(out)
}

/// A dot segment with a path parameter, however it is written.
fn is_disguised(segment: &str) -> bool {
    let after = segment.strip_prefix("..").or_else(|| segment.strip_prefix('.'));
    after.is_some_and(|after| after.starts_with(';') || after.starts_with("%3B"))
}

/// Writes one segment; true when a dot in it was encoded.
fn decode(segment: &[u8], out: &mut String) -> Result<bool, PathProblem> {
    let mut hidden_dot = false;
    let mut rest = segment;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'%' => {
                let (digits, after) = tail.split_first_chunk::<2>().ok_or(PathProblem::BadEscape)?;
                let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(PathProblem::BadEscape);
                // Two digits of four bits: at most 255.
                let value = (digit(digits[0])? * 16 + digit(digits[1])?) as u8;
                match value {
                    b'/' | b'\\' | 0..=0x1f | 0x7f => return Err(PathProblem::Ambiguous),
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                        hidden_dot |= value == b'.';
                        out.push(char::from(value));
                    }
                    _ => {
                        out.push('%');
                        out.extend(digits.iter().map(|digit| char::from(digit.to_ascii_uppercase())));
                    }
                }
                rest = after;
            }
            b'\\' | 0..=0x20 | 0x7f => return Err(PathProblem::Ambiguous),
            0x80.. => return Err(PathProblem::BadEscape),
            plain => out.push(char::from(*plain)),
        }
    }
    Ok(hidden_dot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::Random;

    #[test]
    fn what_means_the_same_is_the_same() {
        for (given, meant) in [
            ("/", "/"),
            ("//", "/"),
            ("/a/b", "/a/b"),
            ("//a///b", "/a/b"),
            ("/a//", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../a", "/a"),
            ("/..", "/"),
            ("/.", "/"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../..", "/"),
            ("/a/", "/a/"),
            ("/.hidden/a.b", "/.hidden/a.b"),
            ("/...", "/..."),
            ("/..a/.b", "/..a/.b"),
            ("/%61%2D", "/a-"),
            ("/a%2ejson", "/a.json"),
            ("/%2ehidden", "/.hidden"),
            ("/a%20b%e9", "/a%20b%E9"),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/a..;x", "/a..;x"),
            ("/%252e%252e", "/%252e%252e"),
            ("*", "*"),
        ] {
            assert_eq!(normalise(given).as_deref(), Ok(meant), "{given}");
            assert_eq!(normalise(meant).as_deref(), Ok(meant), "{meant} again");
        }
    }

    #[test]
    fn nothing_is_copied_when_nothing_changes() {
        for path in ["/", "/a/b/", "/a.b/c;d=1", "*"] {
            assert!(matches!(normalise(path), Ok(Cow::Borrowed(_))), "{path}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for path in [
            "/a%2fb",
            "/a%2Fb",
            "/%2e%2e/a",
            "/.%2e",
            "/%2E",
            "/a/%2e/b",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/a%0ab",
            "/a%7f",
            "/a b",
            "/..;/a",
            "/a/.;x/b",
            "/..;",
            "/..%3b/a",
            "/%2e%2e;/a",
        ] {
            assert_eq!(normalise(path), Err(PathProblem::Ambiguous), "{path}");
        }
        for path in ["/%", "/%4", "/%zz", "/%+1", "/a%2", "/é", "/%é"] {
            assert_eq!(normalise(path), Err(PathProblem::BadEscape), "{path}");
        }
        for path in ["", "a", "**", "http://a/"] {
            assert_eq!(normalise(path), Err(PathProblem::NotAbsolute), "{path:?}");
        }
    }

    /// Random paths of awkward pieces: what comes out has nothing left to resolve, and normalising it again changes
    /// nothing, so no second reader can end up elsewhere.
    #[test]
    fn a_normalised_path_is_normal() {
        let pieces = ["/", "/", ".", "..", "a", "%2e", "%61", "%2f", "%20", ";", "%3B", "b.c", "%25", "~"];
        let mut random = Random::new(1);
        for _ in 0..50_000 {
            let path: String = std::iter::once("/").chain((0..random.below(8)).map(|_| random.pick(&pieces))).collect();
            let Ok(normal) = normalise(&path) else { continue };
            assert!(normal.starts_with('/') && !normal.contains("//"), "{path}: {normal}");
            assert!(normal.split('/').all(|segment| segment != "." && segment != ".."), "{path}: {normal}");
            assert_eq!(normalise(&normal).as_deref(), Ok(normal.as_ref()), "{path}");
        }
    }
}
