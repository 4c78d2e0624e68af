//! Servers beside the app, made ready to be asked: certificates to trust, names to expect.

use std::path::Path;
use std::sync::Arc;

use super::compile::PlanProblem;
use super::{DependencyPlan, StorePlan};
use crate::config::settings as wanted;
use crate::core::dependency::Server;
use crate::state::states::States;
use crate::upstream::ClientTls;
use crate::upstream::dependency::{Dependency, Free};

/// All of them; the problem of each that cannot be asked goes to `problems`.
pub fn dependencies(
    settings: &wanted::Settings,
    states: &States,
    problems: &mut Vec<PlanProblem>,
) -> Vec<DependencyPlan> {
    let compile = |(place, dependency): (usize, &wanted::Dependency)| match what(&dependency.kind) {
        Ok(what) => Some(DependencyPlan {
            name: dependency.name.as_str().into(),
            when: dependency.when,
            interval: dependency.interval,
            timeout: dependency.timeout,
            // Passwords are not part of a dump, so a new one keeps what is known.
            state: states.dependency(&format!("{} {what:?}", dependency.name)),
            what,
        }),
        Err(words) => {
            problems.push(PlanProblem { path: format!("readiness.checks[{place}]"), words });
            None
        }
    };
    settings.dependencies.iter().enumerate().filter_map(compile).collect()
}

/// The stores in which replicas count together.
pub fn stores(settings: &wanted::Settings, states: &States, problems: &mut Vec<PlanProblem>) -> Vec<Arc<StorePlan>> {
    let compile = |store: &wanted::Store| match tls(&store.server) {
        Ok(tls) => Some(Arc::new(StorePlan {
            name: store.name.as_str().into(),
            slot: states.store_slot(&store.name),
            state: states.store(&format!("{} {:?}", store.name, store.server)),
            server: store.server.clone(),
            tls,
            timeout: store.timeout,
        })),
        Err(words) => {
            problems.push(PlanProblem { path: format!("stores.{}", store.name), words });
            None
        }
    };
    settings.stores.iter().filter_map(compile).collect()
}

fn what(kind: &wanted::DependencyKind) -> Result<Dependency, String> {
    Ok(match kind {
        wanted::DependencyKind::Tcp(address) => Dependency::Tcp(address.clone()),
        wanted::DependencyKind::Http { server, expect } => {
            Dependency::Http { tls: tls(server)?, server: server.clone(), expect: expect.clone() }
        }
        wanted::DependencyKind::Postgres(server) => Dependency::Postgres { tls: tls(server)?, server: server.clone() },
        wanted::DependencyKind::Redis(server) => Dependency::Redis { tls: tls(server)?, server: server.clone() },
        wanted::DependencyKind::Dns(name) => Dependency::Dns(name.clone()),
        wanted::DependencyKind::Disk { path, free_min } => Dependency::Disk {
            path: path.clone(),
            free_min: match free_min {
                wanted::Free::Share(share) => Free::Share(*share),
                wanted::Free::Bytes(bytes) => Free::Bytes(*bytes),
            },
        },
        wanted::DependencyKind::CertificateFile { path, valid_min } => {
            Dependency::CertificateFile { path: path.clone(), valid_min: *valid_min }
        }
        wanted::DependencyKind::CertificateOf { address, authority, valid_min } => {
            Dependency::CertificateOf { address: address.clone(), tls: build(authority, None)?, valid_min: *valid_min }
        }
    })
}

/// The system's roots, or those that PostgreSQL's `sslrootcert` names.
fn tls(server: &Server) -> Result<Option<Arc<ClientTls>>, String> {
    if !server.tls {
        return Ok(None);
    }
    let roots = server.parameter("sslrootcert").filter(|path| *path != "system").map(Path::new);
    build(&server.authority, roots).map(Some)
}

fn build(authority: &str, roots: Option<&Path>) -> Result<Arc<ClientTls>, String> {
    ClientTls::build(None, authority, roots, None).map_err(|problem| problem.to_string())
}
