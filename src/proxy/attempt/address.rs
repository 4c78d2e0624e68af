//! What differs from attempt to attempt in the fields that the app sees.

use std::time::Instant;

use http::header::HeaderValue;

use super::Run;
use crate::core::deadline;
use crate::core::fields::Fields;
use crate::core::retry::{GRPC_PREVIOUS_ATTEMPTS, X_ATTEMPT};
use crate::http::encode;
use crate::plan::EndpointPlan;
use crate::proxy::exchange::Exchange;

const X_REQUEST_TIMEOUT: &str = "x-request-timeout-ms";
const X_ENVOY_TIMEOUT: &str = "x-envoy-expected-rq-timeout-ms";
const GRPC_TIMEOUT: &str = "grpc-timeout";

impl Run<'_> {
    /// Writes the time left, the attempt's number, and the host.
    pub(super) fn address(
        &self,
        exchange: &Exchange,
        to: &EndpointPlan,
        fields: &mut Fields,
        number: u32,
        now: Instant,
    ) {
        let left = exchange.deadline.saturating_duration_since(now);
        let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let mut digits = [0; 20];
        if fields.contains(X_ENVOY_TIMEOUT) {
            fields.make_unique(X_ENVOY_TIMEOUT, &[encode::decimal(millis, &mut digits)]);
        }
        if exchange.is_grpc() {
            fields.make_unique(GRPC_TIMEOUT, &[deadline::format_grpc_timeout(left).as_bytes()]);
        } else {
            fields.make_unique(X_REQUEST_TIMEOUT, &[encode::decimal(millis, &mut digits)]);
        }
        let before = self.previous.saturating_add(number - 1);
        if number > 1 {
            fields.insert(X_ATTEMPT, HeaderValue::from(before.saturating_add(1)));
            if exchange.is_grpc() {
                fields.insert(GRPC_PREVIOUS_ATTEMPTS, HeaderValue::from(before));
            }
        }
        if exchange.outbound() {
            fields.insert("host", to.authority.clone());
        } else if exchange.host.is_empty() {
            fields.remove("host"); // of the endpoint before; each sets its own
        }
        if let Some(token) = self.upgrade {
            fields.insert("connection", HeaderValue::from_static("upgrade"));
            if let Ok(token) = HeaderValue::from_str(token) {
                fields.insert("upgrade", token);
            }
        }
    }
}
