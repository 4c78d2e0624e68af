//! The three forms of a refusal: a problem for programs (RFC 9457), a page for browsers, a status for gRPC.

use std::time::Duration;

use http::StatusCode;
use http::header::{self, HeaderValue};

use super::{Entry, whole_seconds};
use crate::http::Response;
use crate::proxy::body::Body;
use crate::proxy::exchange::{Exchange, Form};

const GRPC_STATUS: &str = "grpc-status";
const GRPC_MESSAGE: &str = "grpc-message";

/// The answer in the form the client reads; `message` is the operator's and may hold anything.
pub fn answer(entry: &Entry, message: Option<&str>, wait: Option<Duration>, exchange: &Exchange) -> Response<Body> {
    match exchange.form() {
        Form::Grpc => grpc(entry),
        Form::Html => page(entry, message, wait, exchange.request_id()),
        Form::Json => problem(entry, message, exchange.request_id()),
    }
}

fn problem(entry: &Entry, message: Option<&str>, request_id: &str) -> Response<Body> {
    let detail = message.map(|words| format!("\"detail\":{},", serde_json::json!(words))).unwrap_or_default();
    // Labels and titles are our own words and a request id is well-formed, so nothing else needs escaping.
    let body = format!(
        "{{\"type\":\"about:blank\",\"title\":\"{}\",\"status\":{},{detail}\"reason\":\"{}\",\
         \"request_id\":\"{request_id}\"}}\n",
        entry.title,
        entry.status.as_u16(),
        entry.label,
    );
    with_body(entry.status, "application/problem+json", body)
}

const STYLE: &str = ":root{color-scheme:light dark}\
body{font:17px/1.6 system-ui,sans-serif;max-width:34em;margin:0 auto;padding:18vh 1.5em 2em;color:#1c2733;background:#fafbfc}\
h1{font-size:1.5em;line-height:1.3;font-weight:650;margin:0 0 .6em}\
p{margin:0 0 1em}\
.small{margin-top:2.5em;padding-top:1em;border-top:1px solid #dfe4ea;font-size:.82em;color:#66727f}\
code{font-size:.95em;overflow-wrap:anywhere}\
@media(prefers-color-scheme:dark){body{color:#e3e8ee;background:#14191f}.small{border-color:#2c3540;color:#94a0ad}}";

fn page(entry: &Entry, message: Option<&str>, wait: Option<Duration>, request_id: &str) -> Response<Body> {
    let status = entry.status;
    let message = message.map(|words| format!("<p>{}</p>", escape(words))).unwrap_or_default();
    let advice = wait.map(|wait| format!("<p>Please try again in {}.</p>", spoken(wait))).unwrap_or_default();
    let body = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{title}</title>\
         <style>{STYLE}</style><h1>{title}</h1>{message}{advice}\
         <p class=\"small\">{status} · reason <code>{label}</code><br>request <code>{request_id}</code></p></html>\n",
        title = entry.title,
        label = entry.label,
    );
    let mut response = with_body(status, "text/html; charset=utf-8", body);
    // The page needs its style and nothing else, whatever the policy for the app's own pages is.
    response.headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    );
    response
}

/// gRPC's own errors are HTTP 200 with the status in the header block ("Trailers-Only", gRPC over HTTP/2).
fn grpc(entry: &Entry) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = &mut response.headers;
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(entry.grpc)));
    if let Ok(message) = HeaderValue::from_str(&format!("{} ({})", entry.title, entry.label)) {
        headers.insert(GRPC_MESSAGE, message);
    }
    response
}

fn with_body(status: StatusCode, kind: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    response.status = status;
    response.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn escape(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// `1 second`, `5 minutes`, `2 hours`: rounded up, as a person would say it.
fn spoken(wait: Duration) -> String {
    let seconds = whole_seconds(wait).max(1);
    let (count, unit) = match seconds {
        0..=90 => (seconds, "second"),
        91..=5400 => (seconds.div_ceil(60), "minute"),
        _ => (seconds.div_ceil(3600), "hour"),
    };
    if count == 1 { format!("a {unit}") } else { format!("{count} {unit}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_wrote_stays_text() {
        assert_eq!(escape("<b>a & b</b>"), "&lt;b&gt;a &amp; b&lt;/b&gt;");
    }

    #[test]
    fn a_wait_is_said_as_people_say_it() {
        for (seconds, words) in
            [(0, "a second"), (1, "a second"), (90, "90 seconds"), (91, "2 minutes"), (7200, "2 hours")]
        {
            assert_eq!(spoken(Duration::from_secs(seconds)), words);
        }
    }
}
