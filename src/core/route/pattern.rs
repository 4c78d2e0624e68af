//! What stands in a rule, taken apart: host patterns and path patterns, and what is wrong with them. A pattern that no
//! request could ever match is a problem and not a rule that silently does nothing. How patterns compare with each
//! other is the tree's business.

use std::fmt;
use std::net::Ipv6Addr;

/// Why a rule cannot be in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleProblem {
    NotAbsolute,
    /// Not a path that a normalised request can have.
    Unmatchable,
    /// `*` anywhere but as the whole last segment.
    StarInside,
    /// Braces that are not a whole segment, or without a name.
    BadParameter,
    ParameterTwice(String),
    /// Not a name or address as requests carry it: with a port, or `*` anywhere but as the whole first label.
    BadHost(String),
}

impl RuleProblem {
    /// What is wrong with it, where what it should be does not say so by itself: "PATTERN, which …".
    pub fn fault(&self) -> Option<String> {
        match self {
            RuleProblem::Unmatchable => Some("which is no request's path".to_owned()),
            RuleProblem::ParameterTwice(name) => Some(format!("where the parameter {name} stands twice")),
            RuleProblem::BadHost(host) => Some(format!("with the host {host}")),
            RuleProblem::NotAbsolute | RuleProblem::StarInside | RuleProblem::BadParameter => None,
        }
    }

    /// What the pattern should be.
    pub fn expected(&self) -> &'static str {
        match self {
            RuleProblem::NotAbsolute => "a path that begins with /",
            RuleProblem::Unmatchable => "a path with what is not ASCII escaped, and without %2F, %5C and hidden dots",
            RuleProblem::StarInside => "* only as the whole last segment, as in /api/*",
            RuleProblem::BadParameter => "a parameter that is a whole segment with a name, as in /users/{id}",
            RuleProblem::ParameterTwice(_) => "parameters whose names differ",
            RuleProblem::BadHost(_) => "a host without port: a.example or *.example",
        }
    }
}

impl fmt::Display for RuleProblem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fault) = self.fault() {
            write!(out, "a pattern {fault}; ")?;
        }
        write!(out, "expected {}", self.expected())
    }
}

/// A parsed host pattern.
#[derive(PartialEq)]
pub enum Host {
    Exact(String),
    /// The suffix with its dot.
    Below(String),
    Any,
}

/// Each pattern once, so that no rule stands twice in a tree.
pub fn parse_hosts(patterns: &[String]) -> Result<Vec<Host>, RuleProblem> {
    let mut hosts = Vec::new();
    for pattern in patterns {
        let host = parse_host(pattern).ok_or_else(|| RuleProblem::BadHost(pattern.clone()))?;
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    if hosts.is_empty() || hosts.contains(&Host::Any) {
        hosts = vec![Host::Any];
    }
    Ok(hosts)
}

fn parse_host(pattern: &str) -> Option<Host> {
    if pattern == "*" {
        return Some(Host::Any);
    }
    let lower = pattern.to_ascii_lowercase();
    let text = lower.strip_suffix('.').unwrap_or(&lower);
    let (name, below) = match text.strip_prefix("*.") {
        Some(name) => (name, true),
        None => (text, false),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~');
    let is_name = name.split('.').all(|label| !label.is_empty() && label.bytes().all(plain));
    let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let is_address = !below && inner.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok());
    match (is_name || is_address, below) {
        (false, _) => None,
        (true, false) => Some(Host::Exact(name.to_owned())),
        (true, true) => Some(Host::Below(format!(".{name}"))),
    }
}

/// A parsed path pattern.
pub struct Path<'a> {
    pub segments: Vec<Segment<'a>>,
    /// Each parameter and its segment, counted from 0.
    pub named: Vec<(String, usize)>,
    /// The segment that `*` begins in.
    pub star: Option<usize>,
}

pub enum Segment<'a> {
    Literal(&'a str),
    Parameter,
    Below,
}

/// Takes a normalised path pattern apart.
pub fn parse_path(path: &str) -> Result<Path<'_>, RuleProblem> {
    let rest = path.strip_prefix('/').ok_or(RuleProblem::NotAbsolute)?;
    let mut parsed = Path { segments: Vec::new(), named: Vec::new(), star: None };
    let last = rest.split('/').count() - 1; // there is always one
    for (place, text) in rest.split('/').enumerate() {
        let named = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        parsed.segments.push(match named {
            _ if text == "*" && place == last => {
                parsed.star = Some(place);
                Segment::Below
            }
            _ if text.contains('*') => return Err(RuleProblem::StarInside),
            Some(name) if !name.is_empty() && !name.contains(['{', '}']) => {
                if parsed.named.iter().any(|(known, _)| known == name) {
                    return Err(RuleProblem::ParameterTwice(name.to_owned()));
                }
                parsed.named.push((name.to_owned(), place));
                Segment::Parameter
            }
            Some(_) => return Err(RuleProblem::BadParameter),
            None if text.contains(['{', '}']) => return Err(RuleProblem::BadParameter),
            None => Segment::Literal(text),
        });
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_pattern_knows_its_places() {
        let path = parse_path("/a/{id}/b/{post}/*").unwrap();
        assert_eq!(path.named, [("id".to_owned(), 1), ("post".to_owned(), 3)]);
        assert_eq!((path.star, path.segments.len()), (Some(4), 5));
        let root = parse_path("/").unwrap();
        assert!(matches!(root.segments[..], [Segment::Literal("")]));
    }

    #[test]
    fn each_problem_of_a_path_is_told_apart() {
        for (path, problem) in [
            ("a", RuleProblem::NotAbsolute),
            ("/a*", RuleProblem::StarInside),
            ("/*/a", RuleProblem::StarInside),
            ("/{*}", RuleProblem::StarInside),
            ("/{}", RuleProblem::BadParameter),
            ("/x{a}", RuleProblem::BadParameter),
            ("/{a", RuleProblem::BadParameter),
            ("/{{a}}", RuleProblem::BadParameter),
            ("/{a}/{a}", RuleProblem::ParameterTwice("a".to_owned())),
        ] {
            assert_eq!(parse_path(path).err(), Some(problem), "{path}");
        }
    }

    #[test]
    fn a_host_pattern_is_read_once_in_lower_case() {
        let hosts =
            |patterns: &[&str]| parse_hosts(&patterns.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let several = hosts(&["A.example", "a.example.", "*.B.example", "[::1]"]).unwrap_or_default();
        let expected = [
            Host::Exact("a.example".to_owned()),
            Host::Below(".b.example".to_owned()),
            Host::Exact("[::1]".to_owned()),
        ];
        assert!(several.iter().eq(&expected));
        for any in [&[][..], &["*"], &["a.example", "*"]] {
            assert!(hosts(any).is_ok_and(|hosts| hosts == [Host::Any]));
        }
        assert_eq!(hosts(&["a", "a:80"]).err(), Some(RuleProblem::BadHost("a:80".to_owned())));
    }
}
