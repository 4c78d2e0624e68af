//! Names that a configuration gives and refers to. A file may have ten thousand of both, so that no reference is looked up
//! by going through a list.

use std::collections::HashSet;

use super::settings::Settings;

/// Names that other keys refer to, each list looked up once for every reference.
pub struct Known<'a> {
    pub upstreams: Names<'a>,
    pub stores: Names<'a>,
    pub flags: Names<'a>,
    pub limits: Names<'a>,
}

pub struct Names<'a> {
    /// What one of them is called.
    pub kind: &'static str,
    /// The block at the top of the file in which they are defined, and how one may look there.
    pub list: &'static str,
    pub example: &'static str,
    pub all: HashSet<&'a str>,
    pub listed: Vec<&'a str>,
}

impl<'a> Known<'a> {
    pub fn of(settings: &'a Settings) -> Known<'a> {
        Known {
            upstreams: Names::of(
                "upstream",
                "upstreams",
                "{ endpoints: [\"http://127.0.0.1:3000\"] }",
                settings.upstreams.iter().map(|upstream| &upstream.name),
            ),
            stores: Names::of(
                "store",
                "stores",
                "{ url: \"redis://127.0.0.1:6379\" }",
                settings.stores.iter().map(|store| &store.name),
            ),
            flags: Names::of("flag", "flags", "true", settings.flags.iter().map(|flag| &flag.name)),
            limits: Names::of(
                "rate limit",
                "rate_limits",
                "{ rate: 100/s, burst: 200 }",
                settings.rate_limits.iter().map(|limit| &limit.name),
            ),
        }
    }
}

impl<'a> Names<'a> {
    fn of(
        kind: &'static str,
        list: &'static str,
        example: &'static str,
        names: impl Iterator<Item = &'a String>,
    ) -> Names<'a> {
        let listed: Vec<&str> = names.map(String::as_str).collect();
        Names { kind, list, example, all: listed.iter().copied().collect(), listed }
    }
}
