//! Who may use the admin port.
//!
//! Loopback is not private: any web page open in a browser on this machine can send requests to it. So a request with
//! an `Origin`, or one that the browser says comes from another site, is refused; and without a token the `Host` must
//! name this machine, so that a page cannot reach us through a name of its own that resolves to 127.0.0.1 (DNS
//! rebinding). With a token the token decides: such a page cannot know it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

/// The rules of one admin port.
pub struct Guard {
    /// The token's digest: comparing digests takes the same time whatever was guessed, its length included.
    token: Option<[u8; 32]>,
}

/// Why a request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    CrossSite,
    Host,
    Token,
}

impl Denied {
    fn words(self) -> &'static str {
        match self {
            Denied::CrossSite => "requests of web pages are refused",
            Denied::Host => "the Host must be localhost or a loopback address, unless admin.token is set",
            Denied::Token => "a token is needed: set OUTRIGGER_ADMIN_TOKEN, or send `Authorization: Bearer TOKEN`",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Denied::CrossSite | Denied::Host => StatusCode::FORBIDDEN,
            Denied::Token => StatusCode::UNAUTHORIZED,
        }
    }
}

impl Guard {
    pub fn new(token: Option<&str>) -> Guard {
        Guard { token: token.map(|token| Sha256::digest(token).into()) }
    }

    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Denied> {
        if from_a_page(headers) {
            return Err(Denied::CrossSite);
        }
        match &self.token {
            Some(token) if self.carries(headers, token) => Ok(()),
            Some(_) => Err(Denied::Token),
            None if names_this_machine(uri, headers) => Ok(()),
            None => Err(Denied::Host),
        }
    }

    fn carries(&self, headers: &HeaderMap, token: &[u8; 32]) -> bool {
        let Some(value) = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes) else { return false };
        let Some((scheme, given)) = value.split_at_checked(7) else { return false };
        let given: [u8; 32] = Sha256::digest(given.trim_ascii()).into();
        let differing = given.iter().zip(token).fold(0, |differing, (a, b)| differing | (a ^ b));
        scheme.eq_ignore_ascii_case(b"bearer ") && std::hint::black_box(differing) == 0
    }
}

fn from_a_page(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    headers.contains_key(header::ORIGIN) || site.is_some_and(|site| site != b"none" && site != b"same-origin")
}

/// One Host, and a name or address that only this machine has.
fn names_this_machine(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(host) = host.to_str() else { return false };
    is_this_machine(host) && uri.authority().is_none_or(|authority| is_this_machine(authority.as_str()))
}

fn is_this_machine(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(host, _)| host),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        // RFC 6761 §6.3: these names are loopback whoever is asked.
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// The guard as a step before every admin route.
pub async fn layer(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(denied) => {
            let mut response = super::commands::error(denied.status(), denied.words()).into_response();
            if denied == Denied::Token {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(token: Option<&str>, headers: &[(&'static str, &str)]) -> Result<(), Denied> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        Guard::new(token).check(&Uri::from_static("/status"), &map)
    }

    #[test]
    fn without_a_token_only_this_machines_names_are_served() {
        for host in [
            "localhost",
            "localhost:9901",
            "LOCALHOST.",
            "127.0.0.1:9901",
            "127.9.9.9",
            "[::1]:9901",
            "[::1]",
            "a.localhost:1",
        ] {
            assert_eq!(check(None, &[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9901",
            "10.0.0.1:9901",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "[::2]",
            "",
            "[",
            "notlocalhost",
        ] {
            assert_eq!(check(None, &[("host", host)]), Err(Denied::Host), "{host}");
        }
        assert_eq!(check(None, &[]), Err(Denied::Host));
        assert_eq!(check(None, &[("host", "localhost"), ("host", "localhost")]), Err(Denied::Host));
    }

    #[test]
    fn a_web_page_is_refused_with_or_without_the_token() {
        let good = [("host", "localhost"), ("authorization", "Bearer s3cret")];
        for page in [
            ("origin", "http://localhost:9901"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let headers = [good[0], good[1], page];
            assert_eq!(check(Some("s3cret"), &headers), Err(Denied::CrossSite), "{page:?}");
            assert_eq!(check(None, &headers), Err(Denied::CrossSite), "{page:?}");
        }
        assert_eq!(check(None, &[("host", "localhost"), ("sec-fetch-site", "none")]), Ok(()));
    }

    #[test]
    fn a_token_must_be_right_to_the_last_byte() {
        let with = |value: &str| check(Some("s3cret"), &[("host", "10.0.0.1"), ("authorization", value)]);
        assert_eq!(with("Bearer s3cret"), Ok(()));
        assert_eq!(with("bearer s3cret"), Ok(()));
        for wrong in ["Bearer s3cre", "Bearer s3cret2", "Bearer ", "Bearer", "s3cret", "Basic s3cret", ""] {
            assert_eq!(with(wrong), Err(Denied::Token), "{wrong}");
        }
        assert_eq!(check(Some("s3cret"), &[("host", "localhost")]), Err(Denied::Token));
    }
}
