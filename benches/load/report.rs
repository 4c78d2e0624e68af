//! The figures as Markdown and as JSON, with charts beside them.

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::json;

use super::chart::{Bar, Chart};
use super::figures::{Figures, Held, Measured, least, median, most, ratio, spread};
use super::peers::Peer;
use super::scenario::{Kind, Scenario};

/// The programs that ratios refer to.
const REFERENCES: [&str; 2] = ["nginx", "haproxy"];

pub struct Report {
    pub machine: String,
    /// Latency of the app without a proxy.
    pub alone: Figures,
    pub peers: Vec<(Peer, Figures)>,
}

impl Report {
    pub fn write(mut self, scenarios: &[Scenario]) {
        self.peers.sort_by_key(|(peer, _)| peer.number);
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        std::fs::create_dir_all(&folder).expect("target/bench can be made");
        let save = |name: &str, text: &str| {
            std::fs::write(folder.join(name), text).expect("target/bench can be written");
        };
        let mut text = format!("{}\n\n", self.machine);
        let mut named: Vec<(&str, &str)> = self.peers.iter().map(|(peer, _)| (peer.program, &*peer.version)).collect();
        named.dedup();
        for (program, version) in named {
            let _ = writeln!(text, "- {program}: {version}"); // into a String: cannot fail
        }
        text.push('\n');
        for scenario in scenarios.iter().filter(|scenario| !scenario.open_loop) {
            text.push_str(&self.saturated(scenario));
            save(&format!("{}.svg", scenario.name), &self.cpu_chart(scenario).draw());
        }
        text.push_str(&self.latency());
        text.push_str(&self.rest());
        save("memory.svg", &self.memory_chart().draw());
        save("latency.svg", &self.latency_chart().draw());
        save("load.md", &text);
        save("load.json", &format!("{:#}\n", self.to_json()));
        println!("{text}written to {}", folder.display());
    }

    fn to_json(&self) -> serde_json::Value {
        let peers = self.peers.iter().map(|(peer, figures)| {
            (peer.name.clone(), json!({ "version": peer.version, "figures": figures.to_json() }))
        });
        json!({ "machine": self.machine, "alone": self.alone.to_json(), "peers": peers.collect::<serde_json::Map<_, _>>() })
    }

    fn measured<'s>(&'s self, scenario: &'s str) -> impl Iterator<Item = (&'s Peer, &'s Measured)> {
        self.peers.iter().filter_map(move |(peer, figures)| Some((peer, figures.in_scenario(scenario)?)))
    }

    /// Processor time of `program` in the kind that compares with `kind`.
    fn base<'s>(&'s self, scenario: &'s str, program: &str, kind: Kind) -> &'s [f64] {
        let kind = if kind == Kind::Defaults { Kind::Policies } else { kind };
        self.measured(scenario)
            .find(|(peer, _)| peer.program == program && peer.kind == kind)
            .map_or(&[], |(_, measured)| &measured.cpu)
    }

    fn saturated(&self, scenario: &Scenario) -> String {
        let [first, second] = REFERENCES;
        let mut text = format!(
            "### {}\n\n| proxy | CPU µs/request | user µs | x {first} | x {second} | x own bare | requests/s | MB per CPU-s | errors |\n|---|---|---|---|---|---|---|---|---|\n",
            scenario.title
        );
        for (peer, measured) in self.measured(scenario.name) {
            let beside = |program: &str, kind| ratio(&measured.cpu, self.base(scenario.name, program, kind));
            let _ = writeln!(
                text,
                "| {} | {} | {:.1} | {} | {} | {} | {:.0} | {:.0} | {} |",
                peer.name,
                spread(&measured.cpu),
                median(&measured.user),
                beside(first, peer.kind),
                beside(second, peer.kind),
                beside(peer.program, Kind::Bare),
                median(&measured.rate),
                median(&measured.megabytes),
                measured.errors
            ); // into a String: cannot fail
        }
        text.push('\n');
        text
    }

    fn latency(&self) -> String {
        if self.alone.p50.is_empty() {
            return String::new();
        }
        let mut text = "### latency at the fixed rate (open loop, from the intended start), keep-alive, 1 KB\n\n| proxy | p50 µs | p99 µs | p99.9 µs | p50 added µs | CPU µs/request | errors |\n|---|---|---|---|---|---|---|\n".to_owned();
        for (name, figures) in self.timed() {
            let (p50, p99, p999) = (spread(&figures.p50), spread(&figures.p99), spread(&figures.p999));
            let added: Vec<f64> = figures.p50.iter().zip(&self.alone.p50).map(|(value, alone)| value - alone).collect();
            let (added, cpu) = (spread(&added), spread(&figures.cpu_at_rate));
            let _ =
                writeln!(text, "| {name} | {p50} | {p99} | {p999} | {added} | {cpu} | {} |", figures.errors_at_rate); // into a String: cannot fail
        }
        text.push('\n');
        text
    }

    /// Those whose latency was measured.
    fn timed(&self) -> impl Iterator<Item = (&str, &Figures)> {
        let peers = self.peers.iter().map(|(peer, figures)| (peer.name.as_str(), figures));
        std::iter::once(("the app alone", &self.alone)).chain(peers).filter(|(_, figures)| !figures.p50.is_empty())
    }

    fn rest(&self) -> String {
        let mut text = "### at rest, and system calls\n\n| proxy | start to first answer ms | CPU ms until then | idle MiB | with idle connections MiB | after they left MiB | KiB per connection | KiB per TLS connection | system calls/request saturated | at 1,000/s |\n|---|---|---|---|---|---|---|---|---|---|\n".to_owned();
        for (peer, figures) in &self.peers {
            let of = |held: &Option<Held>, value: &dyn Fn(&Held) -> f64| {
                held.as_ref().map_or("-".to_owned(), |held| format!("{:.1}", value(held)))
            };
            let calls = |calls: Option<f64>| calls.map_or("-".to_owned(), |calls| format!("{calls:.2}"));
            let _ = writeln!(
                text,
                "| {} | {} | {} | {:.1} | {} ({}) | {} | {} | {} | {} | {} |",
                peer.name,
                spread(&figures.start_ms),
                spread(&figures.start_cpu_ms),
                figures.idle_mib,
                of(&figures.plain, &|held| held.with_mib),
                figures.plain.as_ref().map_or(0, |held| held.connections),
                of(&figures.plain, &|held| held.after_mib),
                of(&figures.plain, &Held::kib_each),
                of(&figures.tls, &Held::kib_each),
                calls(figures.calls),
                calls(figures.calls_at_rate)
            ); // into a String: cannot fail
        }
        text.push('\n');
        text
    }

    fn cpu_chart(&self, scenario: &Scenario) -> Chart {
        let title = format!("{}: CPU µs per request (median, span of rounds)", scenario.title);
        Chart { title, bars: self.measured(scenario.name).map(|(peer, of)| bar(&peer.name, &of.cpu)).collect() }
    }

    fn latency_chart(&self) -> Chart {
        let bars = self.timed().map(|(name, figures)| bar(name, &figures.p99)).collect();
        Chart { title: "p99 latency at the fixed rate, µs".to_owned(), bars }
    }

    fn memory_chart(&self) -> Chart {
        let bars = self.peers.iter().flat_map(|(peer, figures)| {
            let held = figures.plain.as_ref();
            let held = held.map(|held| bar(&format!("{}, {} idle", peer.name, held.connections), &[held.with_mib]));
            std::iter::once(bar(&peer.name, &[figures.idle_mib])).chain(held)
        });
        Chart { title: "resident memory, MiB".to_owned(), bars: bars.collect() }
    }
}

fn bar(name: &str, values: &[f64]) -> Bar {
    Bar { name: name.to_owned(), value: median(values), least: least(values), most: most(values) }
}
