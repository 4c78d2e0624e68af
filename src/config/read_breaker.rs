//! The circuit breaker of an upstream.

use std::time::Duration;

use super::reader::Map;
use super::settings::{CircuitBreaker, Mode, SlowCall};
use super::units;
use crate::core::units::Ratio;

pub fn circuit_breaker(map: Map<'_, '_>, plain: CircuitBreaker) -> CircuitBreaker {
    let doc = "off lets everything through; shadow too, but judges and tells what it would have done.";
    let mode = match map.choice("mode", &["enforce", "shadow", "off"], "enforce", doc) {
        Some("off") => Mode::Off,
        Some("shadow") => Mode::Shadow,
        Some(_) | None => Mode::Enforce,
    };
    let doc = "Failures in a row that open it; auto is 5, or 1% of the window's requests if that is more.";
    let consecutive = map.value("consecutive_failures", "number or auto", "auto", doc, |text| match text {
        "auto" => Ok(None),
        text => text.parse().ok().filter(|count| *count > 0).map(Some).ok_or("auto or a whole number of at least 1"),
    });
    let failure_rate = rate(&map, "failure_rate", "50%", "The share of failures in the window that opens it.");
    let slow = map.block("slow_call", "Opens it when too many calls are slow; without it slow calls do not count.");
    let slow_rate = rate(&slow, "rate", "80%", "The share of slow calls in the window that opens it.");
    let slow_duration = slow.duration("duration", "5s", "From when on a call is slow.");
    slow.finish();
    let window = map.value("window", "duration", "10s", "What failures and slow calls are counted over.", |text| {
        let range = Duration::from_millis(100)..=Duration::from_secs(600);
        units::duration(text).ok().filter(|time| range.contains(time)).ok_or("a time of 100ms to 10m")
    });
    let volume_min = map.count("volume_min", "20", "Requests in the window below which no rate opens it.");
    let (open_for_base, open_for_max) = open_for(&map, &plain);
    let half_open = map.block("half_open", "Testing whether the app is back.");
    let probes = half_open.count("probes", "1", "Test requests at a time.").and_then(|count| u32::try_from(count).ok());
    let ramp =
        half_open.duration("ramp", "10s", "How long a growing share passes after a good test; 0s closes at once.");
    half_open.finish();
    let slow_call = map.has("slow_call").then(|| SlowCall {
        rate: slow_rate.unwrap_or(Ratio(0.8)),
        duration: slow_duration.unwrap_or(Duration::from_secs(5)),
    });
    map.finish();
    CircuitBreaker {
        mode,
        consecutive_failures: consecutive.flatten(),
        failure_rate: failure_rate.unwrap_or(plain.failure_rate),
        slow_call,
        window: window.unwrap_or(plain.window),
        volume_min: volume_min.and_then(|count| u32::try_from(count).ok()).unwrap_or(plain.volume_min),
        open_for_base,
        open_for_max,
        probes: probes.unwrap_or(plain.probes),
        ramp: ramp.unwrap_or(plain.ramp),
    }
}

/// A share that is not nothing: 0% would open it at the first good request.
fn rate(map: &Map<'_, '_>, name: &'static str, default: &'static str, doc: &'static str) -> Option<Ratio> {
    map.value(name, "percentage", default, doc, |text| {
        units::ratio(text).ok().filter(|ratio| ratio.0 > 0.0).ok_or("a percentage above 0% and up to 100%")
    })
}

fn open_for(map: &Map<'_, '_>, plain: &CircuitBreaker) -> (Duration, Duration) {
    let open_for = map.block("open_for", "How long it stays open; half to all of it, by chance.");
    let base = open_for.duration("base", "5s", "The first time; doubled each time it opens again.");
    let max = open_for.duration("max", "30s", "The longest time.");
    let (base, max) = (base.unwrap_or(plain.open_for_base), max.unwrap_or(plain.open_for_max));
    if max < base && open_for.is_read("base") && open_for.is_read("max") {
        map.context.problem(
            &format!("{}.max", open_for.path),
            open_for.at("max"),
            "a maximum below the base",
            "a maximum of at least the base",
            None,
        );
    }
    open_for.finish();
    (base, max)
}
