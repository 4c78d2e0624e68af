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
    pub all: HashSet<&'a str>,
    pub listed: Vec<&'a str>,
}

impl<'a> Known<'a> {
    pub fn of(settings: &'a Settings) -> Known<'a> {
        Known {
            upstreams: settings.upstreams.iter().map(|upstream| upstream.name.as_str()).collect(),
            stores: settings.stores.iter().map(|store| store.name.as_str()).collect(),
            flags: settings.flags.iter().map(|flag| flag.name.as_str()).collect(),
            limits: settings.rate_limits.iter().map(|limit| limit.name.as_str()).collect(),
        }
    }
}

impl<'a> FromIterator<&'a str> for Names<'a> {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        let listed: Vec<&str> = names.into_iter().collect();
        Names { all: listed.iter().copied().collect(), listed }
    }
}
