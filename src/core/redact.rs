//! What must not be written down: the values of named query parameters.
//!
//! A name is compared as an app would read it: percent-decoded, `+` as a space, ignoring case, so that `tok%65n=secret`
//! does not slip through. Values are replaced whole, never shortened: a prefix of a secret is a part of it.

use std::borrow::Cow;

const REDACTED: &str = "REDACTED";

/// The query with the values of the named parameters replaced.
pub fn query<'q>(query: &'q str, names: &[String]) -> Cow<'q, str> {
    let secret = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default();
        names.iter().any(|wanted| reads_as(name, wanted))
    };
    if names.is_empty() || !query.split('&').any(secret) {
        return Cow::Borrowed(query);
    }
    let mut kept = String::with_capacity(query.len() + REDACTED.len());
    for (place, pair) in query.split('&').enumerate() {
        if place > 0 {
            kept.push('&');
        }
        match pair.split_once('=') {
            Some((name, _)) if secret(pair) => {
                kept.push_str(name);
                kept.push('=');
                kept.push_str(REDACTED);
            }
            Some(_) | None => kept.push_str(pair),
        }
    }
    Cow::Owned(kept)
}

/// Whether an app decodes `name` to `wanted`, give or take case.
fn reads_as(name: &str, wanted: &str) -> bool {
    let mut rest = name.as_bytes();
    let decoded = std::iter::from_fn(|| {
        let (first, tail) = rest.split_first()?;
        let escaped = || {
            let digit = |digit: &u8| char::from(*digit).to_digit(16);
            // Two digits of four bits: at most 255.
            Some((digit(tail.first()?)? * 16 + digit(tail.get(1)?)?) as u8)
        };
        let (byte, used) = match first {
            b'%' => escaped().map_or((b'%', 0), |byte| (byte, 2)),
            b'+' => (b' ', 0),
            plain => (*plain, 0),
        };
        rest = &tail[used..];
        Some(byte.to_ascii_lowercase())
    });
    decoded.eq(wanted.bytes().map(|byte| byte.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_values_go() {
        let names = vec!["token".to_owned(), "api key".to_owned()];
        for (given, written) in [
            ("", ""),
            ("a=1&b=2", "a=1&b=2"),
            ("a=1&Token=x=y&token&tokens=3", "a=1&Token=REDACTED&token&tokens=3"),
            ("token=", "token=REDACTED"),
            ("&&token=1&", "&&token=REDACTED&"),
            ("tok%65n=s&%54oken=s&tok%6=s", "tok%65n=REDACTED&%54oken=REDACTED&tok%6=s"),
            ("api+key=1&api%20key=2&api%2bkey=3", "api+key=REDACTED&api%20key=REDACTED&api%2bkey=3"),
            ("=token&%=1&%zz=1&token%", "=token&%=1&%zz=1&token%"),
        ] {
            assert_eq!(query(given, &names), written, "{given}");
        }
    }

    #[test]
    fn nothing_is_copied_when_nothing_is_secret() {
        assert!(matches!(query("a=1&token=2", &[]), Cow::Borrowed(_)));
        assert!(matches!(query("a=1&b=2", &["token".to_owned()]), Cow::Borrowed(_)));
    }
}
