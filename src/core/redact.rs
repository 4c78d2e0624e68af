//! What must not be written down.

use std::borrow::Cow;

const REDACTED: &str = "REDACTED";

/// The query with the values of the named parameters replaced; names are compared as they stand, ignoring case.
pub fn query<'q>(query: &'q str, names: &[String]) -> Cow<'q, str> {
    let secret = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default();
        names.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
    };
    if !query.split('&').any(secret) {
        return Cow::Borrowed(query);
    }
    let kept = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if secret(pair) => format!("{name}={REDACTED}"),
        Some(_) | None => pair.to_owned(),
    });
    Cow::Owned(kept.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_values_go() {
        let names = vec!["token".to_owned()];
        assert_eq!(query("a=1&b=2", &names), "a=1&b=2");
        assert_eq!(query("a=1&Token=x=y&token&tokens=3", &names), "a=1&Token=REDACTED&token&tokens=3");
    }
}
