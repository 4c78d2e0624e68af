//! Requests in flight: the cap, the limit that is learned, and the queue in front of both.

use std::time::Duration;

use super::reader::Map;
use super::settings::{Adaptive, Mode, Queue};

pub const CAP: usize = 1024;
pub const ADAPTIVE: Adaptive = Adaptive { mode: Mode::Enforce, min: 10, max: 1000 };
pub const QUEUE: Queue = Queue { max: 256, wait_max: Duration::from_millis(500) };

pub fn concurrency(map: Map<'_, '_>) -> (usize, Adaptive, Queue) {
    let doc = "Open requests, streams included, all workers together; more wait, or are answered 503.";
    let cap = map.count("max", "1024", doc).map_or(CAP, |max| max as usize);
    let adaptive = adaptive(map.block("adaptive", "A limit learned from the app's latency."));
    let queue = map.block("queue", "Requests that wait for a place, for a short time.");
    let count = |name, default, doc| {
        queue.value(name, "number", default, doc, |text| text.parse::<usize>().map_err(|_| "a whole number"))
    };
    let waiting = count("max", "256", "How many may wait; 0 is no queue.").unwrap_or(QUEUE.max);
    let doc = "How long; a fifth of it while the queue has not been empty for half of it.";
    let wait_max = queue.duration("wait_max", "500ms", doc).unwrap_or(QUEUE.wait_max);
    queue.finish();
    map.finish();
    (cap, adaptive, Queue { max: waiting, wait_max })
}

fn adaptive(map: Map<'_, '_>) -> Adaptive {
    let doc = "shadow learns the limit, shows it, and does not keep to it.";
    let mode = match map.choice("mode", &["enforce", "shadow", "off"], "enforce", doc) {
        Some("shadow") => Mode::Shadow,
        Some("off") => Mode::Off,
        Some(_) | None => Mode::Enforce,
    };
    let min = map.count("min", "10", "The lowest limit.").map_or(ADAPTIVE.min, |min| min as usize);
    let max = map.count("max", "1000", "The highest limit.").map_or(ADAPTIVE.max, |max| max as usize);
    if min > max && map.is_read("min") && map.is_read("max") {
        let (found, expected) =
            (format!("a minimum of {min} above the maximum of {max}"), "a minimum of at most the maximum");
        map.context.problem(&format!("{}.min", map.path), map.at("min"), found, expected, None);
    }
    map.finish();
    Adaptive { mode, min, max }
}
