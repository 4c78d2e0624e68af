//! The schema, the annotated reference and the reference page, written from the very calls that read a file.

use std::path::Path;

use serde_json::{Map as Object, Value, json};

use super::context::Context;
use super::read;
use super::reader::Map;

/// One key as the reference describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `routes[].retry.attempts`, `upstreams.*.pool`.
    pub path: String,
    pub kind: &'static str,
    pub default: &'static str,
    pub doc: &'static str,
    pub choices: &'static [&'static str],
}

/// Every key in the order of the language.
fn entries() -> Vec<Entry> {
    let context = Context::new(Path::new(""), &|_| None);
    *context.entries.borrow_mut() = Some(Vec::new());
    let root = Map::root(&context, None);
    drop(read::settings(&root));
    root.finish();
    let mut entries = context.entries.into_inner().unwrap_or_default();
    let mut seen = std::collections::HashSet::new();
    entries.retain(|entry| seen.insert(entry.path.clone()));
    entries
}

/// JSON Schema (draft 2020-12), for editors.
pub fn json_schema() -> String {
    let mut root = object("Outrigger's configuration.");
    for entry in entries() {
        insert(&mut root, &entry);
    }
    root.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    root.insert("title".to_owned(), json!("Outrigger"));
    serde_json::to_string_pretty(&Value::Object(root)).unwrap_or_default() + "\n"
}

fn object(doc: &str) -> Object<String, Value> {
    let mut object = Object::new();
    object.insert("type".to_owned(), json!("object"));
    object.insert("description".to_owned(), json!(doc));
    object.insert("additionalProperties".to_owned(), json!(false));
    object.insert("properties".to_owned(), json!({}));
    object
}

fn insert(root: &mut Object<String, Value>, entry: &Entry) {
    let mut place = root;
    let mut segments: Vec<&str> = entry.path.split('.').collect();
    let Some(last) = segments.pop() else { return };
    for segment in segments {
        let next = match (segment, segment.strip_suffix("[]")) {
            ("*", _) => place.get_mut("additionalProperties"),
            (_, Some(list)) => place.get_mut("properties").and_then(|known| known.get_mut(list)?.get_mut("items")),
            (name, None) => place.get_mut("properties").and_then(|known| known.get_mut(name)),
        };
        match next.and_then(Value::as_object_mut) {
            Some(next) => place = next,
            None => return,
        }
    }
    if let Some(known) = place.get_mut("properties").and_then(Value::as_object_mut) {
        known.insert(last.to_owned(), schema(entry));
    }
}

fn schema(entry: &Entry) -> Value {
    let mut value = match entry.kind {
        "block" => object(entry.doc),
        "named blocks" => {
            let mut outer = object(entry.doc);
            outer.insert("additionalProperties".to_owned(), Value::Object(object("")));
            outer
        }
        kind => {
            let mut plain = Object::new();
            plain.insert("description".to_owned(), json!(entry.doc));
            match kind {
                "list of blocks" => {
                    plain.insert("type".to_owned(), json!("array"));
                    plain.insert("items".to_owned(), Value::Object(object("")));
                }
                "names and texts" => {
                    plain.insert("type".to_owned(), json!("object"));
                    plain.insert("additionalProperties".to_owned(), json!({ "type": ["string", "number", "boolean"] }));
                }
                "choice" => {
                    let mut choices: Vec<Value> = entry.choices.iter().map(|choice| json!(choice)).collect();
                    if entry.choices.contains(&"off") {
                        choices.push(json!(false));
                    }
                    plain.insert("enum".to_owned(), Value::Array(choices));
                }
                "boolean" => {
                    plain.insert("type".to_owned(), json!(["boolean", "string"]));
                }
                "not available yet" => {
                    plain.insert("description".to_owned(), json!(format!("Not available yet: {}.", entry.doc)));
                }
                list if list.starts_with("list of") => {
                    plain.insert("type".to_owned(), json!("array"));
                    plain.insert("items".to_owned(), json!({ "type": ["string", "number"] }));
                }
                _ => {
                    plain.insert("type".to_owned(), json!(["string", "number", "boolean"]));
                }
            }
            plain
        }
    };
    if !entry.default.is_empty() {
        value.insert("default".to_owned(), json!(entry.default));
    }
    Value::Object(value)
}

/// Every key with its meaning, as a YAML file: all of it in comments but the one line that is needed.
pub fn reference_yaml() -> String {
    let mut text = String::from(
        "# Every key of Outrigger's configuration, with its default. Generated: change the code, not this file.\n\
         # Units are required: 250ms 5s 1m 28d, 64KiB 10MiB, 100/s 10/m 5/h, 20%. ${NAME} is a variable.\n\n",
    );
    for entry in entries() {
        let depth = entry.path.matches('.').count();
        let indent = "  ".repeat(depth);
        let name = entry.path.rsplit('.').next().unwrap_or_default();
        let value = match (entry.path.as_str(), entry.kind) {
            ("upstream", _) => " http://127.0.0.1:3000".to_owned(),
            (_, "block" | "named blocks" | "list of blocks" | "names and texts") => String::new(),
            (_, _) if entry.default.is_empty() => format!(" <{}>", entry.kind),
            (_, _) => format!(" {}", entry.default),
        };
        let mark = if entry.path == "upstream" { "" } else { "# " };
        let choices =
            if entry.choices.is_empty() { String::new() } else { format!(" [{}]", entry.choices.join(" | ")) };
        text.push_str(&format!("# {indent}# {}{choices}\n{mark}{indent}{name}:{value}\n", entry.doc));
    }
    text
}

/// The same as a page.
pub fn reference_markdown() -> String {
    let mut text = String::from(
        "# Configuration reference\n\nEvery key, in the order of the language. Generated from the code; do not edit.\n\
         `[]` stands for an item of a list, `*` for a name you choose.\n\n\
         | key | what it is | default | meaning |\n|---|---|---|---|\n",
    );
    for entry in entries() {
        let kind = if entry.choices.is_empty() { entry.kind.to_owned() } else { entry.choices.join(", ") };
        let kind = kind.replace('|', "\\|");
        let doc = entry.doc.replace('|', "\\|");
        text.push_str(&format!("| `{}` | {kind} | {} | {doc} |\n", entry.path, entry.default));
    }
    text
}
