//! How far OPTIONS and TRACE go: `Max-Forwards` (RFC 9110 §7.6.2) is counted down, and at 0 the answer is ours.

use http::Method;

use super::body::Body;
use super::refusal::Refusal;
use crate::core::fields::Fields;
use crate::http::Response;

/// What is answered to them elsewhere; TRACE would show what the way here has added to a request, so that it is not.
pub const ALLOW: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// The answer to a request that goes no further; otherwise it has one hop less left. Other methods, and what is no
/// number, are as if nothing were said.
pub fn count(method: &Method, fields: &mut Fields) -> Result<Option<Response<Body>>, Refusal> {
    if *method != Method::OPTIONS && *method != Method::TRACE {
        return Ok(None);
    }
    let said = fields.get("max-forwards").map(|value| value.as_bytes()).unwrap_or_default();
    let digits = Some(said).filter(|said| said.iter().all(u8::is_ascii_digit));
    match digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok()) {
        None => Ok(None),
        Some(0) if *method == Method::TRACE => Err(Refusal::MethodNotAllowed { allow: ALLOW.to_owned() }),
        Some(0) => Ok(Some(Response::new(Body::empty()))),
        Some(left) => {
            fields.make("max-forwards", &[(left - 1).to_string().as_bytes()]);
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hops_that_are_left_are_counted() {
        for (method, said, passes, then) in [
            ("OPTIONS", "5", true, "4"),
            ("TRACE", "1", true, "0"),
            ("OPTIONS", "0", false, "0"),
            ("TRACE", "0", false, "0"),
            ("OPTIONS", "+1", true, "+1"),
            ("OPTIONS", "many", true, "many"),
            ("OPTIONS", "99999999999999999999", true, "99999999999999999999"),
            ("GET", "0", true, "0"),
        ] {
            let mut fields = Fields::default();
            fields.make("max-forwards", &[said.as_bytes()]);
            let method: Method = method.parse().expect("a method");
            let counted = count(&method, &mut fields);
            assert_eq!(matches!(counted, Ok(None)), passes, "{method} {said}");
            assert_eq!(fields.get("max-forwards").and_then(|value| value.to_str()), Some(then), "{method} {said}");
        }
    }
}
