//! Which route a request takes. Paths are a tree of segments, one tree per host pattern, so that the cost depends on
//! the length of the path and not on the number of routes.
//!
//! The most specific wins: an exact host before a wildcard before any; in the path, from the left, a literal segment
//! before `{name}` before `*`; then the rule with more conditions; then the one that stands first in the file. A rule
//! whose conditions fail is passed over for the next best. `/api/*` is `/api` and everything below it.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use http::{HeaderMap, HeaderName, Method};

/// One route's conditions; empty lists match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// `a.example`, or `*.example` for one or more labels in its place.
    pub hosts: Vec<String>,
    /// `/exact`, `/users/{id}`, `/prefix/*`.
    pub path: String,
    pub methods: Vec<Method>,
    pub headers: Vec<(HeaderName, String)>,
    pub query: Vec<(String, String)>,
}

/// Why a rule cannot be in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleProblem {
    NotAbsolute,
    /// `*` anywhere but as the whole last segment.
    StarInside,
    /// Braces that are not a whole segment, or without a name.
    BadParameter,
    ParameterTwice(String),
}

impl fmt::Display for RuleProblem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuleProblem::NotAbsolute => out.write_str("the path must begin with /"),
            RuleProblem::StarInside => out.write_str("* may only be the whole last segment, as in /api/*"),
            RuleProblem::BadParameter => out.write_str("a parameter is a whole segment with a name, as in /users/{id}"),
            RuleProblem::ParameterTwice(name) => write!(out, "the parameter {name} stands twice"),
        }
    }
}

/// The values of a path's `{parameters}`; `*` is what follows the prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params<'p>(Vec<(String, &'p str)>);

impl<'p> Params<'p> {
    pub fn get(&self, name: &str) -> Option<&'p str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }
}

/// What a request found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'p> {
    Route {
        index: usize,
        params: Params<'p>,
    },
    /// The path is known, but not with this method; the methods it is known with, as `Allow` lists them.
    MethodNotAllowed {
        allow: String,
    },
    None,
}

/// The compiled rules.
#[derive(Debug, Default)]
pub struct Router {
    exact: HashMap<String, Node>,
    /// By the suffix with its dot, the longest first.
    wildcard: Vec<(String, Node)>,
    any: Node,
    rules: Vec<Compiled>,
}

#[derive(Debug)]
struct Compiled {
    rule: Rule,
    /// Parameter names and the segment each stands in; `*` is the first segment after the prefix.
    params: Vec<(String, usize)>,
}

#[derive(Debug, Default)]
struct Node {
    literal: HashMap<String, Node>,
    parameter: Option<Box<Node>>,
    /// Rules that end here, the best first.
    here: Vec<usize>,
    /// Rules that match here and everything below, the best first.
    below: Vec<usize>,
}

/// The request as the conditions see it.
struct Asked<'a> {
    method: &'a Method,
    headers: &'a HeaderMap,
    query: Option<&'a str>,
}

impl Router {
    /// Compiles the rules; a rule's index is its place in `rules`.
    pub fn build(rules: &[Rule]) -> Result<Router, Vec<(usize, RuleProblem)>> {
        let mut router = Router::default();
        let mut problems = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            match parse(&rule.path) {
                Ok(path) => {
                    router.rules.push(Compiled { rule: rule.clone(), params: path.params.clone() });
                    router.insert(index, &path, &rule.hosts);
                }
                Err(problem) => problems.push((index, problem)),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        router.wildcard.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        let order = |index: &usize| (std::cmp::Reverse(weight(&rules[*index])), *index);
        router.exact.values_mut().for_each(|node| node.sort(&order));
        router.wildcard.iter_mut().for_each(|(_, node)| node.sort(&order));
        router.any.sort(&order);
        Ok(router)
    }

    /// `host` without its port; `path` normalised.
    pub fn find<'p>(
        &self,
        host: &str,
        path: &'p str,
        method: &Method,
        headers: &HeaderMap,
        query: Option<&str>,
    ) -> Found<'p> {
        let asked = Asked { method, headers, query };
        let rest = path.strip_prefix('/').unwrap_or(path);
        let mut allow = BTreeSet::new();
        for tree in self.trees(host) {
            if let Some(index) = tree.find(Some(rest), self, &asked, &mut allow) {
                return Found::Route { index, params: self.rules[index].values(rest) };
            }
        }
        if allow.is_empty() {
            return Found::None;
        }
        Found::MethodNotAllowed { allow: allow.into_iter().collect::<Vec<_>>().join(", ") }
    }

    /// The trees a host is looked for in, the most specific first.
    fn trees<'r>(&'r self, host: &str) -> impl Iterator<Item = &'r Node> {
        let lower = host.bytes().any(|byte| byte.is_ascii_uppercase()).then(|| host.to_ascii_lowercase());
        let host = lower.as_deref().unwrap_or(host);
        let exact = if self.exact.is_empty() { None } else { self.exact.get(host) };
        let suffixes = self.wildcard.iter();
        let wild: Vec<&Node> = suffixes
            .filter(|(suffix, _)| host.len() > suffix.len() && host.ends_with(suffix.as_str()))
            .map(|(_, node)| node)
            .collect();
        exact.into_iter().chain(wild).chain(std::iter::once(&self.any))
    }

    fn insert(&mut self, index: usize, path: &Path<'_>, hosts: &[String]) {
        if hosts.is_empty() {
            self.any.insert(index, path);
        }
        for host in hosts {
            let host = host.to_ascii_lowercase();
            match host.strip_prefix('*') {
                None => self.exact.entry(host).or_default().insert(index, path),
                Some(suffix) => {
                    let known = self.wildcard.iter().position(|(known, _)| known == suffix);
                    let place = known.unwrap_or_else(|| {
                        self.wildcard.push((suffix.to_owned(), Node::default()));
                        self.wildcard.len() - 1
                    });
                    self.wildcard[place].1.insert(index, path);
                }
            }
        }
    }
}

/// A parsed path pattern.
struct Path<'a> {
    segments: Vec<Segment<'a>>,
    params: Vec<(String, usize)>,
}

enum Segment<'a> {
    Literal(&'a str),
    Parameter,
    Below,
}

fn parse(path: &str) -> Result<Path<'_>, RuleProblem> {
    let rest = path.strip_prefix('/').ok_or(RuleProblem::NotAbsolute)?;
    let (mut segments, mut params) = (Vec::new(), Vec::<(String, usize)>::new());
    let texts: Vec<&str> = rest.split('/').collect();
    for (place, text) in texts.iter().enumerate() {
        let named = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        segments.push(match named {
            _ if *text == "*" && place + 1 == texts.len() => {
                params.push(("*".to_owned(), place));
                Segment::Below
            }
            _ if text.contains('*') => return Err(RuleProblem::StarInside),
            Some(name) if !name.is_empty() && !name.contains(['{', '}']) => {
                if params.iter().any(|(known, _)| known == name) {
                    return Err(RuleProblem::ParameterTwice(name.to_owned()));
                }
                params.push((name.to_owned(), place));
                Segment::Parameter
            }
            Some(_) => return Err(RuleProblem::BadParameter),
            None if text.contains(['{', '}']) => return Err(RuleProblem::BadParameter),
            None => Segment::Literal(text),
        });
    }
    Ok(Path { segments, params })
}

fn weight(rule: &Rule) -> usize {
    rule.headers.len() + rule.query.len() + usize::from(!rule.methods.is_empty())
}

impl Node {
    fn insert(&mut self, index: usize, path: &Path<'_>) {
        let mut node = self;
        for segment in &path.segments {
            node = match segment {
                Segment::Literal(text) => node.literal.entry((*text).to_owned()).or_default(),
                Segment::Parameter => node.parameter.get_or_insert_default(),
                Segment::Below => {
                    node.below.push(index);
                    return;
                }
            };
        }
        node.here.push(index);
    }

    fn sort<K: Ord>(&mut self, order: &impl Fn(&usize) -> K) {
        self.here.sort_by_key(order);
        self.below.sort_by_key(order);
        self.literal.values_mut().for_each(|node| node.sort(order));
        if let Some(parameter) = &mut self.parameter {
            parameter.sort(order);
        }
    }

    /// The best rule for what is left of the path; `None` is nothing left.
    fn find(
        &self,
        rest: Option<&str>,
        router: &Router,
        asked: &Asked<'_>,
        allow: &mut BTreeSet<String>,
    ) -> Option<usize> {
        let deeper = match rest {
            None => self.accept(&self.here, router, asked, allow),
            Some(rest) => {
                let (segment, tail) = match rest.split_once('/') {
                    Some((segment, tail)) => (segment, Some(tail)),
                    None => (rest, None),
                };
                let literal = self.literal.get(segment).and_then(|node| node.find(tail, router, asked, allow));
                literal.or_else(|| {
                    let parameter = self.parameter.as_ref().filter(|_| !segment.is_empty())?;
                    parameter.find(tail, router, asked, allow)
                })
            }
        };
        deeper.or_else(|| self.accept(&self.below, router, asked, allow))
    }

    fn accept(
        &self,
        rules: &[usize],
        router: &Router,
        asked: &Asked<'_>,
        allow: &mut BTreeSet<String>,
    ) -> Option<usize> {
        rules.iter().copied().find(|index| router.rules[*index].accepts(asked, allow))
    }
}

impl Compiled {
    fn accepts(&self, asked: &Asked<'_>, allow: &mut BTreeSet<String>) -> bool {
        let rule = &self.rule;
        let headers = rule
            .headers
            .iter()
            .all(|(name, value)| asked.headers.get_all(name).iter().any(|given| given.as_bytes() == value.as_bytes()));
        let query = rule.query.iter().all(|(name, value)| {
            let mut pairs = asked.query.unwrap_or_default().split('&');
            pairs.any(|pair| pair.split_once('=').unwrap_or((pair, "")) == (name.as_str(), value.as_str()))
        });
        if !(headers && query) {
            return false;
        }
        let method = rule.methods.is_empty()
            || rule.methods.contains(asked.method)
            || (*asked.method == Method::HEAD && rule.methods.contains(&Method::GET));
        if !method {
            allow.extend(rule.methods.iter().map(|method| method.as_str().to_owned()));
        }
        method
    }

    fn values<'p>(&self, rest: &'p str) -> Params<'p> {
        let value = |(name, place): &(String, usize)| {
            let value = if name == "*" { rest.splitn(place + 1, '/').nth(*place) } else { rest.split('/').nth(*place) };
            (name.clone(), value.unwrap_or_default())
        };
        Params(self.params.iter().map(value).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(host: &str, path: &str) -> Rule {
        let hosts = if host.is_empty() { Vec::new() } else { vec![host.to_owned()] };
        Rule { hosts, path: path.to_owned(), ..Rule::default() }
    }

    fn find(router: &Router, host: &str, path: &str) -> Option<usize> {
        match router.find(host, path, &Method::GET, &HeaderMap::new(), None) {
            Found::Route { index, .. } => Some(index),
            Found::MethodNotAllowed { .. } | Found::None => None,
        }
    }

    #[test]
    fn the_most_specific_path_wins_whatever_the_order() {
        let paths = ["/*", "/users/*", "/users/{id}", "/users/me", "/users/{id}/posts", "/users/me/*"];
        let router = Router::build(&paths.map(|path| rule("", path))).unwrap();
        for (path, expected) in [
            ("/", 0),
            ("/other", 0),
            ("/users", 1),
            ("/users/", 1),
            ("/users/7", 2),
            ("/users/me", 3),
            ("/users/7/posts", 4),
            ("/users/me/posts", 5),
            ("/users/7/other", 1),
            ("/users/7/posts/1", 1),
        ] {
            assert_eq!(find(&router, "", path), Some(expected), "{path}");
        }
    }

    #[test]
    fn hosts_come_before_paths_and_fall_back() {
        let rules = [rule("", "/*"), rule("*.example", "/*"), rule("a.example", "/x/*"), rule("*.b.example", "/*")];
        let router = Router::build(&rules).unwrap();
        assert_eq!(find(&router, "A.example", "/x/1"), Some(2));
        assert_eq!(find(&router, "a.example", "/y"), Some(1));
        assert_eq!(find(&router, "c.b.example", "/y"), Some(3));
        assert_eq!(find(&router, "example", "/y"), Some(0));
        assert_eq!(find(&router, ".example", "/y"), Some(0));
    }

    #[test]
    fn conditions_narrow_and_a_rule_that_fails_them_is_passed_over() {
        let mut post = rule("", "/a");
        post.methods = vec![Method::POST];
        let mut header = rule("", "/a");
        header.headers = vec![(HeaderName::from_static("x-kind"), "k".to_owned())];
        let mut query = rule("", "/a");
        query.query = vec![("q".to_owned(), "1".to_owned())];
        let router = Router::build(&[post, header, query]).unwrap();
        let kind = HeaderMap::from_iter([(HeaderName::from_static("x-kind"), "k".parse().unwrap())]);
        let none = HeaderMap::new();
        let index = |method: Method, headers: &HeaderMap, query| match router.find("", "/a", &method, headers, query) {
            Found::Route { index, .. } => index,
            other => panic!("{other:?}"),
        };
        assert_eq!(index(Method::POST, &none, None), 0);
        assert_eq!(index(Method::GET, &kind, None), 1);
        assert_eq!(index(Method::GET, &none, Some("p=0&q=1")), 2);
        let refused = router.find("", "/a", &Method::GET, &none, Some("q=2"));
        assert_eq!(refused, Found::MethodNotAllowed { allow: "POST".to_owned() });
        assert_eq!(router.find("", "/b", &Method::GET, &none, None), Found::None);
    }

    #[test]
    fn parameters_have_their_values() {
        let router = Router::build(&[rule("", "/u/{id}/p/{post}"), rule("", "/f/*")]).unwrap();
        let Found::Route { params, .. } = router.find("", "/u/7/p/x", &Method::GET, &HeaderMap::new(), None) else {
            panic!("not found")
        };
        assert_eq!((params.get("id"), params.get("post"), params.get("no")), (Some("7"), Some("x"), None));
        let Found::Route { params, .. } = router.find("", "/f/a/b", &Method::GET, &HeaderMap::new(), None) else {
            panic!("not found")
        };
        assert_eq!(params.get("*"), Some("a/b"));
    }

    #[test]
    fn every_wrong_rule_is_reported() {
        let wrong = ["a", "/a*", "/*/a", "/{}", "/x{a}", "/{a}/{a}", "/ok"];
        let problems = Router::build(&wrong.map(|path| rule("", path))).unwrap_err();
        assert_eq!(problems.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(problems[5].1, RuleProblem::ParameterTwice("a".to_owned()));
    }

    /// Against a matcher that tries every rule: random rules over a small alphabet, random paths.
    #[test]
    fn it_finds_what_trying_every_rule_finds() {
        for seed in 1..300u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut random = |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state % below) as usize
            };
            let rules: Vec<Rule> = (0..12)
                .map(|_| {
                    let depth = 1 + random(3);
                    let mut path = String::new();
                    for place in 0..depth {
                        let name = format!("{{p{place}}}");
                        path.push('/');
                        path.push_str(
                            [["a", "b", name.as_str(), "*"], ["a", "b", "c", &name]][usize::from(place + 1 < depth)]
                                [random(4)],
                        );
                    }
                    rule("", &path)
                })
                .collect();
            let router = Router::build(&rules).unwrap();
            for _ in 0..50 {
                let path: String = (0..1 + random(4)).map(|_| ["/a", "/b", "/c"][random(3)]).collect();
                assert_eq!(find(&router, "", &path), naive(&rules, &path), "seed {seed} {path}");
            }
        }
    }

    fn naive(rules: &[Rule], path: &str) -> Option<usize> {
        let asked: Vec<&str> = path.split('/').skip(1).collect();
        let rank = |rule: &Rule| -> Option<Vec<u8>> {
            let mut ranks = Vec::new();
            let wanted: Vec<&str> = rule.path.split('/').skip(1).collect();
            for (place, segment) in wanted.iter().enumerate() {
                match (*segment, asked.get(place)) {
                    ("*", _) => {
                        ranks.push(3);
                        return Some(ranks);
                    }
                    (_, None) => return None,
                    (name, Some(_)) if name.starts_with('{') => ranks.push(2),
                    (literal, Some(given)) if literal == *given => ranks.push(1),
                    _ => return None,
                }
            }
            (wanted.len() == asked.len()).then_some(ranks)
        };
        let ranked = rules.iter().enumerate().filter_map(|(index, rule)| Some((rank(rule)?, index)));
        ranked.min().map(|(_, index)| index)
    }
}
