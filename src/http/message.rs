//! A request and an answer as the proxy passes them along: like those of the `http` crate, with [`Fields`] for a header
//! map, so that an HTTP/1 head is not copied into another form and back.

use bytes::Bytes;
use http::{Method, StatusCode, Uri, Version};

use crate::core::fields::Fields;

#[derive(Debug)]
pub struct Request<B> {
    pub method: Method,
    pub uri: Uri,
    pub version: Version,
    pub headers: Fields,
    pub body: B,
}

impl<B> Request<B> {
    /// `GET /` without fields.
    pub fn new(body: B) -> Self {
        Request {
            method: Method::GET,
            uri: Uri::default(),
            version: Version::HTTP_11,
            headers: Fields::default(),
            body,
        }
    }

    pub fn map<C>(self, body: impl FnOnce(B) -> C) -> Request<C> {
        let Request { method, uri, version, headers, body: old } = self;
        Request { method, uri, version, headers, body: body(old) }
    }
}

impl<B> From<http::Request<B>> for Request<B> {
    fn from(request: http::Request<B>) -> Self {
        let (head, body) = request.into_parts();
        Request { method: head.method, uri: head.uri, version: head.version, headers: head.headers.into(), body }
    }
}

#[derive(Debug)]
pub struct Response<B> {
    pub status: StatusCode,
    /// The phrase behind the status, where it is not the usual one. HTTP/2 has none.
    pub reason: Option<Bytes>,
    pub version: Version,
    pub headers: Fields,
    pub body: B,
}

impl<B> Response<B> {
    /// `200 OK` without fields.
    pub fn new(body: B) -> Self {
        let status = StatusCode::OK;
        Response { status, reason: None, version: Version::HTTP_11, headers: Fields::default(), body }
    }

    pub fn map<C>(self, body: impl FnOnce(B) -> C) -> Response<C> {
        let Response { status, reason, version, headers, body: old } = self;
        Response { status, reason, version, headers, body: body(old) }
    }

    /// For HTTP/2.
    pub fn into_http(self) -> http::Response<B> {
        let mut response = http::Response::new(self.body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.to_map();
        response
    }
}

impl<B> From<http::Response<B>> for Response<B> {
    fn from(response: http::Response<B>) -> Self {
        let (head, body) = response.into_parts();
        Response { status: head.status, reason: None, version: head.version, headers: head.headers.into(), body }
    }
}
