//! Switches as requests and commands find them: what the file says beside what commands have said.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::config::settings::Settings;
use crate::core::switch::{Position, Standing};
use crate::state::states::States;
use crate::state::switch::{Order, SwitchState};

/// What a switch is thrown for.
pub const SERVICE: &str = "service";
pub const ROUTE: &str = "route";
pub const FLAG: &str = "flag";

pub struct SwitchPlan {
    /// `service`, `route` or `flag`.
    pub kind: &'static str,
    /// Of the route or flag; empty for the service.
    pub name: Arc<str>,
    /// Where the file has it.
    pub file: Position,
    pub state: Arc<SwitchState>,
}

impl SwitchPlan {
    pub fn new(states: &States, kind: &'static str, name: &str, file: Position) -> Arc<SwitchPlan> {
        Arc::new(SwitchPlan { kind, name: name.into(), file, state: states.switch(kind, name) })
    }

    /// Where it stands now, and the command that put it there.
    pub fn stands(&self, now: Instant) -> (Position, Option<Order>) {
        let order = self.state.order(now);
        (order.as_ref().map_or(self.file, |order| order.position), order)
    }
}

/// What is said while a switch is thrown.
#[derive(Clone, Debug)]
pub struct MaintenancePlan {
    pub message: Option<Arc<str>>,
    pub allow: Vec<IpNet>,
    pub retry_after: Duration,
}

/// The switches before one route.
#[derive(Clone)]
pub struct RouteSwitches {
    /// `None` on outbound listeners: the app may call others while the service is closed.
    pub service: Option<Arc<SwitchPlan>>,
    pub route: Arc<SwitchPlan>,
    pub flag: Option<Arc<SwitchPlan>>,
}

impl RouteSwitches {
    /// Where they stand together, and the commands among them.
    pub fn stand(&self, now: Instant) -> (Standing, Vec<Order>) {
        let mut orders = Vec::new(); // allocates only when a command holds a switch
        let mut position = |switch: &SwitchPlan| {
            let (position, order) = switch.stands(now);
            orders.extend(order);
            position
        };
        let service = self.service.as_deref().map_or(Position::Open, &mut position);
        let maintenance = position(&self.route).max(service);
        let enabled = self.flag.as_deref().is_none_or(|flag| position(flag) == Position::Open);
        (Standing { maintenance, enabled }, orders)
    }
}

/// The service's switch and the flags; routes add theirs as they are compiled.
pub fn of_file(settings: &Settings, states: &States) -> Vec<Arc<SwitchPlan>> {
    let service = SwitchPlan::new(states, SERVICE, "", settings.maintenance.mode);
    let flags = settings.flags.iter().map(|flag| {
        let position = if flag.on { Position::Open } else { Position::Closed };
        SwitchPlan::new(states, FLAG, &flag.name, position)
    });
    std::iter::once(service).chain(flags).collect()
}
