//! The part of `status` that policies fill: rate limits, dependencies, switches.

use super::traffic::{tell_more, worst};
use super::{Shown, Table, line};
use crate::admin::status::{Dependency, RateLimit, Store};
use crate::admin::switches::Switch;

pub fn rate_limits(out: &mut String, limits: &[RateLimit], shown: Shown) {
    let (told, more) = worst(limits, shown, |limit| (limit.refused, limit.allowed));
    for limit in told {
        let verb = if limit.mode == "shadow" { "would have refused" } else { "refused" };
        let RateLimit { name, allowed, refused, keys, .. } = limit;
        line(out, &format!("\nrate limit {name}: {allowed} allowed, {verb} {refused}, {keys} keys"));
        for key in &limit.refused_keys {
            line(out, &format!("  {verb} {} times: {}", key.count, key.key));
        }
    }
    tell_more(out, more);
}

pub fn stores(out: &mut String, stores: &[Store]) {
    for store in stores {
        let is = match store.ok {
            Some(true) => "well".to_owned(),
            Some(false) => format!("AWAY: {}", store.words),
            None => "not connected yet".to_owned(),
        };
        line(out, &format!("store {}: {is}", store.name));
    }
}

pub fn dependencies(out: &mut String, dependencies: &[Dependency]) {
    if dependencies.is_empty() {
        return;
    }
    out.push_str("\ndependencies\n");
    let mut table = Table::new(&["name", "asked by", "when", "is", "since", ""]);
    for one in dependencies {
        let is = match one.ok {
            Some(true) => "well",
            Some(false) => "FAILING",
            None => "unknown",
        };
        let since = one.since.clone().unwrap_or_default();
        table.row([one.name.clone(), one.kind.clone(), one.when.clone(), is.to_owned(), since, one.words.clone()]);
    }
    table.write(out);
}

pub fn switches(out: &mut String, switches: &[Switch]) {
    if switches.is_empty() {
        return;
    }
    out.push_str("\nswitches\n");
    let mut table = Table::new(&["switch", "is", "file says", "by", "until", "why"]);
    for one in switches {
        let what = match (one.kind.as_str(), one.name.as_str()) {
            ("service", _) => "maintenance".to_owned(),
            ("route", name) => format!("maintenance of {name}"),
            (kind, name) => format!("{kind} {name}"),
        };
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let (by, until, why) = (or_dash(&one.by), or_dash(&one.until), one.why.clone().unwrap_or_default());
        table.row([what, one.position.clone(), one.file.clone(), by, until, why]);
    }
    table.write(out);
}
