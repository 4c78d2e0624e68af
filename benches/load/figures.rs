//! What was measured of one proxy, and the medians and spans that are made of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// One scenario, one proxy; a value for each round.
#[derive(Default)]
pub struct Measured {
    /// Microseconds of processor time for a request.
    pub cpu: Vec<f64>,
    /// The share of it outside the kernel.
    pub user: Vec<f64>,
    /// Requests a second.
    pub rate: Vec<f64>,
    /// Megabytes of bodies for a second of processor time.
    pub megabytes: Vec<f64>,
    pub errors: u64,
}

/// Idle connections that could be held, and resident memory around them.
pub struct Held {
    pub connections: usize,
    pub before_mib: f64,
    pub with_mib: f64,
    pub after_mib: f64,
}

impl Held {
    pub fn kib_each(&self) -> f64 {
        (self.with_mib - self.before_mib) * 1024.0 / self.connections.max(1) as f64
    }

    fn to_json(&self) -> Value {
        json!({ "connections": self.connections, "before_mib": self.before_mib, "with_mib": self.with_mib, "after_mib": self.after_mib })
    }
}

/// One proxy.
#[derive(Default)]
pub struct Figures {
    scenarios: BTreeMap<&'static str, Measured>,
    /// Requests at the fixed rate that were not answered well.
    pub errors_at_rate: u64,
    /// Microseconds at the fixed rate.
    pub p50: Vec<f64>,
    pub p99: Vec<f64>,
    pub p999: Vec<f64>,
    pub cpu_at_rate: Vec<f64>,
    pub start_ms: Vec<f64>,
    pub start_cpu_ms: Vec<f64>,
    pub idle_mib: f64,
    pub plain: Option<Held>,
    pub tls: Option<Held>,
    /// System calls for a request, saturated and at 1,000 requests/s.
    pub calls: Option<f64>,
    pub calls_at_rate: Option<f64>,
}

impl Figures {
    pub fn of(&mut self, scenario: &'static str) -> &mut Measured {
        self.scenarios.entry(scenario).or_default()
    }

    pub fn in_scenario(&self, scenario: &str) -> Option<&Measured> {
        self.scenarios.get(scenario)
    }

    pub fn to_json(&self) -> Value {
        let scenarios = self.scenarios.iter().map(|(name, measured)| {
            let Measured { cpu, user, rate, megabytes, errors } = measured;
            let value = json!({ "cpu_us": cpu, "user_us": user, "requests_per_s": rate, "mb_per_cpu_s": megabytes, "errors": errors });
            ((*name).to_owned(), value)
        });
        json!({
            "scenarios": scenarios.collect::<serde_json::Map<_, _>>(),
            "at_rate": { "p50_us": self.p50, "p99_us": self.p99, "p999_us": self.p999, "cpu_us": self.cpu_at_rate, "errors": self.errors_at_rate },
            "start_ms": self.start_ms,
            "start_cpu_ms": self.start_cpu_ms,
            "idle_mib": self.idle_mib,
            "idle_connections": self.plain.as_ref().map(Held::to_json),
            "idle_tls_connections": self.tls.as_ref().map(Held::to_json),
            "system_calls": self.calls,
            "system_calls_at_1000_per_s": self.calls_at_rate,
        })
    }
}

pub fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

pub fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// Of an even number of values the mean of the middle two.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.get(middle) {
        None => f64::NAN,
        Some(upper) if sorted.len() % 2 == 1 => *upper,
        Some(upper) => (sorted[middle - 1] + upper) / 2.0,
    }
}

/// Median and span.
pub fn spread(values: &[f64]) -> String {
    if values.is_empty() {
        return "-".to_owned();
    }
    let digits = if median(values) < 100.0 { 1 } else { 0 };
    format!("{:.digits$} ({:.digits$}–{:.digits$})", median(values), least(values), most(values))
}

/// The rounds' own ratios: their median and span.
pub fn ratio(values: &[f64], base: &[f64]) -> String {
    let ratios: Vec<f64> = values.iter().zip(base).map(|(value, base)| value / base).collect();
    if ratios.is_empty() {
        return "-".to_owned();
    }
    format!("{:.2} ({:.2}–{:.2})", median(&ratios), least(&ratios), most(&ratios))
}
