//! What there is to say of each reason: its stable word, status and title, and whose fault it is.

use http::StatusCode;

use crate::telemetry::Fate;

/// What there is to say of one.
pub struct Entry {
    pub label: &'static str,
    pub status: StatusCode,
    pub title: &'static str,
    /// RFC 9209 error type.
    pub proxy_error: &'static str,
    pub fate: Fate,
    /// gRPC status code.
    pub grpc: u8,
}

const fn entry(
    label: &'static str,
    status: StatusCode,
    title: &'static str,
    proxy_error: &'static str,
    fate: Fate,
    grpc: u8,
) -> Entry {
    Entry { label, status, title, proxy_error, fate, grpc }
}

const fn timeout(label: &'static str, title: &'static str) -> Entry {
    entry(label, StatusCode::GATEWAY_TIMEOUT, title, "http_response_timeout", Fate::TimedOut, 4)
}

pub const REQUEST_BROKEN: Entry = entry(
    "request_broken",
    StatusCode::BAD_REQUEST,
    "The request body is malformed.",
    "http_request_error",
    Fate::Refused,
    3,
);
pub const REQUEST_BODY_TIMEOUT: Entry = entry(
    "request_body_timeout",
    StatusCode::REQUEST_TIMEOUT,
    "The request body arrived too slowly.",
    "http_request_error",
    Fate::TimedOut,
    4,
);
pub const HEAD_TIMEOUT: Entry = entry(
    "request_header_timeout",
    StatusCode::REQUEST_TIMEOUT,
    "The head of the request arrived too slowly.",
    "http_request_error",
    Fate::TimedOut,
    4,
);
pub const BODY_TOO_LARGE: Entry = entry(
    "body_too_large",
    StatusCode::PAYLOAD_TOO_LARGE,
    "The request body is larger than this route allows.",
    "http_request_denied",
    Fate::Refused,
    8,
);
pub const ROUTE_NOT_FOUND: Entry = entry(
    "route_not_found",
    StatusCode::NOT_FOUND,
    "No route matches this host and path.",
    "destination_not_found",
    Fate::Refused,
    12,
);
pub const METHOD_NOT_ALLOWED: Entry = entry(
    "method_not_allowed",
    StatusCode::METHOD_NOT_ALLOWED,
    "This path does not accept this method.",
    "http_request_denied",
    Fate::Refused,
    12,
);
pub const MISDIRECTED: Entry = entry(
    "misdirected",
    StatusCode::MISDIRECTED_REQUEST,
    "This host is not served here over HTTPS.",
    "http_request_denied",
    Fate::Refused,
    9,
);
pub const LOOP_DETECTED: Entry = entry(
    "loop_detected",
    StatusCode::LOOP_DETECTED,
    "The request has passed here too often.",
    "proxy_loop_detected",
    Fate::Refused,
    13,
);
pub const RATE_LIMITED: Entry =
    entry("rate_limited", StatusCode::TOO_MANY_REQUESTS, "Too many requests.", "http_request_denied", Fate::Refused, 8);
pub const LIMIT_UNAVAILABLE: Entry = entry(
    "limit_unavailable",
    StatusCode::SERVICE_UNAVAILABLE,
    "The service cannot count requests at present.",
    "http_request_denied",
    Fate::Refused,
    14,
);
pub const CONCURRENCY_LIMIT: Entry = busy("concurrency_limit", "Too many requests are in progress.");
const fn busy(label: &'static str, title: &'static str) -> Entry {
    entry(label, StatusCode::SERVICE_UNAVAILABLE, title, "connection_limit_reached", Fate::Refused, 8)
}
pub const SHED: Entry = busy("shed", "The service is busy with more important requests.");
pub const DEADLINE_TOO_NEAR: Entry = busy("deadline_too_near", "The service is busy and would answer too late.");
pub const UPLOAD_LIMIT: Entry = busy("upload_limit", "Too many uploads are in progress.");
pub const BREAKER_OPEN: Entry = entry(
    "breaker_open",
    StatusCode::SERVICE_UNAVAILABLE,
    "The service has been failing and is being given time.",
    "destination_unavailable",
    Fate::Refused,
    14,
);
pub const CONNECT_REFUSED: Entry = entry(
    "connect_refused",
    StatusCode::BAD_GATEWAY,
    "The service is not listening.",
    "connection_refused",
    Fate::Unreachable,
    14,
);
pub const CONNECT_TIMEOUT: Entry = entry(
    "connect_timeout",
    StatusCode::GATEWAY_TIMEOUT,
    "The service could not be reached in time.",
    "connection_timeout",
    Fate::TimedOut,
    14,
);
pub const CONNECT_FAILED: Entry = entry(
    "connect_failed",
    StatusCode::BAD_GATEWAY,
    "The service could not be reached.",
    "destination_unavailable",
    Fate::Unreachable,
    14,
);
pub const FIRST_BYTE_TIMEOUT: Entry = timeout("first_byte_timeout", "The service did not begin to answer in time.");
pub const PER_TRY_TIMEOUT: Entry = timeout("per_try_timeout", "The service did not answer an attempt in time.");
pub const TOTAL_TIMEOUT: Entry = timeout("total_timeout", "The service did not answer in time.");
pub const RESET: Entry = entry(
    "reset",
    StatusCode::BAD_GATEWAY,
    "The service ended the connection without an answer.",
    "connection_terminated",
    Fate::Unreachable,
    14,
);
pub const RESPONSE_MALFORMED: Entry = entry(
    "response_malformed",
    StatusCode::BAD_GATEWAY,
    "The service gave an answer that is not valid HTTP.",
    "http_protocol_error",
    Fate::AppError,
    13,
);
pub const UPGRADE_FAILED: Entry = entry(
    "upgrade_failed",
    StatusCode::BAD_GATEWAY,
    "The service changed protocols without being asked.",
    "http_upgrade_failed",
    Fate::AppError,
    13,
);
pub const MAINTENANCE: Entry = entry(
    "maintenance",
    StatusCode::SERVICE_UNAVAILABLE,
    "The service is being worked on.",
    "http_request_denied",
    Fate::Refused,
    14,
);
pub const READ_ONLY: Entry = entry(
    "read_only",
    StatusCode::SERVICE_UNAVAILABLE,
    "The service can be read, but nothing can be changed for now.",
    "http_request_denied",
    Fate::Refused,
    14,
);
pub const ROUTE_DISABLED: Entry = entry(
    "route_disabled",
    StatusCode::SERVICE_UNAVAILABLE,
    "This part of the service is switched off.",
    "http_request_denied",
    Fate::Refused,
    14,
);
pub const CUT: Entry = entry(
    "drain_cut",
    StatusCode::SERVICE_UNAVAILABLE,
    "The service is being stopped and cannot wait for the answer any longer.",
    "destination_unavailable",
    Fate::Refused,
    14,
);
/// Not 503, which asks for another attempt.
pub const CUT_SENT: Entry = Entry { status: StatusCode::BAD_GATEWAY, fate: Fate::TimedOut, ..CUT };
pub const LISTENER_GONE: Entry = entry(
    "listener_gone",
    StatusCode::MISDIRECTED_REQUEST,
    "This address is no longer served.",
    "destination_unavailable",
    Fate::Refused,
    14,
);
