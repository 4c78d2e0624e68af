//! Envoy: one worker.

use std::fmt::Write;

use super::super::scenario::Kind;
use super::{ROUTES, Site};

const LIMIT: &str = "{ name: envoy.filters.http.local_ratelimit, typed_config: { \"@type\": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: limit, \
     token_bucket: { max_tokens: 1000000, tokens_per_fill: 1000000, fill_interval: 1s }, filter_enabled: { default_value: { numerator: 100 } }, filter_enforced: { default_value: { numerator: 100 } } } }, ";
const HEADERS: &str = ", response_headers_to_remove: [server], response_headers_to_add: [{ header: { key: x-content-type-options, value: nosniff } }, { header: { key: x-frame-options, value: SAMEORIGIN } }, \
     { header: { key: referrer-policy, value: strict-origin-when-cross-origin } }, { header: { key: x-request-id, value: \"%REQ(X-REQUEST-ID)%\" } }]";
const RETRY: &str = ", timeout: 30s, idle_timeout: 60s, retry_policy: { retry_on: \"connect-failure,reset,gateway-error\", num_retries: 2, per_try_timeout: 5s }";
const HTTP2: &str = "typed_extension_protocol_options: { envoy.extensions.upstreams.http.v3.HttpProtocolOptions: { \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: { http2_protocol_options: {} } } }, ";
const OUTLIERS: &str = "outlier_detection: { consecutive_5xx: 5 }, ";

pub fn envoy(site: &Site, kind: Kind) -> String {
    let Site { plain, tls, app, folder, .. } = site;
    let folder = folder.display();
    let log = format!(
        ", access_log: [{{ name: envoy.access_loggers.file, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: {folder}/log/access.log, \
         log_format: {{ json_format: {{ time: \"%START_TIME%\", id: \"%REQ(X-REQUEST-ID)%\", client: \"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%\", method: \"%REQ(:METHOD)%\", path: \"%REQ(:PATH)%\", protocol: \"%PROTOCOL%\", \
         status: \"%RESPONSE_CODE%\", bytes: \"%BYTES_SENT%\", ms: \"%DURATION%\", upstream: \"%UPSTREAM_HOST%\", host: \"%REQ(:AUTHORITY)%\", agent: \"%REQ(USER-AGENT)%\" }} }} }} }}]"
    );
    let (log, limit, headers, retry, outliers) = match kind {
        Kind::Bare | Kind::Routes | Kind::Grpc | Kind::TwoWorkers => ("", "", "", "", ""),
        Kind::Defaults | Kind::Policies => (log.as_str(), LIMIT, HEADERS, RETRY, OUTLIERS),
    };
    let routes = match kind {
        Kind::Bare | Kind::Defaults | Kind::Policies | Kind::Grpc | Kind::TwoWorkers => String::new(),
        Kind::Routes => routes(),
    };
    let protocol = if kind == Kind::Grpc { HTTP2 } else { "" };
    let manager = format!(
        "{{ name: envoy.filters.network.http_connection_manager, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: in, upgrade_configs: [{{ upgrade_type: websocket }}], \
         http_filters: [{limit}{{ name: envoy.filters.http.router, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }} }}], \
         route_config: {{ virtual_hosts: [{{ name: all, domains: [\"*\"], routes: [{routes}{{ match: {{ prefix: / }}, route: {{ cluster: app{retry} }} }}]{headers} }}] }}{log} }} }}"
    );
    let secure = format!(
        "{{ name: envoy.transport_sockets.tls, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {{ alpn_protocols: [h2, http/1.1], \
         tls_params: {{ tls_maximum_protocol_version: TLSv1_3 }}, tls_certificates: [{{ certificate_chain: {{ filename: {folder}/cert.pem }}, private_key: {{ filename: {folder}/key.pem }} }}] }} }} }}"
    );
    let address = |port: &u16| format!("{{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}");
    format!(
        "static_resources:\n  listeners:\n\
         \x20 - {{ address: {}, filter_chains: [{{ filters: [{manager}] }}] }}\n\
         \x20 - {{ address: {}, filter_chains: [{{ filters: [{manager}], transport_socket: {secure} }}] }}\n\
         \x20 clusters:\n  - {{ name: app, connect_timeout: 2s, {protocol}{outliers}circuit_breakers: {{ thresholds: [{{ max_connections: 20000, max_pending_requests: 20000, max_requests: 20000 }}] }}, load_assignment: {{ cluster_name: app, endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {} }} }}] }}] }} }}\n",
        address(plain),
        address(tls),
        address(app)
    )
}

fn routes() -> String {
    let mut text = String::new();
    for number in 0..ROUTES {
        let _ = write!(text, "{{ match: {{ prefix: /service{number}/ }}, route: {{ cluster: app }} }}, "); // into a String
    }
    text
}
