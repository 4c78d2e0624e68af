//! What of a plan is the same in the next one: the identities that state, pools and sockets survive a reload by.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use outrigger::config;
use outrigger::plan::Plan;
use outrigger::plan::compile::compile;
use outrigger::state::states::States;
use outrigger::telemetry::Telemetry;

struct Compiler {
    telemetry: Arc<Telemetry>,
    states: States,
}

impl Compiler {
    fn new() -> Self {
        let loaded = config::load_text("upstream: http://127.0.0.1:1\n", "a.yaml", Path::new("."), &|_| None).unwrap();
        let telemetry = Telemetry::start(outrigger::app::options::telemetry(&loaded.settings), 1).unwrap();
        Compiler { telemetry, states: States::default() }
    }

    fn plan(&self, text: &str) -> Plan {
        let loaded = config::load_text(text, "a.yaml", Path::new("."), &|_| None).unwrap();
        compile(&loaded.settings, &loaded.hash, &self.states, &self.telemetry).unwrap()
    }

    fn pool(&self, text: &str) -> usize {
        self.plan(text).upstreams[0].endpoints[0].pool_slot
    }
}

// Goal: the pool changes exactly with what a connection is made of. Method: change one thing at a time.
#[test]
fn a_pool_lasts_as_long_as_its_connections_would_be_made_alike() {
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.crt");
    let authority = || rcgen::generate_simple_self_signed(vec!["ca.example".to_owned()]).unwrap().cert.pem();
    let (first, second) = (authority(), authority());
    fs::write(&ca, &first).unwrap();
    let compiler = Compiler::new();
    let text = |more: &str| {
        format!(
            "upstreams: {{ app: {{ endpoints: [\"https://127.0.0.1:1\"], tls: {{ ca: {} }}{more} }} }}\n",
            ca.display()
        )
    };
    let before = compiler.pool(&text(""));
    assert_eq!(compiler.pool(&text("")), before);
    assert_eq!(compiler.pool(&text(", concurrency: { max: 7 }")), before, "a policy is no part of a connection");
    assert_ne!(compiler.pool(&text(", pool: { idle_max: 3 }")), before);
    fs::write(&ca, &second).unwrap();
    assert_ne!(compiler.pool(&text("")), before, "the file says that others are trusted now");
    fs::write(&ca, &first).unwrap();
    assert_eq!(compiler.pool(&text("")), before);
}

// Goal: two listeners that let the system choose a port are two, and each stays itself.
#[test]
fn listeners_on_port_0_are_told_apart_by_name() {
    let compiler = Compiler::new();
    let slots = |names: &[&str]| -> BTreeMap<String, usize> {
        let listeners: Vec<_> =
            names.iter().map(|name| format!("{{ name: {name}, address: \"127.0.0.1:0\" }}")).collect();
        let plan = compiler.plan(&format!("upstream: http://127.0.0.1:1\nlisteners: [{}]\n", listeners.join(", ")));
        plan.live_listeners().map(|listener| (listener.name.to_string(), listener.slot)).collect()
    };
    let both = slots(&["one", "two"]);
    assert_eq!(both.len(), 2, "{both:?}");
    assert_ne!(both["one"], both["two"]);
    assert_eq!(slots(&["two", "one"]), both, "whatever their order");
}
