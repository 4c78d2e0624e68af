//! `outrigger check FILE`: every problem of a file at once, and what it amounts to when there is none.
//!
//! It goes as far as it can without changing anything in the world: the file is read, checked, and compiled into a
//! plan, so that what only shows there (a route that the tree refuses, an upstream's CA that is none) is a problem too;
//! and the places a start writes to are tried ([`super::trial`]). No port is bound and no connection made.

use std::path::Path;

use serde_json::{Value, json};

use super::cli::Output;
use super::options;
use super::trial;
use super::verdict::Verdict;
use crate::config::settings::Settings;
use crate::config::{self, Loaded, Problem};
use crate::plan::ListenerPlan;
use crate::plan::compile::{PlanProblem, compile};
use crate::serve::tls;
use crate::state::states::States;
use crate::telemetry::{Target, Telemetry};

pub fn check(file: &Path, output: Output) -> Verdict {
    let loaded = match config::load_file(file) {
        Ok(loaded) => loaded,
        Err(problems) => return refused(file, output, told(&problems)),
    };
    let mut problems = told(&trial::problems(&loaded, None));
    for PlanProblem { path, words } in compiled(&loaded) {
        problems.push((format!("{path}: {words}"), json!({ "path": path, "found": words })));
    }
    if !problems.is_empty() {
        return refused(file, output, problems);
    }
    let notes: Vec<String> = loaded.notes.iter().map(ToString::to_string).collect();
    match output {
        Output::Json => Verdict::yes(json!({ "ok": true, "hash": loaded.hash, "notes": notes }).to_string()),
        Output::Text => {
            let mut text = format!("{}: good; {}\n", file.display(), amounts_to(&loaded.settings));
            for note in notes {
                text.push_str("note: ");
                text.push_str(note.trim_end());
                text.push('\n');
            }
            Verdict::yes(text)
        }
    }
}

/// Each problem as a text and as a value.
fn told(problems: &[Problem]) -> Vec<(String, Value)> {
    problems.iter().map(|problem| (problem.to_string(), serde_json::to_value(problem).unwrap_or_default())).collect()
}

/// What shows only when the plan is made. Nothing of it is kept.
fn compiled(loaded: &Loaded) -> Vec<PlanProblem> {
    let mut quiet = options::telemetry(&loaded.settings);
    quiet.log.target = Target::Off;
    quiet.traces.otlp = None;
    let telemetry = match Telemetry::start(quiet, 1) {
        Ok(telemetry) => telemetry,
        Err(error) => return vec![PlanProblem { path: error.path.to_owned(), words: error.words }],
    };
    match compile(&loaded.settings, &loaded.hash, &States::default(), &telemetry) {
        Ok(plan) => plan.live_listeners().flat_map(|listener| certificates(loaded, listener)).collect(),
        Err(problems) => problems,
    }
}

/// Certificates and keys that cannot be used, or not together.
fn certificates(loaded: &Loaded, listener: &ListenerPlan) -> Vec<PlanProblem> {
    let tried = listener.tls.as_ref().map(|plan| tls::load(&listener.name, plan, None));
    let place = loaded.settings.listeners.iter().position(|typed| *typed.name == *listener.name).unwrap_or_default();
    let problem = |(part, words): (String, String)| {
        let path = format!("listeners[{place}].tls.{part}");
        let typed = loaded.origins.of(&path).or_else(|| loaded.origins.of(&format!("{path}.certificate")));
        PlanProblem { path: typed.map_or_else(|| path.clone(), |at| format!("{at}: {path}")), words }
    };
    tried.and_then(Result::err).unwrap_or_default().into_iter().map(problem).collect()
}

fn refused(file: &Path, output: Output, problems: Vec<(String, Value)>) -> Verdict {
    let count = problems.len();
    let (texts, values): (Vec<_>, Vec<_>) = problems.into_iter().unzip();
    if output == Output::Json {
        return Verdict::problems(json!({ "ok": false, "problems": values }).to_string());
    }
    let mut text = String::new();
    for problem in texts {
        text.push_str(problem.trim_end());
        text.push('\n');
    }
    let s = if count == 1 { "" } else { "s" };
    Verdict::problems(format!("{text}\n{}: {count} problem{s}\n", file.display()))
}

/// `1 listener, 2 upstreams, 3 routes`.
fn amounts_to(settings: &Settings) -> String {
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let parts = [
        count(settings.listeners.len(), "listener"),
        count(settings.upstreams.len(), "upstream"),
        count(settings.routes.len(), "route"),
        count(settings.rate_limits.len(), "rate limit"),
    ];
    parts.join(", ")
}
