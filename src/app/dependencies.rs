//! Asking what the app needs: one task per dependency, on the control runtime. Checks are spread by chance, and a
//! failure is confirmed soon instead of believed at once, so that one lost packet is no event.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::core::health::Params;
use crate::plan::DependencyPlan;
use crate::proxy::Shared;
use crate::state::clock;

/// One success makes it well; a failure must be confirmed.
const PARAMS: Params = Params { rise: 1, fall: 2 };
/// How soon a failure is confirmed, and how soon a dependency is asked again that was never well.
const CONFIRM_AFTER: Duration = Duration::from_secs(1);
/// Checks begin within this of each other, so that many do not begin at once.
const SPREAD_FIRST: Duration = Duration::from_millis(100);

/// The running checks, by the dependency's name.
#[derive(Default)]
pub struct Dependencies(HashMap<String, (DependencyPlan, JoinHandle<()>)>);

impl Dependencies {
    /// Starts what is new or has changed, and ends what is gone.
    pub fn apply(&mut self, shared: &Arc<Shared>) {
        let plan = shared.plans.load_full();
        let wanted = |name: &str| plan.dependencies.iter().find(|dependency| *dependency.name == *name);
        self.0.retain(|name, (running, task)| {
            let keep = wanted(name).is_some_and(|wanted| wanted.asks_the_same(running));
            if !keep {
                task.abort();
            }
            keep
        });
        for dependency in &plan.dependencies {
            self.0.entry(dependency.name.to_string()).or_insert_with(|| {
                let task = tokio::spawn(watch(Arc::clone(shared), dependency.clone()));
                (dependency.clone(), task)
            });
        }
    }
}

impl Drop for Dependencies {
    fn drop(&mut self) {
        self.0.values().for_each(|(_, task)| task.abort());
    }
}

async fn watch(shared: Arc<Shared>, dependency: DependencyPlan) {
    tokio::time::sleep(SPREAD_FIRST.mul_f64(clock::unit())).await;
    loop {
        let result = dependency.what.check(dependency.timeout, clock::wall()).await;
        let words = result.as_ref().err().cloned();
        let changed = dependency.state.checked(result, &PARAMS, clock::wall());
        let subject = || format!("{} ({})", dependency.name, dependency.what.kind());
        match (changed, &words) {
            (Some(false), words) => {
                let words = format!("failing: {}", words.as_deref().unwrap_or_default());
                shared.states.journal.record("dependency", subject(), words);
            }
            (Some(true), _) => shared.states.journal.record("dependency", subject(), "well"),
            (None, _) => {}
        }
        let known = dependency.state.known();
        let uncertain = (words.is_some() && known.well == Some(true)) || !known.seen_well;
        let pause = if uncertain { dependency.interval.min(CONFIRM_AFTER) } else { dependency.interval };
        tokio::time::sleep(pause.mul_f64(0.9 + 0.2 * clock::unit())).await;
    }
}
