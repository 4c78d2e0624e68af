//! What differs from attempt to attempt in the fields that the app sees.

use std::time::Instant;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::Run;
use crate::core::deadline;
use crate::core::retry::{GRPC_PREVIOUS_ATTEMPTS, X_ATTEMPT};
use crate::http::encode;
use crate::plan::EndpointPlan;
use crate::proxy::exchange::Exchange;

const X_REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");
const X_ENVOY_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

impl Run<'_> {
    /// Writes the time left, the attempt's number, and the host.
    pub(super) fn address(
        &self,
        exchange: &Exchange,
        to: &EndpointPlan,
        fields: &mut HeaderMap,
        number: u32,
        now: Instant,
    ) {
        let left = exchange.deadline.saturating_duration_since(now);
        let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        if fields.contains_key(&X_ENVOY_TIMEOUT) {
            fields.insert(X_ENVOY_TIMEOUT, encode::number(millis));
        }
        if !exchange.is_grpc() {
            fields.insert(X_REQUEST_TIMEOUT, encode::number(millis));
        } else if let Ok(value) = HeaderValue::try_from(deadline::format_grpc_timeout(left)) {
            fields.insert(GRPC_TIMEOUT, value);
        }
        let before = self.previous.saturating_add(number - 1);
        if number > 1 {
            fields.insert(X_ATTEMPT, HeaderValue::from(before.saturating_add(1)));
            if exchange.is_grpc() {
                fields.insert(GRPC_PREVIOUS_ATTEMPTS, HeaderValue::from(before));
            }
        }
        if exchange.outbound() {
            fields.insert(header::HOST, to.authority.clone());
        } else if exchange.host.is_empty() {
            fields.remove(header::HOST); // of the endpoint before; each sets its own
        }
        if let Some(token) = self.upgrade {
            fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            if let Ok(token) = HeaderValue::from_str(token) {
                fields.insert(header::UPGRADE, token);
            }
        }
    }
}
