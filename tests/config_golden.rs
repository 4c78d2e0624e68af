//! Broken files and what is said of them, word for word. Goal: every report is complete, exact and helpful, and shows
//! no secret. Method: each `tests/golden/config/NAME.yaml` is loaded and its report compared with `NAME.txt`;
//! `UPDATE_GOLDEN=1` writes the reports, to be read before they are committed.

use std::path::{Path, PathBuf};

use outrigger::config::load_text;

const FILES_MIN: usize = 45;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config")
}

fn environment(name: &str) -> Option<String> {
    (name == "SECRET_URL").then(|| "hunter3-is-not-a-url".to_owned())
}

fn report(text: &str, name: &str) -> String {
    let problems = match load_text(text, name, &folder(), &environment) {
        Ok(_) => return "no problem\n".to_owned(),
        Err(problems) => problems,
    };
    let told: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
    told.replace(&folder().display().to_string(), "FOLDER")
}

#[test]
fn every_broken_file_is_told_what_is_wrong() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(files.len() >= FILES_MIN, "{} files", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let told = report(&std::fs::read_to_string(&file).unwrap(), &name);
        assert!(told != "no problem\n", "{name} is not broken");
        assert!(!told.contains("hunter") && !told.contains("secretpassword"), "{name} tells a secret:\n{told}");
        let golden = file.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &told).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if told != expected {
            wrong.push(format!("== {name}\n-- expected\n{expected}-- told\n{told}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_misspelt_key_is_suggested() {
    let told = report("upstream: http://127.0.0.1:1\ntimeouts: { frist_byte: 2s }\n", "x");
    assert!(told.contains("did you mean `first_byte`?"), "{told}");
}

#[test]
fn a_secret_file_is_read_and_watched() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "s3cret\n").unwrap();
    let text = "upstream: http://127.0.0.1:1\nadmin: { token: \"${file:token}\" }\n";
    let loaded = load_text(text, "x", folder.path(), &|_| None).unwrap();
    assert_eq!(loaded.settings.admin.token.as_ref().map(|token| token.0.as_str()), Some("s3cret"));
    assert_eq!(loaded.watch, [folder.path().join("token")]);
    assert!(!format!("{:?}", loaded.settings).contains("s3cret"));
    std::fs::write(folder.path().join("token"), "other").unwrap();
    let again = load_text(text, "x", folder.path(), &|_| None).unwrap();
    assert_ne!(loaded.hash, again.hash);
}

#[test]
fn the_hash_is_of_the_secrets_that_were_read() {
    // Goal: two plans with different secrets never have one hash, even when a file changes or goes while it is loaded.
    // Method: looking up a variable behind the secret does that to the secret's file.
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    let text = "upstream: http://127.0.0.1:1\nadmin: { token: \"${file:token}\" }\nworkers: ${WORKERS}\n";
    let load = |secret: &str, then: &dyn Fn()| {
        std::fs::write(&token, secret).unwrap();
        let env = |name: &str| {
            (name == "WORKERS").then(|| {
                then();
                "1".to_owned()
            })
        };
        let loaded = load_text(text, "x", folder.path(), &env).unwrap();
        (loaded.settings.admin.token.unwrap().0, loaded.hash)
    };
    let [one, other] = ["one", "other"].map(|secret| load(secret, &|| ()).1);
    assert_ne!(one, other);
    assert_eq!(load("one", &|| std::fs::write(&token, "other").unwrap()), ("one".to_owned(), one.clone()));
    assert_eq!(load("one", &|| std::fs::remove_file(&token).unwrap_or(())), ("one".to_owned(), one));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[a-z:{}\\[\\]\"' \n\t$#&*!|>%-]{0,200}") {
        let _ = load_text(&text, "x", Path::new(""), &|_| None);
    }
}

/// Every block reports what it does not know: none may forget to look.
#[test]
fn an_unknown_key_is_found_in_every_block() {
    let schema: serde_json::Value = serde_json::from_str(&outrigger::config::json_schema()).unwrap();
    let mut blocks = Vec::new();
    walk(&schema, String::new(), &mut blocks);
    assert!(blocks.len() > 25, "{blocks:?}");
    for block in blocks {
        let mut text = String::from("zzz: 1");
        for segment in block.rsplit('/').filter(|segment| !segment.is_empty()) {
            text = match segment {
                "[]" => format!("[{{ {text} }}]"),
                name if text.starts_with('[') => format!("{name}: {text}"),
                name => format!("{name}: {{ {text} }}"),
            };
        }
        let told = report(&format!("{{ {text} }}"), "x");
        assert!(told.contains("unknown key zzz"), "{block}: {text}\n{told}");
    }
}

fn walk(schema: &serde_json::Value, path: String, blocks: &mut Vec<String>) {
    if let Some(known) = schema.get("properties").and_then(|known| known.as_object()) {
        if !path.is_empty() && schema["additionalProperties"] == false {
            blocks.push(path.clone());
        }
        for (name, inner) in known {
            walk(inner, format!("{path}/{name}"), blocks);
        }
    }
    if schema["items"].get("properties").is_some() {
        walk(&schema["items"], format!("{path}/[]"), blocks);
    }
    if schema["additionalProperties"].get("properties").is_some() {
        walk(&schema["additionalProperties"], format!("{path}/any"), blocks);
    }
}
