//! Which route a request takes. Paths are a tree of segments, one tree per host pattern, so that the cost depends on
//! the length of path and host and not on the number of routes.
//!
//! The most specific wins: an exact host before a wildcard (the longest first) before any; in the path, from the left,
//! a literal segment before `{name}` before `*`; then the rule with more conditions; then the one that stands first in
//! the file. A rule whose conditions fail is passed over for the next best. `/api/*` is `/api` and everything below it.
//!
//! Paths come normalised; values of headers and of the query are compared as they stand, byte by byte. There are no
//! regular expressions: their cost would depend on what a client sends. Trees are ordered maps, whose look-ups need no
//! random keys, because only the operator puts names into them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::{HeaderName, Method};

use super::fields::Fields;

use super::path::{PathProblem, normalise};

mod pattern;

use self::pattern::{Host, Segment, parse_hosts, parse_path};

pub use self::pattern::RuleProblem;

/// One route's conditions; empty lists match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// `a.example`, or `*.example` for one or more labels in its place, or `*` for any; without a port.
    pub hosts: Vec<String>,
    /// `/exact`, `/users/{id}`, `/prefix/*`.
    pub path: String,
    /// GET includes HEAD.
    pub methods: Vec<Method>,
    /// All of them, each on one of its lines.
    pub headers: Vec<(HeaderName, String)>,
    /// All of them; a parameter without `=` has an empty value.
    pub query: Vec<(String, String)>,
}

/// The values of a path's `{parameters}`; `*` is what follows the prefix. They are looked up when they are asked for,
/// because most requests never ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params<'p> {
    /// The path without its first slash.
    rest: &'p str,
    places: Places,
}

/// The segment each parameter stands in, counted from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Places {
    /// Shared with the router; `None` without parameters, so that most requests do not even count a reference.
    named: Option<Arc<[(String, usize)]>>,
    /// The first segment of what `*` stands for.
    star: Option<usize>,
}

impl<'p> Params<'p> {
    pub fn get(&self, name: &str) -> Option<&'p str> {
        if name == "*" {
            return self.places.star.map(|place| self.rest.splitn(place + 1, '/').nth(place).unwrap_or_default());
        }
        let (_, place) = self.places.named.as_deref()?.iter().find(|(known, _)| known == name)?;
        self.rest.split('/').nth(*place)
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
    exact: BTreeMap<String, Node>,
    /// By the suffix with its dot.
    wildcard: BTreeMap<String, Node>,
    any: Node,
    rules: Vec<Compiled>,
    blind: bool,
}

#[derive(Debug)]
struct Compiled {
    rule: Rule,
    places: Places,
}

/// The request as the conditions see it.
struct Asked<'a> {
    method: &'a Method,
    headers: &'a Fields,
    query: Option<&'a str>,
}

impl Router {
    /// Compiles the rules; a rule's index is its place in `rules`. Every rule's first problem is told.
    pub fn build(rules: &[Rule]) -> Result<Router, Vec<(usize, RuleProblem)>> {
        let mut router = Router::default();
        let mut problems = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            if let Err(problem) = router.add(index, rule) {
                problems.push((index, problem));
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let order = |index: &usize| (std::cmp::Reverse(weight(&rules[*index])), *index);
        router.exact.values_mut().for_each(|node| node.sort(&order));
        router.wildcard.values_mut().for_each(|node| node.sort(&order));
        router.any.sort(&order);
        router.blind = rules.iter().all(|rule| rule.path == "/*");
        Ok(router)
    }

    /// Whether no rule looks at the path.
    pub fn is_blind_to_paths(&self) -> bool {
        self.blind
    }

    /// `host` without its port; `path` normalised. Nothing is allocated unless the answer is `MethodNotAllowed` or the
    /// host has upper-case letters.
    pub fn find<'p>(
        &self,
        host: &str,
        path: &'p str,
        method: &Method,
        headers: &Fields,
        query: Option<&str>,
    ) -> Found<'p> {
        let asked = Asked { method, headers, query };
        let rest = path.strip_prefix('/').unwrap_or(path);
        let lower = host.bytes().any(|byte| byte.is_ascii_uppercase()).then(|| host.to_ascii_lowercase());
        let host = lower.as_deref().unwrap_or(host);
        let (mut chosen, mut other_method) = (None, false);
        self.walk(host, rest, &mut |index| {
            let rule = &self.rules[index].rule;
            let fits = asked.fits(rule);
            let wanted = fits && asked.has_method(rule);
            other_method |= fits && !wanted;
            chosen = wanted.then_some(index);
            wanted
        });
        match chosen {
            Some(index) => Found::Route { index, params: Params { rest, places: self.rules[index].places.clone() } },
            None if other_method => Found::MethodNotAllowed { allow: self.allow(host, rest, &asked) },
            None => Found::None,
        }
    }

    /// The methods of every rule that fits but for its method.
    fn allow(&self, host: &str, rest: &str, asked: &Asked<'_>) -> String {
        let mut methods = BTreeSet::new();
        self.walk(host, rest, &mut |index| {
            let rule = &self.rules[index].rule;
            if asked.fits(rule) {
                methods.extend(rule.methods.iter().map(Method::as_str));
                methods.extend(rule.methods.contains(&Method::GET).then_some("HEAD"));
            }
            false
        });
        methods.into_iter().collect::<Vec<_>>().join(", ")
    }

    /// Shows `visit` every rule whose host and path match, the best first, until it says stop. `host` is lower case; a
    /// dot at its end means nothing.
    fn walk(&self, host: &str, rest: &str, visit: &mut impl FnMut(usize) -> bool) {
        let host = host.strip_suffix('.').unwrap_or(host);
        if self.exact.get(host).is_some_and(|tree| tree.walk(Some(rest), visit)) {
            return;
        }
        if !self.wildcard.is_empty() {
            // A dot at the very start has no label before it.
            for (dot, _) in host.match_indices('.').filter(|(dot, _)| *dot > 0) {
                if self.wildcard.get(&host[dot..]).is_some_and(|tree| tree.walk(Some(rest), visit)) {
                    return;
                }
            }
        }
        self.any.walk(Some(rest), visit);
    }

    fn add(&mut self, index: usize, rule: &Rule) -> Result<(), RuleProblem> {
        // Written as requests will be: `%e9` in the file is `%E9` in the tree.
        let normal = normalise(&rule.path).map_err(|problem| match problem {
            PathProblem::NotAbsolute => RuleProblem::NotAbsolute,
            PathProblem::BadEscape | PathProblem::Ambiguous => RuleProblem::Unmatchable,
        })?;
        let path = parse_path(&normal)?;
        for host in parse_hosts(&rule.hosts)? {
            let tree = match host {
                Host::Exact(name) => self.exact.entry(name).or_default(),
                Host::Below(suffix) => self.wildcard.entry(suffix).or_default(),
                Host::Any => &mut self.any,
            };
            tree.insert(index, &path.segments);
        }
        let named = (!path.named.is_empty()).then(|| path.named.into());
        // Rules come in order, and a router with a problem is never used: its place is its index.
        self.rules.push(Compiled { rule: rule.clone(), places: Places { named, star: path.star } });
        Ok(())
    }
}

fn weight(rule: &Rule) -> usize {
    rule.headers.len() + rule.query.len() + usize::from(!rule.methods.is_empty())
}

#[derive(Debug, Default)]
struct Node {
    literal: BTreeMap<String, Node>,
    parameter: Option<Box<Node>>,
    /// Rules that end here, the best first.
    here: Vec<usize>,
    /// Rules that match here and everything below, the best first.
    below: Vec<usize>,
}

impl Node {
    fn insert(&mut self, index: usize, segments: &[Segment<'_>]) {
        let mut node = self;
        for segment in segments {
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

    /// Rules for what is left of the path, `None` being nothing; true when `visit` has said stop. It goes no deeper
    /// than the deepest rule, and into each node at most once.
    fn walk(&self, rest: Option<&str>, visit: &mut impl FnMut(usize) -> bool) -> bool {
        let deeper = match rest {
            None => self.here.iter().any(|index| visit(*index)),
            Some(rest) => {
                let (segment, tail) = match rest.split_once('/') {
                    Some((segment, tail)) => (segment, Some(tail)),
                    None => (rest, None),
                };
                let parameter = self.parameter.as_ref().filter(|_| !segment.is_empty());
                self.literal.get(segment).is_some_and(|node| node.walk(tail, visit))
                    || parameter.is_some_and(|node| node.walk(tail, visit))
            }
        };
        deeper || self.below.iter().any(|index| visit(*index))
    }
}

impl Asked<'_> {
    /// Every condition but the method's.
    fn fits(&self, rule: &Rule) -> bool {
        let header = |(name, value): &(HeaderName, String)| {
            self.headers.get_all(name.as_str()).any(|given| given.as_bytes() == value.as_bytes())
        };
        let parameter = |(name, value): &(String, String)| {
            let mut pairs = self.query.unwrap_or_default().split('&');
            pairs.any(|pair| pair.split_once('=').unwrap_or((pair, "")) == (name.as_str(), value.as_str()))
        };
        rule.headers.iter().all(header) && rule.query.iter().all(parameter)
    }

    fn has_method(&self, rule: &Rule) -> bool {
        let head = *self.method == Method::HEAD;
        rule.methods.is_empty()
            || rule.methods.iter().any(|method| method == self.method || (head && *method == Method::GET))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{Random, map};

    fn rule(host: &str, path: &str) -> Rule {
        let hosts = if host.is_empty() { Vec::new() } else { vec![host.to_owned()] };
        Rule { hosts, path: path.to_owned(), ..Rule::default() }
    }

    fn get<'p>(router: &Router, host: &str, path: &'p str) -> Found<'p> {
        router.find(host, path, &Method::GET, &Fields::default(), None)
    }

    fn find(router: &Router, host: &str, path: &str) -> Option<usize> {
        match get(router, host, path) {
            Found::Route { index, .. } => Some(index),
            Found::MethodNotAllowed { .. } | Found::None => None,
        }
    }

    #[test]
    fn the_most_specific_path_wins_whatever_the_order() {
        let mut paths = ["/*", "/users/*", "/users/{id}", "/users/me", "/users/{id}/posts", "/users/me/*"];
        for _ in 0..paths.len() {
            paths.rotate_left(1);
            let router = Router::build(&paths.map(|path| rule("", path))).unwrap();
            for (path, expected) in [
                ("/", "/*"),
                ("/other", "/*"),
                ("/users", "/users/*"),
                ("/users/", "/users/*"),
                ("/users/7", "/users/{id}"),
                ("/users/me", "/users/me"),
                ("/users/me/", "/users/me/*"),
                ("/users/7/posts", "/users/{id}/posts"),
                ("/users/me/posts", "/users/me/*"),
                ("/users/7/other", "/users/*"),
                ("/users/7/posts/1", "/users/*"),
            ] {
                assert_eq!(find(&router, "", path).map(|index| paths[index]), Some(expected), "{path}");
            }
        }
    }

    #[test]
    fn only_rules_for_every_path_are_blind_to_it() {
        let blind = |rules: &[Rule]| Router::build(rules).unwrap().is_blind_to_paths();
        assert!(blind(&[rule("a.example", "/*"), rule("", "/*")]));
        assert!(!blind(&[rule("", "/*"), rule("a.example", "/x/*")]));
        assert!(!blind(&[rule("", "/{any}")]));
    }

    #[test]
    fn a_path_without_a_rule_has_none() {
        let router = Router::build(&["/a", "/b/{id}", "/c/*"].map(|path| rule("", path))).unwrap();
        for path in ["/", "/a/", "/a/b", "/b", "/b/", "/b/1/", "/ca", "*", ""] {
            assert_eq!(get(&router, "", path), Found::None, "{path:?}");
        }
        let root = Router::build(&[rule("", "/")]).unwrap();
        assert_eq!((find(&root, "", "/"), find(&root, "", "/a")), (Some(0), None));
        assert_eq!(get(&Router::build(&[]).unwrap(), "a", "/"), Found::None);
    }

    #[test]
    fn hosts_come_before_paths_and_fall_back() {
        let rules = [rule("", "/*"), rule("*.example", "/*"), rule("a.example", "/x/*"), rule("*.b.example", "/*")];
        let router = Router::build(&rules).unwrap();
        for (host, path, expected) in [
            ("A.example", "/x/1", 2),
            ("a.example.", "/x/1", 2),
            ("a.example", "/y", 1),
            ("c.b.example", "/y", 3),
            ("d.c.b.example", "/y", 3),
            ("b.example", "/y", 1),
            ("example", "/y", 0),
            (".example", "/y", 0),
            ("xexample", "/y", 0),
            ("", "/y", 0),
        ] {
            assert_eq!(find(&router, host, path), Some(expected), "{host}{path}");
        }
    }

    #[test]
    fn a_rule_may_have_many_hosts() {
        let mut several = rule("", "/*");
        several.hosts = ["a.example", "A.EXAMPLE.", "*.b.example", "[::1]"].map(str::to_owned).to_vec();
        let router = Router::build(&[several, rule("*", "/any")]).unwrap();
        for host in ["a.example", "x.b.example", "[::1]"] {
            assert_eq!((find(&router, host, "/"), find(&router, host, "/any")), (Some(0), Some(0)), "{host}");
        }
        assert_eq!((find(&router, "b.example", "/"), find(&router, "b.example", "/any")), (None, Some(1)));
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
        let kind = map(&[("x-kind", "other"), ("x-kind", "k")]);
        let none = Fields::default();
        let index = |method: Method, headers: &Fields, query| match router.find("", "/a", &method, headers, query) {
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
    fn more_conditions_come_before_fewer_and_then_the_first() {
        let with = |methods: &[Method], headers: usize| Rule {
            methods: methods.to_vec(),
            headers: ["x-a", "x-b"][..headers]
                .iter()
                .map(|name| (HeaderName::from_static(name), "1".to_owned()))
                .collect(),
            ..rule("", "/a")
        };
        let rules =
            [with(&[], 0), with(&[Method::GET], 0), with(&[], 1), with(&[], 2), with(&[Method::GET], 1), with(&[], 0)];
        let router = Router::build(&rules).unwrap();
        let index = |headers: &Fields, method| match router.find("", "/a", &method, headers, None) {
            Found::Route { index, .. } => index,
            other => panic!("{other:?}"),
        };
        assert_eq!(index(&map(&[("x-a", "1"), ("x-b", "1")]), Method::GET), 3);
        assert_eq!(index(&map(&[("x-a", "1")]), Method::GET), 4);
        assert_eq!(index(&map(&[("x-a", "1")]), Method::POST), 2);
        assert_eq!(index(&map(&[]), Method::GET), 1);
        assert_eq!(index(&map(&[]), Method::POST), 0);
    }

    #[test]
    fn allow_names_what_the_path_is_known_with() {
        let with = |path, methods: &[Method]| Rule { methods: methods.to_vec(), ..rule("", path) };
        let rules = [
            with("/a", &[Method::POST]),
            with("/{x}", &[Method::GET, Method::PUT]),
            with("/*", &[Method::PUT]),
            with("/b", &[Method::PATCH]),
        ];
        let router = Router::build(&rules).unwrap();
        let ask = |path, method| router.find("", path, &method, &Fields::default(), None);
        let refused = |allow: &str| Found::MethodNotAllowed { allow: allow.to_owned() };
        assert_eq!(ask("/a", Method::DELETE), refused("GET, HEAD, POST, PUT"));
        assert_eq!(ask("/c/d", Method::GET), refused("PUT"));
        assert!(matches!(ask("/a", Method::HEAD), Found::Route { index: 1, .. }));
        assert!(matches!(ask("/a", Method::PUT), Found::Route { index: 1, .. }));
        let lower = Method::from_bytes(b"post").unwrap();
        assert!(matches!(ask("/a", lower), Found::MethodNotAllowed { .. }));
    }

    #[test]
    fn parameters_have_their_values() {
        let paths = ["/u/{id}/p/{post}", "/f/*", "/{a}/{b}/*", "/"].map(|path| rule("", path));
        let router = Router::build(&paths).unwrap();
        let value = |path, name| match get(&router, "", path) {
            Found::Route { params, .. } => params.get(name),
            other => panic!("{other:?}"),
        };
        for (path, name, expected) in [
            ("/u/7/p/x", "id", Some("7")),
            ("/u/7/p/x", "post", Some("x")),
            ("/u/7/p/x", "no", None),
            ("/u/7/p/x", "*", None),
            ("/f/a/b", "*", Some("a/b")),
            ("/f/a/b", "a", None),
            ("/f/", "*", Some("")),
            ("/f", "*", Some("")),
            ("/x/y", "*", Some("")),
            ("/x/y/z/", "*", Some("z/")),
            ("/x/y/z/", "b", Some("y")),
            ("/", "*", None),
        ] {
            assert_eq!(value(path, name), expected, "{name} of {path}");
        }
    }

    #[test]
    fn every_wrong_rule_is_reported() {
        let wrong = ["a", "/a*", "/*/a", "/{}", "/x{a}", "/{a}/{a}", "/{{a}}", "", "/ok"];
        let problems = Router::build(&wrong.map(|path| rule("", path))).unwrap_err();
        assert_eq!(problems.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(problems[5].1, RuleProblem::ParameterTwice("a".to_owned()));
    }

    #[test]
    fn rules_are_written_as_requests_will_be() {
        let paths = ["/caf%c3%a9/%7euser", "/a//b", "/c/./{id}/*"].map(|path| rule("", path));
        let router = Router::build(&paths).unwrap();
        for (index, path) in ["/caf%C3%A9/~user", "/a/b", "/c/7/d"].into_iter().enumerate() {
            assert_eq!(find(&router, "", path), Some(index), "{path}");
        }
        for wrong in ["/a%2fb", "/é", "/%2e%2e/a", "/a b", "/%"] {
            assert_eq!(Router::build(&[rule("", wrong)]).unwrap_err(), [(0, RuleProblem::Unmatchable)], "{wrong}");
        }
    }

    #[test]
    fn a_host_that_no_request_can_have_is_reported() {
        for wrong in
            ["a:80", "*a", "a.*", "*.*.a", "*.", "**", ".a", "a..b", "http://a", "a/b", "[::1", "*.[::1]", "a b"]
        {
            let problems = Router::build(&[rule(wrong, "/*")]).unwrap_err();
            assert_eq!(problems, [(0, RuleProblem::BadHost(wrong.to_owned()))]);
        }
    }

    /// A rule as the documentation describes it, tried on its own: how well it fits, the smaller the better.
    fn rank(rule: &Rule, host: &str, path: &str) -> Option<(Vec<usize>, Vec<u8>)> {
        let hosts = rule.hosts.iter().filter_map(|pattern| match pattern.strip_prefix('*') {
            None => (pattern == host).then(|| vec![0, 0]),
            Some(suffix) => (host.len() > suffix.len() && host.ends_with(suffix)).then(|| vec![1, 1000 - suffix.len()]),
        });
        let host = if rule.hosts.is_empty() { vec![2, 0] } else { hosts.min()? };
        let asked: Vec<&str> = path.split('/').skip(1).collect();
        let wanted: Vec<&str> = rule.path.split('/').skip(1).collect();
        let mut ranks = Vec::new();
        for (place, segment) in wanted.iter().enumerate() {
            match (*segment, asked.get(place)) {
                ("*", _) => {
                    ranks.push(3);
                    return Some((host, ranks));
                }
                (_, None) => return None,
                (name, Some(given)) if name.starts_with('{') && !given.is_empty() => ranks.push(2),
                (literal, Some(given)) if literal == *given => ranks.push(1),
                _ => return None,
            }
        }
        (wanted.len() == asked.len()).then_some((host, ranks))
    }

    /// Tries every rule.
    fn naive(rules: &[Rule], host: &str, path: &str, method: &Method, headers: &Fields) -> Result<usize, bool> {
        let fits = |rule: &Rule| {
            rule.headers.iter().all(|(name, value)| headers.get(name).is_some_and(|given| given == value.as_str()))
        };
        let matching: Vec<_> = rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| fits(rule))
            .filter_map(|(index, rule)| Some((rank(rule, host, path)?, index)))
            .collect();
        let allowed = |index: &usize| {
            let methods = &rules[*index].methods;
            let head_as_get = *method == Method::HEAD && methods.contains(&Method::GET);
            methods.is_empty() || methods.contains(method) || head_as_get
        };
        let best = matching.iter().filter(|(_, index)| allowed(index));
        let best = best.min_by_key(|(rank, index)| (rank, std::cmp::Reverse(weight(&rules[*index])), *index));
        best.map(|(_, index)| *index).ok_or(!matching.is_empty())
    }

    fn random_rule(random: &mut Random) -> Rule {
        let mut path = String::new();
        for place in 0..=random.below(3) {
            let name = format!("{{p{place}}}");
            path.push('/');
            let segment = random.pick(&["a", "b", "", &name, &name, "*"]);
            path.push_str(segment);
            if segment == "*" {
                break;
            }
        }
        let hosts = random.pick(&[&[][..], &[], &["a.x"], &["*.x"], &["*.a.x", "b.x"], &["*.x", "a.x"]]);
        let methods = random.pick(&[&[][..], &[], &["GET"], &["POST"], &["GET", "PUT"]]);
        let headers = random.pick(&[&[][..], &[], &["x-a"], &["x-a", "x-b"]]);
        let path = normalise(&path).unwrap().into_owned();
        Rule {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            path,
            methods: methods.iter().map(|method| method.parse().unwrap()).collect(),
            headers: headers.iter().map(|name| (HeaderName::from_static(name), "1".to_owned())).collect(),
            query: Vec::new(),
        }
    }

    /// Against a matcher that tries every rule: random rules over a small alphabet, random requests.
    #[test]
    fn it_finds_what_trying_every_rule_finds() {
        for seed in 0..10_000u64 {
            let mut random = Random::new(seed);
            let rules: Vec<Rule> = (0..12).map(|_| random_rule(&mut random)).collect();
            let router = Router::build(&rules).unwrap();
            for _ in 0..20 {
                let path: String = (0..1 + random.below(4)).map(|_| random.pick(&["/a", "/b", "/c", "/"])).collect();
                let path = normalise(&path).unwrap();
                let host = random.pick(&["a.x", "b.x", "c.a.x", "x", "other", ""]);
                let method = random.pick(&[&Method::GET, &Method::HEAD, &Method::POST, &Method::DELETE]);
                let headers =
                    map(random.pick(&[&[][..], &[("x-a", "1")], &[("x-a", "1"), ("x-b", "1")], &[("x-a", "2")]]));
                let found = match router.find(host, &path, method, &headers, None) {
                    Found::Route { index, .. } => Ok(index),
                    Found::MethodNotAllowed { .. } => Err(true),
                    Found::None => Err(false),
                };
                let expected = naive(&rules, host, &path, method, &headers);
                assert_eq!(found, expected, "seed {seed}: {method} {host}{path} {headers:?}");
            }
        }
    }
}
