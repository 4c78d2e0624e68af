//! The house rules that a compiler does not hold: floors, sizes, file heads, words that must not stay, docs in step.
//! Goal: a broken rule fails here with the place and what to do. Method: the sources are read as text.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A room imports only lower floors; rooms on one floor do not see each other.
const FLOORS: [(&str, u8); 13] = [
    ("core", 0),
    ("http", 1),
    ("config", 2),
    ("telemetry", 2),
    ("upstream", 2),
    ("state", 3),
    ("plan", 4),
    ("proxy", 5),
    ("serve", 6),
    ("admin", 6),
    ("evidence", 6),
    ("app", 7),
    ("main", 8),
];
/// The data plane never sees the configuration's types.
const NO_CONFIG: [&str; 3] = ["proxy", "serve", "admin"];
const LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;
/// Files that may be longer, and why.
const LONG_FILES: &[(&str, usize, &str)] = &[];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders: Vec<PathBuf> = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

/// What comes before the file's tests.
fn product(text: &str) -> &str {
    text.find("\n#[cfg(test)]").map_or(text, |end| &text[..end])
}

fn room(file: &str) -> Option<&str> {
    let first = file.strip_prefix("src/")?.split('/').next()?;
    Some(first.strip_suffix(".rs").unwrap_or(first)).filter(|room| *room != "lib")
}

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

fn is_test(file: &str) -> bool {
    file.contains("/tests/") || file.ends_with("/tests.rs") || file.starts_with("tests/")
}

fn report(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}\n  {}", broken.join("\n  "));
}

#[test]
fn rooms_import_only_lower_floors() {
    let mut broken = Vec::new();
    for (file, text) in sources("src") {
        let Some(room) = room(&file) else { continue };
        let Some(own) = floor(room) else {
            broken.push(format!("{file}: the room {room} is on no floor: add it to FLOORS and ARCHITECTURE.md"));
            continue;
        };
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for named in line.match_indices("crate::").map(|(place, word)| &line[place + word.len()..]) {
                let named: String =
                    named.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
                let Some(other) = floor(&named).filter(|_| named != room) else { continue };
                let hidden = named == "config" && NO_CONFIG.contains(&room);
                if other >= own || hidden {
                    broken.push(format!("{file}:{}: {room} (floor {own}) names {named} (floor {other})", number + 1));
                }
            }
        }
    }
    report(
        "A room imports only lower floors (ARCHITECTURE.md). Move the code down, or pass a plain record up:",
        &broken,
    );
}

#[test]
fn core_names_only_std_http_and_bytes() {
    // Types of data, without I/O: a head's bytes are shared, not copied.
    let allowed = ["std", "http", "bytes", "super", "crate", "self", "core", "alloc"];
    let mut broken = Vec::new();
    for (file, text) in sources("src/core") {
        for (number, line) in product(&text).lines().enumerate() {
            let Some(named) = line.trim_start().trim_start_matches("pub ").strip_prefix("use ") else { continue };
            let first = named.trim_start_matches("::").split([':', ';', ' ']).next().unwrap_or_default();
            if !allowed.contains(&first) {
                broken.push(format!("{file}:{}: {first}", number + 1));
            }
        }
    }
    report("core is pure: it names only std, http and bytes:", &broken);
}

#[test]
fn files_and_functions_stay_small() {
    let mut broken = Vec::new();
    for (file, text) in sources("src") {
        let text = product(&text);
        let lines = text.lines().count();
        let allowed = LONG_FILES.iter().find(|(name, _, _)| *name == file).map_or(LINES_MAX, |(_, lines, _)| *lines);
        if lines > allowed && !is_test(&file) {
            broken
                .push(format!("{file}: {lines} lines before its tests, at most {allowed}: split where a noun appears"));
        }
        broken.extend(long_functions(&file, text));
    }
    report("Files of at most 400 lines before tests, functions of at most 70:", &broken);
}

/// By indentation, which rustfmt guarantees: a function ends at the brace in the column of its `fn` line.
fn long_functions(file: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut broken = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let words = [
            "fn ",
            "pub fn ",
            "pub(super) fn ",
            "pub(crate) fn ",
            "async fn ",
            "pub async fn ",
            "pub(super) async fn ",
        ];
        if !words.iter().any(|word| code.starts_with(word)) {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - code.len()]);
        let Some(length) = lines[start..].iter().position(|line| *line == end) else { continue };
        if length + 1 > FUNCTION_LINES_MAX {
            broken.push(format!("{file}:{}: {} lines", start + 1, length + 1));
        }
    }
    broken
}

#[test]
fn every_file_says_what_it_is_for() {
    let files = sources("src").into_iter().chain(sources("tests")).chain(sources("benches"));
    let broken: Vec<String> = files.filter(|(_, text)| !text.starts_with("//!")).map(|(file, _)| file).collect();
    report("Every file opens with //!: what it decides, why this way, what it deliberately does not do:", &broken);
}

#[test]
fn nothing_is_left_behind() {
    let words = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
        concat!("#[ig", "nore"),
        concat!("#[should", "_panic"),
        concat!("FIX", "ME"),
        concat!("allow(dead", "_code)"),
    ];
    let mut broken = Vec::new();
    for (file, text) in sources("src").into_iter().chain(sources("tests")).chain(sources("benches")) {
        for (number, line) in text.lines().enumerate() {
            broken.extend(
                words.iter().filter(|word| line.contains(**word)).map(|word| format!("{file}:{}: {word}", number + 1)),
            );
        }
    }
    report("These do not stay in the code:", &broken);
}

/// The first string of each `entry(` and `Ambiguity` label in the refusal rooms is the stable word.
#[test]
fn every_refusal_has_its_line_in_the_docs() {
    let docs = fs::read_to_string(root().join("docs/refusals.md")).unwrap_or_default();
    let mut labels: Vec<String> = Vec::new();
    let refusal = fs::read_to_string(root().join("src/proxy/refusal/reasons.rs")).unwrap();
    let squeezed: String = product(&refusal).split_whitespace().collect::<Vec<_>>().join(" ");
    for call in ["entry(", "timeout(", "busy("] {
        for (place, _) in squeezed.match_indices(call) {
            let after = squeezed[place + call.len()..].trim_start();
            if let Some(label) = after.strip_prefix('"').and_then(|rest| rest.split('"').next()) {
                labels.push(label.to_owned());
            }
        }
    }
    let framing = fs::read_to_string(root().join("src/core/framing.rs")).unwrap();
    let label_lines =
        framing.lines().filter(|line| line.trim_start().starts_with("Ambiguity::") && line.contains("=> \""));
    let words = label_lines.filter_map(|line| line.split('"').nth(1)).filter(|word| !word.contains(' '));
    labels.extend(words.map(str::to_owned));
    let heads = fs::read_to_string(root().join("src/http/head.rs")).unwrap();
    let heads = heads.lines().filter(|line| line.trim_start().starts_with("HeadProblem::") && line.contains("=> \""));
    let words = heads.filter_map(|line| line.split('"').nth(1)).filter(|word| !word.contains(' '));
    labels.extend(words.map(str::to_owned));
    assert!(labels.len() > 32, "only {} labels were found: has the code changed its shape?", labels.len());
    let missing: Vec<String> = labels.into_iter().filter(|label| !docs.contains(&format!("`{label}`"))).collect();
    report("Refusals without a line in docs/refusals.md:", &missing);
}

#[test]
fn every_metric_has_its_line_in_the_docs() {
    let docs = fs::read_to_string(root().join("docs/metrics.md")).unwrap_or_default();
    let mut missing = Vec::new();
    for (file, text) in sources("src/telemetry")
        .into_iter()
        .chain(sources("src/admin"))
        .chain(sources("src/app"))
        .chain(sources("src/serve"))
    {
        for piece in product(&text).split('"').skip(1).step_by(2) {
            let metric = ["outrigger_", "http_server_", "http_request", "process_"]
                .iter()
                .any(|prefix| piece.starts_with(prefix));
            let plain = piece.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
            if metric && plain && !docs.contains(&format!("`{piece}`")) {
                missing.push(format!("{file}: {piece}"));
            }
        }
    }
    missing.sort();
    missing.dedup();
    report("Metrics without a line in docs/metrics.md:", &missing);
}
