//! Switches: maintenance of the service, and flags that routes name.

use std::time::Duration;

use super::read::networks;
use super::reader::Map;
use super::settings::{Flag, Maintenance};
use crate::core::switch::Position;

const RETRY_AFTER: Duration = Duration::from_secs(60);

pub fn maintenance(map: Map<'_, '_>) -> Maintenance {
    let mode = position(&map, "mode", "on refuses every request, read_only those that may change something.");
    let message = map.text("message", "What people are told; the default says only that work is going on.");
    let allow = networks(&map, "allow", "Clients that pass all the same, to try what was worked on.");
    let doc = "What clients are told to wait; sooner when the command that threw the switch ends sooner.";
    let retry_after = map.duration("retry_after", "1m", doc).unwrap_or(RETRY_AFTER);
    map.finish();
    Maintenance { mode, message, allow, retry_after }
}

/// A switch of maintenance: off, read_only or on.
pub fn position(map: &Map<'_, '_>, name: &'static str, doc: &'static str) -> Position {
    map.choice(name, &["off", "read_only", "on"], "off", doc).and_then(Position::parse).unwrap_or_default()
}

pub fn flags(root: &Map<'_, '_>) -> Vec<Flag> {
    let typed =
        root.texts("flags", "Flags by name, true or false; a route that names one answers only while it is on.");
    let read = |(name, text, at): (String, String, super::problem::Location)| match text.as_str() {
        "true" => Some(Flag { name, on: true }),
        "false" => Some(Flag { name, on: false }),
        other => {
            root.context.unreadable(&format!("flags.{name}"), Some(at), other, "true or false", None);
            None
        }
    };
    typed.into_iter().filter_map(read).collect()
}
