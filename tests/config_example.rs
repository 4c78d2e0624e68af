//! The full example is the language: every key of it is known, and it passes but for the keys that are listed as not
//! available yet. Goal: nobody can add a key to one and forget the other. Method: check the file, compare the report.

use std::collections::BTreeSet;
use std::path::Path;

use outrigger::config::{Kind, NOT_YET, Problem, load_text};

fn check(text: &str, base: &Path) -> Vec<Problem> {
    load_text(text, "full.yaml", base, &|_| None).err().unwrap_or_default()
}

fn pattern(path: &str) -> String {
    let named = ["upstreams.", "rate_limits."];
    let mut pattern = path.to_owned();
    for list in named {
        if let Some(rest) = path.strip_prefix(list) {
            let tail = rest.split_once('.').map(|(_, tail)| format!(".{tail}")).unwrap_or_default();
            pattern = format!("{list}*{tail}");
        }
    }
    let mut out = String::new();
    let mut inside = false;
    for letter in pattern.chars() {
        match letter {
            '[' => inside = true,
            ']' => inside = false,
            _ if inside => continue,
            _ => {}
        }
        out.push(letter);
    }
    out
}

#[test]
fn the_example_passes_but_for_the_listed_keys() {
    let text = include_str!("../config/examples/full.yaml");
    let folder = tempfile::tempdir().unwrap();
    let tls = folder.path().join("tls");
    std::fs::create_dir(&tls).unwrap();
    for file in ["shop.crt", "shop.key", "clients-ca.crt"] {
        std::fs::write(tls.join(file), "").unwrap();
    }
    let problems = check(text, folder.path());
    let wrong: Vec<_> = problems.iter().filter(|problem| problem.kind == Kind::Wrong).collect();
    assert!(wrong.is_empty(), "{}", wrong.iter().map(|problem| format!("{problem}\n")).collect::<String>());
    let refused: BTreeSet<String> = problems.iter().map(|problem| pattern(&problem.path)).collect();
    let listed: BTreeSet<String> = NOT_YET.iter().map(|entry| entry.path.to_owned()).collect();
    let unlisted: Vec<_> = refused.difference(&listed).collect();
    assert!(unlisted.is_empty(), "refused but not listed: {unlisted:?}");
    // What the example cannot show: overrides of what it shows globally, one value of two, and what it has switched off.
    let unseen = ["retry.hedge", "routes[].retry.hedge"];
    let gone: Vec<_> = listed.difference(&refused).map(String::as_str).collect();
    assert_eq!(gone, unseen);
}

#[test]
fn generated_files_are_in_step() {
    let generated = [
        ("docs/outrigger.schema.json", outrigger::config::json_schema()),
        ("docs/reference.md", outrigger::config::reference_markdown()),
        ("config/outrigger.yaml", outrigger::config::reference_yaml()),
    ];
    for (path, expected) in generated {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, &expected).unwrap();
        }
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(found == expected, "{path} is out of step: run UPDATE_GOLDEN=1 cargo test --test config_example");
    }
}

#[test]
fn the_reference_and_the_short_form_are_configurations() {
    assert_eq!(check(&outrigger::config::reference_yaml(), Path::new("")), []);
    assert_eq!(check("upstream: http://127.0.0.1:3000", Path::new("")), []);
}
