//! The switches before a route: maintenance, read-only mode, flags. See [`crate::core::switch`].

use std::time::Duration;

use http::Method;

use super::exchange::Exchange;
use super::refusal::Refusal;
use crate::core::retry::is_safe;
use crate::core::switch::{Barred, Standing};
use crate::plan::RoutePlan;
use crate::state::switch::Order;

/// Refuses what a thrown switch bars.
pub fn check(exchange: &Exchange, route: &RoutePlan, method: &Method) -> Result<(), Refusal> {
    let (standing, orders) = route.switches.stand(exchange.started);
    if standing == Standing::OPEN {
        return Ok(());
    }
    let maintenance = &exchange.plan.maintenance;
    let client = exchange.client.to_canonical();
    let exempt = maintenance.allow.iter().chain(orders.iter().flat_map(|order| &order.allow));
    let exempt = exempt.into_iter().any(|network| network.contains(&client));
    let retry_after = wait(maintenance.retry_after, &orders, exchange);
    match standing.bars(is_safe(method), exempt) {
        None => Ok(()),
        Some(Barred::Disabled) => Err(Refusal::RouteDisabled { retry_after }),
        Some(Barred::ReadOnly) => Err(Refusal::ReadOnly { retry_after, message: maintenance.message.clone() }),
        Some(Barred::Maintenance) => Err(Refusal::Maintenance { retry_after, message: maintenance.message.clone() }),
    }
}

/// No longer than the first command still lasts.
fn wait(usual: Duration, orders: &[Order], exchange: &Exchange) -> Duration {
    let ends = orders.iter().map(|order| order.until.saturating_duration_since(exchange.started)).min();
    ends.map_or(usual, |left| left.min(usual)).max(Duration::from_secs(1))
}
