//! The figures as Markdown, with charts beside them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use super::chart::{Bar, Chart};
use super::scenario::Scenario;

/// The peer that ratios refer to.
const REFERENCE: &str = "nginx";

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

/// One proxy.
#[derive(Default)]
pub struct Figures {
    scenarios: BTreeMap<&'static str, Measured>,
    pub p50: Vec<f64>,
    pub p99: Vec<f64>,
    pub p999: Vec<f64>,
    pub cpu_at_rate: Vec<f64>,
    pub start_ms: Vec<f64>,
    pub idle_mib: f64,
    /// Idle connections that could be held, the memory with them, and after them.
    pub held: usize,
    pub held_mib: f64,
    pub given_back_mib: f64,
    /// System calls for a request, saturated and at 1,000 requests/s.
    pub calls: Option<f64>,
    pub calls_at_rate: Option<f64>,
}

impl Figures {
    pub fn of(&mut self, scenario: &'static str) -> &mut Measured {
        self.scenarios.entry(scenario).or_default()
    }
}

pub struct Report<'a> {
    pub machine: String,
    /// Latency of the app without a proxy.
    pub alone: &'a Figures,
    pub peers: Vec<(&'static str, &'a str, &'a Figures)>,
}

impl Report<'_> {
    pub fn write(&self, scenarios: &[Scenario]) {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        std::fs::create_dir_all(&folder).expect("target/bench can be made");
        let mut text = format!("{}\n\n", self.machine);
        for (name, version, _) in &self.peers {
            let _ = writeln!(text, "- {name}: {version}"); // into a String: cannot fail
        }
        text.push('\n');
        for scenario in scenarios {
            text.push_str(&self.saturated(scenario));
            std::fs::write(folder.join(format!("{}.svg", scenario.name)), self.cpu_chart(scenario).draw())
                .expect("target/bench can be written");
        }
        text.push_str(&self.latency());
        text.push_str(&self.rest());
        std::fs::write(folder.join("memory.svg"), self.memory_chart().draw()).expect("target/bench can be written");
        std::fs::write(folder.join("latency.svg"), self.latency_chart().draw()).expect("target/bench can be written");
        std::fs::write(folder.join("load.md"), &text).expect("target/bench can be written");
        println!("{text}written to {}", folder.display());
    }

    fn measured<'s>(&'s self, scenario: &'s str) -> impl Iterator<Item = (&'static str, &'s Measured)> {
        self.peers.iter().filter_map(move |(name, _, figures)| Some((*name, figures.scenarios.get(scenario)?)))
    }

    fn saturated(&self, scenario: &Scenario) -> String {
        let of = |wanted: &str| self.measured(scenario.name).find(|(name, _)| *name == wanted).map(|found| found.1);
        let (reference, bare) = (of(REFERENCE), of("outrigger bare"));
        let mut text = format!(
            "### {}\n\n| proxy | CPU µs/request | user µs | x {REFERENCE} | x bare | requests/s | MB per CPU-s | errors |\n|---|---|---|---|---|---|---|---|\n",
            scenario.title
        );
        for (name, measured) in self.measured(scenario.name) {
            let _ = writeln!(
                text,
                "| {name} | {} | {:.1} | {} | {} | {:.0} | {:.0} | {} |",
                spread(&measured.cpu),
                median(&measured.user),
                ratio(&measured.cpu, reference),
                ratio(&measured.cpu, bare),
                median(&measured.rate),
                median(&measured.megabytes),
                measured.errors
            );
        }
        text.push('\n');
        text
    }

    fn latency(&self) -> String {
        if self.alone.p50.is_empty() {
            return String::new();
        }
        let mut text = "### latency at the fixed rate (open loop, from the intended start), keep-alive, 1 KB\n\n| proxy | p50 µs | p99 µs | p99.9 µs | CPU µs/request |\n|---|---|---|---|---|\n".to_owned();
        let alone = std::iter::once(("the app alone", self.alone));
        for (name, figures) in alone.chain(self.peers.iter().map(|(name, _, figures)| (*name, *figures))) {
            let cpu = if figures.cpu_at_rate.is_empty() { "-".to_owned() } else { spread(&figures.cpu_at_rate) };
            let (p50, p99, p999) = (spread(&figures.p50), spread(&figures.p99), spread(&figures.p999));
            let _ = writeln!(text, "| {name} | {p50} | {p99} | {p999} | {cpu} |");
        }
        text.push('\n');
        text
    }

    fn rest(&self) -> String {
        let mut text = "### at rest, and system calls\n\n| proxy | start to first answer ms | idle MiB | with idle connections MiB | KiB per connection | after they left MiB | system calls/request saturated | at 1,000/s |\n|---|---|---|---|---|---|---|---|\n".to_owned();
        for (name, _, figures) in &self.peers {
            let held = figures.held.max(1) as f64;
            let calls = |calls: Option<f64>| calls.map_or("-".to_owned(), |calls| format!("{calls:.2}"));
            let _ = writeln!(
                text,
                "| {name} | {} | {:.1} | {:.1} ({}) | {:.1} | {:.1} | {} | {} |",
                spread(&figures.start_ms),
                figures.idle_mib,
                figures.held_mib,
                figures.held,
                (figures.held_mib - figures.idle_mib) * 1024.0 / held,
                figures.given_back_mib,
                calls(figures.calls),
                calls(figures.calls_at_rate)
            );
        }
        text.push('\n');
        text
    }

    fn cpu_chart(&self, scenario: &Scenario) -> Chart {
        let title = format!("{}: CPU µs per request (median, span of rounds)", scenario.title);
        Chart { title, bars: self.measured(scenario.name).map(|(name, of)| bar(name, &of.cpu)).collect() }
    }

    fn latency_chart(&self) -> Chart {
        let alone = std::iter::once(bar("the app alone", &self.alone.p99));
        let bars = alone.chain(self.peers.iter().map(|(name, _, figures)| bar(name, &figures.p99))).collect();
        Chart { title: "p99 latency at the fixed rate, µs".to_owned(), bars }
    }

    fn memory_chart(&self) -> Chart {
        let bars = self.peers.iter().flat_map(|(name, _, figures)| {
            let held = format!("{name}, {} idle", figures.held);
            [bar(name, &[figures.idle_mib]), bar(&held, &[figures.held_mib])]
        });
        Chart { title: "resident memory, MiB".to_owned(), bars: bars.collect() }
    }
}

fn bar(name: &str, values: &[f64]) -> Bar {
    Bar { name: name.to_owned(), value: median(values), least: least(values), most: most(values) }
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Median and span.
fn spread(values: &[f64]) -> String {
    let digits = if median(values) < 100.0 { 1 } else { 0 };
    format!("{:.digits$} ({:.digits$}–{:.digits$})", median(values), least(values), most(values))
}

fn ratio(values: &[f64], reference: Option<&Measured>) -> String {
    let Some(reference) = reference else { return "-".to_owned() };
    let ratios: Vec<f64> = values.iter().zip(&reference.cpu).map(|(value, base)| value / base).collect();
    format!("{:.2} ({:.2}–{:.2})", median(&ratios), least(&ratios), most(&ratios))
}
